//! Programmatic units: `byte * 2^20` and its many spellings.
//!
//! Source: DSP0004 2.6, annex C.1 (also DSP0243 1.1 §9.1, which asks for them in `capacityAllocationUnits` and
//! `rasd:AllocationUnits`).
//!
//! ```text
//! unit     = base *( operator factor )          blanks anywhere between tokens
//! base     = "byte" | "hertz" | other words      letter case ignored here, not there
//! operator = "*" | "/"
//! factor   = digits [ "^" [ "-" ] digits ]
//! ```
//!
//! Older writers use words instead (`MegaBytes`, `MB`, `MegaHertz`): read as powers of two for bytes and of ten for
//! hertz, and said so in [`Amount::assumed`]. Arithmetic is exact and checked in 128 bits.

use crate::findings::quote;
use drylab_block::{Error, Result};

/// Most factors in one unit; the specification's own examples have two.
const FACTORS_MAX: usize = 16;

/// What a unit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    /// 8 bits.
    Byte,
    /// Cycles a second.
    Hertz,
    /// Some other word: `count`, `percent`, `Processor Cores`, `Disk`.
    Other,
}

/// A parsed unit: `base * numerator / denominator`, in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// What is counted.
    pub base: Base,
    /// Multiplier, at least 1.
    pub numerator: u128,
    /// Divisor, at least 1.
    pub denominator: u128,
    /// Set when the unit was not in the specification's spelling: how it was read.
    pub assumed: Option<&'static str>,
}

/// What an absent or empty unit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Bytes: the default of `capacityAllocationUnits` (DSP0243 1.1 §9.1).
    Byte,
    /// Mebibytes: what importers take for memory without a unit; the CIM model has no default.
    MebiByte,
}

/// Bytes, and what had to be assumed to get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Exact number of bytes.
    pub bytes: u128,
    /// How the unit was read, when it is absent or not in the specification's spelling.
    pub assumed: Option<&'static str>,
}

impl Amount {
    /// The bytes when they fit 64 bits.
    #[must_use]
    pub fn bytes64(&self) -> Option<u64> {
        u64::try_from(self.bytes).ok()
    }
}

/// Words that stand for a whole unit, lower case, and how they are read.
const WORDS: [(&str, Base, u128, &str); 24] = [
    ("bytes", Base::Byte, 1, "\"bytes\" read as byte"),
    ("b", Base::Byte, 1, "\"B\" read as byte"),
    (
        "kilobyte",
        Base::Byte,
        1 << 10,
        "KiloByte read as byte * 2^10",
    ),
    (
        "kilobytes",
        Base::Byte,
        1 << 10,
        "KiloBytes read as byte * 2^10",
    ),
    ("kb", Base::Byte, 1 << 10, "KB read as byte * 2^10"),
    ("kib", Base::Byte, 1 << 10, "KiB read as byte * 2^10"),
    (
        "megabyte",
        Base::Byte,
        1 << 20,
        "MegaByte read as byte * 2^20",
    ),
    (
        "megabytes",
        Base::Byte,
        1 << 20,
        "MegaBytes read as byte * 2^20",
    ),
    ("mb", Base::Byte, 1 << 20, "MB read as byte * 2^20"),
    ("mib", Base::Byte, 1 << 20, "MiB read as byte * 2^20"),
    (
        "gigabyte",
        Base::Byte,
        1 << 30,
        "GigaByte read as byte * 2^30",
    ),
    (
        "gigabytes",
        Base::Byte,
        1 << 30,
        "GigaBytes read as byte * 2^30",
    ),
    ("gb", Base::Byte, 1 << 30, "GB read as byte * 2^30"),
    ("gib", Base::Byte, 1 << 30, "GiB read as byte * 2^30"),
    (
        "terabyte",
        Base::Byte,
        1 << 40,
        "TeraByte read as byte * 2^40",
    ),
    (
        "terabytes",
        Base::Byte,
        1 << 40,
        "TeraBytes read as byte * 2^40",
    ),
    ("tb", Base::Byte, 1 << 40, "TB read as byte * 2^40"),
    ("tib", Base::Byte, 1 << 40, "TiB read as byte * 2^40"),
    ("hz", Base::Hertz, 1, "Hz read as hertz"),
    (
        "kilohertz",
        Base::Hertz,
        1_000,
        "KiloHertz read as hertz * 10^3",
    ),
    (
        "megahertz",
        Base::Hertz,
        1_000_000,
        "MegaHertz read as hertz * 10^6",
    ),
    ("mhz", Base::Hertz, 1_000_000, "MHz read as hertz * 10^6"),
    (
        "gigahertz",
        Base::Hertz,
        1_000_000_000,
        "GigaHertz read as hertz * 10^9",
    ),
    (
        "ghz",
        Base::Hertz,
        1_000_000_000,
        "GHz read as hertz * 10^9",
    ),
];

/// Reads a unit.
///
/// # Errors
/// [`Error::Corrupt`] when the text is empty or outside the grammar, or a factor passes 2^128.
pub fn parse(text: &str) -> Result<Unit> {
    let wrong = |why: &str| Error::corrupt(format_args!("unit {}: {why}", quote(text)));
    let (word, mut rest) = split_base(text.trim());
    if word.is_empty() {
        return Err(wrong("no base unit"));
    }
    let lower = word.to_ascii_lowercase();
    let mut unit = base_of(&lower);
    for _ in 0..=FACTORS_MAX {
        rest = rest.trim_start();
        let multiply = match rest.chars().next() {
            None => return Ok(unit),
            Some('*') => true,
            Some('/') => false,
            Some(_) => return Err(wrong("an operator \"*\" or \"/\" is missing")),
        };
        let (factor, negative, after) = factor(rest.get(1..).unwrap_or("")).map_err(wrong)?;
        let side = if multiply != negative {
            &mut unit.numerator
        } else {
            &mut unit.denominator
        };
        *side = side
            .checked_mul(factor)
            .ok_or_else(|| wrong("the factors pass 2^128"))?;
        rest = after;
    }
    Err(wrong("more than 16 factors"))
}

/// Cuts the words of the base unit off: everything up to the first operator.
fn split_base(text: &str) -> (&str, &str) {
    let end = text.find(['*', '/']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word.trim_end(), rest)
}

fn base_of(lower: &str) -> Unit {
    let plain = |base| Unit {
        base,
        numerator: 1,
        denominator: 1,
        assumed: None,
    };
    match lower {
        "byte" => plain(Base::Byte),
        "hertz" => plain(Base::Hertz),
        _ => WORDS.iter().find(|(word, ..)| *word == lower).map_or(
            plain(Base::Other),
            |(_, base, numerator, says)| Unit {
                base: *base,
                numerator: *numerator,
                denominator: 1,
                assumed: Some(says),
            },
        ),
    }
}

/// `digits [ ^ [-] digits ]`: the power, whether its exponent is negative, and what follows.
fn factor(text: &str) -> Result<(u128, bool, &str), &'static str> {
    let (number, rest) = digits(text.trim_start())?;
    let Some(exponent) = rest.trim_start().strip_prefix('^') else {
        return nonzero(number, false, rest);
    };
    let exponent = exponent.trim_start();
    let (negative, exponent) = exponent
        .strip_prefix('-')
        .map_or((false, exponent), |rest| (true, rest.trim_start()));
    let (power, rest) = digits(exponent)?;
    let power = u32::try_from(power).map_err(|_| "the exponent passes 2^32")?;
    nonzero(
        number.checked_pow(power).ok_or("a power passes 2^128")?,
        negative,
        rest,
    )
}

fn nonzero(value: u128, negative: bool, rest: &str) -> Result<(u128, bool, &str), &'static str> {
    if value == 0 {
        Err("a factor is zero")
    } else {
        Ok((value, negative, rest))
    }
}

fn digits(text: &str) -> Result<(u128, &str), &'static str> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() {
        return Err("digits are missing");
    }
    Ok((digits.parse().map_err(|_| "a number passes 2^128")?, rest))
}

/// `value` in `units`, as bytes.
///
/// # Errors
/// [`Error::Corrupt`] when the unit is outside the grammar, is not one of bytes, does not divide the value, or the
/// product passes 2^128.
pub fn to_bytes(value: u64, units: Option<&str>, absent: Absent) -> Result<Amount> {
    let Some(text) = units.filter(|text| !text.trim().is_empty()) else {
        let (factor, assumed) = match absent {
            Absent::Byte => (1, "no unit: byte"),
            Absent::MebiByte => (1 << 20, "no unit: byte * 2^20"),
        };
        return Ok(Amount {
            bytes: u128::from(value).saturating_mul(factor),
            assumed: Some(assumed),
        });
    };
    let unit = parse(text)?;
    if unit.base != Base::Byte {
        return Err(Error::corrupt(format_args!(
            "unit {} does not count bytes",
            quote(text)
        )));
    }
    let product = u128::from(value).checked_mul(unit.numerator);
    let product = product.ok_or_else(|| {
        Error::corrupt(format_args!("{value} times {} passes 2^128", quote(text)))
    })?;
    match (
        product.checked_rem(unit.denominator),
        product.checked_div(unit.denominator),
    ) {
        (Some(0), Some(bytes)) => Ok(Amount {
            bytes,
            assumed: unit.assumed,
        }),
        _ => Err(Error::corrupt(format_args!(
            "{value} in unit {} is not a whole number of bytes",
            quote(text)
        ))),
    }
}

/// A number of bytes the way vSphere and ovftool write a capacity: in GiB when whole, else MiB, else bytes.
#[must_use]
pub fn capacity(bytes: u64) -> (u64, &'static str) {
    for (shift, unit) in [(30u32, "byte * 2^30"), (20, "byte * 2^20")] {
        let quotient = bytes >> shift;
        if quotient > 0 && quotient << shift == bytes {
            return (quotient, unit);
        }
    }
    (bytes, "byte")
}

#[cfg(test)]
mod tests {
    use super::{Absent, Base, capacity, parse, to_bytes};
    use proptest::prelude::*;

    fn bytes(value: u64, unit: &str) -> u128 {
        to_bytes(value, Some(unit), Absent::Byte).unwrap().bytes
    }

    #[test]
    fn every_spelling_found_in_the_wild_is_read() {
        for unit in [
            "byte * 2^20",
            "byte * 2 ^ 20",
            "byte*2^20",
            "byte*1024*1024",
            "MegaBytes",
            "MB",
            "byte * 1048576",
        ] {
            assert_eq!(bytes(512, unit), 512 << 20, "{unit}");
        }
        assert_eq!(bytes(3, "byte * 2 ^ 30"), 3 << 30);
        assert_eq!(bytes(7, "KiloBytes"), 7 << 10);
        assert_eq!(bytes(7, " byte "), 7);
        assert_eq!(bytes(4096, "byte * 2^20 / 2^10"), 4096 << 10);
        assert_eq!(bytes(4096, "byte * 2^-10"), 4);
        assert_eq!(parse("hertz * 10^6").unwrap().numerator, 1_000_000);
        assert_eq!(parse("Hertz*10^9").unwrap().base, Base::Hertz);
        assert_eq!(parse("Processor Cores").unwrap().base, Base::Other);
    }

    #[test]
    fn what_was_assumed_is_said_and_the_specifications_spelling_assumes_nothing() {
        assert_eq!(
            to_bytes(1, Some("byte * 2^20"), Absent::MebiByte)
                .unwrap()
                .assumed,
            None
        );
        for unit in [Some("MegaBytes"), Some("bytes"), Some(""), Some("  "), None] {
            assert!(
                to_bytes(1, unit, Absent::MebiByte)
                    .unwrap()
                    .assumed
                    .is_some(),
                "{unit:?}"
            );
        }
        assert_eq!(
            to_bytes(64, None, Absent::MebiByte).unwrap().bytes,
            64 << 20
        );
        assert_eq!(to_bytes(64, Some(" "), Absent::Byte).unwrap().bytes, 64);
    }

    #[test]
    fn units_outside_the_grammar_or_the_range_are_refused() {
        for unit in [
            "* 2^20",
            "byte 2^20",
            "byte *",
            "byte * 2^",
            "byte * 0",
            "byte * x",
            "byte * 2^128",
            "byte * 99999^99999999999",
            "byte * 2^64 * 2^64",
            "byte ** 2",
            "byte * 2^20 foo",
            "hertz * 10^6",
            "percent",
            "byte * 3^-1",
            "byte*1*1*1*1*1*1*1*1*1*1*1*1*1*1*1*1*1",
        ] {
            assert!(to_bytes(1, Some(unit), Absent::Byte).is_err(), "{unit}");
        }
        assert!(to_bytes(u64::MAX, Some("byte * 2^100"), Absent::Byte).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_printed_capacity_is_read_back_to_the_same_bytes(value in any::<u64>(), shift in 0u32..40) {
            for bytes in [value, value >> shift << shift, u64::from(shift) << 30] {
                let (number, unit) = capacity(bytes);
                prop_assert_eq!(to_bytes(number, Some(unit), Absent::Byte).unwrap().bytes64(), Some(bytes));
            }
        }

        #[test]
        fn blanks_and_letter_case_do_not_change_a_unit(
            base in 2u64..12, power in 0u32..18, blanks in proptest::collection::vec(0usize..3, 5), upper: bool
        ) {
            let gap = |index: usize| " ".repeat(blanks[index]);
            let word = if upper { "Byte" } else { "byte" };
            let unit = format!("{}{word}{}*{}{base}{}^{}{power}", gap(0), gap(1), gap(2), gap(3), gap(4));
            prop_assert_eq!(parse(&unit).unwrap().numerator, u128::from(base).pow(power));
        }

        #[test]
        fn any_text_gets_an_answer_without_a_panic(text in "(byte|MB|hertz)?[ */^0-9a-z-]{0,24}", value: u64) {
            let _ = to_bytes(value, Some(&text), Absent::Byte);
        }
    }
}
