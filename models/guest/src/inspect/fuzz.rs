//! Entry points for fuzzing the readers of this folder: each takes any bytes, walks all that is found and must not
//! panic.

use super::registry::Registry;
use super::{bcd, cpio, elf, fstab as tables, grub, inf as setup, initramfs as ramfs};
use drylab_block::Limits;
use drylab_hive::Hive;

/// Small bounds, so that a few bytes that claim much are refused fast.
fn limits() -> Limits {
    let mut limits = Limits::DEFAULT;
    limits.file_bytes_max = 8 << 20;
    limits.entries_max = 4096;
    limits
}

/// A whole disk.
///
/// # Panics
/// Only on a bug of ours: when the root is no volume.
pub fn disk(data: &[u8]) {
    let disk = super::GuestDisk::new(std::sync::Arc::new(data.to_vec()));
    let Ok(guest) = super::inspect(&[disk], &limits()) else {
        return;
    };
    for volume in &guest.layout {
        assert!(!volume.name().is_empty(), "a volume has a name");
    }
    assert!(guest.root < guest.layout.len(), "the root is a volume");
}

/// Archives, modules and tables of an initramfs.
///
/// # Panics
/// Only on a bug of ours: when files and modules disagree.
pub fn initramfs(data: &[u8]) {
    let mut entries = 0usize;
    let walked = cpio::walk(data, &limits(), &mut |_| {
        entries = entries.saturating_add(1)
    });
    let read = ramfs::read(data, &limits(), &mut Vec::new());
    assert!(
        read.is_err() || walked.is_ok(),
        "what is read can be walked"
    );
    if let Ok(found) = read {
        assert!(found.files.len() <= entries, "a file is an entry");
        assert!(
            found.modules.len() <= found.files.len(),
            "a module is a file"
        );
    }
}

/// A kernel module.
pub fn elf(data: &[u8]) {
    let _ = elf::modinfo(data);
}

/// Menus of both GRUBs.
///
/// # Panics
/// Only on a bug of ours: when an entry's line is not in the file.
pub fn grub_cfg(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for menu in [
        grub::legacy(&text, "/boot/grub/grub.conf"),
        grub::grub2(&text, "/boot/grub/grub.cfg"),
    ] {
        for kernel in menu
            .entries
            .iter()
            .filter_map(|entry| entry.kernel.as_ref())
        {
            assert!(!kernel.witness.says.is_empty(), "a kernel line is quoted");
        }
        for entry in &menu.entries {
            let witness = &menu.default.witness;
            let _ = tables::cmdline(&entry.cmdline, witness);
        }
    }
}

/// `fstab`, `crypttab` and a command line.
///
/// # Panics
/// Only on a bug of ours: when a line gives more than one entry.
pub fn fstab(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert!(
        tables::fstab(&text).len() <= text.lines().count(),
        "an entry is a line"
    );
    assert!(
        tables::crypttab(&text).len() <= text.lines().count(),
        "an entry is a line"
    );
    let place = drylab_catalog::Witness::file("/boot/grub/grub.conf", 1, "");
    let _ = tables::cmdline(&text, &place);
}

/// Boot configuration data.
pub fn bcd(data: &[u8]) {
    let _ = bcd::device(data);
    if let Ok(hive) = Hive::open(data.to_vec(), &limits()) {
        let _ = bcd::read(&Registry::new(hive, "BCD"), 0, "/Boot/BCD");
    }
}

/// A setup information file.
pub fn inf(data: &[u8]) {
    let _ = setup::network_models(data);
}
