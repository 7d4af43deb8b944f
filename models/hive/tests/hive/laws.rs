//! Laws over random edits and random damage.

use crate::common::{dump, foreign};
use drylab_block::Limits;
use drylab_hive::{Hive, HiveEditor, RegType};
use proptest::prelude::*;
use std::collections::BTreeMap;

const LIMITS: Limits = Limits::DEFAULT;

#[derive(Clone, Debug)]
enum Edit {
    Set(u8, u8, u32, Vec<u8>),
    DeleteValue(u8, u8),
    Create(u8),
    DeleteKey(u8),
}

fn edits() -> impl Strategy<Value = Edit> {
    let data = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..64),
        1 => (0usize..40_000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ];
    prop_oneof![
        4 => (0u8..8, 0u8..6, 0u32..12, data).prop_map(|(key, value, kind, data)| Edit::Set(key, value, kind, data)),
        1 => (0u8..8, 0u8..6).prop_map(|(key, value)| Edit::DeleteValue(key, value)),
        2 => (0u8..8).prop_map(Edit::Create),
        1 => (0u8..8).prop_map(Edit::DeleteKey),
    ]
}

/// Keys of a small tree; some lie below others.
const KEYS: [&str; 8] = [
    "A",
    r"A\b",
    r"A\b\ü",
    "C",
    r"C\日本",
    "longer name",
    r"A\x",
    r"longer name\y",
];
const VALUES: [&str; 6] = ["", "Start", "ImagePath", "日", "Größe", "x"];

type Model = BTreeMap<String, BTreeMap<String, (u32, Vec<u8>)>>;

fn apply(editor: &mut HiveEditor, model: &mut Model, edit: &Edit) {
    match edit {
        Edit::Set(key, value, kind, data) => {
            let (path, name) = (KEYS[usize::from(*key)], VALUES[usize::from(*value)]);
            let done = editor.set_value(path, name, RegType(*kind), data).is_ok();
            assert_eq!(
                done,
                model.contains_key(path),
                "a value goes to a key that is there"
            );
            if let Some(values) = model.get_mut(path) {
                values.insert(name.to_owned(), (*kind, data.clone()));
            }
        }
        Edit::DeleteValue(key, value) => {
            let (path, name) = (KEYS[usize::from(*key)], VALUES[usize::from(*value)]);
            let gone = editor.delete_value(path, name).unwrap_or(false);
            assert_eq!(
                gone,
                model
                    .get_mut(path)
                    .is_some_and(|values| values.remove(name).is_some())
            );
        }
        Edit::Create(key) => {
            let path = KEYS[usize::from(*key)];
            assert_eq!(editor.create_key(path).unwrap(), !model.contains_key(path));
            for (at, _) in path.match_indices('\\').chain([(path.len(), "")]) {
                model.entry(path[..at].to_owned()).or_default();
            }
        }
        Edit::DeleteKey(key) => {
            let path = KEYS[usize::from(*key)];
            assert_eq!(editor.delete_key(path).unwrap(), model.contains_key(path));
            model.retain(|key, _| key != path && !key.starts_with(&format!("{path}\\")));
        }
    }
}

fn read(bytes: &[u8]) -> Model {
    let hive = Hive::open(bytes, &LIMITS).unwrap();
    assert_eq!(hive.findings(), []);
    let keys = hive
        .walk()
        .unwrap()
        .map(|key| key.unwrap())
        .filter(|key| !key.path().is_empty());
    keys.map(|key| {
        let values = key.values().unwrap();
        let values = values
            .iter()
            .map(|value| (value.name().to_owned(), (value.kind().0, value.as_binary())));
        (key.path().to_owned(), values.collect())
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_edits_reads_back_as_a_map_would(list in proptest::collection::vec(edits(), 1..60)) {
        let mut editor = HiveEditor::empty(&LIMITS).unwrap();
        let mut model = Model::new();
        for edit in &list {
            apply(&mut editor, &mut model, edit);
        }
        let bytes = editor.finish().unwrap();
        prop_assert_eq!(read(&bytes), model);
        // The editor's own check: every cell has one owner still.
        prop_assert!(HiveEditor::open(bytes, &LIMITS).is_ok());
    }

    #[test]
    fn a_hive_damaged_anywhere_never_panics(
        changes in proptest::collection::vec((0usize..8192, any::<u8>()), 1..8),
        length in prop_oneof![3 => Just(usize::MAX), 1 => 0usize..9000],
    ) {
        let mut bytes = sample();
        bytes.truncate(length);
        for (at, byte) in changes {
            if let Some(target) = bytes.get_mut(at) {
                *target = byte;
            }
        }
        drylab_hive::fuzz::hive(&bytes);
    }
}

fn sample() -> Vec<u8> {
    let mut editor = HiveEditor::empty(&LIMITS).unwrap();
    for path in KEYS {
        editor.create_key(path).unwrap();
        editor.set_u32(path, "Start", 3).unwrap();
        editor
            .set_string(
                path,
                "ImagePath",
                RegType::EXPAND_SZ,
                r"system32\drivers\x.sys",
            )
            .unwrap();
    }
    editor.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn real_hives_damaged_in_their_structures_never_panic(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..64, any::<u8>()), 1..5),
    ) {
        let hives = real();
        if !hives.is_empty() {
            let (mut bytes, cells) = which.get(hives).clone();
            for (cell, at, byte) in changes {
                // Damage goes where structures are: the base block, or the first bytes of a cell.
                let at = cell.get(&cells) + at;
                if let Some(target) = bytes.get_mut(at) {
                    *target = byte;
                }
            }
            drylab_hive::fuzz::hive(&bytes);
        }
    }
}

/// Small real hives with the places of their cells, read once.
fn real() -> &'static [(Vec<u8>, Vec<usize>)] {
    static HIVES: std::sync::OnceLock<Vec<(Vec<u8>, Vec<usize>)>> = std::sync::OnceLock::new();
    HIVES.get_or_init(|| {
        let small = foreign()
            .into_iter()
            .filter(|file| file.wellformed && file.kind == "hive" && file.bytes.len() <= 262_144);
        small
            .map(|file| {
                let mut places = vec![0usize];
                let mut at = 4096 + 32;
                while let Some(size) = drylab_block::le_u32(&file.bytes, at) {
                    let next = at + (size as i32).unsigned_abs().max(8) as usize;
                    if (size as i32) < 0 {
                        places.push(at);
                    }
                    at = if next.is_multiple_of(4096) {
                        next + 32
                    } else {
                        next
                    };
                }
                (file.bytes, places)
            })
            .collect()
    })
}

#[test]
fn one_value_set_in_a_real_hive_leaves_every_other_key_and_value() {
    let mut edited = 0;
    for file in foreign()
        .into_iter()
        .filter(|file| file.wellformed && file.kind == "hive" && file.bytes.len() <= 800_000)
    {
        let Ok(mut editor) = HiveEditor::open(file.bytes.clone(), &LIMITS) else {
            panic!(
                "{}: the editor refuses a well-formed hive: {:?}",
                file.name,
                HiveEditor::open(file.bytes, &LIMITS).err()
            );
        };
        let before = dump(&file.bytes);
        let hive = Hive::open(file.bytes.as_slice(), &LIMITS).unwrap();
        let Some(key) = hive
            .walk()
            .unwrap()
            .flatten()
            .filter(|key| key.values().is_ok_and(|values| !values.is_empty()))
            .last()
        else {
            continue;
        };
        let name = key.values().unwrap()[0].name().to_owned();
        editor
            .set_value(key.path(), &name, RegType::BINARY, &[0xA5; 777])
            .unwrap();
        let bytes = editor.finish().unwrap();
        let after = dump(&bytes);
        let lost = before
            .iter()
            .filter(|block| after.binary_search(block).is_err())
            .count();
        assert_eq!(
            (lost, before.len()),
            (1, after.len()),
            "{}: {}",
            file.name,
            key.path()
        );
        let hive = Hive::open(bytes, &LIMITS).unwrap();
        let value = hive
            .key(key.path())
            .unwrap()
            .unwrap()
            .value(&name)
            .unwrap()
            .unwrap();
        assert_eq!(value.as_binary(), [0xA5; 777], "{}", file.name);
        edited += 1;
    }
    eprintln!("{edited} real hives edited");
    assert!(
        foreign().is_empty() || edited > 15,
        "only {edited} hives were edited"
    );
}
