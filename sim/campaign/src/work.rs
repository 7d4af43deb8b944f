//! Worker threads over an index range.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs `work` for every index below `count` on `jobs` threads and returns the results in index order.
/// `progress` is called after each, with the number done so far; it must not influence results.
///
/// # Panics
/// When `work` panics: a bug of ours, not of a scenario.
pub fn each<T: Send>(
    count: u64,
    jobs: u32,
    work: impl Fn(u64) -> T + Sync,
    progress: impl Fn(u64) + Sync,
) -> Vec<T> {
    let next = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, 256) {
            scope.spawn(|| {
                let mut own = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    own.push((index, work(index)));
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
                results.lock().expect("no worker panicked").extend(own);
            });
        }
    });
    let mut results = results.into_inner().expect("no worker panicked");
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::each;

    #[test]
    fn results_stand_in_index_order_for_any_number_of_jobs() {
        let expected: Vec<u64> = (0..1000).map(|index| index * index).collect();
        for jobs in [1, 2, 7] {
            assert_eq!(each(1000, jobs, |index| index * index, |_| {}), expected);
        }
    }
}
