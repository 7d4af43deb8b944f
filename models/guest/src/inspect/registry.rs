//! Reading registry values with the key they came from.

use super::model::Sourced;
use drylab_block::{Finding, Severity};
use drylab_catalog::Witness;
use drylab_hive::{Hive, Key};
use std::cell::RefCell;

/// A hive with the name its root has in the running system, for witnesses.
pub(crate) struct Registry {
    hive: Hive,
    name: &'static str,
    /// Damage met on the way.
    pub(crate) findings: RefCell<Vec<Finding>>,
}

impl Registry {
    pub(crate) fn new(hive: Hive, name: &'static str) -> Self {
        let findings = RefCell::new(hive.findings().to_vec());
        Self {
            hive,
            name,
            findings,
        }
    }

    /// Key at a path below the root; damage counts as absence and is a finding.
    pub(crate) fn key(&self, path: &str) -> Option<Key<'_>> {
        self.noted(path, self.hive.key(path)).flatten()
    }

    /// Subkeys of the key at a path.
    pub(crate) fn subkeys(&self, path: &str) -> Vec<Key<'_>> {
        let Some(key) = self.key(path) else {
            return Vec::new();
        };
        self.noted(path, key.subkeys()).unwrap_or_default()
    }

    /// Names of the subkeys of the key at a path.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        self.subkeys(path)
            .iter()
            .map(|key| key.name().to_owned())
            .collect()
    }

    /// Values of the key at a path.
    pub(crate) fn values(&self, path: &str) -> Vec<drylab_hive::Value<'_>> {
        let Some(key) = self.key(path) else {
            return Vec::new();
        };
        self.noted(path, key.values()).unwrap_or_default()
    }

    /// Text of a value, with its place.
    pub(crate) fn text(&self, path: &str, name: &str) -> Option<Sourced<String>> {
        let text = self.value(path, name)?.as_string()?;
        let witness = self.witness(path, name, &text);
        Some(Sourced::new(text, witness))
    }

    /// Texts of a multi-string value (or the one text of a plain one).
    pub(crate) fn texts(&self, path: &str, name: &str) -> Vec<String> {
        let Some(value) = self.value(path, name) else {
            return Vec::new();
        };
        value
            .as_multi_string()
            .or_else(|| value.as_string().map(|text| vec![text]))
            .unwrap_or_default()
    }

    /// Number of a value, with its place.
    pub(crate) fn number(&self, path: &str, name: &str) -> Option<Sourced<u32>> {
        let number = self.value(path, name)?.as_u32()?;
        Some(Sourced::new(
            number,
            self.witness(path, name, &number.to_string()),
        ))
    }

    /// Bytes of a value.
    pub(crate) fn bytes(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        self.value(path, name).map(|value| value.as_binary())
    }

    /// Full key path for people.
    pub(crate) fn full(&self, path: &str) -> String {
        if path.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}\\{path}", self.name)
        }
    }

    /// A witness for a value.
    pub(crate) fn witness(&self, path: &str, name: &str, says: &str) -> Witness {
        Witness::key(format!("{}, value {name}", self.full(path)), says)
    }

    fn value(&self, path: &str, name: &str) -> Option<drylab_hive::Value<'_>> {
        let key = self.key(path)?;
        self.noted(path, key.value(name)).flatten()
    }

    fn noted<T>(&self, path: &str, result: drylab_block::Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                let message = format!("{}: {error}", self.full(path));
                let finding = Finding {
                    code: "HIVE-DAMAGED",
                    severity: Severity::Error,
                    offset: 0,
                    message,
                };
                self.findings.borrow_mut().push(finding);
            })
            .ok()
    }
}
