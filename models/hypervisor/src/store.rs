//! Space on a store, by file.

use std::collections::BTreeMap;

/// A store of bytes: used and free always add up to the capacity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datastore {
    capacity: u64,
    files: BTreeMap<String, u64>,
}

impl Datastore {
    /// An empty store.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            files: BTreeMap::new(),
        }
    }

    /// Capacity in bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes taken.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.files.values().sum()
    }

    /// Bytes free.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.capacity - self.used()
    }

    /// Files and their sizes.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, u64> {
        &self.files
    }

    /// Takes space for a file.
    ///
    /// # Errors
    /// The bytes that are free, when they are not enough; nothing is changed then.
    pub fn put(&mut self, name: &str, bytes: u64) -> Result<(), u64> {
        let before = self.files.get(name).copied().unwrap_or(0);
        let free = self.free() + before;
        if bytes > free {
            return Err(free);
        }
        self.files.insert(name.to_owned(), bytes);
        Ok(())
    }

    /// Gives the space of a file back.
    pub fn remove(&mut self, name: &str) {
        self.files.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::Datastore;

    #[test]
    fn a_store_never_holds_more_than_its_capacity() {
        let mut store = Datastore::new(100);
        assert_eq!(store.put("a", 60), Ok(()));
        assert_eq!(store.put("b", 41), Err(40));
        assert_eq!(
            store.put("a", 100),
            Ok(()),
            "a file may grow into its own space"
        );
        store.remove("a");
        assert_eq!((store.used(), store.free()), (0, 100));
    }
}
