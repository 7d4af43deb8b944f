//! Words: what is not said in models and simulator, what is said nowhere, and how long a file may be.

use crate::code::Code;
use crate::{files, none, read, sources};

/// Longest source file, in lines.
const LINES_MAX: usize = 600;

/// What would make an outcome differ from run to run, or reach outside. The command line may say the second group.
const NEVER: [(&str, &str); 9] = [
    ("HashMap", "its order differs from run to run"),
    ("HashSet", "its order differs from run to run"),
    ("RandomState", "differs from run to run"),
    ("thread_rng", "randomness comes from sim/kernel"),
    ("Instant", "time comes from sim/kernel"),
    ("SystemTime", "time comes from sim/kernel"),
    ("f32", "outcomes are integers"),
    ("f64", "outcomes are integers"),
    ("dbg!", "left behind"),
];
const COMMAND_LINE_ONLY: [(&str, &str); 8] = [
    ("std::env", "only the command line reads the environment"),
    ("std::fs", "only the command line opens files"),
    (
        "std::process",
        "only the command line starts and ends processes",
    ),
    ("std::net::TcpStream", "nothing speaks to a network"),
    ("println!", "only the command line prints"),
    ("print!", "only the command line prints"),
    ("eprintln!", "only the command line prints"),
    ("eprint!", "only the command line prints"),
];

/// The few files that may name a product by its id: where products, golden guests, tokens and what products want of an
/// image are registered. Elsewhere a product comes as a value, so that no mechanism can decide by a pair of products.
const NAMES_PRODUCTS: [&str; 4] = [
    "models/hypervisor/src/facts.rs",
    "models/image/src/profile/mod.rs",
    "sim/pipeline/src/library.rs",
    "sim/scenario/src/token.rs",
];

/// Whether `word` is `name`, or a path that begins with it or holds it as one part.
fn says(word: &str, name: &str) -> bool {
    let word = word.trim_start_matches(':');
    word == name
        || word
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with("::"))
        || (!name.contains("::") && word.split("::").any(|part| part == name))
}

fn wrong_words(path: &str, code: &Code) -> Vec<String> {
    let command_line = path.starts_with("sim/cli/");
    // Progress and its speed are shown, never stored: the command line may read a clock and divide.
    let groups: [&[(&str, &str)]; 2] = if command_line {
        [&NEVER[..4], &NEVER[8..]]
    } else {
        [&NEVER, &COMMAND_LINE_ONLY]
    };
    let mut wrong = Vec::new();
    for (line, word) in code.words() {
        for (name, why) in groups.into_iter().flatten() {
            if says(word, name) {
                wrong.push(format!("{path}:{line}: {name}: {why}"));
            }
        }
    }
    wrong
}

/// Texts that name a product, in files that may not.
fn wrong_products(path: &str, code: &Code, products: &[String]) -> Vec<String> {
    if NAMES_PRODUCTS.contains(&path) {
        return Vec::new();
    }
    let named = code.texts.iter().flat_map(|(line, text)| {
        let product = products.iter().find(|product| text.contains(*product));
        product.map(|product| {
            format!("{path}:{line}: names {product}; a mechanism takes products as values")
        })
    });
    named.collect()
}

/// Unfinished and silenced things, in any Rust file.
fn wrong_leftovers(path: &str, source: &str) -> Vec<String> {
    let code = Code::of_all(source).bare;
    let close: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let mut wrong = Vec::new();
    for name in ["todo!", "unimplemented!", "#[ignore"] {
        if close.contains(name) {
            wrong.push(format!("{path}: {name}"));
        }
    }
    let silenced = close.split("allow(").skip(1).any(|rest| {
        let list = rest.split(')').next().unwrap_or_default();
        list.split(',')
            .any(|lint| matches!(lint, "dead_code" | "unused" | "warnings"))
    });
    if silenced {
        wrong.push(format!("{path}: code that nothing uses is allowed"));
    }
    let lines = source.lines().count();
    if lines > LINES_MAX {
        wrong.push(format!("{path}: {lines} lines, at most {LINES_MAX}"));
    }
    wrong
}

/// Paths of the machine a file was written on, and its tools.
fn wrong_paths(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for place in [
            concat!("/t", "mp/"),
            concat!("/w", "ork/"),
            concat!("/r", "oot/"),
            concat!("/h", "ome/"),
            concat!("car", "go2"),
        ] {
            if line.contains(place) {
                wrong.push(format!(
                    "{path}:{}: {place}: a path or tool of one machine",
                    index + 1
                ));
            }
        }
    }
    wrong
}

/// Whether a file is text that people wrote: bytes made by programs may hold anything.
fn is_written(path: &str) -> bool {
    let inputs = path.starts_with("corpora/fuzz/");
    let disks = path.ends_with(".qcow2") || path.ends_with(".delta") || path.ends_with(".gz");
    !inputs && !disks
}

fn products() -> Vec<String> {
    let tables = files("models/hypervisor/products").into_iter();
    let names = tables.filter_map(|path| {
        path.strip_suffix(".toml")?
            .rsplit('/')
            .next()
            .map(str::to_owned)
    });
    names.collect()
}

#[test]
fn models_and_simulator_say_nothing_that_differs_from_run_to_run() {
    let wrong: Vec<String> = sources()
        .iter()
        .flat_map(|(path, code)| wrong_words(path, code))
        .collect();
    none(&wrong);
}

#[test]
fn products_are_named_only_where_they_are_registered() {
    let products = products();
    assert!(products.len() >= 2, "{products:?}");
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|(path, _)| !path.starts_with("sim/cli/"))
        .flat_map(|(path, code)| wrong_products(path, code, &products))
        .collect();
    none(&wrong);
}

#[test]
fn nothing_is_left_behind_and_files_are_short() {
    let rust = files("").into_iter().filter(|path| path.ends_with(".rs"));
    let wrong: Vec<String> = rust
        .flat_map(|path| wrong_leftovers(&path, &read(&path)))
        .collect();
    none(&wrong);
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let written = files("").into_iter().filter(|path| is_written(path));
    let wrong: Vec<String> = written
        .flat_map(|path| wrong_paths(&path, &read(&path)))
        .collect();
    none(&wrong);
}

#[test]
fn the_checks_of_words_find_bad_samples() {
    let bad = Code::of(
        "use std::collections::HashMap;\nfn a() -> f64 { std::env::var(\"A\"); println!(\"f32\") }\n// Instant\n",
    );
    let wrong = wrong_words("models/a/src/lib.rs", &bad);
    let lines: Vec<&str> = wrong
        .iter()
        .map(|line| line.split(": ").next().unwrap_or_default())
        .collect();
    assert_eq!(
        lines,
        [
            "models/a/src/lib.rs:1",
            "models/a/src/lib.rs:2",
            "models/a/src/lib.rs:2",
            "models/a/src/lib.rs:2"
        ],
        "{wrong:?}"
    );
    assert_eq!(
        wrong_words("sim/cli/src/main.rs", &bad).len(),
        1,
        "the command line prints, but has no HashMap"
    );

    let products = ["esxi-5.0.0".to_owned()];
    let pair = Code::of(
        "fn a(b: &str) -> bool { b == \"esxi-5.0.0\" } // esxi-5.0.0\n#[cfg(test)]\nmod t { const A: &str = \"esxi-5.0.0\"; }",
    );
    assert_eq!(
        wrong_products("models/guest/src/a.rs", &pair, &products).len(),
        1
    );
    assert_eq!(wrong_products(NAMES_PRODUCTS[0], &pair, &products), [""; 0]);

    for bad in [
        "fn a() { todo!() }",
        "#[ignore = \"slow\"]",
        "#![allow(missing_docs, dead_code)]",
        &"\n".repeat(601),
    ] {
        assert_eq!(wrong_leftovers("a.rs", bad).len(), 1, "{bad}");
    }
    assert_eq!(
        wrong_leftovers("a.rs", "// todo!()\n#[expect(dead_code)] fn a() {}"),
        [""; 0]
    );

    let path = concat!("see /w", "ork/shared");
    assert_eq!(wrong_paths("README.md", path).len(), 1);
    assert_eq!(wrong_paths("README.md", "see /etc/fstab"), [""; 0]);
}
