//! virt-v2v 2 on the golden guests, beside version 0.8: other families, other fallbacks, OVAs.

use crate::support::{LIMITS, cites, folder, golden, inspected, machine};
use drylab_appliance::ovf::{self, Attach, Description, Disk, Nic, ScsiController};
use drylab_appliance::{Package, libvirt, ova::write_ova};
use drylab_block::{ReadAt, SparseBytes, content_id};
use drylab_converter::virt_v2v_2::{Options, convert, convert_with};
use drylab_converter::{Converted, ToolError, virt_v2v_0_8};
use drylab_guest::boot::boot;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::GuestDisk;
use drylab_image::{Target, VmdkOptions};
use std::sync::Arc;

fn options(virtio_win: bool) -> Options {
    Options {
        bridge: "br0".to_owned(),
        virtio_win,
    }
}

fn domain(made: &Converted) -> libvirt::Domain {
    let text = made
        .package
        .text(&made.package.descriptor, &LIMITS)
        .unwrap();
    libvirt::parse(&text, &LIMITS).unwrap()
}

fn refused(made: Result<Converted, ToolError>, id: &str) {
    let error = made.err().unwrap();
    assert!(cites(&error.witness, id), "{error}: {:?}", error.witness);
}

#[test]
fn ubuntu_is_made_ready_for_virtio_where_0_8_moved_it_onto_ide() {
    let disk = golden("ubuntu-12.04");
    let made = convert(&folder(disk.clone(), "web.vmdk"), &options(false)).unwrap();
    let domain = domain(&made);
    assert_eq!(domain.disks[0].bus.as_deref(), Some("virtio"));
    assert_eq!(domain.os.machine.as_deref(), Some("q35"));
    assert_eq!(made.package.disks, ["web 1-sda"]);
    let kvm = machine("virtio-blk", "virtio-net", disk.len());
    let report = boot(&inspected(&made.disk), &kvm);
    assert!(report.reached, "{:?}", report.cause);
    for id in ["DQ510", "GQ89", "GQ91", "GQ92"] {
        assert!(cites(&made.notes, id), "{id}");
    }
    let old = virt_v2v_0_8::Options {
        bridge: "br0".to_owned(),
        virtio_win: false,
    };
    let old = virt_v2v_0_8::convert(&folder(disk, "web.vmdk"), &old).unwrap();
    assert!(cites(&old.notes, "GQ66"));
}

#[test]
fn centos_keeps_its_mac_and_is_not_relabelled_at_its_first_boot() {
    let made = convert(&folder(golden("centos-6.3"), "web.vmdk"), &options(false)).unwrap();
    let nic = &domain(&made).interfaces[0];
    assert_eq!(nic.mac.as_deref(), Some("00:0c:29:4f:8e:35"));
    assert!(cites(&made.edits, "DQ510") && !cites(&made.edits, "GQ79"));
}

#[test]
fn windows_without_drivers_on_the_host_goes_onto_ide_instead_of_failing() {
    let disk = golden("windows-2008r2");
    let made = convert(&folder(disk.clone(), "web.vmdk"), &options(false)).unwrap();
    let shown = domain(&made);
    assert_eq!(shown.disks[0].bus.as_deref(), Some("ide"));
    assert_eq!(shown.interfaces[0].model.as_deref(), Some("rtl8139"));
    assert_eq!(shown.os.machine.as_deref(), Some("pc"));
    assert!(cites(&made.notes, "GQ90") && Arc::ptr_eq(&made.disk.bytes, &disk));
    let with = convert(&folder(disk.clone(), "web.vmdk"), &options(true)).unwrap();
    let kvm = machine("virtio-blk", "virtio-net", disk.len());
    assert!(boot(&inspected(&with.disk), &kvm).reached);
}

#[test]
fn a_family_that_it_does_not_know_is_refused() {
    let disk = GuestDisk::new(golden("ubuntu-12.04"));
    let mut editor = Editor::open(&disk, &LIMITS).unwrap();
    for path in ["/etc/os-release", "/etc/lsb-release"] {
        let swap = |text: &str| text.replace("ubuntu", "arch  ").replace("Ubuntu", "Arch  ");
        if editor.read(path).unwrap().is_some() {
            editor.rewrite(path, swap).unwrap();
        }
    }
    let changed = editor.finish();
    assert!(changed.files.is_empty());
    let name = inspected(&changed).os.name.value;
    assert_ne!(name, "ubuntu");
    refused(
        convert(&folder(changed.bytes, "web.vmdk"), &options(false)),
        "GQ88",
    );
}

#[test]
fn a_machine_on_a_snapshot_is_refused() {
    for id in ["GQ87", "HQ120"] {
        refused(
            convert(
                &folder(golden("ubuntu-12.04"), "web-000001.vmdk"),
                &options(false),
            ),
            id,
        );
    }
}

/// An OVF package of vSphere's, its disk a stream.
fn exported(disk: &Arc<dyn ReadAt>) -> Package {
    let file = SparseBytes::default();
    let options = VmdkOptions::default();
    let written = drylab_image::write(&**disk, &Target::VmdkStream(options), &file).unwrap();
    let machine = Description {
        name: "web 1".to_owned(),
        generated_by: None,
        build: None,
        os_id: 107,
        os_type: "centos64Guest".to_owned(),
        os_description: None,
        system_types: vec!["vmx-08".to_owned()],
        cpus: 2,
        cores_per_socket: None,
        memory_mib: 1024,
        scsi: vec![ScsiController {
            sub_type: "lsilogic".to_owned(),
            pci_slot: None,
        }],
        disks: vec![Disk {
            file: Some(("web-disk1.vmdk".to_owned(), written.file_bytes)),
            capacity: disk.len(),
            populated: None,
            attach: Attach::Scsi {
                controller: 0,
                unit: 0,
            },
        }],
        cd_roms: Vec::new(),
        floppy: false,
        nics: vec![Nic {
            model: "E1000".to_owned(),
            network: "VM Network".to_owned(),
            pci_slot: None,
        }],
        configs: Vec::new(),
        annotation: None,
    };
    let mut package = Package {
        descriptor: "web.ovf".to_owned(),
        ..Package::default()
    };
    package.put("web.ovf", Arc::new(ovf::write(&machine).unwrap()));
    package.put("web-disk1.vmdk", Arc::new(file));
    package
}

/// The package as one archive.
fn packed(package: &Package) -> Package {
    let members: Vec<(String, &dyn ReadAt)> = package
        .files
        .iter()
        .rev()
        .map(|(name, bytes)| {
            let bytes: &dyn ReadAt = &**bytes;
            (name.clone(), bytes)
        })
        .collect();
    let archive = SparseBytes::default();
    write_ova(&members, &archive).unwrap();
    let mut ova = Package {
        descriptor: "web.ova".to_owned(),
        ..Package::default()
    };
    ova.put("web.ova", Arc::new(archive));
    ova
}

/// The package with another text in its descriptor.
fn rewritten(package: &Package, from: &str, to: &str) -> Package {
    let text = package.text("web.ovf", &LIMITS).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(from), "{text}");
    let mut changed = package.clone();
    changed.put("web.ovf", Arc::new(text.replace(from, to).into_bytes()));
    changed
}

#[test]
fn an_ova_of_vmware_and_its_folder_give_one_domain_without_a_mac() {
    let package = exported(&golden("centos-6.3"));
    let made = convert(&packed(&package), &options(false)).unwrap();
    let shown = domain(&made);
    assert_eq!(
        (shown.name.as_str(), shown.memory_kib, shown.vcpus),
        ("web 1", 1 << 20, 2)
    );
    assert_eq!(shown.interfaces.len(), 1);
    assert_eq!(shown.interfaces[0].mac, None, "VMware writes none");
    let again = convert(&package, &options(false)).unwrap();
    assert_eq!(
        content_id(&*made.disk.bytes).unwrap(),
        content_id(&*again.disk.bytes).unwrap()
    );
    assert_eq!(shown, domain(&again));
}

#[test]
fn what_its_ovf_reader_cannot_read_it_says() {
    let package = exported(&golden("centos-6.3"));
    let go = |package: &Package| convert(package, &options(false));
    refused(
        go(&rewritten(&package, "ovf:/disk/", "ovf://disk/")),
        "HQ114",
    );
    refused(
        go(&rewritten(&package, "envelope/1", "envelope/2")),
        "HQ115",
    );
    let end = "</VirtualHardwareSection>";
    let config = "<vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"coreboot\"/>";
    refused(
        go(&rewritten(&package, end, &format!("{config}{end}"))),
        "HQ116",
    );
    let no_disk = "<rasd:ResourceType>17</rasd:ResourceType>";
    let other = "<rasd:ResourceType>19</rasd:ResourceType>";
    refused(go(&rewritten(&package, no_disk, other)), "GQ86");
    let mut two = package.clone();
    two.put("other.ovf", Arc::new(Vec::new()));
    refused(go(&packed(&two)), "HQ117");
    let mut mac = package.clone();
    mac.put("._web.ovf", Arc::new(b"Mac OS X".to_vec()));
    let made = go(&packed(&mac)).unwrap();
    assert!(cites(&made.notes, "HQ119"));
}

#[test]
fn a_windows_that_sleeps_is_refused_and_one_that_woke_up_is_not() {
    let disk = GuestDisk::new(golden("windows-2008r2"));
    for (head, sleeps) in [
        (b"hibr", true),
        (b"HIBR", true),
        (b"wake", false),
        (&[0; 4], false),
    ] {
        let mut editor = Editor::open(&disk, &LIMITS).unwrap();
        editor.write("/hiberfil.sys", head.to_vec()).unwrap();
        let changed = editor.finish();
        assert_eq!(
            inspected(&changed).windows().unwrap().hibernated.is_some(),
            sleeps
        );
        let package = folder(changed.bytes, "web.vmdk");
        for virtio_win in [false, true] {
            let made = convert_with(&package, &changed.files, &options(virtio_win));
            if sleeps {
                refused(made, "GQ62");
            } else {
                made.unwrap();
            }
        }
    }
}
