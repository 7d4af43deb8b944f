//! The event queue: virtual time in microseconds, ties by insertion number.

use std::collections::BTreeMap;

/// How many events a run may have at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(pub u64);

/// Things to happen, in the total order (time, insertion number).
#[derive(Clone, Debug)]
pub struct Queue<T> {
    waiting: BTreeMap<(u64, u64), T>,
    now: u64,
    inserted: u64,
    left: u64,
}

impl<T> Queue<T> {
    /// Empty, at time 0.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            waiting: BTreeMap::new(),
            now: 0,
            inserted: 0,
            left: budget.0,
        }
    }

    /// Microseconds since the run began.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Lets `item` happen `delay` microseconds from now.
    pub fn after(&mut self, delay: u64, item: T) {
        self.waiting
            .insert((self.now.saturating_add(delay), self.inserted), item);
        self.inserted += 1;
    }

    /// The next item; time advances to it. `None` when nothing waits or the budget is spent.
    pub fn pop(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        let ((time, _), item) = self.waiting.pop_first()?;
        self.now = time;
        Some(item)
    }

    /// Whether the budget ended the run before the queue was empty.
    #[must_use]
    pub fn exhausted(&self) -> bool {
        self.left == 0 && !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, Queue};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn time_never_decreases_and_ties_keep_insertion_order(delays in proptest::collection::vec(0u64..5, 1..200)) {
            let mut queue = Queue::new(Budget(1_000));
            for (number, delay) in delays.iter().enumerate() {
                queue.after(*delay, (*delay, number));
            }
            let mut last = None;
            while let Some(item) = queue.pop() {
                prop_assert_eq!(queue.now(), item.0);
                prop_assert!(last.is_none_or(|last| last < item));
                last = Some(item);
            }
        }
    }

    #[test]
    fn a_spent_budget_ends_the_run() {
        let mut queue = Queue::new(Budget(1));
        queue.after(0, 'a');
        queue.after(0, 'b');
        assert_eq!(queue.pop(), Some('a'));
        assert_eq!(queue.pop(), None);
        assert!(queue.exhausted());
    }
}
