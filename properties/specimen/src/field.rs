//! Named places of a specimen.

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// Most significant byte first.
    Big,
    /// Least significant byte first.
    Little,
    /// Not a number: an identifier, a text, bytes.
    Bytes,
}

/// What kind of thing a field is; decides which damages make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A signature.
    Magic,
    /// A version.
    Version,
    /// Bits, each with a meaning.
    Flags,
    /// How many of something there are.
    Count,
    /// How large something is.
    Size,
    /// Where one thing is.
    Place,
    /// Where one of many things is: an entry of a table.
    Entry,
    /// An identifier.
    Id,
    /// A point in time.
    Time,
    /// A checksum.
    Checksum,
    /// One of a few values.
    State,
    /// Bytes that must be zero, or mean nothing.
    Reserved,
    /// Characters.
    Text,
    /// Bytes of the guest.
    Data,
}

/// A named place of one of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The file, by its place in [`Specimen::files`](crate::Specimen::files).
    pub file: usize,
    /// Name in the specification's words: `header.gdOffset`, `bat[3]`.
    pub name: String,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub width: usize,
    /// How they make a number.
    pub endian: Endian,
    /// What it is.
    pub class: Class,
}

impl Field {
    /// The name without numbers of entries: fields of one family are entries of one table.
    #[must_use]
    pub fn family(&self) -> String {
        let mut deep = false;
        let outside = |c: &char| {
            deep = (deep || *c == '[') && *c != ']';
            !deep && *c != ']'
        };
        self.name.chars().filter(outside).collect()
    }

    /// The number that bytes of this field are, 0 for fields that are none.
    #[must_use]
    pub fn number(&self, bytes: &[u8]) -> u64 {
        let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        match self.endian {
            Endian::Big => bytes.iter().fold(0, add),
            Endian::Little => bytes.iter().rev().fold(0, add),
            Endian::Bytes => 0,
        }
    }

    /// The bytes of a number in this field, as many as it has.
    #[must_use]
    pub fn bytes(&self, number: u64) -> Vec<u8> {
        encoded(self.endian, self.width, number)
    }

    /// The greatest number of this field.
    pub(crate) fn most(&self) -> u64 {
        match self.width {
            0..8 => (1 << (8 * self.width)) - 1,
            _ => u64::MAX,
        }
    }
}

/// The bytes of a number.
pub(crate) fn encoded(endian: Endian, width: usize, number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(width, 0);
    if endian == Endian::Big {
        bytes.reverse();
    }
    bytes
}

/// How a checksum is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// One's complement of the sum of all bytes, 32 bits, most significant byte first.
    Bytes,
    /// CRC-32C, least significant byte first.
    Crc32c,
}

/// Ranges with a checksum in the first of them, whose own four bytes count as zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The file, by its place.
    pub file: usize,
    /// First byte and length of each range.
    pub ranges: Vec<(u64, u64)>,
    /// Where the checksum stands.
    pub at: u64,
    /// How it is made.
    pub sum: Sum,
}

impl Seal {
    /// Whether the checksum covers a place, its own left out.
    pub(crate) fn covers(&self, file: usize, offset: u64) -> bool {
        let own = (self.at..self.at + 4).contains(&offset);
        let inside = |(start, length): &(u64, u64)| (*start..start + length).contains(&offset);
        self.file == file && self.ranges.iter().any(inside) && !own
    }

    /// The checksum of the bytes of the ranges, one behind the other.
    pub(crate) fn of(&self, mut bytes: Vec<u8>) -> [u8; 4] {
        let own = crate::choices::index(self.at - self.ranges[0].0);
        bytes[own..own + 4].fill(0);
        match self.sum {
            Sum::Bytes => {
                let sum = bytes
                    .iter()
                    .fold(0u32, |sum, b| sum.wrapping_add(u32::from(*b)));
                (!sum).to_be_bytes()
            }
            Sum::Crc32c => crc32c::crc32c(&bytes).to_le_bytes(),
        }
    }
}
