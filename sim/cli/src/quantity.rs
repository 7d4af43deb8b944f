//! Sizes and limits as they are typed and shown.

use crate::nearest;
use drylab_block::Limits;

/// Factors of 1024, as qemu-img has them.
const SUFFIXES: [(char, u32); 6] = [
    ('k', 10),
    ('m', 20),
    ('g', 30),
    ('t', 40),
    ('p', 50),
    ('e', 60),
];

/// Bytes: a whole number, perhaps with `K`, `M`, `G`, `T`, `P` or `E` for powers of 1024, perhaps followed by `iB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "{text:?} is no size: a whole number, perhaps with K, M, G, T, P or E (powers of 1024)"
        )
    };
    let short = text
        .strip_suffix("iB")
        .filter(|short| !short.ends_with(|last: char| last.is_ascii_digit()))
        .unwrap_or(text);
    let last = short.chars().next_back().ok_or_else(wrong)?;
    let suffix = SUFFIXES
        .iter()
        .find(|(letter, _)| last.eq_ignore_ascii_case(letter));
    let (digits, power) = match suffix {
        Some((_, power)) => (&short[..short.len() - 1], *power),
        None => (short, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let number = digits.parse::<u64>().ok();
    let bytes = number.and_then(|number| number.checked_mul(1 << power));
    bytes.ok_or_else(|| format!("{text:?} is 2^64 bytes or more"))
}

/// The size a disk is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewSize {
    /// That many bytes.
    To(u64),
    /// So many more.
    Grown(u64),
    /// So many fewer.
    Shrunk(u64),
}

impl NewSize {
    /// `SIZE`, `+SIZE` or `-SIZE`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(more), _) => bytes(more).map(Self::Grown),
            (_, Some(fewer)) => bytes(fewer).map(Self::Shrunk),
            _ => bytes(text).map(Self::To),
        }
    }

    /// The size of a disk that has `old` bytes; `None` when it would be negative or not fit 64 bits.
    pub(crate) fn of(self, old: u64) -> Option<u64> {
        match self {
            Self::To(size) => Some(size),
            Self::Grown(more) => old.checked_add(more),
            Self::Shrunk(fewer) => old.checked_sub(fewer),
        }
    }
}

/// A limit: its name, what it bounds, and the field.
type Limit = (&'static str, &'static str, fn(&mut Limits, u64) -> bool);

/// Every field of [`Limits`].
const LIMITS: [Limit; 6] = [
    (
        "table-bytes",
        "table of offsets held in memory, in bytes",
        |limits, value| {
            limits.table_bytes_max = value;
            true
        },
    ),
    (
        "text-bytes",
        "text inside an image, in bytes",
        |limits, value| {
            limits.text_bytes_max = value;
            true
        },
    ),
    (
        "file-bytes",
        "file of a guest read into memory, in bytes",
        |limits, value| {
            limits.file_bytes_max = value;
            true
        },
    ),
    (
        "chain",
        "chain of parents or list of extents",
        |limits, value| {
            u32::try_from(value).is_ok_and(|value| {
                limits.chain_max = value;
                true
            })
        },
    ),
    ("entries", "list of names", |limits, value| {
        u32::try_from(value).is_ok_and(|value| {
            limits.entries_max = value;
            true
        })
    }),
    ("disk-bytes", "virtual size, in bytes", |limits, value| {
        limits.disk_bytes_max = value;
        true
    }),
];

/// The defaults with changes: `disk-bytes=1T,table-bytes=16M`.
pub(crate) fn limits(text: &str) -> Result<Limits, String> {
    let mut limits = Limits::DEFAULT;
    let mut named = Vec::new();
    for pair in text.split(',').map(str::trim) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("{pair:?} is no NAME=VALUE ({})", known()))?;
        let name = name.trim();
        let (_, _, set) = LIMITS
            .iter()
            .find(|(known, _, _)| *known == name)
            .ok_or_else(|| {
                let hint = nearest::hint(name, LIMITS.iter().map(|(name, _, _)| *name));
                format!("there is no limit {name:?}{hint} ({})", known())
            })?;
        if named.contains(&name) {
            return Err(format!("{name:?} is there twice"));
        }
        named.push(name);
        if !set(&mut limits, bytes(value.trim())?) {
            return Err(format!("{pair:?} is more than 4294967295"));
        }
    }
    Ok(limits)
}

fn known() -> String {
    let each = LIMITS.map(|(name, what, _)| format!("{name} (largest {what})"));
    format!("known are {}", each.join(", "))
}

/// `8589934592 bytes (8.0 GiB)`
pub(crate) fn shown(bytes: u64) -> String {
    let units = [
        (1u64 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(bytes % unit) * 10 / u128::from(*unit);
            format!("{bytes} bytes ({}.{tenths} {name})", bytes / unit)
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_the_suffixes_of_qemu_img() {
        for (text, expected) in [
            ("0", 0),
            ("512", 512),
            ("1k", 1024),
            ("3M", 3 << 20),
            ("40G", 40 << 30),
            ("40GiB", 40 << 30),
            ("2T", 2 << 40),
            ("1P", 1 << 50),
            ("15E", 15 << 60),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for wrong in [
            "",
            "G",
            "-1",
            "+1",
            "1.5G",
            "1X",
            "16E",
            "18446744073709551616",
            "5iB",
            "iB",
            "1 G",
            "1Ü",
        ] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(shown(8 << 30), "8589934592 bytes (8.0 GiB)");
        assert_eq!(shown(1023), "1023 bytes");
    }

    #[test]
    fn a_new_size_is_told_or_counted_from_the_old_one() {
        for (text, expected) in [
            ("2G", Some(2 << 30)),
            ("+1G", Some(4 << 30)),
            ("-1G", Some(2 << 30)),
            ("-4G", None),
        ] {
            assert_eq!(
                NewSize::parse(text).expect("a size").of(3 << 30),
                expected,
                "{text}"
            );
        }
        assert_eq!(NewSize::Grown(u64::MAX).of(1), None);
        assert!(NewSize::parse("+-1").is_err());
    }

    #[test]
    fn every_limit_has_a_name_and_wrong_names_are_told_the_right_ones() {
        let named = limits("disk-bytes=1T, chain=7").expect("known");
        assert_eq!((named.disk_bytes_max, named.chain_max), (1 << 40, 7));
        assert_eq!(named.text_bytes_max, Limits::DEFAULT.text_bytes_max);
        let fields = format!("{:?}", Limits::DEFAULT).matches(": ").count();
        assert_eq!(fields, LIMITS.len(), "a field has no name");
        for (name, _, set) in LIMITS {
            let mut changed = Limits::DEFAULT;
            assert!(set(&mut changed, 1) && changed != Limits::DEFAULT, "{name}");
        }
        let says = limits("disk=1").unwrap_err();
        assert!(
            says.contains("nearest: disk-bytes") && says.contains("table-bytes"),
            "{says}"
        );
        for wrong in [
            "",
            "disk-bytes",
            "disk-bytes=",
            "chain=4G",
            "disk-bytes=1T,,",
            "chain=1,disk-bytes=1T,chain=1",
        ] {
            assert!(limits(wrong).is_err(), "{wrong}");
        }
    }
}
