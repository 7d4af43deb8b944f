//! What may have been meant.

/// Most names offered.
const OFFERED: usize = 5;
/// Longest text compared by distance, in characters: the table grows with the product of two lengths.
const COMPARED: usize = 100;

/// `; nearest: a, b, c`, the closest first; empty when nothing is close.
pub(crate) fn hint<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> String {
    let wanted = wanted.to_lowercase();
    let close = |name: &'a str| {
        let lower = name.to_lowercase();
        let contained =
            wanted.len() >= 2 && (lower.contains(&wanted) || wanted.contains(lower.as_str()));
        // Ids are paths: `guest.ip-address`, `esxi-5.0.0/cpu.vcpus-max`; people remember their ends.
        let ends = lower
            .match_indices(['.', '/'])
            .map(|(at, _)| &lower[at + 1..]);
        let near = |end: &str| (distance(&wanted, end), end.chars().count());
        let (far, length) = ends.map(near).fold(near(&lower), Ord::min);
        (contained || far <= 1 + length / 4).then_some((far, !contained, name))
    };
    let mut close: Vec<_> = known.filter_map(close).collect();
    close.sort_unstable();
    close.truncate(OFFERED);
    let names: Vec<&str> = close.into_iter().map(|(_, _, name)| name).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("; nearest: {}", names.join(", "))
    }
}

/// Levenshtein distance, row by row.
fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().take(COMPARED).collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (at, letter) in one.chars().take(COMPARED).enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in two.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[two.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, hint};

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (one, two, far) in [
            ("kitten", "sitting", 3),
            ("", "abc", 3),
            ("flaw", "lawn", 2),
            ("same", "same", 0),
        ] {
            assert_eq!(distance(one, two), far);
            assert_eq!(distance(two, one), far);
        }
    }

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        let known = ["guest.ip-address", "guest.mac", "GQ01", "GQ10"];
        for typed in ["ip-address", "ip-adress", "guest.ip-addres"] {
            assert_eq!(
                hint(typed, known.into_iter()),
                "; nearest: guest.ip-address"
            );
        }
        assert_eq!(hint("gq1", known.into_iter()), "; nearest: GQ10, GQ01");
        assert_eq!(hint("unheard-of", known.into_iter()), "");
    }
}
