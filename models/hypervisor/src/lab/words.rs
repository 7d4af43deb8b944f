//! What a parser says of a lab file, for people.

use super::LabFile;

/// Line, key, what was found, what is expected, and how the lab of the report writes it.
pub(super) fn told(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.as_bytes().get(..at).unwrap_or_default();
    let number = before.iter().filter(|byte| **byte == b'\n').count();
    let line = text.lines().nth(number).unwrap_or_default().trim();
    let key = line.split('=').next().unwrap_or_default().trim();
    let wrong = error.message();
    let says = match wrong.split_once(", expected ") {
        Some((found, expected)) if found.starts_with("invalid ") => {
            let found = found.split_once(": ").map_or(found, |(_, found)| found);
            format!("found {found}, expected {}", plain(expected))
        }
        _ => wrong.to_owned(),
    };
    let line_number = number.saturating_add(1);
    format!("line {line_number}: {key}: {says}{}", example(key))
}

/// Kinds of values in the words of TOML's users.
fn plain(expected: &str) -> &str {
    match expected {
        "u64" | "u32" | "i64" => "a whole number, 0 or more, without quotes",
        "a string" | "string" => "a text in quotes",
        "a sequence" => "a list in brackets",
        "IPv4 address" => "an IPv4 address in quotes",
        other if other.starts_with("struct ") || other == "a map" => "a table with its keys",
        other => other,
    }
}

/// What stands there in the lab of the report.
fn example(key: &str) -> String {
    let is_key = |line: &&str| {
        line.split_once(" = ")
            .is_some_and(|(known, _)| known == key)
    };
    match LabFile::REPORT.lines().find(is_key) {
        Some(line) => format!("; the lab of the report has {line}"),
        None => String::new(),
    }
}
