//! The few tables and unpacked units used last, shared by all readers of one image.

use drylab_block::Result;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// A small cache, most recently used first.
pub(crate) struct Recent<V: ?Sized> {
    slots: Mutex<VecDeque<(u64, Arc<V>)>>,
    keep: usize,
}

impl<V: ?Sized> Recent<V> {
    /// Keeps at most `keep` values.
    pub(crate) fn new(keep: usize) -> Self {
        Self {
            slots: Mutex::new(VecDeque::with_capacity(keep)),
            keep,
        }
    }

    /// The value of `key`; `make` runs without the lock, so two readers may both make one.
    pub(crate) fn get(&self, key: u64, make: impl FnOnce() -> Result<Arc<V>>) -> Result<Arc<V>> {
        if let Some(found) = self.find(key) {
            return Ok(found);
        }
        let made = make()?;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.truncate(self.keep.saturating_sub(1));
        slots.push_front((key, made.clone()));
        Ok(made)
    }

    /// The value of `key`, if it is kept.
    pub(crate) fn find(&self, key: u64) -> Option<Arc<V>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let at = slots.iter().position(|(known, _)| *known == key)?;
        if at > 0 {
            let slot = slots.remove(at)?;
            slots.push_front(slot);
        }
        slots.front().map(|(_, value)| value.clone())
    }
}
