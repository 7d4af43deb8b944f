//! Real data none of us made: a Windows NT 6.1 registry, boot stores, boot menus of another project's tests.

#[path = "../../../../properties/skip.rs"]
pub(crate) mod skipping;
#[path = "../../../../properties/foreign.rs"]
mod unpacking;

use crate::support::{Golden, LIMITS, WINDOWS, machine};
use drylab_block::{Limits, ReadAt, Result, SparseBytes, WriteAt};
use drylab_filesystem::{Entry, FileType, Filesystem, Kind};
use drylab_guest::boot::boot;
use drylab_guest::inspect::{BcdDevice, Guest, System, grub_legacy, grub2, inspect_with};
use drylab_hive::{HiveEditor, RegType};
use drylab_volume::Volume;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Files in memory, shown as an NTFS volume.
struct Memory(BTreeMap<String, Vec<u8>>);

impl Filesystem for Memory {
    fn kind(&self) -> Kind {
        Kind::Ntfs
    }

    fn uuid(&self) -> String {
        "0123456789ABCDEF".to_owned()
    }

    fn label(&self) -> String {
        String::new()
    }

    fn list(&self, path: &str, _: &Limits) -> Result<Option<Vec<Entry>>> {
        let folder = format!("{}/", path.trim_end_matches('/').to_lowercase());
        let mut entries = BTreeMap::new();
        for (file, bytes) in &self.0 {
            let Some(rest) = file.to_lowercase().strip_prefix(&folder).map(str::len) else {
                continue;
            };
            let rest = &file[file.len() - rest..];
            let (name, file_type, size) = match rest.split_once('/') {
                Some((name, _)) => (name, FileType::Directory, 0),
                None => (rest, FileType::File, bytes.len() as u64),
            };
            entries.insert(
                name.to_owned(),
                Entry {
                    name: name.to_owned(),
                    file_type,
                    size,
                },
            );
        }
        Ok((!entries.is_empty()).then(|| entries.into_values().collect()))
    }

    fn read(&self, path: &str, _: &Limits) -> Result<Option<Vec<u8>>> {
        Ok(self
            .0
            .iter()
            .find(|(file, _)| file.eq_ignore_ascii_case(path))
            .map(|(_, bytes)| bytes.clone()))
    }
}

/// Inspects these files as the only partition of a disk, active, at sector 2048.
fn inspect_files(files: Vec<(&str, Vec<u8>)>) -> Guest {
    let disk = SparseBytes::new(64 << 20);
    let entry = [0x80, 0, 0, 0, 7, 0, 0, 0, 0, 8, 0, 0, 0, 0xe8, 1, 0];
    disk.write_at(0, &[0x33, 0xc0]).expect("it is long enough");
    disk.write_at(0x1b8, &0x5cbe_a03eu32.to_le_bytes())
        .expect("it is long enough");
    disk.write_at(0x1be, &entry).expect("it is long enough");
    disk.write_at(0x1fe, &[0x55, 0xaa])
        .expect("it is long enough");
    disk.write_at(1 << 20, &[0xeb, 0x52, 0x90])
        .expect("it is long enough");
    disk.write_at((1 << 20) + 510, &[0x55, 0xaa])
        .expect("it is long enough");
    let files: BTreeMap<String, Vec<u8>> = files
        .into_iter()
        .map(|(path, bytes)| (path.to_owned(), bytes))
        .collect();
    let memory: Arc<dyn Filesystem> = Arc::new(Memory(files));
    let disks: [Arc<dyn ReadAt>; 1] = [Arc::new(disk)];
    inspect_with(&disks, &|_: &Volume| Ok(Some(memory.clone())), &LIMITS).expect("it is inspected")
}

fn real_system(folder: &Path) -> Vec<u8> {
    let path = folder.join("hive/regipy__regipy_tests_data_SYSTEM.xz");
    let output = Command::new("xz")
        .arg("-dc")
        .arg(&path)
        .output()
        .expect("xz is there where the files are");
    assert!(output.status.success(), "{}", path.display());
    output.stdout
}

/// The golden boot store, changed to name this partition.
fn store(signature: u32, offset: u64) -> Vec<u8> {
    let bytes = Golden::new(WINDOWS, "esxi-5.0.0").read("p1", "/Boot/BCD");
    let mut editor = HiveEditor::open(bytes, &LIMITS).expect("it opens");
    for element in ["11000001", "21000001"] {
        let key = format!("Objects\\{{6c1f0b52-3d7e-11e2-9a41-c0ffee2008a2}}\\Elements\\{element}");
        let value = editor
            .key(&key)
            .expect("it reads")
            .expect("it is there")
            .value("Element");
        let mut device = value.expect("it reads").expect("it is there").as_binary();
        device[0x20..0x28].copy_from_slice(&offset.to_le_bytes());
        device[0x38..0x3c].copy_from_slice(&signature.to_le_bytes());
        editor
            .set_value(&key, "Element", RegType::BINARY, &device)
            .expect("it edits");
    }
    editor.finish().expect("it is written")
}

#[test]
fn the_registry_of_a_real_nt_61_is_read_and_boots_on_the_controllers_it_was_installed_on() {
    let Some((folder, _)) = unpacking::foreign() else {
        return;
    };
    let drivers = [
        "intelide", "atapi", "lsi_sas", "lsi_scsi", "disk", "partmgr", "volmgr", "pciide",
    ];
    let paths: Vec<String> = drivers
        .iter()
        .map(|name| format!("/Windows/System32/drivers/{name}.sys"))
        .collect();
    let mut files: Vec<(&str, Vec<u8>)> =
        paths.iter().map(|path| (path.as_str(), vec![0])).collect();
    files.push(("/Windows/System32/config/SYSTEM", real_system(&folder)));
    files.push(("/bootmgr", vec![0]));
    let guest = inspect_files(files.clone());
    let System::Windows(system) = &guest.system else {
        panic!("it is a Windows")
    };
    assert_eq!(system.control_set.value, "ControlSet001");
    // As hivexregedit exports the same hive.
    for (name, start) in [
        ("intelide", 0),
        ("pciide", 3),
        ("atapi", 0),
        ("lsi_sas", 0),
        ("msahci", 3),
        ("ntfs", 3),
    ] {
        assert_eq!(system.services[name].start, Some(start), "{name}");
    }
    assert_eq!(
        system.services["lsi_sas"].image.to_lowercase(),
        "/windows/system32/drivers/lsi_sas.sys"
    );
    assert_eq!(
        system.critical_devices["pci#ven_8086&dev_7111"].value,
        "intelide"
    );
    assert_eq!(
        system.critical_devices["internal_ide_channel"].value,
        "atapi"
    );
    assert_eq!(system.critical_devices["gendisk"].value, "disk");
    assert!(!system.driver_database && !system.clock_utc.value);
    assert!(!system.net.adapters.is_empty() && !system.net.interfaces.is_empty());
    // Without a boot store nothing starts, whatever the registry says.
    let report = boot(&guest, &machine("piix4-ide"));
    assert_eq!(
        report.stages.last().map(|stage| (stage.name, stage.ok)),
        Some(("boot-loader", false))
    );
    // With one, the drivers that were in use on the machine it comes from decide.
    files.push(("/Boot/BCD", store(0x5cbe_a03e, 1 << 20)));
    files.push(("/Windows/System32/winload.exe", vec![0]));
    let guest = inspect_files(files);
    for (model, boots) in [
        ("lsisas1068", true),
        ("piix4-ide", true),
        ("virtio-blk", false),
        ("pvscsi", false),
    ] {
        let report = boot(&guest, &machine(model));
        assert_eq!(report.reached, boots, "{model}: {:#?}", report.cause);
    }
}

#[test]
fn real_boot_stores_name_their_default_and_its_devices() {
    let Some((folder, _)) = unpacking::foreign() else {
        return;
    };
    for (name, default, device) in [
        (
            "regipy__regipy_tests_data_BCD",
            "{733b62e5-f608-11eb-825c-c112f60133ab}",
            "gpt",
        ),
        (
            "ez-registry__Registry.Test_Hives_BCD",
            "{7619dcc9-fafe-11d9-b411-000476eba25f}",
            "ramdisk",
        ),
    ] {
        let bytes = std::fs::read(folder.join("hive").join(name)).expect("it was unpacked");
        let system = real_system(&folder);
        let guest = inspect_files(vec![
            ("/Windows/System32/config/SYSTEM", system),
            ("/Boot/BCD", bytes),
            ("/bootmgr", vec![0]),
        ]);
        let System::Windows(system) = &guest.system else {
            panic!("it is a Windows")
        };
        let bcd = system.bcd.as_ref().expect("it is read");
        assert_eq!(
            bcd.default.as_ref().map(|found| found.value.as_str()),
            Some(default),
            "{name}"
        );
        match (&bcd.device.as_ref().expect("it has one").value, device) {
            (BcdDevice::Gpt { .. }, "gpt") | (BcdDevice::Other(_), "ramdisk") => {}
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn menus_of_another_project_are_read_with_every_entry() {
    let Some((folder, _)) = unpacking::foreign() else {
        return;
    };
    let mut read = 0;
    let listed = std::fs::read_dir(folder.join("guestcfg")).expect("it was unpacked");
    let mut paths: Vec<PathBuf> = listed
        .map(|entry| entry.expect("it is listed").path())
        .collect();
    paths.sort();
    for path in paths {
        let name = path
            .file_name()
            .expect("it has one")
            .to_string_lossy()
            .into_owned();
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let count = |starts: &[&str]| {
            text.lines()
                .filter(|line| starts.iter().any(|start| line.starts_with(start)))
                .count()
        };
        let entries = if name.starts_with("grubby__test_grub.") {
            let menu = grub_legacy(&text, &name);
            assert_eq!(menu.entries.len(), count(&["title"]), "{name}");
            menu.entries
        } else if name.starts_with("grubby__test_grub2.") {
            let menu = grub2(&text, &name);
            assert_eq!(
                menu.entries.len(),
                count(&["menuentry", "submenu"]),
                "{name}"
            );
            menu.entries
        } else {
            continue;
        };
        let kernels: Vec<&str> = entries
            .iter()
            .filter_map(|entry| entry.kernel.as_ref())
            .map(|file| file.value.as_str())
            .collect();
        assert!(
            kernels.iter().all(|kernel| kernel.starts_with('/')),
            "{name}: {kernels:?}"
        );
        read += 1;
    }
    assert!(read >= 20, "only {read} menus were found");
}
