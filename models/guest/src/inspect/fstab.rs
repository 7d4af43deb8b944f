//! `/etc/fstab`, `/etc/crypttab` and the kernel command line.
//!
//! fstab(5), crypttab(5), bootparam(7).

use super::model::{FstabEntry, Param, Sourced};
use drylab_catalog::Witness;

/// Lines of a configuration file with their numbers from 1.
pub(crate) fn numbered(text: &str) -> impl Iterator<Item = (u32, &str)> {
    (1u32..).zip(text.lines())
}

/// Reads `/etc/fstab`: comments and lines without a mount point are left out.
#[must_use]
pub fn fstab(text: &str) -> Vec<Sourced<FstabEntry>> {
    let mut entries = Vec::new();
    for (line, content) in numbered(text) {
        let mut fields = content.split_whitespace();
        let Some(device) = fields.next().filter(|field| !field.starts_with('#')) else {
            continue;
        };
        let Some(mount) = fields.next() else { continue };
        let fstype = fields.next().unwrap_or("auto");
        let options = fields.next().unwrap_or("defaults");
        let pass = fields
            .nth(1)
            .and_then(|pass| pass.parse().ok())
            .unwrap_or(0);
        let entry = FstabEntry {
            device: device.trim_matches('"').replace("=\"", "=").to_owned(),
            mount: mount.replace("\\040", " "),
            fstype: fstype.to_owned(),
            options: options.split(',').map(str::to_owned).collect(),
            pass,
        };
        entries.push(Sourced::new(
            entry,
            Witness::file("/etc/fstab", line, content.trim()),
        ));
    }
    entries
}

/// Reads `/etc/crypttab`: mapped name and device.
#[must_use]
pub fn crypttab(text: &str) -> Vec<Sourced<(String, String)>> {
    let mut entries = Vec::new();
    for (line, content) in numbered(text) {
        let mut fields = content.split_whitespace();
        let Some(name) = fields.next().filter(|field| !field.starts_with('#')) else {
            continue;
        };
        let Some(device) = fields.next() else {
            continue;
        };
        let witness = Witness::file("/etc/crypttab", line, content.trim());
        entries.push(Sourced::new((name.to_owned(), device.to_owned()), witness));
    }
    entries
}

/// Splits a kernel command line at spaces outside double quotes.
#[must_use]
pub fn cmdline(text: &str, witness: &Witness) -> Vec<Sourced<Param>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for letter in text.chars().chain([' ']) {
        match letter {
            '"' => quoted = !quoted,
            letter if letter.is_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
            letter => word.push(letter),
        }
    }
    words.push(word);
    let words = words.into_iter().filter(|word| !word.is_empty());
    words
        .map(|word| {
            let says = format!("kernel parameter {word}");
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            Sourced::new(
                Param { key, value },
                Witness {
                    says,
                    ..witness.clone()
                },
            )
        })
        .collect()
}
