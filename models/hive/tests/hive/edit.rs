//! Edits: hivex reads them back, and nothing else changes.

use crate::common::{assert_same, dump, foreign, have_hivex, hivex_dump};
use drylab_block::{Limits, le_u32};
use drylab_hive::{Hive, HiveEditor, RegType};

const LIMITS: Limits = Limits::DEFAULT;

fn by_name(name: &str) -> Option<Vec<u8>> {
    foreign()
        .into_iter()
        .find(|file| file.name == name)
        .map(|file| file.bytes)
}

/// What a converter does to a Windows guest: a boot-start service with its critical device.
fn add_driver(editor: &mut HiveEditor, set: &str) {
    let service = format!(r"{set}\Services\viostor");
    let device = format!(
        r"{set}\Control\CriticalDeviceDatabase\pci#ven_1af4&dev_1001&subsys_00021af4&rev_00"
    );
    for key in [
        format!(r"{service}\Parameters\PnpInterface"),
        format!(r"{service}\Enum"),
        device.clone(),
    ] {
        assert!(editor.create_key(&key).unwrap());
        assert!(
            !editor.create_key(&key.to_uppercase()).unwrap(),
            "a key is found in any case"
        );
    }
    for (name, number) in [("Type", 1), ("Start", 0), ("ErrorControl", 1)] {
        editor.set_u32(&service, name, number).unwrap();
    }
    editor
        .set_string(&service, "Group", RegType::SZ, "SCSI miniport")
        .unwrap();
    editor
        .set_string(
            &service,
            "ImagePath",
            RegType::EXPAND_SZ,
            r"system32\drivers\viostor.sys",
        )
        .unwrap();
    editor
        .set_u32(&format!(r"{service}\Parameters\PnpInterface"), "5", 1)
        .unwrap();
    editor
        .set_string(&device, "Service", RegType::SZ, "viostor")
        .unwrap();
    editor
        .set_string(
            &device,
            "ClassGUID",
            RegType::SZ,
            "{4D36E97B-E325-11CE-BFC1-08002BE10318}",
        )
        .unwrap();
}

#[test]
fn a_driver_added_to_a_real_system_hive_is_read_by_hivex_and_nothing_else_changes() {
    let Some(bytes) = by_name("regipy__regipy_tests_data_SYSTEM.xz") else {
        return;
    };
    let before = dump(&bytes);
    let mut editor = HiveEditor::open(bytes.clone(), &LIMITS).unwrap();
    add_driver(&mut editor, "ControlSet001");
    editor
        .set_u32(r"ControlSet001\Services\intelide", "Start", 3)
        .unwrap();
    let grown = editor.grown_bytes();
    let edited = editor.finish().unwrap();
    assert_eq!(edited.len() as u64, bytes.len() as u64 + grown);
    assert_eq!(
        grown, 12_288,
        "the list of 1,000 services moves to a bin of its own, the rest to free cells"
    );
    let after = dump(&edited);
    let lost: Vec<&String> = before
        .iter()
        .filter(|block| after.binary_search(block).is_err())
        .collect();
    assert_eq!(
        lost.len(),
        1,
        "only the key of intelide is another: {lost:#?}"
    );
    assert!(
        lost[0].starts_with(r"[\ControlSet001\services\intelide]"),
        "{lost:?}"
    );
    assert_eq!(
        after.len(),
        before.len() + 5,
        "viostor, Parameters, PnpInterface, Enum and the device"
    );
    if have_hivex() {
        assert_same(
            "SYSTEM with viostor",
            &after,
            &hivex_dump("edited-SYSTEM", &edited).unwrap(),
        );
    }
}

#[test]
fn an_edit_makes_sequence_numbers_and_checksum_right_and_no_edit_changes_no_byte() {
    let empty = HiveEditor::empty(&LIMITS).unwrap().finish().unwrap();
    assert_eq!(
        HiveEditor::open(empty.clone(), &LIMITS)
            .unwrap()
            .finish()
            .unwrap(),
        empty
    );
    let mut editor = HiveEditor::open(empty.clone(), &LIMITS).unwrap();
    editor.set_u32("", "Number", 7).unwrap();
    let edited = editor.finish().unwrap();
    assert_eq!(le_u32(&edited, 4), Some(2));
    assert_eq!(le_u32(&edited, 8), Some(2));
    let hive = Hive::open(edited, &LIMITS).unwrap();
    assert_eq!(hive.findings(), []);
    assert_eq!(
        hive.root()
            .unwrap()
            .value("number")
            .unwrap()
            .unwrap()
            .as_u32(),
        Some(7)
    );
}

#[test]
fn values_of_every_length_around_the_bounds_read_back_here_and_in_hivex() {
    let mut editor = HiveEditor::empty(&LIMITS).unwrap();
    let lengths = [
        0usize, 1, 2, 3, 4, 5, 8, 4095, 16343, 16344, 16345, 32688, 32689, 70000,
    ];
    let data = |length: usize, salt: usize| -> Vec<u8> {
        (0..length)
            .map(|at| ((at * 7 + at / 256 + salt) % 251) as u8)
            .collect()
    };
    for round in 0..3 {
        for (index, length) in lengths.iter().enumerate() {
            // Every value is given each length in turn, so that data move in and out of cells and segments.
            let length =
                lengths[(index + round * 5) % lengths.len()].max(*length * usize::from(round == 0));
            editor
                .set_value(
                    "",
                    &format!("v{index}"),
                    RegType::BINARY,
                    &data(length, round),
                )
                .unwrap();
        }
    }
    let bytes = editor.clone().finish().unwrap();
    let hive = Hive::open(bytes.as_slice(), &LIMITS).unwrap();
    for index in 0..lengths.len() {
        let length = lengths[(index + 10) % lengths.len()];
        let value = hive
            .root()
            .unwrap()
            .value(&format!("V{index}"))
            .unwrap()
            .unwrap();
        assert_eq!(
            value.as_binary(),
            data(length, 2),
            "v{index} of {length} bytes"
        );
    }
    if have_hivex() {
        assert_same(
            "lengths",
            &dump(&bytes),
            &hivex_dump("lengths", &bytes).unwrap(),
        );
    }
    for index in 0..lengths.len() {
        assert!(editor.delete_value("", &format!("V{index}")).unwrap());
    }
    let used = editor.free_bytes();
    let emptied = editor.finish().unwrap();
    assert_eq!(dump(&emptied), ["[\\]"]);
    let bins = (emptied.len() - 4096) as u64;
    assert!(
        used + 0x400 > bins - bins / 4096 * 0x20,
        "all cells came back: {used} of {bins} bytes are free"
    );
}

#[test]
fn many_keys_are_sorted_found_and_removed_again() {
    let mut editor = HiveEditor::empty(&LIMITS).unwrap();
    let free = editor.free_bytes();
    let name = |index: u32| format!("Key{:03}", index * 7919 % 700);
    for index in 0..700 {
        assert!(
            editor
                .create_key(&format!(r"Services\{}", name(index)))
                .unwrap()
        );
    }
    editor.create_key(r"Services\日本語").unwrap();
    editor.create_key(r"Services\Ärger").unwrap();
    let bytes = editor.clone().finish().unwrap();
    let hive = Hive::open(bytes.as_slice(), &LIMITS).unwrap();
    let names: Vec<String> = hive
        .key("services")
        .unwrap()
        .unwrap()
        .subkeys()
        .unwrap()
        .iter()
        .map(|key| key.name().to_uppercase())
        .collect();
    assert!(names.is_sorted(), "Windows searches a list by halves");
    assert_eq!(names.len(), 702);
    assert!(hive.key(r"SERVICES\äRGER").unwrap().is_some());
    if have_hivex() {
        assert_same(
            "many keys",
            &dump(&bytes),
            &hivex_dump("many-keys", &bytes).unwrap(),
        );
    }
    let grown = editor.grown_bytes();
    assert!(editor.delete_key("services").unwrap());
    assert!(!editor.delete_key("services").unwrap());
    // What a bin gives on growing is 32 bytes of header less.
    assert!(
        editor.free_bytes() + grown / 4096 * 0x20 >= free + grown,
        "every cell came back"
    );
    let bytes = editor.finish().unwrap();
    assert_eq!(dump(&bytes), ["[\\]"]);
    if have_hivex() {
        assert_same(
            "emptied",
            &dump(&bytes),
            &hivex_dump("emptied", &bytes).unwrap(),
        );
    }
}

#[test]
fn keys_enter_and_leave_an_index_of_lists() {
    let Some(bytes) = by_name("yarp__hives_for_tests_ManySubkeysHive") else {
        return;
    };
    let hive = Hive::open(bytes.as_slice(), &LIMITS).unwrap();
    let parent = hive
        .walk()
        .unwrap()
        .flatten()
        .find(|key| key.subkeys().is_ok_and(|keys| keys.len() > 2000))
        .unwrap();
    let path = parent.path().to_owned();
    let mut editor = HiveEditor::open(bytes.clone(), &LIMITS).unwrap();
    for name in ["aaaa", "zzzz", "2500x", "Mitte"] {
        assert!(editor.create_key(&format!("{path}\\{name}")).unwrap());
    }
    let edited = editor.clone().finish().unwrap();
    assert_eq!(dump(&edited).len(), dump(&bytes).len() + 4);
    if have_hivex() {
        assert_same("ri", &dump(&edited), &hivex_dump("ri", &edited).unwrap());
    }
    for name in ["aaaa", "zzzz", "2500x", "Mitte"] {
        assert!(editor.delete_key(&format!("{path}\\{name}")).unwrap());
    }
    let restored = editor.finish().unwrap();
    assert_same("ri restored", &dump(&restored), &dump(&bytes));
}

#[test]
fn the_editor_refuses_what_it_cannot_keep_whole() {
    let mut editor = HiveEditor::empty(&LIMITS).unwrap();
    let missing = editor
        .set_u32("No such key", "x", 1)
        .unwrap_err()
        .to_string();
    assert!(missing.contains("No such key"), "{missing}");
    assert!(editor.create_key(&"n".repeat(256)).is_err());
    assert!(editor.delete_key("").is_err());
    let mut tight = LIMITS;
    tight.file_bytes_max = 16 << 10;
    let mut editor = HiveEditor::empty(&tight).unwrap();
    assert!(
        editor
            .set_value("", "large", RegType::BINARY, &[1; 20_000])
            .is_err()
    );
    assert_eq!(
        dump(&editor.finish().unwrap()),
        ["[\\]"],
        "a refused edit leaves a readable hive"
    );
}
