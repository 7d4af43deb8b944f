//! What is made is sound, and what is damaged is found.

use drylab_kernel::Streams;
use drylab_specimen::{Corruption, Format, Kind, Specimen, Stream, judge};
use std::collections::{BTreeMap, BTreeSet};

fn specimen(format: Format, subformat: &str, seed: u64) -> Specimen {
    let mut stream = Streams::new(seed).stream("specimen", 0);
    Specimen::draw(&mut Stream(|| stream.word()), format, Some(subformat))
}

fn damages(made: &Specimen, seed: u64, count: u32) -> Vec<Corruption> {
    let mut stream = Streams::new(seed).stream("damage", 0);
    let mut stream = Stream(|| stream.word());
    (0..count)
        .filter_map(|_| made.corrupt(&mut stream))
        .collect()
}

/// The first few wrong answers of each family of fields, so that a list stays readable.
fn report(wrong: &[(String, String)]) -> String {
    let mut by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (family, why) in wrong {
        by.entry(family).or_default().push(why);
    }
    let lines = by.values().flat_map(|all| all.iter().take(3));
    let lines: Vec<&str> = lines.copied().collect();
    format!("{} wrong\n{}", wrong.len(), lines.join("\n"))
}

/// Whether the reader can be judged; says so where it cannot.
fn is_checked(format: Format) -> bool {
    let checked = judge::is_checked(format);
    if !checked {
        println!(
            "skipped: the reader of {} has no whole check yet",
            format.name()
        );
    }
    checked
}

/// Images of every kind, and damages to each of them.
fn hold(format: Format, seeds: u64, each: u32) {
    if !is_checked(format) {
        return;
    }
    let mut wrong = Vec::new();
    for subformat in format.subformats() {
        for seed in 0..seeds {
            let made = specimen(format, subformat, seed);
            if let Err(why) = judge::sound(&made) {
                wrong.push((
                    (*subformat).to_owned(),
                    format!("seed {seed}: {why} {made:?}"),
                ));
                continue;
            }
            for damage in damages(&made, seed, each) {
                if let Err(why) = judge::judge(&made, &damage) {
                    let family = made.fields[damage.field].family();
                    wrong.push((
                        format!("{subformat} {family}"),
                        format!("seed {seed}: {why}"),
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", report(&wrong));
}

#[test]
fn a_raw_image_has_nothing_to_be_found() {
    hold(Format::Raw, 64, 10);
}

#[test]
fn a_vhd_is_sound_and_every_damage_to_it_is_answered_by_its_rule() {
    hold(Format::Vhd, 64, 24);
}

#[test]
fn a_vdi_is_sound_and_every_damage_to_it_is_answered_by_its_rule() {
    hold(Format::Vdi, 64, 24);
}

#[test]
fn a_vhdx_is_sound_and_every_damage_to_it_is_answered_by_its_rule() {
    hold(Format::Vhdx, 24, 24);
}

#[test]
fn a_vmdk_is_sound_and_every_damage_to_it_is_answered_by_its_rule() {
    hold(Format::Vmdk, 64, 24);
}

#[test]
fn a_qcow2_is_sound_and_every_damage_to_it_is_answered_by_its_rule() {
    hold(Format::Qcow2, 64, 24);
}

/// Of every format a few kinds, seeds and damages.
fn some(mut see: impl FnMut(&Specimen, &[Corruption])) {
    for format in Format::ALL {
        for subformat in format.subformats() {
            for seed in 0..6 {
                let made = specimen(format, subformat, seed);
                let found = damages(&made, seed, 40);
                see(&made, &found);
            }
        }
    }
}

#[test]
fn the_same_words_make_the_same_files_and_damages() {
    let mut first = Vec::new();
    for _ in 0..2 {
        let mut all = Vec::new();
        some(|made, found| {
            let files = made.damaged(found);
            let ids = files
                .iter()
                .map(|file| drylab_block::content_id(&file.bytes).unwrap());
            all.push((ids.collect::<Vec<_>>(), found.to_vec()));
        });
        if first.is_empty() {
            first = all;
        } else {
            assert!(first == all);
        }
    }
}

#[test]
fn every_code_that_is_expected_is_a_rule_of_the_format() {
    let rules: BTreeSet<&str> = drylab_image::rules().iter().map(|rule| rule.code).collect();
    let mut strange = BTreeSet::new();
    some(|made, found| {
        if judge::is_checked(made.format) {
            let codes = found
                .iter()
                .flat_map(|damage| damage.expected.codes.iter().copied());
            strange.extend(
                codes
                    .chain(made.known.iter().copied())
                    .filter(|code| !rules.contains(code)),
            );
        }
    });
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn an_answer_that_no_rule_allows_is_noticed() {
    let (mut noticed, mut all) = (0u32, 0u32);
    some(|made, found| {
        for damage in found.iter().filter(|_| judge::is_checked(made.format)) {
            // Refusals taken for findings, findings for nothing, nothing for refusals.
            let mut other = damage.clone();
            let expected = &mut other.expected;
            let strict = !expected.any
                && !expected.or_same
                && [expected.refused, expected.quiet, !expected.codes.is_empty()]
                    .iter()
                    .filter(|x| **x)
                    .count()
                    == 1;
            if !strict {
                continue;
            }
            (expected.quiet, expected.refused) = (!expected.codes.is_empty(), expected.quiet);
            expected.codes = if expected.quiet || expected.refused {
                Vec::new()
            } else {
                vec!["NO-CODE"]
            };
            // What a sound image has may hide behind what it is known for.
            let known = damage
                .expected
                .codes
                .iter()
                .any(|code| made.known.contains(code));
            let family = made.fields[damage.field].family();
            let open = judge::OPEN.iter().any(|(_, open, _)| *open == family);
            if !known && !open {
                all += 1;
                noticed += u32::from(judge::judge(made, &other).is_err());
            }
        }
    });
    assert!(all > 1000 && noticed == all, "{noticed} of {all}");
}

#[test]
fn damages_change_what_they_say_and_nothing_else_but_checksums() {
    some(|made, found| {
        for damage in found.iter().take(10) {
            let field = &made.fields[damage.field];
            let files = made.damaged(std::slice::from_ref(damage));
            let mut bytes = vec![0; field.width];
            files[field.file]
                .bytes
                .read_at(field.offset, &mut bytes)
                .unwrap();
            assert_eq!(bytes, damage.new, "{}", field.name);
            assert_ne!(damage.old, damage.new, "{}", field.name);
            assert!(Kind::of(field.class).contains(&damage.kind));
            for (old, new) in made.files.iter().zip(&files) {
                assert_eq!(old.bytes.len(), new.bytes.len());
            }
        }
    });
}

#[test]
fn every_kind_of_damage_is_drawn_and_those_of_tables_for_every_format_that_has_them() {
    let mut drawn: BTreeMap<Format, BTreeSet<Kind>> = BTreeMap::new();
    some(|made, found| {
        let kinds = found.iter().map(|damage| damage.kind);
        drawn.entry(made.format).or_default().extend(kinds);
    });
    let all: BTreeSet<Kind> = drawn.values().flatten().copied().collect();
    assert!(Kind::ALL.iter().all(|kind| all.contains(kind)), "{all:?}");
    for (format, kinds) in drawn.iter().filter(|(format, _)| **format != Format::Raw) {
        for kind in [Kind::Beyond, Kind::Alias, Kind::Swap] {
            assert!(kinds.contains(&kind), "{}: {kind:?}", format.name());
        }
    }
}
