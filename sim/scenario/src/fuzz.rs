//! Entry points for fuzzers: what is read is written and read again to the same value.

use crate::{Scenario, Token};

/// Texts longer than this make tokens that are refused for their length.
const TEXT_MAX: usize = 16 << 10;

/// The bytes as a scenario file.
///
/// # Panics
/// Only on a bug of ours: when a scenario does not survive its file or its token.
pub fn scenario(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(scenario) = Scenario::from_toml(text) else {
        return;
    };
    let written = scenario.to_toml();
    assert_eq!(
        Scenario::from_toml(&written).as_ref(),
        Ok(&scenario),
        "a scenario survives its file"
    );
    if written.len() <= TEXT_MAX {
        survives(&scenario);
    }
}

/// The bytes as a token, and as what a token says before its checksum: a fuzzer does not guess checksums.
///
/// # Panics
/// Only on a bug of ours: when two tokens stand for one scenario.
pub fn token(data: &[u8]) {
    let texts = [
        String::from_utf8_lossy(data).into_owned(),
        Token::sealed(data).as_str().to_owned(),
    ];
    for text in texts {
        let Ok(token) = Token::parse(&text) else {
            continue;
        };
        let scenario = token.scenario();
        let scenario = scenario.unwrap_or_else(|wrong| unreachable!("it was read: {wrong}"));
        assert_eq!(
            Token::of(&scenario),
            token,
            "one token stands for a scenario"
        );
        survives(&scenario);
    }
}

fn survives(scenario: &Scenario) {
    assert_eq!(
        Token::of(scenario).scenario().as_ref(),
        Ok(scenario),
        "a scenario survives its token"
    );
}
