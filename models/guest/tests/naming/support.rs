//! What the naming tests share: the tables, the rule sets, adapters as the tables name them.

#[path = "../../../../properties/skip.rs"]
pub(crate) mod skipping;

use drylab_catalog::PciAddress;
use drylab_guest::Tree;
use drylab_guest::net::linux::udev::programs::PERSISTENT;
use drylab_guest::net::linux::{Bus, NicView, PciFunction};
use std::path::{Path, PathBuf};

/// The folder with the measured tables.
#[expect(
    clippy::disallowed_methods,
    reason = "the environment says where the shared folder is"
)]
fn oracles() -> PathBuf {
    match std::env::var("DRYLAB_SHARED").ok() {
        Some(shared) => Path::new(&shared).join("oracles"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracles"),
    }
}

/// One row of a table.
pub(crate) struct Row {
    names: std::rc::Rc<Vec<String>>,
    cells: Vec<String>,
}

impl Row {
    /// A cell as it stands.
    pub(crate) fn raw(&self, name: &str) -> &str {
        let index = self
            .names
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| panic!("no column {name}"));
        &self.cells[index]
    }

    /// A cell.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.raw(name)
    }
}

/// The rows of a table; None (visibly) when it is not there.
pub(crate) fn table(name: &str) -> Option<Vec<Row>> {
    let path = oracles().join(format!("{name}.tsv"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        skipping::skip(&format!(
            "the oracle table {name}.tsv is not beside the repository"
        ));
        return None;
    };
    let mut lines = text.lines();
    let names = std::rc::Rc::new(
        lines
            .next()
            .expect("a header")
            .split('\t')
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    );
    let row = |line: &str| Row {
        names: names.clone(),
        cells: line.split('\t').map(str::to_owned).collect(),
    };
    Some(lines.map(row).collect())
}

/// Rows known to disagree: table, row, reason.
pub(crate) fn listed() -> Vec<(&'static str, &'static str, &'static str)> {
    include_str!("listed.tsv")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            assert!(
                cells.len() == 3 && !cells[2].is_empty(),
                "a listed row has table, row and reason: {line}"
            );
            (cells[0], cells[1], cells[2])
        })
        .collect()
}

/// Compares the columns that `model` gives with each row of a table; fails on a row that disagrees and is not listed,
/// and on one that is listed and agrees.
pub(crate) fn compare(name: &str, model: impl Fn(&Row) -> Vec<(&'static str, String)>) {
    let Some(rows) = table(name) else { return };
    let listed = listed();
    let (mut agree, mut excused) = (0, 0);
    let mut wrong = Vec::new();
    for row in &rows {
        let row_id = row.get("row_id");
        let is_listed = listed
            .iter()
            .any(|(table, id, _)| *table == name && *id == row_id);
        let differences: Vec<String> = model(row)
            .into_iter()
            .filter(|(column, value)| row.get(column) != value)
            .map(|(column, value)| {
                format!("{column}: measured {:?}, model {value:?}", row.get(column))
            })
            .collect();
        match (differences.is_empty(), is_listed) {
            (true, false) => agree += 1,
            (false, true) => excused += 1,
            (true, true) => wrong.push(format!("{row_id} is listed but agrees")),
            (false, false) => wrong.push(format!("{row_id}: {}", differences.join("; "))),
        }
    }
    eprintln!("{name}: agree {agree} of {}, listed {excused}", rows.len());
    let shown: Vec<&String> = wrong.iter().take(20).collect();
    assert!(
        wrong.is_empty(),
        "{} rows of {name} disagree:\n{shown:#?}",
        wrong.len()
    );
}

/// A committed set of rule texts.
pub(crate) struct RuleSet(String);

impl RuleSet {
    /// The set that stands for the table's `rule_set`.
    pub(crate) fn named(rule_set: &str) -> Self {
        let release = |text: &str| text.split('-').nth(1).expect("a release").to_owned();
        Self(match rule_set {
            "el6-147-2.29" | "el6" => "el6".to_owned(),
            other => format!("udev-{}", release(other)),
        })
    }

    /// A guest with nothing but these rules.
    pub(crate) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../corpora/guests/rules")
            .join(&self.0);
        for entry in std::fs::read_dir(&directory).expect("a committed rule set") {
            let path = entry.expect("readable").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("a name")
                .to_owned();
            tree.write(
                format!("/lib/udev/rules.d/{name}"),
                std::fs::read(&path).expect("readable"),
            );
        }
        tree
    }
}

/// A line as the tables' prepared files have it.
pub(crate) fn persistent_line(mac: &str, name: &str) -> String {
    format!(
        "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{{address}}==\"{mac}\", \
         ATTR{{type}}==\"1\", KERNEL==\"eth*\", NAME=\"{name}\"\n"
    )
}

/// The adapter that a table calls `bus`; the `index`th of its kind sits one slot further.
pub(crate) fn adapter(bus: &str, mac: &str, index: usize) -> NicView {
    let index = u8::try_from(index).expect("few adapters");
    let (kind, driver, pci) = match bus {
        "pci-e1000" => (Bus::Pci, "e1000", Some((0, 3, 0x8086, 0x100e))),
        "pci-8139cp" => (Bus::Pci, "8139cp", Some((0, 3, 0x10ec, 0x8139))),
        "pci-vmxnet3" => (Bus::Pci, "vmxnet3", Some((3, 0, 0x15ad, 0x07b0))),
        "pci-tulip" => (Bus::Pci, "tulip", Some((0, 0xa, 0x1011, 0x0009))),
        "virtio" => (Bus::Virtio, "virtio_net", Some((0, 3, 0x1af4, 0x1000))),
        "xen" => (Bus::Xen, "vif", None),
        "vmbus" => (Bus::Vmbus, "hv_netvsc", None),
        "virtual" => (Bus::Virtual, "", None),
        other => panic!("unknown bus {other}"),
    };
    let pci = pci.map(|(bus, device, vendor, id)| PciFunction {
        slot: PciAddress {
            bus,
            device: device + index,
            function: 0,
        },
        vendor,
        device: id,
        revision: 0x20,
    });
    NicView {
        mac: mac.parse().expect("a MAC"),
        bus: kind,
        pci,
        modalias: None,
        driver: Some(driver.to_owned()),
        link: true,
    }
}

/// The persistent rules as the tables show them.
pub(crate) fn rules_shown(tree: &Tree) -> String {
    let text = tree.text(PERSISTENT).unwrap_or_default();
    let value = |line: &str, key: &str| {
        let after = line.split_once(&format!("{key}\""))?.1;
        after.split_once('"').map(|(value, _)| value.to_owned())
    };
    let shown: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with("SUBSYSTEM"))
        .map(|line| {
            let name = value(line, " NAME=").expect("a name");
            let who = value(line, "ATTR{address}==")
                .or_else(|| value(line, "KERNELS==").map(|id| format!("KERNELS:{id}")))
                .or_else(|| value(line, "ENV{INTERFACE_NAME}==").map(|id| format!("ENV:{id}")));
            format!("{}->{name}", who.unwrap_or_default())
        })
        .collect();
    if shown.is_empty() {
        "-".to_owned()
    } else {
        shown.join(",")
    }
}
