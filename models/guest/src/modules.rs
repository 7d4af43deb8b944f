//! Which module files the root has: what `modprobe` does once it knows a module's name.
//!
//! Source: modprobe(8) and depmod(8) of module-init-tools 3.9 (EL6) and 3.16 (Ubuntu 12.04).
//!
//! ```text
//! modules.dep    extra/hv_netvsc.ko: extra/hv_vmbus.ko
//!                file                files to load before it, all of them
//! ```
//!
//! A module without a line is not found, whatever lies in the folder; one whose file, or a file before it, is missing
//! cannot be loaded (quirk DQ310). What the files contain is not looked at here.

use crate::Tree;
use drylab_catalog::Witness;
use std::collections::BTreeMap;

/// A line of `modules.dep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFile {
    /// Path in the guest.
    pub path: String,
    /// Line of `modules.dep`, from 1.
    pub line: u32,
    /// First of its own file and those it needs that is not there.
    pub missing: Option<String>,
}

/// Name of a module's file: `extra/xen-vif.ko.xz` is `xen_vif`.
#[must_use]
pub(crate) fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let stem = [".ko", ".ko.gz", ".ko.xz", ".ko.zst"]
        .iter()
        .find_map(|suffix| file.strip_suffix(suffix))?;
    Some(stem.replace('-', "_"))
}

/// The lines of `modules.dep` in `directory`, by module name (with `_`).
pub(crate) fn files(tree: &Tree, directory: &str) -> BTreeMap<String, ModuleFile> {
    let text = tree
        .text(&format!("{directory}/modules.dep"))
        .unwrap_or_default();
    let full = |path: &str| match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{directory}/{path}"),
    };
    let row = |(content, line): (&str, u32)| {
        let (path, needs) = content.split_once(':')?;
        let path = path.trim();
        let name = name_of(path)?;
        let mut all = std::iter::once(path)
            .chain(needs.split_ascii_whitespace())
            .map(full);
        let missing = all.find(|path| tree.read(path).is_none());
        let path = full(path);
        Some((
            name,
            ModuleFile {
                path,
                line,
                missing,
            },
        ))
    };
    text.lines().zip(1_u32..).filter_map(row).collect()
}

impl ModuleFile {
    /// The module is there with all it needs, or the file that is not; `place` is the `modules.dep` this is a line of.
    pub(crate) fn loads(&self, module: &str, place: &str) -> Result<Witness, Witness> {
        match &self.missing {
            None => Ok(Witness::file(
                place,
                self.line,
                format!("{module} is {}, which is there", self.path),
            )),
            Some(missing) => Err(Witness::file(
                missing,
                0,
                format!(
                    "is not there: {module} needs it by {place}:{line}",
                    line = self.line
                ),
            )),
        }
    }
}

/// What says that `modprobe` does not find a module.
pub(crate) fn unlisted(module: &str, place: &str) -> Witness {
    Witness::file(place, 0, format!("has no line for {module}"))
}

#[cfg(test)]
mod tests {
    use super::{files, name_of};
    use crate::Tree;

    #[test]
    fn a_module_is_loaded_when_its_file_and_every_file_before_it_is_there() {
        let folder = "/lib/modules/2.6.32";
        let dep = "extra/a-b.ko: extra/c.ko /elsewhere/d.ko\nextra/c.ko:\n\n# no line\nextra/gone.ko.xz: \n";
        let whole = ["extra/a-b.ko", "extra/c.ko"].map(|path| format!("{folder}/{path}"));
        let mut tree = Tree::new();
        tree.write(format!("{folder}/modules.dep"), dep.as_bytes().to_vec());
        for path in whole.iter().chain(&["/elsewhere/d.ko".to_owned()]) {
            tree.write(path.clone(), Vec::new());
        }
        let found = files(&tree, folder);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a_b", "c", "gone"]);
        assert_eq!((found["a_b"].line, &found["a_b"].missing), (1, &None));
        assert_eq!(
            found["gone"].missing.as_deref(),
            Some("/lib/modules/2.6.32/extra/gone.ko.xz")
        );
        for path in whole.iter().chain(&["/elsewhere/d.ko".to_owned()]) {
            let mut without = tree.clone();
            without.remove(path);
            let found = files(&without, folder);
            assert_eq!(found["a_b"].missing.as_ref(), Some(path));
            assert_eq!(found["c"].missing.is_some(), path.ends_with("/c.ko"));
        }
        assert_eq!(name_of("a/b.txt"), None);
    }
}
