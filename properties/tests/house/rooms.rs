//! Rooms: top-level entries, crates, who uses whom, what every crate says of itself.

use crate::{files, none, read, root};
use std::collections::BTreeMap;
use toml::Table;

/// Who may use whom, dependencies of its own dependencies included. What is not here is not allowed.
const MAY_USE: [(&str, &[&str]); 19] = [
    ("block", &[]),
    ("catalog", &[]),
    ("image", &["block"]),
    ("appliance", &["block"]),
    ("volume", &["block"]),
    ("hive", &["block"]),
    ("filesystem", &["block", "volume"]),
    ("network", &["catalog"]),
    (
        "guest",
        &[
            "block",
            "catalog",
            "filesystem",
            "hive",
            "network",
            "volume",
        ],
    ),
    (
        "hypervisor",
        &["appliance", "block", "catalog", "image", "network"],
    ),
    (
        "converter",
        &[
            "appliance",
            "block",
            "catalog",
            "filesystem",
            "guest",
            "hive",
            "image",
            "volume",
        ],
    ),
    ("kernel", &[]),
    ("scenario", &["catalog", "kernel"]),
    ("pipeline", &["MODELS", "kernel", "scenario"]),
    ("campaign", &["MODELS", "kernel", "pipeline", "scenario"]),
    // A report shows what a campaign found, so it stands above it.
    (
        "report",
        &["MODELS", "campaign", "kernel", "pipeline", "scenario"],
    ),
    // Images and damages to them: for the command line, the laws and the fuzz targets.
    ("specimen", &["block", "image"]),
    (
        "cli",
        &[
            "MODELS", "campaign", "kernel", "pipeline", "report", "scenario", "specimen",
        ],
    ),
    (
        "properties",
        &[
            "MODELS", "campaign", "kernel", "pipeline", "report", "scenario", "specimen",
        ],
    ),
];
const MODELS: [&str; 11] = [
    "appliance",
    "block",
    "catalog",
    "converter",
    "filesystem",
    "guest",
    "hive",
    "hypervisor",
    "image",
    "network",
    "volume",
];
/// Crates that read bytes from outside: indexing, overflow, casts and panics are errors there.
const READERS: [&str; 9] = [
    "appliance",
    "block",
    "converter",
    "filesystem",
    "guest",
    "hive",
    "image",
    "network",
    "volume",
];
const DENIED: [&str; 6] = [
    "clippy::indexing_slicing",
    "clippy::arithmetic_side_effects",
    "clippy::as_conversions",
    "clippy::unwrap_used",
    "clippy::expect_used",
    "clippy::panic",
];

/// Folder and manifest of every crate of the workspace.
fn manifests() -> Vec<(String, Table)> {
    let mut found = Vec::new();
    for path in files("") {
        let Some(folder) = path.strip_suffix("/Cargo.toml") else {
            continue;
        };
        if folder != "fuzz" {
            let table = read(&path)
                .parse()
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            found.push((folder.to_owned(), table));
        }
    }
    found
}

fn short(folder: &str) -> &str {
    folder.rsplit('/').next().unwrap_or(folder)
}

/// Names under a table of a manifest, `[target.….dependencies]` included for `dependencies`.
fn names(manifest: &Table, section: &str) -> Vec<String> {
    let of = |table: &Table| -> Vec<String> {
        let section = table.get(section).and_then(toml::Value::as_table);
        section
            .map(|section| section.keys().cloned().collect())
            .unwrap_or_default()
    };
    let mut all = of(manifest);
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        all.extend(
            targets
                .values()
                .filter_map(toml::Value::as_table)
                .flat_map(of),
        );
    }
    all
}

fn ours(manifest: &Table, section: &str) -> Vec<String> {
    let names = names(manifest, section).into_iter();
    names
        .filter_map(|name| name.strip_prefix("drylab-").map(str::to_owned))
        .collect()
}

/// Dependencies that point upward or sideways, and models that use the simulator, tests included.
fn wrong_directions(manifests: &[(String, Table)]) -> Vec<String> {
    let table: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    let mut wrong = Vec::new();
    for (folder, manifest) in manifests {
        let Some(allowed) = table.get(short(folder)) else {
            wrong.push(format!("{folder}: not a room of the house"));
            continue;
        };
        let may = |name: &str| {
            allowed.contains(&name) || (allowed.contains(&"MODELS") && MODELS.contains(&name))
        };
        for name in ours(manifest, "dependencies")
            .into_iter()
            .chain(ours(manifest, "build-dependencies"))
        {
            if !may(&name) {
                wrong.push(format!("{folder} may not use {name}"));
            }
        }
        for name in ours(manifest, "dev-dependencies") {
            if folder.starts_with("models/") && !MODELS.contains(&name.as_str()) {
                wrong.push(format!("{folder}: its tests may not use {name}"));
            }
        }
    }
    wrong
}

/// Crates with a source of randomness that are not the kernel.
fn wrong_randomness(manifests: &[(String, Table)]) -> Vec<String> {
    const SOURCES: [&str; 8] = [
        "rand",
        "rand_core",
        "rand_chacha",
        "rand_xoshiro",
        "rand_pcg",
        "getrandom",
        "fastrand",
        "oorandom",
    ];
    let mut wrong = Vec::new();
    for (folder, manifest) in manifests {
        for section in ["dependencies", "build-dependencies"] {
            for name in names(manifest, section) {
                if SOURCES.contains(&name.as_str()) && folder != "sim/kernel" {
                    wrong.push(format!(
                        "{folder} uses {name}; randomness comes from sim/kernel"
                    ));
                }
            }
        }
    }
    wrong
}

/// Entries of the root that the plan does not have.
fn wrong_entries(names: &[String]) -> Vec<String> {
    const KNOWN: [&str; 8] = [
        "Cargo.toml",
        "Cargo.lock",
        "sim",
        "models",
        "properties",
        "fuzz",
        "corpora",
        "README.md",
    ];
    let known = |name: &str| {
        KNOWN.contains(&name)
            || name.starts_with("LICENSE")
            || name.starts_with('.')
            || name == "target"
    };
    let wrong = names.iter().filter(|name| !known(name));
    wrong
        .map(|name| format!("{name}: not an entry of the plan"))
        .collect()
}

/// What the root of a crate must say: a page about it, and for readers the strict list. `lib` is its first file.
fn wrong_root(folder: &str, manifest: &Table, lib: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if !lib.starts_with("//! ") {
        wrong.push(format!("{folder}: no page about the crate"));
    }
    let inherits = manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"));
    if inherits.and_then(toml::Value::as_bool) != Some(true) {
        wrong.push(format!("{folder}: does not take the workspace's lints"));
    }
    if READERS.contains(&short(folder)) {
        let code = crate::code::Code::of(lib).bare;
        let strict: String = code
            .split("cfg_attr(")
            .nth(1)
            .unwrap_or_default()
            .split(")]")
            .next()
            .unwrap_or_default()
            .into();
        let words: Vec<&str> = strict
            .split(|c: char| c.is_whitespace() || "(),".contains(c))
            .collect();
        if !words.contains(&"deny") || !words.contains(&"not") {
            wrong.push(format!(
                "{folder}: a reader of bytes without `cfg_attr(not(test), deny(…))`"
            ));
        }
        for lint in DENIED.iter().filter(|lint| !words.contains(lint)) {
            wrong.push(format!(
                "{folder}: a reader of bytes that does not deny {lint}"
            ));
        }
    }
    wrong
}

#[test]
fn nothing_points_upward() {
    none(&wrong_directions(&manifests()));
}

#[test]
fn randomness_has_one_source() {
    none(&wrong_randomness(&manifests()));
}

#[test]
fn the_root_has_only_the_entries_of_the_plan() {
    let entries = std::fs::read_dir(root()).expect("the root is readable");
    let names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("the root is readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    none(&wrong_entries(&names));
}

#[test]
fn every_crate_has_its_page_and_its_lints() {
    let workspace: Table = read("Cargo.toml")
        .parse()
        .expect("the workspace has a manifest");
    let unsafe_code = &workspace["workspace"]["lints"]["rust"]["unsafe_code"];
    assert_eq!(unsafe_code.as_str(), Some("forbid"));
    let mut wrong = Vec::new();
    for (folder, manifest) in manifests() {
        let file = ["src/lib.rs", "src/main.rs"].map(|name| format!("{folder}/{name}"));
        let file = file.iter().find(|path| root().join(path).exists());
        let file = file.unwrap_or_else(|| panic!("{folder} has a lib.rs or a main.rs"));
        wrong.extend(wrong_root(&folder, &manifest, &read(file)));
    }
    none(&wrong);
}

#[test]
fn the_table_of_directions_has_no_circle_and_names_every_crate() {
    // Each row only names rows above it, so a circle cannot be written down.
    for (index, (name, allowed)) in MAY_USE.iter().enumerate() {
        let above: Vec<&str> = MAY_USE[..index].iter().map(|(name, _)| *name).collect();
        for used in allowed.iter().filter(|used| **used != "MODELS") {
            assert!(
                above.contains(used),
                "{name} uses {used}, which stands below it"
            );
        }
    }
    let mut named: Vec<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    let all = manifests();
    let mut there: Vec<&str> = all.iter().map(|(folder, _)| short(folder)).collect();
    named.sort_unstable();
    there.sort_unstable();
    assert_eq!(named, there);
}

fn sample(folder: &str, manifest: &str) -> Vec<(String, Table)> {
    vec![(
        folder.to_owned(),
        manifest.parse().expect("the sample is TOML"),
    )]
}

#[test]
fn the_checks_of_crates_find_bad_samples() {
    let up = sample(
        "models/image",
        "[dependencies]\ndrylab-guest.workspace = true\ndrylab-block.workspace = true",
    );
    assert_eq!(wrong_directions(&up), ["models/image may not use guest"]);
    let up = sample(
        "sim/scenario",
        "[target.'cfg(unix)'.dependencies]\ndrylab-pipeline = \"1\"",
    );
    assert_eq!(wrong_directions(&up), ["sim/scenario may not use pipeline"]);
    let tests = sample(
        "models/block",
        "[dev-dependencies]\ndrylab-kernel = \"1\"\ndrylab-image = \"1\"",
    );
    assert_eq!(
        wrong_directions(&tests),
        ["models/block: its tests may not use kernel"]
    );
    assert_eq!(wrong_directions(&sample("models/attic", "")).len(), 1);

    let random = "[dependencies]\nrand_chacha = \"1\"\n[dev-dependencies]\nfastrand = \"1\"";
    assert_eq!(wrong_randomness(&sample("sim/pipeline", random)).len(), 1);
    assert_eq!(wrong_randomness(&sample("sim/kernel", random)), [""; 0]);

    let names = ["notes.txt", "sim", ".ci", "LICENSE-MIT"].map(str::to_owned);
    assert_eq!(
        wrong_entries(&names),
        ["notes.txt: not an entry of the plan"]
    );

    let manifest = &sample("models/hive", "[lints]\nworkspace = true")[0].1;
    let strict = format!(
        "//! A page.\n#![cfg_attr(not(test), deny({}))]\n",
        DENIED.join(", ")
    );
    assert_eq!(wrong_root("models/hive", manifest, &strict), [""; 0]);
    let loose = strict.replace(", clippy::panic", " /* clippy::panic */");
    assert_eq!(wrong_root("models/hive", manifest, &loose).len(), 1);
    assert_eq!(wrong_root("models/hive", &Table::new(), "mod a;").len(), 9);
}
