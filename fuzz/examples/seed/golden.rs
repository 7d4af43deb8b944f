//! Files of the golden guests, cut to what a fuzzer handles fast.

use crate::{keep, part, root};
use drylab_block::{Delta, Limits, Overlay, ReadAt};
use drylab_filesystem::{FileType, Filesystem};
use drylab_volume::Layout;
use std::sync::Arc;

type Done = Result<(), Box<dyn std::error::Error>>;

/// Files, by target: whole when short, else their first lines.
const TEXTS: [(&str, &[&str]); 9] = [
    ("fstab", &["/etc/fstab"]),
    ("grub_cfg", &["/grub/grub.conf", "/boot/grub/grub.cfg"]),
    (
        "ifcfg",
        &[
            "/etc/sysconfig/network-scripts/ifcfg-eth0",
            "/etc/sysconfig/network",
        ],
    ),
    ("interfaces", &["/etc/network/interfaces"]),
    ("iptables", &["/etc/sysconfig/iptables"]),
    (
        "dhclient_files",
        &[
            "/var/lib/dhclient/dhclient-eth0.leases",
            "/var/lib/dhcp/dhclient.eth0.leases",
            "/etc/dhcp/dhclient.conf",
        ],
    ),
    (
        "udev_rules",
        &[
            "/etc/udev/rules.d/70-persistent-net.rules",
            "/lib/udev/rules.d/75-persistent-net-generator.rules",
            "/lib/udev/rules.d/60-net.rules",
        ],
    ),
    (
        "modules_alias",
        &[
            "/lib/modules/2.6.32-279.el6.x86_64/modules.alias",
            "/lib/modules/3.2.0-23-generic/modules.alias",
            "/lib/modules/3.2.0-23-generic/modules.builtin",
        ],
    ),
    ("bcd", &["/Boot/BCD"]),
];
const HIVES: [&str; 2] = [
    "/Windows/System32/config/SYSTEM",
    "/Windows/System32/config/SOFTWARE",
];

pub fn write() -> Done {
    for guest in ["centos-6.3", "ubuntu-12.04", "windows-2008r2"] {
        let folder = root().join("corpora/guests").join(guest);
        let base: Arc<dyn ReadAt> = Arc::new(std::fs::read(folder.join("base.qcow2"))?);
        let base = Arc::new(drylab_image::open(base, &Limits::DEFAULT)?);
        let delta = std::fs::read(folder.join("kvm-centos-6.3.delta"))?;
        // The delta's own form, cut behind its second page.
        let mut cut = delta.clone();
        cut.truncate(28 + 2 * 4104);
        cut[24..28].copy_from_slice(&2u32.to_le_bytes());
        keep("delta", guest, &cut)?;
        let delta = Delta::parse(&delta, base.len())?;
        let disk: Arc<dyn ReadAt> = Arc::new(Overlay::with_delta(base, &delta));
        keep("mbr", guest, &part(&disk, 0, 4096)?)?;
        let layout = drylab_volume::scan(disk, &Limits::DEFAULT)?;
        volumes(guest, &layout)?;
    }
    Ok(())
}

fn volumes(guest: &str, layout: &Layout) -> Done {
    for volume in &layout.volumes {
        if volume.physical.is_some() {
            keep("lvm", guest, &part(&volume.source, 0, 8192)?)?;
            // The text alone, too.
            let area = part(&volume.source, 4096, 16_384)?;
            if let Some(start) = area.windows(5).position(|window| window == b" {\nid") {
                let start = area[..start]
                    .iter()
                    .rposition(|byte| *byte == 0)
                    .map_or(0, |at| at + 1);
                let text = area[start..]
                    .split(|byte| *byte == 0)
                    .next()
                    .unwrap_or_default();
                keep("lvm", &format!("{guest}-text"), text)?;
            }
        }
        if let Some(filesystem) = drylab_filesystem::open(volume.source.clone(), &Limits::DEFAULT)?
        {
            files(
                guest,
                &volume.name.to_string().replace('/', "-"),
                filesystem.as_ref(),
            )?;
        }
    }
    Ok(())
}

fn files(guest: &str, volume: &str, filesystem: &dyn Filesystem) -> Done {
    let limits = Limits::DEFAULT;
    for (target, paths) in TEXTS {
        for path in paths {
            if let Some(mut bytes) = filesystem.read(path, &limits)? {
                if target != "bcd" && bytes.len() > 6000 {
                    let cut = bytes[..6000]
                        .iter()
                        .rposition(|byte| *byte == b'\n')
                        .unwrap_or(6000);
                    bytes.truncate(cut + 1);
                }
                let name = path.rsplit('/').next().unwrap_or(path);
                keep(target, &format!("{guest}-{name}"), &bytes)?;
            }
        }
    }
    for path in HIVES {
        if let Some(bytes) = filesystem.read(path, &limits)? {
            keep(
                "hive",
                &format!("{guest}-{}", path.rsplit('/').next().unwrap_or(path)),
                &bytes,
            )?;
        }
    }
    found(guest, volume, filesystem)
}

/// An initramfs, two kernel modules and two INF files, wherever they stand.
fn found(guest: &str, volume: &str, filesystem: &dyn Filesystem) -> Done {
    let mut todo = vec![String::new()];
    let (mut modules, mut setups) = (0, 0);
    while let Some(directory) = todo.pop() {
        let path = if directory.is_empty() {
            "/"
        } else {
            &directory
        };
        for entry in filesystem.list(path, &Limits::DEFAULT)?.unwrap_or_default() {
            let path = format!("{directory}/{}", entry.name);
            let name = entry.name.to_ascii_lowercase();
            if entry.file_type == FileType::Directory {
                todo.push(path);
                continue;
            }
            let target = if name.starts_with("initr") {
                "initramfs"
            } else if name.ends_with(".ko") && modules < 2 {
                modules += 1;
                "elf"
            } else if name.ends_with(".inf") && setups < 3 {
                setups += 1;
                "inf"
            } else {
                continue;
            };
            if let Some(bytes) = filesystem.read(&path, &Limits::DEFAULT)? {
                keep(target, &format!("{guest}-{volume}-{name}"), &bytes)?;
            }
        }
    }
    Ok(())
}
