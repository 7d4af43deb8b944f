//! Every key once.

use crate::cell::size;
use crate::key::Key;
use crate::list;
use drylab_block::{Error, Result};
use std::collections::BTreeSet;

/// Iterator over all keys, depth first, siblings in the order of their list; see [`crate::Hive::walk`].
///
/// A key reached a second time is reported as damage and not entered again; damage does not end the walk.
#[derive(Debug)]
pub struct Walk<'h> {
    waiting: Vec<Result<Key<'h>>>,
    seen: BTreeSet<u32>,
    /// Entries of lists that may still be looked at: a hive holds no more of them than a quarter of its bytes.
    budget: usize,
}

impl<'h> Walk<'h> {
    pub(crate) fn new(root: Key<'h>) -> Self {
        let budget = root.view.bytes.len().checked_div(4).unwrap_or(0);
        Self {
            seen: BTreeSet::from([root.offset]),
            waiting: vec![Ok(root)],
            budget,
        }
    }

    fn enter(&mut self, key: &Key<'h>) -> Result<()> {
        if key.node.subkey_count == 0 {
            return Ok(());
        }
        let offsets =
            list::subkeys(&key.view, &key.node).map_err(|error| error.within(key.place()))?;
        self.budget = self.budget.checked_sub(offsets.len()).ok_or_else(|| {
            Error::corrupt(format_args!(
                "{}: the hive's subkey lists name more keys than it can hold",
                key.place()
            ))
        })?;
        if offsets.len() != size(key.node.subkey_count) {
            let (found, claimed) = (offsets.len(), key.node.subkey_count);
            let message =
                format_args!("{}: {claimed} subkeys claimed, {found} listed", key.place());
            self.waiting.push(Err(Error::corrupt(message)));
        }
        for offset in offsets.into_iter().rev() {
            let child = if self.seen.insert(offset) {
                Key::read(key.view, offset, Some(key)).map_err(|error| error.within(key.place()))
            } else {
                Err(Error::corrupt(format_args!(
                    "{}: subkey at {offset:#x} is listed a second time",
                    key.place()
                )))
            };
            self.waiting.push(child);
        }
        Ok(())
    }
}

impl<'h> Iterator for Walk<'h> {
    type Item = Result<Key<'h>>;

    fn next(&mut self) -> Option<Self::Item> {
        let key = match self.waiting.pop()? {
            Ok(key) => key,
            Err(error) => return Some(Err(error)),
        };
        if let Err(error) = self.enter(&key) {
            self.waiting.push(Err(error));
        }
        Some(Ok(key))
    }
}
