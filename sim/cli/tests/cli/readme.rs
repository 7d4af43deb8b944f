//! The README is true: what it quotes is what the commands print, and the scenario of its first hour behaves as it says.

use crate::support::{data, run, text};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("there is a README")
}

/// Blocks between fences, without the indentation of the list they stand in.
fn blocks(readme: &str) -> Vec<String> {
    let parts = readme.split("```").skip(1).step_by(2);
    let lines = |part: &str| {
        let lines = part
            .lines()
            .skip(1)
            .map(|line| line.strip_prefix("   ").unwrap_or(line).to_owned());
        lines.collect::<Vec<_>>().join("\n")
    };
    parts.map(lines).collect()
}

/// Holds a quoted block, known by `mark`, against what is printed now. `DRYLAB_BLESS=1` writes it anew.
#[expect(clippy::disallowed_methods, reason = "tests read DRYLAB_BLESS")]
fn hold(mark: &str, printed: &str) {
    let readme = readme();
    let found = blocks(&readme)
        .into_iter()
        .find(|block| block.contains(mark));
    let quoted = found.unwrap_or_else(|| panic!("no block has {mark:?}"));
    if quoted.trim_end() == printed {
        return;
    }
    assert!(
        std::env::var("DRYLAB_BLESS").is_ok_and(|value| value == "1"),
        "the README quotes\n{quoted}\nand it is\n{printed}\nWrite it anew with DRYLAB_BLESS=1"
    );
    let indented = |text: &str| text.trim_end().replace('\n', "\n   ");
    let plain = |text: &str| text.trim_end().to_owned();
    let (old, new) = match readme.contains(&indented(&quoted)) {
        true => (indented(&quoted), indented(printed)),
        false => (plain(&quoted), plain(printed)),
    };
    assert!(readme.contains(&old), "{old}");
    let path = root().join("README.md");
    std::fs::write(path, readme.replace(&old, &new)).expect("the README can be written");
}

#[test]
fn the_cell_and_the_prediction_that_the_readme_quotes_are_what_the_commands_print() {
    let matrix = data(&["matrix", "--guest", "centos-6.3"]);
    let start = matrix
        .find("  kvm-centos-6.3 -> esxi-5.0.0")
        .expect("the cell is there");
    let lines = matrix[start..].lines();
    let inside = lines
        .clone()
        .skip(1)
        .take_while(|line| line.starts_with("      "))
        .count();
    let cell: Vec<&str> = lines.take(inside + 1).map(str::trim_end).collect();
    hold("replay: drylab replay ", &cell.join("\n"));
    let token = cell
        .last()
        .and_then(|line| line.rsplit(' ').next())
        .expect("a token");
    assert!(
        readme().contains(&format!("`drylab replay {token}`")),
        "{token}"
    );

    let disk = root().join("corpora/guests/windows-2008r2/base.qcow2");
    let check = data(&["check", text(&disk), "--target", "kvm-centos-6.3"]);
    let lines = check.lines().enumerate();
    let first = lines.take_while(|(index, line)| *index < 2 || line.starts_with("       "));
    let first: Vec<&str> = first.map(|(_, line)| line).collect();
    hold("kvm-centos-6.3: FAILURE", &first.join("\n"));
}

/// Holds the committed matrix against what is printed now, and the README's quotation against that.
#[test]
#[expect(clippy::disallowed_methods, reason = "tests read DRYLAB_BLESS")]
fn the_committed_matrix_is_the_one_that_is_printed() {
    let printed = data(&["matrix", "--markdown"]);
    let path = root().join("corpora/matrix/matrix.md");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if committed != printed {
        assert!(
            std::env::var("DRYLAB_BLESS").is_ok_and(|value| value == "1"),
            "corpora/matrix/matrix.md is not what `drylab matrix --markdown` prints now; DRYLAB_BLESS=1 writes it anew"
        );
        std::fs::create_dir_all(root().join("corpora/matrix")).expect("the folder can be made");
        std::fs::write(&path, &printed).expect("the matrix can be written");
    }
    let table = printed.split("\n## ").next().expect("a first table");
    hold("## centos-6.3", table.trim_end());
}

#[test]
fn the_scenario_of_the_first_hour_expects_what_it_gets_and_fails_without_its_second_edit() {
    let file = root().join("corpora/scenarios/lab/edited-guest.toml");
    assert_eq!(run(&["run", text(&file)]).code, 0);
    let scenario = std::fs::read_to_string(&file).expect("it is there");
    let (kept, rest) = scenario.rsplit_once("[[edits]]").expect("two edits");
    let (_, expect) = rest.split_once("[expect]").expect("an expectation");
    let folder = tempfile::tempdir().expect("a folder");
    let mine = folder.path().join("mine.toml");
    std::fs::write(&mine, format!("{kept}[expect]{expect}")).expect("it is written");
    let ran = run(&["run", text(&mine)]);
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (
            2,
            "drylab: the scenario expects WARNING and came to FAILURE\n"
        )
    );
    assert!(ran.out.contains("HWADDR"), "{}", ran.out);
}

#[test]
fn files_folders_and_ids_that_the_readme_names_are_there() {
    let readme = readme();
    let spans: Vec<&str> = readme.split('`').skip(1).step_by(2).collect();
    let folders = [
        "sim/",
        "models/",
        "corpora/",
        "properties/",
        "fuzz/",
        ".ci/",
    ];
    let paths = spans
        .iter()
        .filter(|span| folders.iter().any(|folder| span.starts_with(folder)));
    let mut seen = 0;
    for path in paths.filter(|path| !path.contains([' ', '*'])) {
        assert!(root().join(path).exists(), "{path}");
        seen += 1;
    }
    assert!(seen > 8, "{seen}");
    for line in readme
        .lines()
        .filter(|line| line.trim_start().starts_with("| "))
    {
        assert!(line.trim_end().ends_with('|'), "{line}");
    }
}

/// Shares such as `48.5 %` in a text.
fn shares(text: &str) -> std::collections::BTreeSet<&str> {
    let numbers = text
        .split_inclusive(" %")
        .filter_map(|part| part.strip_suffix(" %"));
    let last_word = |part: &str| part.rfind([' ', '\n', '(', '|']).map_or(0, |at| at + 1);
    let words = numbers.filter_map(|part| part.get(last_word(part)..));
    words.filter(|word| word.contains('.')).collect()
}

#[test]
fn the_explanations_of_the_thousand_labs_quote_shares_that_stand_in_the_table() {
    let folder = root().join("corpora/matrix");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a committed file");
    let (table, explained) = (read("plausible-1000.md"), read("README.md"));
    for finding in drylab_campaign::findings() {
        let row = format!("| {} | {} |", finding.id, finding.states);
        assert!(table.contains(&row), "the table has no row {row}");
    }
    let (known, quoted) = (shares(&table), shares(&explained));
    assert!(quoted.len() > 5, "only {quoted:?} are quoted");
    let unknown: Vec<_> = quoted.difference(&known).collect();
    assert!(unknown.is_empty(), "not in the table: {unknown:?}");
}
