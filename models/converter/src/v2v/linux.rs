//! What is changed inside a Linux guest.

use super::domain::{VIRTIO, disk_name};
use super::initramfs;
use crate::ToolError;
use crate::converted::Edits;
use drylab_catalog::Witness;
use drylab_filesystem::edit::Change;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{Guest, LinuxSystem, LoaderKind};

/// Distributions taken for the Red Hat family by both versions.
pub(crate) const RED_HAT: [&str; 6] =
    ["rhel", "centos", "scientific", "oracle", "fedora", "redhat"];
/// What the versions of the tool do differently.
#[derive(Clone, Copy)]
pub(crate) struct Habits {
    /// The row that says that the guest is made ready for virtio.
    pub(crate) ready: &'static str,
    /// More than one `console=` ends the conversion (quirk GQ77).
    pub(crate) one_console: bool,
    /// Relabelling is left to the guest's first boot (quirk GQ79); otherwise it is done at once.
    pub(crate) relabels_at_boot: bool,
}

/// What VMware Tools leave in a guest, as far as it is configuration.
const TOOLS: [&str; 5] = [
    "/etc/vmware-tools/config",
    "/etc/vmware-tools/locations",
    "/etc/vmware-tools/not_configured",
    "/etc/modprobe.d/vmware-tools.conf",
    "/etc/init.d/vmware-tools",
];
/// Adapter drivers that an alias may name.
const NIC_MODULES: [&str; 6] = ["e1000", "e1000e", "pcnet32", "vmxnet", "vmxnet3", "xennet"];
/// Disk drivers that an alias may name.
const DISK_MODULES: [&str; 6] = [
    "mptspi", "mptsas", "mptscsih", "BusLogic", "pvscsi", "xenblk",
];

/// Makes the guest ready for virtio.
pub(crate) fn convert(
    guest: &Guest,
    system: &LinuxSystem,
    habits: Habits,
    editor: &mut Editor,
    edits: &mut Edits,
) -> Result<(), ToolError> {
    consoles(system, habits, editor, edits)?;
    let disks = guest.disks.len();
    remap(editor, edits, "/boot/grub/device.map", disks, habits.ready)?;
    remap(editor, edits, "/etc/fstab", disks, habits.ready)?;
    aliases(guest, habits.ready, editor, edits)?;
    tools(editor, edits)?;
    initramfs::ready(system, &initramfs::virtio(habits.ready), editor, edits)?;
    if habits.relabels_at_boot {
        autorelabel(editor, edits)?;
    }
    Ok(())
}

/// Xen's console becomes a serial one; a kernel with several consoles is too much for the tool.
fn consoles(
    system: &LinuxSystem,
    habits: Habits,
    editor: &mut Editor,
    edits: &mut Edits,
) -> Result<(), ToolError> {
    let Some(loader) = system
        .loader
        .as_ref()
        .filter(|loader| loader.kind == LoaderKind::GrubLegacy)
    else {
        return Ok(());
    };
    let Some(bytes) = editor.read(&loader.path)? else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let kernel = |line: &str| line.trim_start().starts_with("kernel");
    for (number, line) in (1u32..).zip(text.lines()).filter(|(_, line)| kernel(line)) {
        if habits.one_console
            && line
                .split_whitespace()
                .filter(|word| word.starts_with("console="))
                .count()
                > 1
        {
            let says = "virt-v2v: Augeas error: Too many matches for path expression";
            return Err(ToolError::new(says)
                .because(Witness::file(&loader.path, number, line.trim().to_owned()))
                .because(Witness::quirk("GQ77")));
        }
    }
    let xen = ["console=xvc0", "console=hvc0"];
    if !text
        .lines()
        .any(|line| kernel(line) && xen.iter().any(|word| line.contains(word)))
    {
        return Ok(());
    }
    let changed = lines(&text, |line| {
        if kernel(line) {
            xen.iter().fold(line.to_owned(), |line, word| {
                line.replace(word, "console=ttyS0")
            })
        } else {
            line.to_owned()
        }
    });
    let applied = editor.write(&loader.path, changed.into_bytes())?;
    edits.made(&applied, "console= of Xen became ttyS0", &["DQ503"]);
    Ok(())
}

/// Every line changed, line ends kept.
fn lines(text: &str, change: impl Fn(&str) -> String) -> String {
    let split = text.split_inclusive('\n');
    split
        .map(|line| match line.strip_suffix('\n') {
            Some(line) => format!("{}\n", change(line)),
            None => change(line),
        })
        .collect()
}

/// `/dev/sda1` as (disk name without its number, number part), for disks by name.
fn bare(word: &str) -> Option<(usize, &str)> {
    let rest = word.strip_prefix("/dev/")?;
    let rest = ["sd", "hd", "xvd"]
        .iter()
        .find_map(|prefix| rest.strip_prefix(prefix))?;
    let letter = rest.chars().next().filter(char::is_ascii_lowercase)?;
    let part = rest.get(1..)?;
    let number = ('a'..='z').position(|known| known == letter)?;
    part.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some((number, part))
}

/// Device names of a file from the source's disks to virtio's, in the order of the disks.
fn remap(
    editor: &mut Editor,
    edits: &mut Edits,
    path: &str,
    disks: usize,
    ready: &'static str,
) -> Result<(), ToolError> {
    let Some(bytes) = editor.read(path)? else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut unknown = Vec::new();
    for (number, line) in (1u32..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim_start().starts_with('#'))
    {
        for word in line.split_whitespace() {
            if bare(word).is_some_and(|(disk, _)| disk >= disks) {
                unknown.push(Witness::file(
                    path,
                    number,
                    format!("{word} is no disk of the machine, left alone"),
                ));
            }
        }
    }
    for witness in unknown {
        edits.notes.push(witness);
        edits.notes.push(Witness::quirk("GQ80"));
    }
    let changed = lines(&text, |line| {
        if line.trim_start().starts_with('#') {
            return line.to_owned();
        }
        let words = line.split_inclusive(char::is_whitespace);
        words
            .map(|word| {
                let plain = word.trim_end();
                match bare(plain).filter(|(disk, _)| *disk < disks) {
                    Some((disk, part)) => {
                        word.replacen(plain, &format!("/dev/{}{part}", disk_name(VIRTIO, disk)), 1)
                    }
                    None => word.to_owned(),
                }
            })
            .collect()
    });
    if changed != text {
        let applied = editor.write(path, changed.into_bytes())?;
        edits.made(&applied, "disk names became those of virtio", &[ready]);
    }
    Ok(())
}

/// Module aliases that name the drivers of the old hardware.
fn aliases(
    guest: &Guest,
    ready: &'static str,
    editor: &mut Editor,
    edits: &mut Edits,
) -> Result<(), ToolError> {
    let folder = guest.tree.iter().map(|(path, _)| path.to_owned());
    let in_folder = folder.filter(|path| path.starts_with("/etc/modprobe.d/"));
    let paths: Vec<String> = in_folder.chain(["/etc/modprobe.conf".to_owned()]).collect();
    for path in paths {
        let Some(bytes) = editor.read(&path)? else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let changed = lines(&text, |line| {
            match *line.split_whitespace().collect::<Vec<_>>() {
                ["alias", name, module]
                    if name.starts_with("eth") && NIC_MODULES.contains(&module) =>
                {
                    format!("alias {name} virtio_net")
                }
                ["alias", name, module]
                    if name.starts_with("scsi_hostadapter") && DISK_MODULES.contains(&module) =>
                {
                    format!("alias {name} virtio_blk")
                }
                _ => line.to_owned(),
            }
        });
        if changed != text {
            let applied = editor.write(&path, changed.into_bytes())?;
            edits.made(&applied, "aliases of old drivers became virtio's", &[ready]);
        }
    }
    Ok(())
}

fn tools(editor: &mut Editor, edits: &mut Edits) -> Result<(), ToolError> {
    for path in TOOLS {
        if editor.read(path)?.is_some() {
            let applied = editor.change(path, Change::Remove)?;
            edits.made(&applied, "VMware Tools removed", &["GQ81"]);
        }
    }
    Ok(())
}

fn autorelabel(editor: &mut Editor, edits: &mut Edits) -> Result<(), ToolError> {
    let Some(bytes) = editor.read("/etc/selinux/config")? else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mode = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("SELINUX="));
    if matches!(mode.map(str::trim), Some("enforcing" | "permissive"))
        && editor.read("/.autorelabel")?.is_none()
    {
        let applied = editor.write("/.autorelabel", Vec::new())?;
        edits.made(
            &applied,
            "touched, so that the first boot relabels and restarts",
            &["GQ79"],
        );
    }
    Ok(())
}
