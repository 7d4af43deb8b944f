//! What is made is sound, and what is damaged is found.

use drylab_kernel::Streams;
use drylab_specimen::{Format, Kind, Specimen, Stream, judge};
use std::collections::BTreeMap;

/// Damages that our readers answer wrongly, by kind and field, with what is wrong. Nothing else is let pass.
const OPEN: [(&str, &str, &str); 3] = [
    (
        "streamOptimized",
        "footer.rgdOffset",
        "without flag bit 1 it means nothing, and the end of the stream is looked for behind it",
    ),
    (
        "streamOptimized-front",
        "header.rgdOffset",
        "without flag bit 1 it means nothing, and the end of the stream is looked for behind it",
    ),
    (
        "streamOptimized",
        "marker.type",
        "a footer marker with no footer behind it is stepped over without a word",
    ),
];

fn specimen(format: Format, subformat: &str, seed: u64) -> Specimen {
    let mut stream = Streams::new(seed).stream("specimen", 0);
    Specimen::draw(&mut Stream(|| stream.word()), format, Some(subformat))
}

/// The first few wrong answers of each field's family, so that a list stays readable.
fn report(wrong: &[(String, String)]) -> String {
    let mut by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (family, why) in wrong {
        by.entry(family).or_default().push(why);
    }
    let lines = by.values().flat_map(|all| all.iter().take(3));
    format!("{} wrong\n{}", wrong.len(), lines.copied().collect::<Vec<_>>().join("\n"))
}

fn sound(format: Format, seeds: u64) {
    let mut wrong = Vec::new();
    for subformat in format.subformats() {
        for seed in 0..seeds {
            let made = specimen(format, subformat, seed);
            if let Err(why) = judge::sound(&made) {
                wrong.push((subformat.to_string(), format!("{subformat} seed {seed}: {why} {made:?}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", report(&wrong));
}

fn damaged(format: Format, seeds: u64, each: u64) {
    let mut wrong = Vec::new();
    for subformat in format.subformats() {
        for seed in 0..seeds {
            let made = specimen(format, subformat, seed);
            let mut stream = Streams::new(seed).stream("damage", 0);
            let mut stream = Stream(|| stream.word());
            for _ in 0..each {
                let Some(damage) = made.corrupt(&mut stream) else { continue };
                if let Err(why) = judge::judge(&made, &damage) {
                    let family = made.fields[damage.field].family();
                    if OPEN.iter().any(|(kind, open, _)| *kind == *subformat && family.ends_with(open)) {
                        continue;
                    }
                    wrong.push((format!("{subformat} {family}"), format!("seed {seed}: {why}")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", report(&wrong));
    let _ = Kind::ALL;
}

#[test]
fn sound_vhd() { sound(Format::Vhd, 200); }
#[test]
fn damaged_vhd() { damaged(Format::Vhd, 200, 20); }
#[test]
fn sound_vdi() { sound(Format::Vdi, 200); }
#[test]
fn damaged_vdi() { damaged(Format::Vdi, 200, 20); }
#[test]
fn sound_raw() { sound(Format::Raw, 200); }
#[test]
fn damaged_raw() { damaged(Format::Raw, 200, 20); }
#[test]
fn sound_vhdx() { sound(Format::Vhdx, 60); }
#[test]
fn damaged_vhdx() { damaged(Format::Vhdx, 60, 30); }
#[test]
fn sound_qcow2() { sound(Format::Qcow2, 100); }
#[test]
fn damaged_qcow2() { damaged(Format::Qcow2, 100, 30); }
#[test]
fn sound_vmdk() { sound(Format::Vmdk, 100); }
#[test]
fn damaged_vmdk() { damaged(Format::Vmdk, 100, 30); }
