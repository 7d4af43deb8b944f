//! The canonical event log of a run and its hash.
//!
//! Encoding of one event, hashed in order: time u64, sequence u64, kind u16, component, number of fields u32, then each
//! field's name and value. Integers little-endian, texts as length u32 and UTF-8 bytes. SipHash-1-3-128, key 0.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::fmt;
use std::hash::Hasher as _;

/// Kinds of events; the numbers are part of the stored format and never reused.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Kind {
    /// The run began.
    RunStarted = 1,
    /// One of the seven steps began.
    StepStarted = 2,
    /// A step ended.
    StepEnded = 3,
    /// The pipeline asked a back end for something.
    Command = 4,
    /// A back end answered.
    Completion = 5,
    /// A fact was taken in the guest.
    Fact = 6,
    /// A check was scored.
    Check = 7,
    /// A stage of a guest's boot.
    BootStage = 8,
    /// A packet on a segment.
    Packet = 9,
    /// Bytes moved between stores.
    Transfer = 10,
    /// A guest's file was edited.
    Edit = 11,
    /// A fault fired.
    Fault = 12,
    /// Rollback did something.
    Rollback = 13,
    /// Space or inventory of a host changed.
    Resource = 14,
    /// The run ended.
    RunEnded = 15,
}

impl Kind {
    /// The stored number.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RunStarted => "run-started",
            Self::StepStarted => "step-started",
            Self::StepEnded => "step-ended",
            Self::Command => "command",
            Self::Completion => "completion",
            Self::Fact => "fact",
            Self::Check => "check",
            Self::BootStage => "boot-stage",
            Self::Packet => "packet",
            Self::Transfer => "transfer",
            Self::Edit => "edit",
            Self::Fault => "fault",
            Self::Rollback => "rollback",
            Self::Resource => "resource",
            Self::RunEnded => "run-ended",
        })
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Microseconds of virtual time since the run began.
    pub time: u64,
    /// Position in the trace, from 0.
    pub sequence: u64,
    /// Who it happened to: `pipeline`, `source`, `target`, `converter`, `lan`.
    pub component: String,
    /// What kind of thing happened.
    pub kind: Kind,
    /// Details, in the order they were given.
    pub fields: Vec<(String, String)>,
}

/// 128 bits, shown as 32 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash128(pub u128);

impl fmt::Display for Hash128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Hashes canonical encodings.
#[derive(Clone, Debug, Default)]
pub struct Hasher(SipHasher13);

impl Hasher {
    /// Key 0, nothing hashed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A 64-bit integer.
    pub fn number(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }

    /// A text with its length in front.
    pub fn text(&mut self, text: &str) {
        let length = u32::try_from(text.len()).expect("texts of a trace are far below 4 GiB");
        self.0.write(&length.to_le_bytes());
        self.0.write(text.as_bytes());
    }

    /// The hash so far.
    #[must_use]
    pub fn finish(&self) -> Hash128 {
        Hash128(self.0.finish128().as_u128())
    }
}

/// The log of one run. Recording never looks at what was recorded: observers are neutral.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    events: Vec<Event>,
    keep: bool,
    count: u64,
    last: u64,
    hasher: Hasher,
}

impl Trace {
    /// An empty log that keeps its events.
    #[must_use]
    pub fn new() -> Self {
        Self {
            keep: true,
            ..Self::default()
        }
    }

    /// An empty log that only hashes: for campaigns, where the events are thrown away.
    #[must_use]
    pub fn hashing_only() -> Self {
        Self::default()
    }

    /// Appends an event and returns its sequence number. A time before the last event's is taken as the last event's:
    /// time never decreases.
    pub fn record(
        &mut self,
        time: u64,
        component: &str,
        kind: Kind,
        fields: &[(&str, &str)],
    ) -> u64 {
        let sequence = self.count;
        self.count += 1;
        self.last = self.last.max(time);
        self.hasher.number(self.last);
        self.hasher.number(sequence);
        self.hasher.number(u64::from(kind.number()));
        self.hasher.text(component);
        self.hasher
            .number(u64::try_from(fields.len()).expect("a handful of fields"));
        for (name, value) in fields {
            self.hasher.text(name);
            self.hasher.text(value);
        }
        if self.keep {
            self.events.push(Event {
                time: self.last,
                sequence,
                component: component.to_owned(),
                kind,
                fields: fields
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            });
        }
        sequence
    }

    /// Events kept, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Number of events recorded, kept or not.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Time of the last event.
    #[must_use]
    pub fn last_time(&self) -> u64 {
        self.last
    }

    /// Hash over all events.
    #[must_use]
    pub fn hash(&self) -> Hash128 {
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Trace};

    #[test]
    fn keeping_events_or_not_gives_the_same_hash() {
        let mut kept = Trace::new();
        let mut hashed = Trace::hashing_only();
        for trace in [&mut kept, &mut hashed] {
            trace.record(5, "pipeline", Kind::RunStarted, &[("guest", "centos-6.3")]);
            trace.record(3, "lan", Kind::Packet, &[]);
        }
        assert_eq!(kept.hash(), hashed.hash());
        assert_eq!(kept.events()[1].time, 5, "time never decreases");
        assert!(hashed.events().is_empty());
    }

    #[test]
    fn a_field_split_elsewhere_is_another_trace() {
        let mut one = Trace::new();
        one.record(0, "a", Kind::Fact, &[("ab", "c")]);
        let mut two = Trace::new();
        two.record(0, "a", Kind::Fact, &[("a", "bc")]);
        assert_ne!(one.hash(), two.hash());
    }
}
