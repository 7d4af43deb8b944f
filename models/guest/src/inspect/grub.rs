//! Boot menus: GRUB legacy's `grub.conf` and GRUB 2's `grub.cfg`.
//!
//! GNU GRUB Manual 0.97, "Configuration"; GNU GRUB Manual 1.99, "Writing your own configuration file".
//!
//! ```text
//! grub.conf                                   grub.cfg
//!   default=0                                   set default="0"
//!   title CentOS (2.6.32-279)                   menuentry 'Ubuntu, with Linux 3.2' --class ubuntu {
//!     root (hd0,0)                                set root='(hd0,msdos1)'
//!     kernel /vmlinuz-… ro root=…                 search --no-floppy --fs-uuid --set=root UUID
//!     initrd /initramfs-….img                     linux /boot/vmlinuz-… root=UUID=… ro
//!                                                 initrd /boot/initrd.img-…
//!                                               }
//! ```
//!
//! Of GRUB 2's shell only what `grub-mkconfig` writes for an entry is followed: branches are read as if all ran.

use super::fstab::numbered;
use super::model::{BootEntry, LoaderRoot, Sourced};
use drylab_catalog::Witness;

/// Entries kept of one menu.
const ENTRIES_MAX: usize = 256;

/// A menu: its entries and the default one, with the line that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Menu {
    /// Entries, in order.
    pub entries: Vec<BootEntry>,
    /// Index of the default entry; may be past the end.
    pub default: Sourced<usize>,
}

/// Reads GRUB legacy's menu; `path` is for the witnesses.
#[must_use]
pub fn legacy(text: &str, path: &str) -> Menu {
    let mut entries: Vec<BootEntry> = Vec::new();
    let mut default = Sourced::new(
        0,
        Witness::file(path, 0, "no default line: the first entry"),
    );
    for (line, content) in numbered(text) {
        let content = content.trim();
        let (word, rest) = split_word(content, &['=', ' ', '\t']);
        let witness = || Witness::file(path, line, content);
        let room = entries.len() < ENTRIES_MAX;
        match (word, entries.last_mut()) {
            ("default", _) => {
                // "saved" needs the default file that stage2 wrote; without one it is the first entry.
                default = Sourced::new(rest.parse().unwrap_or(0), witness());
            }
            ("title", _) if room => {
                entries.push(BootEntry {
                    title: rest.to_owned(),
                    ..BootEntry::default()
                });
            }
            ("root" | "rootnoverify", Some(entry)) => {
                entry
                    .root
                    .extend(bios_device(rest).map(|root| Sourced::new(root, witness())));
            }
            ("kernel", Some(entry)) => {
                let (mut file, mut cmdline) = split_word(rest, &[' ', '\t']);
                // Options such as --no-mem-option come before the file.
                while file.starts_with("--") {
                    (file, cmdline) = split_word(cmdline, &[' ', '\t']);
                }
                entry.set_kernel(file, cmdline, &witness());
            }
            ("initrd", Some(entry)) => {
                entry.initrd = Some(Sourced::new(strip_device(rest).to_owned(), witness()))
            }
            _ => {}
        }
    }
    Menu { entries, default }
}

/// Reads GRUB 2's configuration; `path` is for the witnesses.
#[must_use]
pub fn grub2(text: &str, path: &str) -> Menu {
    let mut entries: Vec<BootEntry> = Vec::new();
    let mut default = None;
    let mut depth = 0u32;
    // What stands before any entry applies to those that set no root themselves.
    let mut outside = BootEntry::default();
    for (line, content) in numbered(text) {
        let words = words(content);
        let witness = || Witness::file(path, line, content.trim());
        let opens = words.last().is_some_and(|word| word == "{");
        let command = words.first().map(String::as_str).unwrap_or_default();
        match command {
            "menuentry" | "submenu" if opens && depth == 0 && entries.len() < ENTRIES_MAX => {
                let title = words.get(1).cloned().unwrap_or_default();
                entries.push(BootEntry {
                    title,
                    root: outside.root.clone(),
                    ..BootEntry::default()
                });
            }
            "set" if depth == 0 && default.is_none() => {
                let value = words.get(1).and_then(|word| word.strip_prefix("default="));
                // A variable (saved_entry) is empty unless grubenv holds one: then it is the first entry.
                default = value
                    .filter(|value| !value.starts_with('$'))
                    .map(|value| (value.to_owned(), witness()));
            }
            _ => {}
        }
        match (depth, entries.last_mut()) {
            (0, _) => outside.grub2_command(command, &words, &witness()),
            (1, Some(entry)) => entry.grub2_command(command, &words, &witness()),
            _ => {}
        }
        if opens {
            depth = depth.saturating_add(1);
        } else if command == "}" {
            depth = depth.saturating_sub(1);
        }
    }
    let default = default.map_or_else(
        || Sourced::new(0, Witness::file(path, 0, "no default: the first entry")),
        |(value, witness)| {
            let by_title = entries.iter().position(|entry| entry.title == value);
            let first = value.split('>').next().unwrap_or_default();
            Sourced::new(
                by_title.or_else(|| first.parse().ok()).unwrap_or(0),
                witness,
            )
        },
    );
    Menu { entries, default }
}

impl BootEntry {
    /// Kernel and command line, with the line they stand on.
    fn set_kernel(&mut self, file: &str, cmdline: &str, witness: &Witness) {
        self.kernel = Some(Sourced::new(strip_device(file).to_owned(), witness.clone()));
        cmdline.trim().clone_into(&mut self.cmdline);
    }

    /// Follows one command of GRUB 2.
    fn grub2_command(&mut self, command: &str, words: &[String], witness: &Witness) {
        let rest = words.get(1..).unwrap_or_default();
        match command {
            "set" => {
                let root = rest.first().and_then(|word| word.strip_prefix("root="));
                self.root.extend(
                    root.and_then(bios_device)
                        .map(|root| Sourced::new(root, witness.clone())),
                );
            }
            "search" | "search.fs_uuid" | "search.fs_label" => {
                let Some(name) = rest.last().filter(|name| !name.starts_with('-')) else {
                    return;
                };
                let label = command == "search.fs_label"
                    || rest.iter().any(|word| word == "--label" || word == "-l");
                let root = if label {
                    LoaderRoot::Label(name.clone())
                } else {
                    LoaderRoot::Uuid(name.clone())
                };
                self.root.push(Sourced::new(root, witness.clone()));
            }
            "linux" | "linux16" | "linuxefi" => {
                let file = rest.first().map(String::as_str).unwrap_or_default();
                self.set_kernel(file, &rest.get(1..).unwrap_or_default().join(" "), witness);
            }
            "initrd" | "initrd16" | "initrdefi" => {
                let file = rest.last().map(String::as_str).unwrap_or_default();
                self.initrd = Some(Sourced::new(strip_device(file).to_owned(), witness.clone()));
            }
            _ => {}
        }
    }
}

/// First word and the rest, split at the first of `separators`.
fn split_word<'a>(text: &'a str, separators: &[char]) -> (&'a str, &'a str) {
    match text.find(separators) {
        Some(at) => {
            let (word, rest) = text.split_at(at);
            (
                word,
                rest.trim_start_matches(|letter| separators.contains(&letter))
                    .trim(),
            )
        }
        None => (text, ""),
    }
}

/// Words of a line of GRUB 2's shell: quotes removed, `;` and `{` apart.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for letter in line.trim().chars() {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '#') if word.is_empty() => break,
            (None, letter) if letter.is_whitespace() || letter == ';' => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, letter) => word.push(letter),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `(hd0,0)` counts partitions from 0, `hd0,msdos1` and `hd0,1` of GRUB 2 from 1 (told by the prefix or the
/// missing parentheses' age: legacy never names a scheme and always counts from 0).
fn bios_device(text: &str) -> Option<LoaderRoot> {
    let parenthesised = text.trim().trim_start_matches('(');
    let device = parenthesised.split(')').next()?.trim();
    let Some(device) = device.strip_prefix("hd") else {
        let name = device.strip_prefix("lvm/").unwrap_or(device);
        let logical = !name.is_empty() && name.contains('-') && !name.contains('$');
        return logical.then(|| LoaderRoot::Logical(name.to_owned()));
    };
    let (disk, partition) = match device.split_once(',') {
        Some((disk, partition)) => (disk, Some(partition)),
        None => (device, None),
    };
    let disk = disk.parse().ok()?;
    let Some(partition) = partition else {
        return Some(LoaderRoot::Bios {
            disk,
            partition: None,
        });
    };
    let named = ["msdos", "gpt"]
        .iter()
        .find_map(|scheme| partition.strip_prefix(scheme));
    let number: u32 = named.unwrap_or(partition).parse().ok()?;
    let number = if named.is_some() {
        number
    } else {
        number.checked_add(1)?
    };
    Some(LoaderRoot::Bios {
        disk,
        partition: Some(number),
    })
}

/// A path without the device before it: `(hd0,0)/vmlinuz` is `/vmlinuz`.
fn strip_device(path: &str) -> &str {
    let path = path.trim();
    match path.strip_prefix('(') {
        Some(rest) => rest.split_once(')').map_or(path, |(_, file)| file),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::{grub2, legacy};
    use crate::inspect::model::LoaderRoot;

    const LEGACY: &str = "# generated by anaconda\ndefault=1\ntimeout=5\nhiddenmenu\ntitle old\n\troot (hd0,0)\n\
        \tkernel /vmlinuz-1 ro root=/dev/sda1\ntitle CentOS (2.6.32)\n\troot (hd0,0)\n\tkernel --no-mem-option (hd0,0)/vmlinuz-2 ro \
        root=/dev/mapper/vg-lv rd_LVM_LV=vg/lv\n\tinitrd /initramfs-2.img\n";

    #[test]
    fn a_legacy_menu_gives_its_default_entry_with_lines() {
        let menu = legacy(LEGACY, "/boot/grub/grub.conf");
        assert_eq!(menu.default.value, 1);
        assert_eq!(
            menu.default.witness.place.to_string(),
            "/boot/grub/grub.conf:2"
        );
        let entry = &menu.entries[1];
        assert_eq!(entry.title, "CentOS (2.6.32)");
        assert_eq!(
            entry.root[0].value,
            LoaderRoot::Bios {
                disk: 0,
                partition: Some(1)
            }
        );
        let kernel = entry.kernel.as_ref().expect("it has a kernel line");
        assert_eq!(
            (
                kernel.value.as_str(),
                kernel.witness.place.to_string().as_str()
            ),
            ("/vmlinuz-2", "/boot/grub/grub.conf:10")
        );
        assert_eq!(entry.cmdline, "ro root=/dev/mapper/vg-lv rd_LVM_LV=vg/lv");
        assert_eq!(
            entry.initrd.as_ref().map(|file| file.value.as_str()),
            Some("/initramfs-2.img")
        );
    }

    #[test]
    fn a_grub_2_menu_gives_searches_in_the_order_they_run() {
        let text = "set default=\"${saved_entry}\"\nif [ x ]; then\n  set default=\"0\"\nfi\n\
            menuentry 'Ubuntu, with Linux 3.2' --class os {\n\tset root='(hd0,msdos1)'\n\
            \tsearch --no-floppy --fs-uuid --set=root 1b2c-aa\n\tlinux\t/boot/vmlinuz-3.2 root=UUID=1b2c-aa ro\n\
            \tinitrd\t/boot/initrd.img-3.2\n}\nsubmenu 'Previous' {\nmenuentry 'old' {\nlinux /old\n}\n}\n";
        let menu = grub2(text, "/boot/grub/grub.cfg");
        assert_eq!(menu.default.value, 0);
        assert_eq!(
            menu.default.witness.place.to_string(),
            "/boot/grub/grub.cfg:3"
        );
        assert_eq!(menu.entries.len(), 2);
        let entry = &menu.entries[0];
        let roots: Vec<_> = entry.root.iter().map(|root| root.value.clone()).collect();
        assert_eq!(
            roots,
            [
                LoaderRoot::Bios {
                    disk: 0,
                    partition: Some(1)
                },
                LoaderRoot::Uuid("1b2c-aa".to_owned())
            ]
        );
        assert_eq!(entry.cmdline, "root=UUID=1b2c-aa ro");
        assert!(
            menu.entries[1].kernel.is_none(),
            "an entry of a submenu is not the submenu"
        );
    }
}
