//! OVF and OVA: opened like the disk in them, and no further.

use crate::support::{golden, json, run, text, write_raw};
use drylab_appliance::manifest::{Algorithm, Manifest};
use drylab_appliance::ova::write_ova;
use drylab_appliance::ovf::{Attach, Description, Disk, ScsiController, write};
use drylab_appliance::xva;
use drylab_block::{ReadAt, SparseBytes};
use drylab_image::{Target, VmdkOptions};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// An exported CentOS: descriptor, disk, manifest.
struct Exported {
    descriptor: Vec<u8>,
    disk: SparseBytes,
    manifest: Vec<u8>,
}

fn exported() -> Exported {
    let guest = golden("centos-6.3", "esxi-5.0.0");
    let disk = SparseBytes::default();
    let target = Target::VmdkStream(VmdkOptions::default());
    drylab_image::write(guest.as_ref(), &target, &disk).expect("it is written");
    let descriptor = write(&Description {
        name: "centos".to_owned(),
        generated_by: None,
        build: None,
        os_id: 107,
        os_type: "centos64Guest".to_owned(),
        os_description: None,
        system_types: vec!["vmx-08".to_owned()],
        cpus: 1,
        cores_per_socket: None,
        memory_mib: 1024,
        scsi: vec![ScsiController {
            sub_type: "lsilogic".to_owned(),
            pci_slot: None,
        }],
        disks: vec![Disk {
            file: Some(("disk.vmdk".to_owned(), disk.len())),
            capacity: guest.len(),
            populated: None,
            attach: Attach::Scsi {
                controller: 0,
                unit: 0,
            },
        }],
        cd_roms: Vec::new(),
        floppy: false,
        nics: Vec::new(),
        configs: Vec::new(),
        annotation: None,
    })
    .expect("it is printed");
    let files: [(&str, &dyn ReadAt); 2] = [("centos.ovf", &descriptor), ("disk.vmdk", &disk)];
    let manifest = Manifest::of(Algorithm::Sha1, &files)
        .expect("it is made")
        .print()
        .into_bytes();
    Exported {
        descriptor,
        disk,
        manifest,
    }
}

impl Exported {
    fn put(&self, folder: &Path) {
        fs::create_dir(folder).expect("the folder is new");
        fs::write(folder.join("centos.ovf"), &self.descriptor).expect("it is written");
        fs::write(folder.join("centos.mf"), &self.manifest).expect("it is written");
        write_raw(&self.disk, &folder.join("disk.vmdk"));
    }

    fn replace(&self, from: &str, to: &str) -> String {
        let text = String::from_utf8(self.descriptor.clone()).expect("it is UTF-8");
        assert!(text.contains(from), "{text}");
        text.replace(from, to)
    }
}

fn findings(path: &Path) -> Vec<Value> {
    let document = json(&[
        "check",
        text(path),
        "--target",
        "kvm-centos-6.3",
        "--format",
        "json",
    ]);
    document["targets"][0]["findings"]
        .as_array()
        .expect("a list")
        .clone()
}

fn guest(findings: &[Value]) -> Vec<Value> {
    let of_guest = |finding: &&Value| {
        finding["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("guest."))
    };
    findings.iter().filter(of_guest).cloned().collect()
}

fn has(findings: &[Value], id: &str) -> bool {
    findings
        .iter()
        .any(|finding| finding["id"] == id && finding["score"] == "FAILURE")
}

#[test]
fn ovf_and_ova_give_the_guest_level_findings_of_the_disk_in_them_and_hold_it_against_the_manifest()
{
    let folder = tempfile::tempdir().expect("a folder");
    let exported = exported();
    let ovf = folder.path().join("ovf");
    exported.put(&ovf);
    let expected = guest(&findings(&ovf.join("disk.vmdk")));

    let whole = findings(&ovf.join("centos.ovf"));
    assert_eq!(guest(&whole), expected);
    assert!(!has(&whole, "MANIFEST-DIGEST"), "{whole:?}");

    let ova = folder.path().join("centos.ova");
    let members: [(String, &dyn ReadAt); 3] = [
        ("centos.ovf".to_owned(), &exported.descriptor),
        ("centos.mf".to_owned(), &exported.manifest),
        ("disk.vmdk".to_owned(), &exported.disk),
    ];
    let archive = SparseBytes::default();
    write_ova(&members, &archive).expect("it is written");
    write_raw(&archive, &ova);
    assert_eq!(findings(&ova), whole, "an archive changes nothing");

    let digests = String::from_utf8(exported.manifest.clone()).expect("text");
    let lines = digests.lines().filter_map(|line| line.split_once("= "));
    let damaged: String = lines
        .map(|(name, digest)| format!("{name}= {}\n", "0".repeat(digest.len())))
        .collect();
    fs::write(ovf.join("centos.mf"), damaged).expect("it is written");
    assert!(has(&findings(&ovf.join("centos.ovf")), "MANIFEST-DIGEST"));

    let file = fs::OpenOptions::new()
        .write(true)
        .open(&ova)
        .expect("it is there");
    file.set_len(archive.len() / 2).expect("it is cut");
    let ran = run(&["check", text(&ova)]);
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    assert!(
        ran.err.contains("\"disk.vmdk\" of ") && ran.err.contains(" ends past the archive ("),
        "{}",
        ran.err
    );
}

#[test]
fn files_outside_the_descriptor_s_folder_are_never_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let exported = exported();
    let secret = folder.path().join("disk.vmdk");
    write_raw(&exported.disk, &secret);
    let ovf = folder.path().join("ovf");
    exported.put(&ovf);
    fs::create_dir(ovf.join("below")).expect("the folder is new");
    write_raw(&exported.disk, &ovf.join("below/disk.vmdk"));
    symlink(&secret, ovf.join("link.vmdk")).expect("it is made");
    fs::remove_file(ovf.join("centos.mf")).expect("it is there");
    let absolute = text(&secret);
    for (href, why) in [
        ("../disk.vmdk", "\"..\" segment"),
        ("..%2fdisk.vmdk", "\"..\" segment"),
        (absolute, "is absolute"),
        ("file:disk.vmdk", "URL scheme"),
        ("below/disk.vmdk", "another folder"),
        ("link.vmdk", "symbolic link"),
        ("missing.vmdk", "No such file"),
        ("below", "directory"),
    ] {
        let descriptor = ovf.join("centos.ovf");
        let href = format!("ovf:href=\"{href}\"");
        fs::write(
            &descriptor,
            exported.replace("ovf:href=\"disk.vmdk\"", &href),
        )
        .expect("it is written");
        for command in ["check", "inspect"] {
            let ran = run(&[command, text(&descriptor)]);
            assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{href}");
            assert!(
                ran.err.contains(why) && ran.err.contains("centos.ovf: line "),
                "{href}: {}",
                ran.err
            );
        }
    }
}

#[test]
fn a_flat_vmdk_is_opened_from_its_descriptors_folder_and_from_nowhere_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let (secret, here) = (folder.path().join("secret.vmdk"), folder.path().join("vm"));
    fs::create_dir(&here).expect("it is made");
    fs::create_dir(here.join("below")).expect("it is made");
    fs::write(&secret, vec![7u8; 4096]).expect("it is written");
    fs::write(here.join("disk-flat.vmdk"), vec![0u8; 4096]).expect("it is written");
    symlink(&secret, here.join("link.vmdk")).expect("it is made");
    let descriptor = here.join("disk.vmdk");
    let name_extent = |name: &str| {
        let extent = format!("RW 8 VMFS \"{name}\"");
        let lines = format!("# Disk DescriptorFile\ncreateType=\"vmfs\"\n{extent}\n");
        fs::write(&descriptor, lines).expect("it is written");
        run(&["inspect", text(&descriptor)])
    };
    let ran = name_extent("disk-flat.vmdk");
    assert!(ran.err.contains("no operating system found"), "{}", ran.err);
    assert!(
        ran.out.contains("vmfs") && ran.out.contains("disk-flat.vmdk"),
        "{}",
        ran.out
    );
    for (name, why) in [
        ("../secret.vmdk", "no file beside the descriptor"),
        (text(&secret), "no file beside the descriptor"),
        ("..", "no file beside the descriptor"),
        ("link.vmdk", "symbolic link"),
        ("missing.vmdk", "No such file"),
        ("below", "directory"),
    ] {
        let ran = name_extent(name);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{name}");
        assert!(ran.err.contains(why), "{name}: {}", ran.err);
    }
}

/// An Ubuntu as XenServer exports it.
fn archived() -> SparseBytes {
    let guest = golden("ubuntu-12.04", "xenserver-6.0.2");
    let records = xva::Machine {
        name: "ubuntu".to_owned(),
        memory_static_max: 1 << 30,
        memory_dynamic_max: 1 << 30,
        vcpus_max: 1,
        vcpus_at_startup: 1,
        pv_bootloader: "pygrub".to_owned(),
        drives: vec![xva::Drive {
            userdevice: "0".to_owned(),
            bootable: true,
            disk: Some(xva::VirtualDisk {
                name: "disk".to_owned(),
                size: guest.len(),
                ..xva::VirtualDisk::default()
            }),
            ..xva::Drive::default()
        }],
        ..xva::Machine::default()
    };
    let appliance = records.appliance();
    let drives = appliance.machine().expect("a machine").drives;
    let id = drives[0].disk.as_ref().expect("a disk").id.clone();
    let sink = SparseBytes::default();
    xva::write(&appliance, &[(&id, guest.as_ref())], &sink).expect("it is written");
    sink
}

#[test]
fn an_xva_is_told_by_its_first_member_and_read_whatever_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let raw = folder.path().join("disk.raw");
    write_raw(golden("ubuntu-12.04", "xenserver-6.0.2").as_ref(), &raw);
    let plain = json(&["check", "--format", "json", text(&raw)]);
    for name in ["ubuntu.xva", "ubuntu", "ubuntu.ova"] {
        let path = folder.path().join(name);
        write_raw(&archived(), &path);
        let document = json(&["check", "--format", "json", text(&path)]);
        let found = |document: &Value, target: &str, id: &str| {
            let targets = document["targets"].as_array().expect("a list").iter();
            let mut one = targets.filter(|one| one["target"] == target);
            let findings = one.next().expect("a target")["findings"].clone();
            let findings = findings.as_array().expect("a list").clone();
            let hit = findings.into_iter().find(|finding| finding["id"] == id);
            hit.unwrap_or_else(|| panic!("{id} of {target}"))["score"].clone()
        };
        for target in ["esxi-5.0.0", "kvm-centos-6.3", "hyperv-2008r2"] {
            assert_eq!(found(&document, target, "import.consistency"), "FAILURE");
            let boots = found(&document, target, "guest.boots");
            assert_eq!(boots, found(&plain, target, "guest.boots"), "{target}");
        }
        let taken = found(&document, "xenserver-6.0.2", "import.consistency");
        assert_eq!(taken, "SUCCESS", "{name}");
        let inside = run(&["inspect", text(&path)]);
        assert!(
            inside.code == 0 && inside.out.contains("Ubuntu"),
            "{}",
            inside.err
        );
    }
}

#[test]
fn an_xva_that_is_not_read_is_called_one_and_what_to_do_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let old: &[u8] = b"<appliance version=\"0.1\"><vm name=\"vm\"/></appliance>";
    let cut: &[u8] = b"<value><struct/></value>";
    for (records, says) in [
        (old, "import it into a XenServer and export it again"),
        (cut, "this is an XVA of XenServer"),
    ] {
        let sink = SparseBytes::default();
        write_ova(&[("ova.xml".to_owned(), &records)], &sink).expect("a tar");
        let path = folder.path().join(format!("{}.xva", records.len()));
        write_raw(&sink, &path);
        for command in ["check", "inspect"] {
            let ran = run(&[command, text(&path)]);
            assert_eq!(ran.code, 3);
            assert!(
                ran.err.contains(says) && !ran.err.contains(".ovf"),
                "{}",
                ran.err
            );
        }
    }
}
