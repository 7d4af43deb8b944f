//! A running Linux, copied file by file: a helper machine at the destination makes the file systems anew, so that their
//! UUIDs change (quirk GQ133), and then mends what names them, installs the guest's own GRUB and makes its initramfs.
//!
//! The files themselves are the same, and so they stay where they are here; only what a new file system has of its own
//! is changed: its UUID. Logical volumes are made again under their names.

use super::failed;
use crate::ToolError;
use crate::converted::Edits;
use crate::v2v::initramfs::{self, Wanted};
use drylab_block::{Delta, Limits, Overlay, ReadAt, Result, WriteAt, le_u16, le_u32, slice_at};
use drylab_catalog::Witness;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{Guest, GuestDisk, LinuxSystem, LoaderKind};
use drylab_volume::{Volume, WindowMut};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Files that may name a file system by its UUID.
const NAMING: [&str; 4] = [
    "/etc/fstab",
    "/etc/default/grub",
    "/etc/crypttab",
    "/etc/initramfs-tools/conf.d/resume",
];
/// Bytes of boot code in sector 0, before the disk signature.
const BOOT_CODE: usize = 440;

/// The boot disk of the new machine.
pub(crate) fn copy(
    guest: &Guest,
    system: &LinuxSystem,
    boot: &GuestDisk,
    edits: &mut Edits,
) -> std::result::Result<GuestDisk, ToolError> {
    let Some(loader) = &system.loader else {
        return Err(failed("the source has no GRUB")
            .because(Witness::file("/boot/grub", 0, "no configuration of GRUB"))
            .because(Witness::quirk("GQ125")));
    };
    let (disk, renamed) = anew(boot)?;
    let mut editor = Editor::open(&disk, &Limits::DEFAULT)?;
    for path in NAMING.into_iter().chain([loader.path.as_str()]) {
        rename(path, &renamed, &mut editor, edits)?;
    }
    install_grub(guest, loader.kind, &mut editor, edits)?;
    let wanted = Wanted {
        modules: &["mptspi"],
        tool: "vCenter Converter",
        disk: "LSI Logic",
        quirk: "GQ125",
    };
    initramfs::ready(system, &wanted, &mut editor, edits)?;
    edits.notes.push(Witness::quirk("GQ133"));
    Ok(editor.finish())
}

/// The disk with new UUIDs, and the old ones' successors as text.
fn anew(boot: &GuestDisk) -> Result<(GuestDisk, BTreeMap<String, String>)> {
    let disk = Arc::new(Overlay::with_delta(boot.bytes.clone(), &Delta::default()));
    let source: Arc<dyn ReadAt> = disk.clone();
    let layout = drylab_volume::scan(source, &Limits::DEFAULT)?;
    let mut renamed = BTreeMap::new();
    for volume in &layout.volumes {
        let Some((place, old)) = uuid_of(volume)? else {
            continue;
        };
        let new = mixed(&old, volume.name.to_string().as_bytes());
        let target: Arc<dyn WriteAt> = disk.clone();
        WindowMut::new(vec![target], volume.map.clone()).write_at(place, &new)?;
        renamed.insert(spelled(&old), spelled(&new));
    }
    let disk = GuestDisk {
        bytes: disk,
        files: boot.files.clone(),
    };
    Ok((disk, renamed))
}

/// Where a volume's UUID stands, and the UUID: ext2 to ext4 without checksums of metadata, swap areas.
fn uuid_of(volume: &Volume) -> Result<Option<(u64, [u8; 16])>> {
    const PAGE: usize = 4096;
    let mut head = [0u8; PAGE];
    if volume.source.len() < 4096 {
        return Ok(None);
    }
    volume.source.read_at(0, &mut head)?;
    let is_ext = le_u16(&head, 0x438) == Some(0xef53);
    let has_checksums = le_u32(&head, 0x464).is_some_and(|features| features & 0x400 != 0);
    let place = if is_ext && !has_checksums {
        0x468
    } else if slice_at(&head, 0xff6, 10) == Some(b"SWAPSPACE2") {
        0x40c
    } else {
        return Ok(None);
    };
    let found = slice_at(&head, place, 16).and_then(|bytes| bytes.try_into().ok());
    Ok(found.map(|old| (u64::try_from(place).unwrap_or(0), old)))
}

fn rename(
    path: &str,
    renamed: &BTreeMap<String, String>,
    editor: &mut Editor,
    edits: &mut Edits,
) -> std::result::Result<(), ToolError> {
    let Some(bytes) = editor.read(path)? else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let changed = renamed
        .iter()
        .fold(text.clone(), |text, (old, new)| text.replace(old, new));
    if changed != text {
        let applied = editor.write(path, changed.into_bytes())?;
        edits.made(
            &applied,
            "names the file systems that were made anew",
            &["GQ133"],
        );
    }
    Ok(())
}

/// GRUB's own first stages go to the start of the disk, whatever stood there: nothing in a machine that pygrub booted.
fn install_grub(
    guest: &Guest,
    kind: LoaderKind,
    editor: &mut Editor,
    edits: &mut Edits,
) -> std::result::Result<(), ToolError> {
    let (first, second) = match kind {
        LoaderKind::GrubLegacy => ("/boot/grub/stage1", "/boot/grub/e2fs_stage1_5"),
        LoaderKind::Grub2 => ("/boot/grub/boot.img", "/boot/grub/core.img"),
    };
    let read = |path: &str| {
        editor.read(path)?.ok_or_else(|| {
            failed("cannot install GRUB at the destination").because(Witness::file(
                path,
                0,
                "the guest has no such file",
            ))
        })
    };
    let (mut code, mut embedded) = (read(first)?, read(second)?);
    code.resize(BOOT_CODE, 0);
    // Up to the first partition, which old tables put at sector 63.
    embedded.truncate(62 * 512);
    editor.overwrite(0, &code)?;
    editor.overwrite(512, &embedded)?;
    let before = guest
        .disks
        .first()
        .map(|disk| format!("{:?}", disk.boot_code));
    let says = format!(
        "{first} and {second} written, before: {}",
        before.unwrap_or_default()
    );
    edits.made_at(Witness::disk("disk 0 sector 0", says), &["GQ125"]);
    Ok(())
}

/// A UUID made of another and a text (FNV-1a, twice), marked as a random one: nothing here is random.
pub(crate) fn mixed(old: &[u8], with: &[u8]) -> [u8; 16] {
    let half = |seed: u64| {
        let bytes = old.iter().chain(with);
        bytes.fold(seed, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    let (high, low) = (half(0xcbf2_9ce4_8422_2325), half(0x6c62_272e_07bb_0142));
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0b11 << 62) | (0b10 << 62);
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

fn spelled(uuid: &[u8; 16]) -> String {
    let digits: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default();
    [
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32),
    ]
    .join("-")
}
