//! Rows of knowledge.

use crate::Mark;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// One documented behaviour of one product version. A row never decides; the mechanism that acts cites its id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quirk {
    /// Product, converter or guest it belongs to.
    pub who: String,
    /// What happens, in one sentence.
    pub states: String,
    /// The check it hits, such as `guest.ip-address`.
    pub hits: String,
    /// Whether it is why that check succeeds, and not why it does not.
    #[serde(default)]
    pub keeps_whole: bool,
    /// Quality of the evidence.
    pub mark: Mark,
    /// Where it was read or measured; may be empty only for belief.
    #[serde(default)]
    pub source: String,
    /// What a person can do about it, in one line.
    #[serde(default)]
    pub remedy: String,
}

/// The tables, by what they are about.
const TABLES: [&str; 5] = [
    include_str!("../quirks/guests.toml"),
    include_str!("../quirks/converters.toml"),
    include_str!("../quirks/hypervisors.toml"),
    include_str!("../quirks/own.toml"),
    include_str!("../quirks/own-tools.toml"),
];

/// All rows by id.
#[must_use]
pub fn quirks() -> &'static BTreeMap<String, Quirk> {
    static ROWS: OnceLock<BTreeMap<String, Quirk>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let tables = TABLES.iter().flat_map(|text| {
            toml::from_str::<BTreeMap<String, Quirk>>(text)
                .expect("the tables are part of the program and parse")
        });
        tables.collect()
    })
}

/// The row with this id.
#[must_use]
pub fn quirk(id: &str) -> Option<&'static Quirk> {
    quirks().get(id)
}

#[cfg(test)]
mod tests {
    use super::quirks;
    use crate::Mark;

    #[test]
    fn no_row_stands_in_two_tables() {
        let heads = super::TABLES
            .iter()
            .map(|text| text.lines().filter(|line| line.starts_with('[')).count());
        assert_eq!(heads.sum::<usize>(), quirks().len());
    }

    #[test]
    fn every_row_has_a_sentence_and_a_source_unless_it_is_belief() {
        assert!(!quirks().is_empty());
        for (id, row) in quirks() {
            assert!(
                !row.states.is_empty() && !row.hits.is_empty() && !row.who.is_empty(),
                "{id}"
            );
            assert!(
                row.mark == Mark::Belief || !row.source.is_empty(),
                "{id} has no source"
            );
        }
    }
}
