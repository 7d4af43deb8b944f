//! Hives that nobody of this house made: what hivex reads in them, we read.

use crate::common::{assert_same, foreign, have_hivex, hivex_dump, our_dump};
use drylab_block::Limits;
use drylab_hive::Hive;

#[test]
fn foreign_hives_read_as_hivex_reads_them() {
    if !have_hivex() {
        return;
    }
    let (mut compared, mut keys, mut values) = (0, 0, 0);
    let files = foreign();
    if files.is_empty() {
        return;
    }
    for file in files {
        if !file.wellformed || file.kind != "hive" {
            continue;
        }
        let theirs = hivex_dump(&file.name, &file.bytes);
        let hive = Hive::open(file.bytes, &Limits::DEFAULT)
            .unwrap_or_else(|error| panic!("{}: {error}", file.name));
        let (ours, theirs) = match (our_dump(&hive), theirs) {
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (ours, theirs) => {
                panic!(
                    "{}: we say {:?}, hivex says {:?}",
                    file.name,
                    ours.err(),
                    theirs.err()
                );
            }
        };
        assert_same(&file.name, &ours, &theirs);
        compared += 1;
        keys += ours.len();
        values += ours
            .iter()
            .map(|block| block.lines().count() - 1)
            .sum::<usize>();
    }
    eprintln!("{compared} hives, {keys} keys, {values} values as hivex reads them");
    assert!(compared > 35, "only {compared} hives were compared");
}

#[test]
fn no_foreign_file_makes_the_reader_panic() {
    let mut opened = 0;
    for file in foreign() {
        drylab_hive::fuzz::hive(&file.bytes);
        match Hive::open(file.bytes.as_slice(), &Limits::DEFAULT) {
            Ok(_) => opened += 1,
            Err(error) => assert!(
                !file.wellformed || file.kind != "hive",
                "{}: {error}",
                file.name
            ),
        }
        // Cut short at awkward places.
        for length in [
            0,
            511,
            4096,
            4100,
            4128,
            8192,
            file.bytes.len() / 2,
            file.bytes.len().saturating_sub(1),
        ] {
            drylab_hive::fuzz::hive(&file.bytes[..length.min(file.bytes.len())]);
        }
    }
    eprintln!("{opened} foreign files opened");
}

#[test]
fn damage_is_told_with_its_place() {
    let limits = Limits::DEFAULT;
    for file in foreign() {
        let said = match Hive::open(file.bytes, &limits) {
            Err(error) => error.to_string(),
            Ok(hive) => {
                let damage = hive
                    .walk()
                    .unwrap()
                    .find_map(Result::err)
                    .map(|error| error.to_string());
                damage
                    .or_else(|| {
                        hive.findings()
                            .first()
                            .map(|finding| finding.message.clone())
                    })
                    .unwrap_or_default()
            }
        };
        let expected = match file.name.as_str() {
            "plaso__regf_corrupt_sub_key_list.hiv" => "key cell at 0x4480 is free",
            "yarp__hives_for_tests_TruncatedHive" => "5000 subkeys claimed",
            "yarp__hives_for_tests_TruncatedNameHive" => "holds no whole key",
            "regipy__regipy_tests_data_UsrClass.dat.LOG1" => "unsupported",
            _ => continue,
        };
        assert!(said.contains(expected), "{}: {said}", file.name);
    }
}
