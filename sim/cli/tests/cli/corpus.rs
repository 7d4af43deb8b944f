//! `drylab corpus generate`: images with damages, and a manifest that says what must come of them.

use crate::support::{data, run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// All files below a folder, by their names.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the folder is readable").path();
        let name = path
            .file_name()
            .expect("it has a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            let below = files(&path).into_iter();
            found.extend(below.map(|(other, bytes)| (format!("{name}/{other}"), bytes)));
        } else {
            found.insert(name, std::fs::read(&path).expect("the file is readable"));
        }
    }
    found
}

fn generate(folder: &Path, args: &str) -> Vec<Value> {
    let folder = folder.to_string_lossy().into_owned();
    let mut all: Vec<&str> = ["corpus", "generate"]
        .into_iter()
        .chain(args.split(' '))
        .collect();
    all.extend(["--out", folder.as_str()]);
    data(&all);
    let list =
        std::fs::read_to_string(format!("{folder}/manifest.jsonl")).expect("there is a manifest");
    list.lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect()
}

#[test]
fn the_same_arguments_write_the_same_bytes_and_another_seed_writes_others() {
    let folder = tempfile::tempdir().expect("a folder");
    for format in ["raw", "vmdk", "vhd", "qcow2", "vdi"] {
        let [first, again, other] =
            ["a", "b", "c"].map(|name| folder.path().join(format!("{format}-{name}")));
        let args = |seed| format!("--format {format} --seed {seed} --corrupt 2 --count 3");
        generate(&first, &args(5));
        generate(&again, &args(5));
        generate(&other, &args(6));
        assert!(files(&first) == files(&again), "{format}");
        assert!(files(&first) != files(&other), "{format}");
    }
}

#[test]
fn the_manifest_tells_files_and_damages_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = generate(
        folder.path(),
        "--format vhd --subformat differencing --seed 0x10 --corrupt 1 --count 4",
    );
    assert_eq!(lines.len(), 4);
    for (line, seed) in lines.iter().zip(0x10u64..) {
        assert_eq!(
            (line["manifest"].as_u64(), line["seed"].as_u64()),
            (Some(1), Some(seed))
        );
        assert_eq!(
            (&line["format"], &line["subformat"]),
            (&"vhd".into(), &"differencing".into())
        );
        let place = folder.path().join(line["folder"].as_str().expect("a name"));
        let names: Vec<&str> = line["files"]
            .as_array()
            .expect("files")
            .iter()
            .filter_map(|file| file["name"].as_str())
            .collect();
        assert_eq!(names, ["disk.vhd", "parent.vhd"]);
        for file in line["files"].as_array().expect("files") {
            let bytes = std::fs::read(place.join(file["name"].as_str().expect("a name")))
                .expect("it is there");
            assert_eq!(file["bytes"].as_u64(), u64::try_from(bytes.len()).ok());
            assert_eq!(file["sha256"].as_str().map(str::len), Some(64));
        }
        for damage in line["corruptions"].as_array().expect("damages") {
            let bytes = std::fs::read(place.join(damage["file"].as_str().expect("a file")))
                .expect("it is there");
            let at =
                usize::try_from(damage["offset"].as_u64().expect("an offset")).expect("it fits");
            let new = damage["new"].as_str().expect("bytes");
            let there: String = bytes[at..at + new.len() / 2]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(there, new, "{damage}");
            assert_ne!(damage["old"], damage["new"]);
            assert!(
                !damage["expected"].as_array().expect("answers").is_empty(),
                "{damage}"
            );
        }
    }
}

#[test]
fn files_that_are_there_stay_and_kinds_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    generate(folder.path(), "--format vdi --seed 1");
    let before = files(folder.path());
    let name = folder.path().to_string_lossy().into_owned();
    let again = run(&[
        "corpus", "generate", "--format", "vdi", "--seed", "1", "--out", &name,
    ]);
    assert_eq!(again.code, 3);
    assert!(files(folder.path()) == before);
    let strange = run(&[
        "corpus",
        "generate",
        "--format",
        "vmdk",
        "--subformat",
        "monolithicsprase",
        "--seed",
        "1",
        "--out",
        &name,
    ]);
    assert_eq!(strange.code, 1);
    assert!(strange.err.contains("monolithicSparse"), "{}", strange.err);
}
