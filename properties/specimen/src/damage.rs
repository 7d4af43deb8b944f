//! Damages: one field, another value, what must come of it.

use crate::choices::{Choices, index, len};
use crate::expect::Expected;
use crate::field::{Class, Endian, Field, Seal};
use crate::specimen::{File, Specimen};
use std::collections::BTreeMap;

/// How a value is made another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// All bits clear.
    Zero,
    /// All bits set.
    Ones,
    /// One more.
    Up,
    /// One less.
    Down,
    /// The highest bit turned round.
    Sign,
    /// One bit turned round.
    Bit,
    /// A quarter of the greatest number: a count or size that nothing holds.
    Huge,
    /// A place behind the end of the file.
    Beyond,
    /// A place inside headers or tables.
    Metadata,
    /// The place of another entry.
    Alias,
    /// A place that begins inside another entry's.
    Straddle,
    /// Two entries change places.
    Swap,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Zero,
        Self::Ones,
        Self::Up,
        Self::Down,
        Self::Sign,
        Self::Bit,
        Self::Huge,
        Self::Beyond,
        Self::Metadata,
        Self::Alias,
        Self::Straddle,
        Self::Swap,
    ];

    /// The name in manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Ones => "all-ones",
            Self::Up => "one-more",
            Self::Down => "one-less",
            Self::Sign => "sign-bit",
            Self::Bit => "one-bit",
            Self::Huge => "huge",
            Self::Beyond => "beyond-the-end",
            Self::Metadata => "into-metadata",
            Self::Alias => "alias",
            Self::Straddle => "straddle",
            Self::Swap => "swap",
        }
    }

    /// The kinds that make sense for a class.
    #[must_use]
    pub fn of(class: Class) -> &'static [Self] {
        match class {
            Class::Magic => &[Self::Zero, Self::Ones, Self::Bit],
            Class::Version | Class::State => &[
                Self::Zero,
                Self::Ones,
                Self::Up,
                Self::Down,
                Self::Sign,
                Self::Bit,
            ],
            Class::Flags => &[Self::Zero, Self::Ones, Self::Sign, Self::Bit],
            Class::Count | Class::Size => &[
                Self::Zero,
                Self::Ones,
                Self::Up,
                Self::Down,
                Self::Sign,
                Self::Bit,
                Self::Huge,
            ],
            Class::Place | Class::Entry => &Self::ALL,
            Class::Id | Class::Text | Class::Data => &[Self::Zero, Self::Ones, Self::Bit],
            Class::Time => &[Self::Zero, Self::Ones, Self::Up, Self::Down],
            Class::Checksum => &[Self::Zero, Self::Ones, Self::Up, Self::Bit],
            Class::Reserved => &[Self::Ones, Self::Bit],
        }
    }
}

/// Where the value of a field is to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    Beyond,
    Metadata,
    Alias,
    Straddle,
}

/// What a field becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The bytes that stand there, and their number.
    pub(crate) old: u64,
    pub(crate) old_bytes: Vec<u8>,
    /// The bytes that come there, and their number.
    pub(crate) new: u64,
    pub(crate) new_bytes: Vec<u8>,
    /// Whether a checksum covers the field and is not set right.
    pub(crate) unsealed: bool,
}

impl Change {
    /// Whether any byte becomes zero.
    pub(crate) fn to_zero(&self) -> bool {
        self.new_bytes.iter().all(|byte| *byte == 0)
    }
}

/// One damage, with what must come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The field, by its place in [`Specimen::fields`].
    pub field: usize,
    /// The entry that it changed places with.
    pub other: Option<usize>,
    /// How the value was made.
    pub kind: Kind,
    /// The bytes that stood there.
    pub old: Vec<u8>,
    /// The bytes that stand there now.
    pub new: Vec<u8>,
    /// Whether a checksum over the field was set right, so that the damage gets past it. `None` where there is none.
    pub resealed: Option<bool>,
    /// What must come of it.
    pub expected: Expected,
    edits: Vec<(usize, u64, Vec<u8>)>,
}

impl Specimen {
    /// Draws one damage: every third to an entry of a table, else all families of fields are as likely. `None` when the
    /// choices led to no change, which is rare; for a specimen without fields always.
    #[must_use]
    pub fn corrupt(&self, choices: &mut impl Choices) -> Option<Corruption> {
        let mut families: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, field) in self.fields.iter().enumerate() {
            families.entry(field.family()).or_default().push(number);
        }
        let families: Vec<Vec<usize>> = families.into_values().collect();
        let is_table = |members: &&Vec<usize>| self.fields[members[0]].class == Class::Entry;
        let tables: Vec<&Vec<usize>> = families.iter().filter(is_table).collect();
        for _ in 0..8 {
            let table = choices.one_in(3) && !tables.is_empty();
            let count = if table { len(&tables) } else { len(&families) };
            let pick = index(choices.below(count));
            let members = if table {
                tables.get(pick).copied()
            } else {
                families.get(pick)
            }?;
            let field = choices.pick(members);
            let kind = choices.pick(Kind::of(self.fields[field].class));
            let reseal = choices.one_in(2);
            let pick = choices.word();
            if let Some(found) = self.damage(field, kind, reseal, pick) {
                return Some(found);
            }
        }
        None
    }

    /// One damage to a field; `pick` chooses among bits and aims. `None` when it would change nothing, or makes no sense.
    #[must_use]
    pub fn damage(&self, field: usize, kind: Kind, reseal: bool, pick: u64) -> Option<Corruption> {
        let place = self.fields.get(field)?;
        if !Kind::of(place.class).contains(&kind) {
            return None;
        }
        if kind == Kind::Swap {
            return self.swap(field, reseal, pick);
        }
        let old_bytes = self.bytes(place);
        let old = place.number(&old_bytes);
        let new_bytes = self.value(field, kind, pick, (old, &old_bytes))?;
        if new_bytes == old_bytes {
            return None;
        }
        let edits = vec![(place.file, place.offset, new_bytes.clone())];
        let resealed = self.seals_over(place).next().map(|_| reseal);
        let change = Change {
            old,
            old_bytes: old_bytes.clone(),
            new: place.number(&new_bytes),
            new_bytes: new_bytes.clone(),
            unsealed: resealed == Some(false),
        };
        Some(Corruption {
            field,
            other: None,
            kind,
            old: old_bytes,
            new: new_bytes,
            resealed,
            expected: self.rules.expected(field, &change),
            edits,
        })
    }

    fn value(&self, field: usize, kind: Kind, pick: u64, was: (u64, &[u8])) -> Option<Vec<u8>> {
        let place = &self.fields[field];
        let (old, old_bytes) = was;
        let bits = len(old_bytes) * 8;
        let turned = |bit: u64| {
            let mut bytes = old_bytes.to_vec();
            bytes[index(bit / 8)] ^= 1 << (bit % 8);
            bytes
        };
        let aimed = |aim| {
            let number = self.rules.aimed(field, aim, pick)?;
            (number <= place.most()).then(|| place.bytes(number))
        };
        let number = place.endian != Endian::Bytes;
        match kind {
            Kind::Zero => Some(vec![0; place.width]),
            Kind::Ones => Some(vec![0xff; place.width]),
            Kind::Bit => Some(turned(pick % bits)),
            Kind::Up if number => Some(place.bytes(old.wrapping_add(1) & place.most())),
            Kind::Down if number => Some(place.bytes(old.wrapping_sub(1) & place.most())),
            Kind::Sign if number => Some(place.bytes(old ^ (place.most() / 2 + 1))),
            Kind::Huge if number => Some(place.bytes(place.most() / 4)),
            Kind::Beyond => aimed(Aim::Beyond),
            Kind::Metadata => aimed(Aim::Metadata),
            Kind::Alias => aimed(Aim::Alias),
            Kind::Straddle => aimed(Aim::Straddle),
            _ => None,
        }
    }

    /// Two entries of one table that change places.
    fn swap(&self, field: usize, reseal: bool, pick: u64) -> Option<Corruption> {
        let place = &self.fields[field];
        let family = place.family();
        let mates = |number: &usize| {
            let other = &self.fields[*number];
            *number != field && other.class == place.class && other.family() == family
        };
        let mates: Vec<usize> = (0..self.fields.len()).filter(mates).collect();
        let other = *mates.get(index(pick.checked_rem(len(&mates))?))?;
        let expected = self.rules.swapped(field, other)?;
        let (old, new) = (self.bytes(place), self.bytes(&self.fields[other]));
        if old == new || old.len() != new.len() {
            return None;
        }
        let there = &self.fields[other];
        let edits = vec![
            (place.file, place.offset, new.clone()),
            (there.file, there.offset, old.clone()),
        ];
        let resealed = self.seals_over(place).next().map(|_| reseal);
        if resealed == Some(false) {
            return None;
        }
        Some(Corruption {
            field,
            other: Some(other),
            kind: Kind::Swap,
            old,
            new,
            resealed,
            expected,
            edits,
        })
    }

    /// Checksums over a field.
    fn seals_over(&self, place: &Field) -> impl Iterator<Item = &Seal> {
        let (file, offset) = (place.file, place.offset);
        self.seals
            .iter()
            .filter(move |seal| seal.covers(file, offset))
    }

    /// The files with some damages, in their order: a later one stands over an earlier one at the same place. Checksums
    /// are set right last, so that one that is to be right is right.
    #[must_use]
    pub fn damaged(&self, corruptions: &[Corruption]) -> Vec<File> {
        let edits = corruptions.iter().flat_map(|one| one.edits.iter().cloned());
        let mut edits: Vec<_> = edits.collect();
        let right = |one: &&Corruption| one.resealed == Some(true);
        for one in corruptions.iter().filter(right) {
            for seal in self.seals_over(&self.fields[one.field]) {
                let file = &self.with(&edits)[seal.file];
                let part = |(start, length): &(u64, u64)| {
                    let mut bytes = vec![0; index(*length)];
                    let read = file.bytes.read_at(*start, &mut bytes);
                    read.expect("checksums cover what is in the file");
                    bytes
                };
                let bytes = seal.ranges.iter().flat_map(part).collect();
                edits.push((seal.file, seal.at, seal.of(bytes).to_vec()));
            }
        }
        self.with(&edits)
    }
}
