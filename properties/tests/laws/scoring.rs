//! Laws 1 to 7 and 10: how scores add up, over arbitrary lists of checks and arbitrary policies.

use drylab_catalog::Score;
use drylab_pipeline::{Check, Overall, aggregate, overall};
use drylab_properties::strategies::{self, IDS, RELAXATIONS, scored};
use proptest::prelude::*;
use proptest::sample::Index;

/// The order on checks that the order on runs comes from.
fn height(score: Option<Score>) -> Overall {
    score.map_or(Overall::Unknown, Overall::from)
}

fn with(checks: &[Check], at: usize, score: Option<Score>) -> Vec<Check> {
    let mut changed = checks.to_vec();
    changed[at].score = score;
    changed
}

fn scores() -> impl Strategy<Value = Vec<Option<Score>>> {
    proptest::collection::vec(strategies::assessed(), 0..200)
}

/// A group's score as a member of a larger group.
fn as_member(score: Overall) -> Option<Score> {
    match score {
        Overall::Failure => Some(Score::Failure),
        Overall::Warning => Some(Score::Warning),
        Overall::Unknown => None,
        Overall::Success => Some(Score::Success),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn law_1_the_score_of_a_run_is_the_minimum_over_its_checks(checks in strategies::checks()) {
        let lowest = checks.iter().map(|check| height(check.score)).min();
        prop_assert_eq!(overall(&checks), lowest.unwrap_or(Overall::Failure));
    }

    #[test]
    fn law_2_lowering_one_check_never_raises_the_run_and_raising_one_never_lowers_it(
        checks in strategies::checks(), at in any::<Index>(), to in strategies::assessed(),
    ) {
        prop_assume!(!checks.is_empty());
        let at = at.index(checks.len());
        let changed = with(&checks, at, to);
        match height(to).cmp(&height(checks[at].score)) {
            std::cmp::Ordering::Less => prop_assert!(overall(&changed) <= overall(&checks)),
            std::cmp::Ordering::Equal => prop_assert_eq!(overall(&changed), overall(&checks)),
            std::cmp::Ordering::Greater => prop_assert!(overall(&changed) >= overall(&checks)),
        }
    }

    #[test]
    fn law_3_groups_of_groups_add_up_to_the_same(scores in scores(), cuts in proptest::collection::vec(any::<Index>(), 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(scores.len() + 1)).collect();
        cuts.extend([0, scores.len()]);
        cuts.sort_unstable();
        let groups: Vec<Option<Score>> = cuts
            .windows(2)
            .map(|cut| as_member(aggregate(scores[cut[0]..cut[1]].iter().copied())))
            .collect();
        prop_assert_eq!(aggregate(groups), aggregate(scores));
    }

    #[test]
    fn law_4_the_order_of_checks_does_not_matter(
        (checks, shuffled) in strategies::checks().prop_flat_map(|checks| (Just(checks.clone()), Just(checks).prop_shuffle())),
    ) {
        prop_assert_eq!(overall(&checks), overall(&shuffled));
    }

    #[test]
    fn law_5_repeating_a_check_changes_nothing(checks in strategies::checks(), at in any::<Index>(), times in 1usize..5) {
        prop_assume!(!checks.is_empty());
        let again = checks[at.index(checks.len())].clone();
        let mut more = checks.clone();
        more.extend(std::iter::repeat_n(again, times));
        prop_assert_eq!(overall(&more), overall(&checks));
    }

    #[test]
    fn law_6_success_adds_nothing_and_failure_dominates(checks in strategies::checks(), extra in strategies::check(), at in any::<Index>()) {
        prop_assume!(!checks.is_empty());
        let put = |score| {
            let mut more = checks.clone();
            more.insert(at.index(checks.len()), Check { score: Some(score), ..extra.clone() });
            overall(&more)
        };
        prop_assert_eq!(put(Score::Success), overall(&checks));
        prop_assert_eq!(put(Score::Failure), Overall::Failure);
    }

    #[test]
    fn law_7_a_check_that_was_not_run_never_helps(checks in strategies::checks(), failed in strategies::found(), skipped in strategies::checks()) {
        // A run stops only after a failure; had it gone on, the rest could at best have been SUCCESS.
        let mut stopped = checks;
        stopped.push(Check { score: Some(Score::Failure), ..scored(&[failed], &drylab_pipeline::Policy::our_reading(), &[])[0].clone() });
        let mut cured = stopped.clone();
        let mut went_on = stopped.clone();
        went_on.extend(skipped.iter().cloned().map(|check| Check { score: Some(Score::Success), ..check }));
        prop_assert!(overall(&stopped) <= overall(&went_on));
        for check in &mut cured { check.score = check.score.max(Some(Score::Warning)); }
        cured.extend(skipped.into_iter().map(|check| Check { score: Some(Score::Success), ..check }));
        prop_assert!(overall(&stopped) <= overall(&cured));
    }

    #[test]
    fn law_10_a_policy_that_is_nowhere_stricter_never_lowers_a_run(
        found in proptest::collection::vec(strategies::found(), 1..200), one in strategies::policy(), two in strategies::policy(),
    ) {
        let (strict, mild) = (scored(&found, &one, &[]), scored(&found, &two, &[]));
        // The milder of both readings of each finding is a reading that is nowhere stricter than either.
        let milder: Vec<Check> = strict.iter().zip(&mild).map(|(one, two)| {
            Check { score: one.score.max(two.score), ..one.clone() }
        }).collect();
        prop_assert!(overall(&milder) >= overall(&strict));
        prop_assert!(overall(&milder) >= overall(&mild));
    }

    #[test]
    fn law_10_asking_for_more_relaxations_never_lowers_a_check_or_a_run(
        found in proptest::collection::vec(strategies::found(), 1..200), policy in strategies::policy(),
        asked in proptest::sample::subsequence(RELAXATIONS.to_vec(), 0..=3), also in proptest::sample::subsequence(RELAXATIONS.to_vec(), 0..=3),
    ) {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all: Vec<&str> = asked.iter().chain(&also).copied().collect();
        let (few, many) = (scored(&found, &policy, &names(&asked)), scored(&found, &policy, &names(&all)));
        for (few, many) in few.iter().zip(&many) {
            prop_assert!(height(many.score) >= height(few.score));
            prop_assert!(few.score != Some(Score::Failure) || many.score == few.score, "a relaxation lifts no FAILURE");
        }
        prop_assert!(overall(&many) >= overall(&few));
    }

    #[test]
    fn law_10_wider_bounds_never_lower_a_number(policy in strategies::policy(), measure in strategies::measure(), wider in 0u64..30, at in any::<Index>()) {
        let id = IDS[at.index(IDS.len())];
        let mut wide = policy.clone();
        let rule = wide.rules.get_mut(id).expect("the strategy knows every id");
        prop_assume!(rule.warning_ppm > 0);
        rule.success_ppm += wider;
        rule.warning_ppm += wider;
        let relaxed = drylab_pipeline::Relaxed { names: &[], today: "2013-01-15" };
        prop_assert!(wide.score(id, measure, &relaxed) >= policy.score(id, measure, &relaxed));
    }
}

#[test]
fn law_6_the_empty_group_adds_nothing_and_a_run_without_a_check_is_a_failure() {
    assert_eq!(aggregate([]), Overall::Success);
    assert_eq!(overall(&[]), Overall::Failure);
}

#[test]
fn scores_are_ordered_and_no_route_of_unknown_outcome_beats_a_known_warning() {
    let order = [
        Overall::Failure,
        Overall::Warning,
        Overall::Unknown,
        Overall::Success,
    ];
    assert!(order.is_sorted());
    assert!(Overall::Unknown.rank() < Overall::Warning.rank());
    assert!(Overall::Failure.rank() < Overall::Unknown.rank());
    assert!(Overall::Warning.rank() < Overall::Success.rank());
}
