//! Which module takes a device: `modules.alias`, `modules.builtin` and the blacklist of `/etc/modprobe.d`.
//!
//! Source: modprobe(8), modprobe.d(5) and depmod(8) of module-init-tools 3.9 (EL6) and 3.16 (Ubuntu 12.04).
//!
//! ```text
//! modules.alias    alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000
//! modules.builtin  kernel/drivers/virtio/virtio_pci.ko
//! modprobe.d       blacklist 8139too
//! ```
//!
//! A device's modalias is matched with each pattern as by fnmatch(3); every module that matches is loaded, in the
//! order of the file, and the first whose probe accepts the device keeps it. Modules linked into the kernel have no
//! line in `modules.alias` on these kernels: their ids are in the kernel image, so for the few drivers that matter
//! here the ids are listed as the drivers' sources list them ([`Builtins`]).

use crate::Tree;
use std::collections::BTreeSet;

/// Longest pattern or text that is compared; longer ones never match. Real ones have under 200 bytes.
const LONGEST: usize = 4096;

/// Whether `text` matches the shell pattern `pattern`, as fnmatch(3) without flags does: `*`, `?`, `[a-z]`, `[!a]`
/// and a backslash that quotes the next character. An unclosed bracket stands for itself.
#[must_use]
pub fn fnmatch(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    if pattern.len() > LONGEST || text.len() > LONGEST {
        return false;
    }
    let (mut p, mut t) = (0_usize, 0_usize);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p = p.saturating_add(1);
            star = Some((p, t));
            continue;
        }
        let step = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(_), Some(&byte)) => one(pattern, p, byte),
            _ => None,
        };
        match (step, star) {
            (Some(after), _) => {
                p = after;
                t = t.saturating_add(1);
            }
            (None, Some((after_star, from))) if from < text.len() => {
                p = after_star;
                t = from.saturating_add(1);
                star = Some((after_star, t));
            }
            _ => return false,
        }
    }
}

/// Position after the pattern element at `p` when it matches `byte`.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    let next = p.saturating_add(1);
    match pattern.get(p)? {
        b'?' => Some(next),
        b'\\' => match pattern.get(next) {
            Some(&quoted) => (quoted == byte).then_some(next.saturating_add(1)),
            None => (byte == b'\\').then_some(next),
        },
        b'[' => match set(pattern, next, byte) {
            Some((after, true)) => Some(after),
            Some((_, false)) => None,
            None => (byte == b'[').then_some(next),
        },
        &literal => (literal == byte).then_some(next),
    }
}

/// Evaluates a bracket expression whose first byte is at `at`: position after `]` and whether `byte` is in it.
/// None when it is not closed.
fn set(pattern: &[u8], at: usize, byte: u8) -> Option<(usize, bool)> {
    let mut at = at;
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    if negated {
        at = at.saturating_add(1);
    }
    let first = at;
    let mut found = false;
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at > first {
            return Some((at.saturating_add(1), found != negated));
        }
        let dash = pattern.get(at.saturating_add(1)) == Some(&b'-');
        match pattern.get(at.saturating_add(2)) {
            Some(&high) if dash && high != b']' => {
                found |= low <= byte && byte <= high;
                at = at.saturating_add(3);
            }
            _ => {
                found |= low == byte;
                at = at.saturating_add(1);
            }
        }
    }
}

/// One line of `modules.alias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias<'a> {
    /// Pattern of modaliases.
    pub pattern: &'a str,
    /// Module, with underscores.
    pub module: &'a str,
    /// Line in the file, from 1.
    pub line: u32,
}

/// The lines of a `modules.alias` (or of the alias lines of a file in `/etc/modprobe.d`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases<'a> {
    rows: Vec<Alias<'a>>,
}

impl<'a> Aliases<'a> {
    /// Reads `alias PATTERN MODULE` lines; others are comments and orders for modprobe, which are left out.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let rows = text
            .lines()
            .zip(1_u32..)
            .filter_map(|(content, line)| {
                let mut words = content.split_ascii_whitespace();
                let (Some("alias"), Some(pattern), Some(module)) =
                    (words.next(), words.next(), words.next())
                else {
                    return None;
                };
                Some(Alias {
                    pattern,
                    module,
                    line,
                })
            })
            .collect();
        Self { rows }
    }

    /// Number of aliases.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Lines whose pattern matches, in the order of the file.
    pub fn matches<'b>(&'b self, modalias: &'b str) -> impl Iterator<Item = Alias<'a>> + 'b {
        self.rows.iter().copied().filter(move |row| {
            let literal = row
                .pattern
                .find(['*', '?', '[', '\\'])
                .unwrap_or(row.pattern.len());
            row.pattern
                .get(..literal)
                .is_some_and(|prefix| modalias.starts_with(prefix))
                && fnmatch(row.pattern, modalias)
        })
    }

    /// Modules that modprobe loads for a modalias, each once, in the order of the file.
    #[must_use]
    pub fn modules_for(&self, modalias: &str) -> Vec<&'a str> {
        let mut modules = Vec::new();
        for row in self.matches(modalias) {
            if !modules.contains(&row.module) {
                modules.push(row.module);
            }
        }
        modules
    }
}

/// `8139-cp` and `8139_cp` are one module to modprobe.
fn normal(module: &str) -> String {
    module.replace('-', "_")
}

/// Modules named by `blacklist` lines in `/etc/modprobe.d/*.conf`: no longer loaded through an alias.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blacklist {
    modules: BTreeSet<String>,
}

impl Blacklist {
    /// Reads one file.
    pub fn add(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some("blacklist"), Some(module)) = (words.next(), words.next()) {
                self.modules.insert(normal(module));
            }
        }
    }

    /// Reads the files of a guest.
    #[must_use]
    pub fn of(tree: &Tree) -> Self {
        let mut blacklist = Self::default();
        let directory = "/etc/modprobe.d";
        for name in tree
            .names_in(directory)
            .filter(|name| name.ends_with(".conf"))
        {
            if let Some(text) = tree.text(&format!("{directory}/{name}")) {
                blacklist.add(&text);
            }
        }
        blacklist
    }

    /// Whether the module is named.
    #[must_use]
    pub fn holds(&self, module: &str) -> bool {
        self.modules.contains(&normal(module))
    }
}

/// Modules linked into the kernel (`modules.builtin`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Builtins {
    modules: Vec<(String, u32)>,
}

/// The ACPI device that is Hyper-V's bus, as the kernel shows it; its driver, `hv_vmbus`, makes the devices on it.
///
/// Source: Linux 3.2 drivers/hv/vmbus_drv.c, `vmbus_acpi_device_ids` (quirk DQ311).
pub const HYPERV_BUS: &str = "acpi:VMBUS:";

/// What drivers that distributions link in say they take (their id tables in the kernel's sources, 2.6.32 and 3.2).
const LINKED_IN: &[(&str, &[&str])] = &[
    ("virtio_pci", &["pci:v00001AF4d*sv*sd*bc*sc*i*"]),
    ("virtio_net", &["virtio:d00000001v*"]),
    ("virtio_blk", &["virtio:d00000002v*"]),
    ("hv_vmbus", &["acpi*:VMBUS:*"]),
    ("hv_netvsc", &["vmbus:635161f83edfc546913ff2d2f965ed0e"]),
    ("hv_storvsc", &["vmbus:d96361baa104294db60572e2ffb1dc7f"]),
    ("xen_netfront", &["xen:vif"]),
    ("xen_blkfront", &["xen:vbd"]),
    (
        "ata_piix",
        &[
            "pci:v00008086d00007010sv*sd*bc*sc*i*",
            "pci:v00008086d00007111sv*sd*bc*sc*i*",
            "pci:v00008086d00007199sv*sd*bc*sc*i*",
        ],
    ),
    ("ata_generic", &["pci:v*d*sv*sd*bc01sc01i*"]),
    ("ahci", &["pci:v*d*sv*sd*bc01sc06i01*"]),
    ("mptspi", &["pci:v00001000d00000030sv*sd*bc*sc*i*"]),
    ("mptsas", &["pci:v00001000d00000054sv*sd*bc*sc*i*"]),
    ("vmw_pvscsi", &["pci:v000015ADd000007C0sv*sd*bc*sc*i*"]),
    (
        "e1000",
        &[
            "pci:v00008086d0000100Esv*sd*bc*sc*i*",
            "pci:v00008086d0000100Fsv*sd*bc*sc*i*",
        ],
    ),
];

impl Builtins {
    /// Reads `kernel/…/name.ko` lines.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let modules = text
            .lines()
            .zip(1_u32..)
            .filter_map(|(path, line)| {
                let name = path.trim().rsplit('/').next()?.strip_suffix(".ko")?;
                Some((normal(name), line))
            })
            .collect();
        Self { modules }
    }

    /// Line that names the module, from 1.
    #[must_use]
    pub fn line(&self, module: &str) -> Option<u32> {
        let wanted = normal(module);
        self.modules
            .iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, line)| *line)
    }

    /// Linked-in drivers that take a device, with their lines.
    #[must_use]
    pub fn modules_for(&self, modalias: &str) -> Vec<(&'static str, u32)> {
        LINKED_IN
            .iter()
            .filter(|(_, patterns)| patterns.iter().any(|pattern| fnmatch(pattern, modalias)))
            .filter_map(|(module, _)| Some((*module, self.line(module)?)))
            .collect()
    }
}

/// The virtio bus's modalias for the device behind a virtio PCI function: `virtio:d00000001v00001AF4`.
///
/// Virtio 0.9.5, section 2.1: vendor 0x1af4, device 0x1000..=0x103f; the subsystem device id is the device type.
#[must_use]
pub fn virtio_child(pci_modalias: &str) -> Option<String> {
    let rest = pci_modalias.strip_prefix("pci:v00001AF4d")?;
    let device = u32::from_str_radix(rest.get(..8)?, 16).ok()?;
    let rest = rest.get(8..)?.strip_prefix("sv")?;
    let vendor = rest.get(..8)?;
    let kind = rest.get(8..)?.strip_prefix("sd")?.get(..8)?;
    (0x1000..=0x103f)
        .contains(&device)
        .then(|| format!("virtio:d{kind}v{vendor}"))
}

#[cfg(test)]
mod tests {
    use super::{Aliases, Blacklist, Builtins, fnmatch, virtio_child};
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_fnmatch_says() {
        for (pattern, text, expected) in [
            ("eth*", "eth0", true),
            ("eth*", "et", false),
            ("?*", "", false),
            ("?*", "x", true),
            ("?[2367abef]:*", "52:54:00", true),
            ("?[!2367abef]:*", "52:54:00", false),
            ("a[]b]c", "a]c", true),
            ("a[b-dx]c", "acc", true),
            ("a[b-dx]c", "axc", true),
            ("[", "[", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*a*b", "xaxxab", true),
            ("*a*b", "xaxxabc", false),
            ("", "", true),
        ] {
            assert_eq!(fnmatch(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn modules_come_in_the_order_of_the_file_and_each_once() {
        let text = "# made by depmod\nalias pci:v000010ECd00008139sv*sd*bc*sc*i* 8139too\n\
                    alias pci:v000010ECd00008139sv*sd*bc*sc*i* 8139cp\nalias pci:v000010ECd* 8139too\n";
        let aliases = Aliases::parse(text);
        let modalias = "pci:v000010ECd00008139sv00001AF4sd00001100bc02sc00i00";
        assert_eq!(aliases.modules_for(modalias), ["8139too", "8139cp"]);
        assert_eq!(
            aliases
                .matches(modalias)
                .map(|row| row.line)
                .collect::<Vec<_>>(),
            [2, 3, 4]
        );
        assert!(aliases.modules_for("pci:v000010EDd00008139").is_empty());
    }

    #[test]
    fn a_virtio_function_has_a_device_of_its_type_on_the_virtio_bus() {
        let modalias = "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00";
        assert_eq!(
            virtio_child(modalias).as_deref(),
            Some("virtio:d00000001v00001AF4")
        );
        assert_eq!(
            virtio_child("pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00"),
            None
        );
        assert_eq!(virtio_child("pci:v00001AF4dé"), None);
    }

    #[test]
    fn dashes_and_underscores_are_one_to_modprobe() {
        let mut blacklist = Blacklist::default();
        blacklist.add("blacklist xen-netfront\n#blacklist e1000\n");
        assert!(blacklist.holds("xen_netfront") && !blacklist.holds("e1000"));
        let builtins = Builtins::parse(
            "kernel/drivers/net/xen-netfront.ko\nkernel/drivers/virtio/virtio_pci.ko\n",
        );
        assert_eq!(builtins.modules_for("xen:vif"), [("xen_netfront", 1)]);
        assert!(builtins.modules_for("virtio:d00000001v00001AF4").is_empty());
    }

    proptest! {
        #[test]
        fn a_text_matches_itself_quoted_and_every_prefix_with_a_star(text in "[ -~]{0,24}", cut in 0_usize..24) {
            let quoted: String = text.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert!(fnmatch(&quoted, &text));
            let end = quoted.len().min(cut * 2);
            let pattern = format!("{}*", &quoted[..end]);
            prop_assert!(fnmatch(&pattern, &text));
        }
    }
}
