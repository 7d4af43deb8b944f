//! Laws 15 and 35: streams do not disturb each other, and events come in one total order.

use crate::{library, scenario};
use drylab_kernel::{Budget, Queue, Streams};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn law_15_draws_of_one_component_leave_every_draw_of_others_unchanged(
        seed: u64, extra in proptest::collection::vec((0usize..8, 0usize..40), 0..12), instance in 0u32..4,
    ) {
        /// Every stream the lab and the generator draw from.
        const NAMES: [&str; 8] = [
            "source.network", "source.tsc", "target.network", "target.tsc", "target.mac", "target.uuid", "lab.network", "generate.choice",
        ];
        let streams = Streams::new(seed);
        let words = |name: &str| { let mut stream = streams.stream(name, instance); (0..16).map(|_| stream.word()).collect::<Vec<_>>() };
        let alone: Vec<_> = NAMES.iter().map(|name| words(name)).collect();
        for (index, one) in alone.iter().enumerate() {
            prop_assert!(alone[..index].iter().all(|other| other != one), "two components share a stream");
        }
        // Now everybody draws in turn, some more than before.
        let mut shared: Vec<_> = NAMES.iter().map(|name| streams.stream(name, instance)).collect();
        let mut drawn = vec![Vec::new(); NAMES.len()];
        for (at, count) in extra {
            for _ in 0..count { let word = shared[at].word(); drawn[at].push(word); }
        }
        for (at, stream) in shared.iter_mut().enumerate() {
            while drawn[at].len() < 16 { let word = stream.word(); drawn[at].push(word); }
            prop_assert_eq!(&drawn[at][..16], alone[at].as_slice());
        }
    }

    #[test]
    fn law_35_a_queue_gives_events_by_time_and_then_by_insertion(delays in proptest::collection::vec(0u64..20, 1..100)) {
        let mut queue = Queue::new(Budget(1_000));
        for (number, delay) in delays.iter().enumerate() { queue.after(*delay, number); }
        let mut order = Vec::new();
        while let Some(number) = queue.pop() { order.push((queue.now(), number)); }
        prop_assert_eq!(order.len(), delays.len());
        prop_assert!(order.is_sorted(), "{:?}", order);
        prop_assert!(order.iter().all(|(time, number)| delays[*number] == *time));
    }
}

/// The address the console draws comes from a stream of its own: whatever else a run's noise does, it stays.
#[test]
fn law_15_more_leases_of_others_change_no_address_that_the_console_draws() {
    let mac = |clients| {
        let mut moved = scenario("ubuntu-12.04", "esxi-native-ovf");
        moved.run_seed = 7;
        moved.lab.dhcp_clients = clients;
        let report = crate::report(&moved);
        let check = report
            .checks
            .iter()
            .find(|check| check.found.id == "guest.mac");
        check.map(|check| check.found.after.clone())
    };
    assert!(library().route("esxi-native-ovf").is_some());
    let drawn = mac(None);
    assert!(drawn.is_some());
    assert!(
        [0, 1, 50]
            .into_iter()
            .all(|clients| mac(Some(clients)) == drawn)
    );
}
