//! Laws of stored scenarios.

use drylab_scenario::{RouteName, Scenario, ScenarioError, Token, Vocabulary, generate};
use proptest::prelude::*;

fn words() -> Vocabulary {
    let route = |id: &str, source: &str, target: &str| RouteName {
        id: id.to_owned(),
        source: source.into(),
        target: target.into(),
    };
    Vocabulary {
        guests: ["centos-6.3", "ubuntu-12.04", "windows-2008r2", "plan-9"]
            .map(Into::into)
            .into(),
        routes: vec![
            route("esx-v2v", "esxi-5.0.0", "kvm-centos-6.3"),
            route("by-carrier-pigeon", "kvm-centos-6.3", "xen-9"),
        ],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_seed_gives_a_valid_scenario_that_survives_toml_and_token(seed: u64) {
        let scenario = generate(seed, &words());
        prop_assert_eq!(scenario.check(), Ok(()));
        prop_assert_eq!(Scenario::from_toml(&scenario.to_toml()), Ok(scenario.clone()));
        let token = Token::of(&scenario);
        prop_assert_eq!(Token::parse(token.as_str()), Ok(token.clone()));
        prop_assert_eq!(token.scenario(), Ok(scenario));
    }

    #[test]
    fn a_token_with_one_character_changed_is_refused(seed: u64, at in any::<prop::sample::Index>(), to in "[0-9a-zA-Z]") {
        let token = Token::of(&generate(seed, &words()));
        let at = at.index(token.as_str().len());
        let mut damaged = token.as_str().to_owned();
        damaged.replace_range(at..=at, &to);
        prop_assume!(damaged != token.as_str());
        prop_assert!(Token::parse(&damaged).is_err(), "{} read as {:?}", damaged, Token::parse(&damaged));
    }

    #[test]
    fn no_text_makes_the_readers_panic(text in "\\PC{0,200}") {
        let _ = Token::parse(&text);
        let _ = Token::parse(&format!("drylab1-{text}"));
        let _ = Scenario::from_toml(&text);
        let _ = Scenario::from_toml(&format!("format = 1\n{text}"));
    }
}

#[test]
fn a_scenario_of_defaults_fits_one_short_line() {
    let mut scenario = Scenario::new("centos-6.3", "esxi-5.0.0", "kvm-centos-6.3", "esx-v2v");
    scenario.run_seed = 19;
    assert!(
        Token::of(&scenario).as_str().len() < 60,
        "{}",
        Token::of(&scenario)
    );
}

#[test]
fn an_unknown_version_is_refused_before_anything_else() {
    assert_eq!(
        Scenario::from_toml("format = 2\nnonsense = true"),
        Err(ScenarioError::Version(2))
    );
    assert!(
        Scenario::from_toml("guest = \"x\"")
            .unwrap_err()
            .to_string()
            .contains("format = 1")
    );
}

#[test]
fn a_mistyped_field_is_named_with_its_place() {
    let text = "format = 1\nguest = \"centos-6.3\"\nsource = \"a\"\ntarget = \"b\"\nroute = \"c\"\n[lab]\ndhpc = true\n";
    let message = Scenario::from_toml(text).unwrap_err().to_string();
    assert!(
        message.contains("dhpc") && message.contains("line 7"),
        "{message}"
    );
}
