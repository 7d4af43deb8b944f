//! Every cell of the matrix has a test or a fuzz target that shows it: `docs/matrix.md`, which the crate's documentation
//! shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What is to be there: R read, W written, C checked, P repaired, Z resized, D told by its content, H hostile files
/// survived, F fuzzed.
const CELLS: [(&str, &str); 26] = [
    ("raw", "RWCZDHF"),
    ("VMDK monolithicSparse", "RWCPZDHF"),
    ("VMDK streamOptimized", "RWCPDHF"),
    ("VMDK monolithicFlat", "RWCPZDHF"),
    ("VMDK twoGbMaxExtentFlat", "RWCPZDHF"),
    ("VMDK twoGbMaxExtentSparse", "RWCPZDHF"),
    ("VMDK vmfs", "RWCDHF"),
    ("VMDK COWD", "RCDHF"),
    ("VMDK seSparse", "RCDHF"),
    ("VMDK zeroed grains", "RWC"),
    ("VMDK snapshots", "RWC"),
    ("VHD fixed", "RWCPZDHF"),
    ("VHD dynamic", "RWCPZDHF"),
    ("VHD differencing", "RWCDHF"),
    ("VHDX fixed and dynamic", "RWCPZDHF"),
    ("VHDX log", "RP"),
    ("VHDX differencing", "RWCDHF"),
    ("qcow2 v2 and v3", "RWCPZDHF"),
    ("qcow2 zlib and zstd", "RW"),
    ("qcow2 backing file", "RW"),
    ("qcow2 data file", "RW"),
    ("qcow2 extended L2", "RWC"),
    ("qcow2 snapshots and bitmaps", "RC"),
    ("VDI dynamic and fixed", "RWCPZDHF"),
    ("VDI differencing", "RCD"),
    ("QED", "RCD"),
];

/// Formats that are only known, and those of other crates.
const OTHERS: [(&str, &str); 3] = [("qcow2 LUKS", "D"), ("Parallels", "D"), ("XVA", "RWCDHF")];

/// The lines `| format | letters | names |` of the page.
fn page() -> Vec<(String, String, Vec<String>)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/matrix.md");
    let text = std::fs::read_to_string(page).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let names = cells[2].split('`').skip(1).step_by(2).map(str::to_owned);
        (cells[0].to_owned(), cells[1].to_owned(), names.collect())
    });
    cells.skip(1).collect()
}

/// Whether `module::name` is a test of a crate, or `fuzz/name` a fuzz target.
fn is_there(name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if let Some(target) = name.strip_prefix("fuzz/") {
        return root
            .join("fuzz/fuzz_targets")
            .join(format!("{target}.rs"))
            .is_file();
    }
    let Some((module, function)) = name.rsplit_once("::") else {
        return false;
    };
    let places = match module.strip_suffix("::tests") {
        Some(module) => vec![format!("models/image/src/{}.rs", module.replace("::", "/"))],
        None => vec![
            format!("models/image/tests/image/{module}.rs"),
            format!("models/appliance/tests/descriptors/{module}.rs"),
        ],
    };
    let texts = places
        .iter()
        .filter_map(|place| std::fs::read_to_string(root.join(place)).ok());
    let wanted = format!("fn {function}(");
    texts.into_iter().any(|text| text.contains(&wanted))
}

#[test]
fn every_cell_of_the_matrix_is_shown_by_a_test_that_is_there() {
    let mut shown: BTreeMap<String, BTreeSet<char>> = BTreeMap::new();
    for (format, letters, names) in page() {
        assert!(!names.is_empty(), "{format} {letters}");
        for name in &names {
            assert!(is_there(name), "{format} {letters}: no test {name}");
        }
        shown.entry(format).or_default().extend(letters.chars());
    }
    for (format, letters) in CELLS.into_iter().chain(OTHERS) {
        let wanted: BTreeSet<char> = letters.chars().collect();
        let found = shown.remove(format).unwrap_or_default();
        let missing: String = wanted.difference(&found).collect();
        assert_eq!(missing, "", "{format}");
    }
    assert!(shown.is_empty(), "{shown:?}");
}

#[test]
fn the_documentation_of_every_format_names_its_source_its_layout_its_limits_and_what_is_missing() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let library = std::fs::read_to_string(sources.join("lib.rs")).unwrap();
    for format in ["raw", "vmdk", "qcow2", "qed", "vhd", "vhdx", "vdi"] {
        // What is not public is not shown.
        assert!(library.contains(&format!("pub mod {format};")), "{format}");
        let text = std::fs::read_to_string(sources.join(format).join("mod.rs")).unwrap();
        for part in ["Source: ", "```text", "**Limits.** ", "**Not supported.** "] {
            assert!(text.contains(&format!("//! {part}")), "{format}: {part}");
        }
    }
}
