//! What our own writers make.

use crate::{keep, part};
use drylab_appliance::ovf::{Attach, CdRom, Description, Disk, Nic, ScsiController};
use drylab_appliance::{hyperv, xva};
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt};
use drylab_catalog::Mac;
use drylab_hive::{HiveEditor, RegType};
use drylab_image::{
    FlatKind, Qcow2Options, Qcow2Version, Target, VhdOptions, VmdkOptions, flat_descriptor,
};
use drylab_network::dhcp::{Message, Packet};
use drylab_scenario::{Scenario, Token};

type Done = Result<(), Box<dyn std::error::Error>>;

pub fn write() -> Done {
    images()?;
    appliances()?;
    xva()?;
    hyperv()?;
    hives()?;
    scenarios()?;
    for message in [Message::Discover, Message::Request, Message::Inform] {
        let packet = Packet::request(message, 0x1234, Mac([2, 0, 0, 0, 0, 1]));
        keep(
            "dhcp",
            &format!("{message}").to_lowercase(),
            &packet.encode(),
        )?;
        let offer = Packet::reply(Message::Offer, &packet);
        keep(
            "dhcp",
            &format!("offer-to-{message}").to_lowercase(),
            &offer.encode(),
        )?;
    }
    delta()
}

fn bytes(file: &SparseBytes) -> Result<Vec<u8>, drylab_block::Error> {
    part(file, 0, file.len())
}

/// A disk of 1 MiB with text, noise and zeros.
fn disk(size: u64) -> Result<SparseBytes, drylab_block::Error> {
    let disk = SparseBytes::new(size);
    disk.write_at(0, &b"text of a disk, ".repeat(40))?;
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    })
    .take(700)
    .collect();
    disk.write_at(size / 2, &noise)?;
    disk.write_at(size - 100, b"last")?;
    Ok(disk)
}

fn images() -> Done {
    for (name, size) in [("small", 150_016), ("large", 1 << 30)] {
        let disk = disk(size)?;
        let mut targets = vec![
            ("vmdk", "sparse", Target::VmdkSparse(VmdkOptions::default())),
            ("vmdk", "stream", Target::VmdkStream(VmdkOptions::default())),
        ];
        for (kind, version, cluster_bits, compress) in [
            ("v2", Qcow2Version::V2, 9, false),
            ("v2-c", Qcow2Version::V2, 12, true),
            ("v3", Qcow2Version::V3, 12, false),
            ("v3-c", Qcow2Version::V3, 16, true),
        ] {
            let options = Qcow2Options {
                version,
                cluster_bits,
                compress,
                ..Qcow2Options::default()
            };
            targets.push(("qcow2", kind, Target::Qcow2(options)));
        }
        for (target, kind, how) in targets {
            let file = SparseBytes::default();
            drylab_image::write(&disk, &how, &file)?;
            let bytes = bytes(&file)?;
            keep(target, &format!("{kind}-{name}"), &bytes)?;
            if name == "small" {
                keep("detect", &format!("{target}-{kind}"), &bytes)?;
            }
        }
    }
    vhds()?;
    for (name, kind) in [("mono", FlatKind::Monolithic), ("vmfs", FlatKind::Vmfs)] {
        let text = flat_descriptor(&disk(150_016)?, &VmdkOptions::default(), kind)?;
        keep("vmdk_flat", name, text.as_bytes())?;
        keep("detect", &format!("flat-{name}"), text.as_bytes())?;
    }
    let parts = "# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n\
                 RW 9 FLAT \"a b-f001.vmdk\" 7\nRDONLY 300 ZERO\nRW 8 VMFS \"c\"\nRW 1 FLAT \"c\" 2047\n";
    keep("vmdk_flat", "parts", parts.as_bytes())?;
    keep("detect", "raw", &[0x55; 1024])?;
    Ok(())
}

/// Small VHDs. Blocks of 4 KiB are ours alone: those that writers know would make no small seed.
fn vhds() -> Done {
    let disk = disk(20_480)?;
    let file = SparseBytes::default();
    drylab_image::write(&disk, &Target::VhdFixed(VhdOptions::default()), &file)?;
    keep("vhd", "fixed", &bytes(&file)?)?;
    keep("detect", "vhd-fixed", &bytes(&file)?)?;
    for (name, options) in [
        ("hyper-v", VhdOptions::default()),
        ("qemu", VhdOptions::qemu(false)),
    ] {
        let file = SparseBytes::default();
        drylab_image::write(
            &SparseBytes::new(9 << 20),
            &Target::VhdDynamic(options),
            &file,
        )?;
        let empty = bytes(&file)?;
        keep("vhd", &format!("{name}-empty"), &empty)?;
        // Three blocks of 4 KiB behind the table, each with its bitmap of a sector, then the footer.
        let (front, footer) = empty.split_at(empty.len() - 512);
        let mut small = front.to_vec();
        small[512 + 0x1c..512 + 0x24].copy_from_slice(&[0, 0, 16, 0, 0, 0, 0x10, 0]);
        small.truncate(1536);
        small.resize(1536 + 4 * 4096, 0xff);
        for (block, place) in [(0usize, 0u32), (3, 2), (2303, 1)] {
            let sector = (1536 + 4 * 4096) / 512 + place * 9;
            small[1536 + block * 4..][..4].copy_from_slice(&sector.to_be_bytes());
        }
        for fill in 1..=3 {
            small.extend([0xff; 512]);
            small.extend([fill; 4096]);
        }
        small.extend(footer);
        keep("vhd", &format!("{name}-blocks"), &small)?;
        keep("detect", &format!("vhd-{name}"), &small)?;
    }
    Ok(())
}

/// A machine as ESXi exports it.
fn description() -> Description {
    Description {
        name: "seed & co".to_owned(),
        generated_by: Some("Generated by VMware ESX Server, User: root".to_owned()),
        build: Some("build-469512".to_owned()),
        os_id: 107,
        os_type: "centos64Guest".to_owned(),
        os_description: Some("CentOS".to_owned()),
        system_types: vec!["vmx-08".to_owned()],
        cpus: 2,
        cores_per_socket: Some(2),
        memory_mib: 1024,
        scsi: vec![ScsiController {
            sub_type: "lsilogic".to_owned(),
            pci_slot: Some(16),
        }],
        disks: vec![
            Disk {
                file: Some(("seed-disk1.vmdk".to_owned(), 68_096)),
                capacity: 8 << 30,
                populated: Some(1 << 29),
                attach: Attach::Scsi {
                    controller: 0,
                    unit: 0,
                },
            },
            Disk {
                file: None,
                capacity: 100 << 20,
                populated: None,
                attach: Attach::Ide {
                    controller: 0,
                    unit: 1,
                },
            },
        ],
        cd_roms: vec![CdRom {
            controller: 1,
            unit: 0,
            sub_type: "vmware.cdrom.iso".to_owned(),
        }],
        floppy: true,
        nics: vec![Nic {
            model: "E1000".to_owned(),
            network: "VM Network".to_owned(),
            pci_slot: Some(32),
        }],
        configs: vec![("firmware".to_owned(), "bios".to_owned())],
        annotation: Some("first\nsecond <line>".to_owned()),
    }
}

fn appliances() -> Done {
    let descriptor = drylab_appliance::ovf::write(&description())?;
    keep("ovf", "esxi", &descriptor)?;
    keep("virt_convert_ovf", "esxi", &descriptor)?;
    let image = b"no disk, only bytes".to_vec();
    let manifest = b"SHA1(seed.ovf)= da39a3ee5e6b4b0d3255bfef95601890afd80709\nSHA1(seed-disk1.vmdk)= 0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33\n".to_vec();
    let long = format!("{}/seed-disk1.vmdk", "f".repeat(80));
    let mut members: Vec<(String, &dyn ReadAt)> = vec![
        ("seed.ovf".to_owned(), &descriptor),
        ("seed.mf".to_owned(), &manifest),
        ("seed-disk1.vmdk".to_owned(), &image),
    ];
    for name in ["plain", "long-name"] {
        let file = SparseBytes::default();
        drylab_appliance::ova::write_ova(&members, &file)?;
        keep("ova", name, &bytes(&file)?)?;
        members[2].0.clone_from(&long);
    }
    Ok(())
}

fn xen() -> xva::Machine {
    let pairs = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        pairs.collect::<xva::Pairs>()
    };
    let disk = |size| xva::VirtualDisk {
        uuid: "6ba7b811-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        name: "0".to_owned(),
        size,
        storage: "Local storage".to_owned(),
        ..xva::VirtualDisk::default()
    };
    let drive = |userdevice: &str, is_cd: bool, disk| xva::Drive {
        userdevice: userdevice.to_owned(),
        bootable: !is_cd,
        read_only: is_cd,
        is_cd,
        disk,
    };
    xva::Machine {
        uuid: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        name: "seed & <vm>".to_owned(),
        memory_static_max: 512 << 20,
        memory_dynamic_max: 512 << 20,
        memory_dynamic_min: 256 << 20,
        vcpus_max: 2,
        vcpus_at_startup: 1,
        hvm_boot_policy: "BIOS order".to_owned(),
        hvm_boot_params: pairs(&[("order", "dc")]),
        pv_bootloader: "pygrub".to_owned(),
        platform: pairs(&[("acpi", "1"), ("viridian", "true")]),
        other_config: pairs(&[("mac_seed", "6ba7b812-9dad-11d1-80b4-00c04fd430c8")]),
        drives: vec![
            drive("0", false, Some(disk(3000))),
            drive("1", false, Some(disk(0))),
            drive("3", true, None),
        ],
        nics: vec![xva::Nic {
            mac: "02:00:00:00:00:01".to_owned(),
            network: "network 0".to_owned(),
            ..xva::Nic::default()
        }],
        ..xva::Machine::default()
    }
}

/// An archive of ours, and one in small blocks with all that an exporter may do: gaps, blocks of no bytes, no checksum.
fn xva() -> Done {
    let appliance = xen().appliance();
    let records = appliance.print()?;
    keep("xva", "records", &records)?;
    let disks: Vec<&str> = appliance
        .of_class("VDI")
        .map(|disk| disk.id.as_str())
        .collect();
    let [disk, empty] = disks[..] else {
        return Err("two disks were asked for".into());
    };
    let (bytes_of_disk, nothing) = (vec![7u8; 3000], Vec::new());
    let file = SparseBytes::default();
    xva::write(
        &appliance,
        &[(disk, &bytes_of_disk), (empty, &nothing)],
        &file,
    )?;
    keep("xva", "plain", &bytes(&file)?)?;
    let (block, digits, last) = (vec![7u8; 500], vec![b'0'; 40], vec![8u8; 500]);
    let member = |name: &str| format!("{disk}/{name}");
    let members: Vec<(String, &dyn ReadAt)> = vec![
        ("ova.xml".to_owned(), &records),
        (member("00000000"), &block),
        (member("00000000.checksum"), &digits),
        (member("00000003"), &nothing),
        (member("00000003.checksum"), &digits),
        (member("00000004"), &block),
        (member("00000004.xxhash"), &digits),
        (member("00000006"), &last),
    ];
    let file = SparseBytes::default();
    drylab_appliance::ova::write_ova(&members, &file)?;
    keep("xva", "small-blocks", &bytes(&file)?)?;
    Ok(())
}

fn hyperv() -> Done {
    let drive = |bus, controller, location, is_cd, path: &str| hyperv::Drive {
        bus,
        controller,
        location,
        is_cd,
        path: path.to_owned(),
    };
    let nic = |number: u32, is_legacy| hyperv::Nic {
        instance: format!("6BA7B81{number}-9DAD-11D1-80B4-00C04FD430C8"),
        is_legacy,
        name: "Network Adapter".to_owned(),
        mac: Some([0, 0x15, 0x5d, 1, 2, 3]),
        is_static: is_legacy,
        network: "External".to_owned(),
    };
    let machine = hyperv::Machine {
        id: "6BA7B810-9DAD-11D1-80B4-00C04FD430C8".to_owned(),
        name: "seed".to_owned(),
        notes: "first".to_owned(),
        memory_mib: 1024,
        processors: 2,
        boot: vec![
            hyperv::Boot::Cd,
            hyperv::Boot::Ide,
            hyperv::Boot::Network,
            hyperv::Boot::Floppy,
        ],
        scsi: vec!["6BA7B811-9DAD-11D1-80B4-00C04FD430C8".to_owned()],
        drives: vec![
            drive(hyperv::Bus::Ide, 0, 0, false, r"C:\VHD\seed.vhd"),
            drive(hyperv::Bus::Ide, 1, 0, true, ""),
            drive(hyperv::Bus::Scsi, 0, 5, false, r"C:\VHD\data.vhd"),
        ],
        nics: vec![nic(2, false), nic(3, true)],
        disabled: vec![hyperv::Service::TimeSync],
    };
    for (name, wide) in [
        ("settings", hyperv::settings::print(&machine)?),
        ("exp", hyperv::exp::print(&machine)?),
    ] {
        keep("hyperv_xml", &format!("{name}-utf16"), &wide)?;
        // Half the bytes: what a fuzzer gets further with.
        let units: Vec<u16> = wide
            .chunks_exact(2)
            .skip(1)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        keep("hyperv_xml", name, String::from_utf16(&units)?.as_bytes())?;
    }
    Ok(())
}

fn hives() -> Done {
    let mut editor = HiveEditor::empty(&Limits::DEFAULT)?;
    keep(
        "hive",
        "empty",
        &HiveEditor::empty(&Limits::DEFAULT)?.finish()?,
    )?;
    for key in 0..12 {
        let path = format!(r"Select\Service{key}\Parameters");
        editor.create_key(&path)?;
        editor.set_u32(&path, "Start", key)?;
        editor.set_string(
            &path,
            "ImagePath",
            RegType::EXPAND_SZ,
            r"system32\drivers\a.sys",
        )?;
    }
    editor.set_value("Select", "big", RegType::BINARY, &vec![7; 20_000])?;
    editor.set_value("Select", "", RegType::MULTI_SZ, b"a\0b\0\0\0\0\0")?;
    editor.delete_key(r"Select\Service3\Parameters")?;
    keep("hive", "keys", &editor.finish()?)?;
    Ok(())
}

fn scenarios() -> Done {
    let text = "format = 1\nguest = \"centos-6.3\"\nsource = \"esxi-5.0.0\"\ntarget = \"kvm-centos-6.3\"\nroute = \"esx-v2v\"\nrun_seed = 77\n";
    let mut scenario = Scenario::from_toml(text)?;
    keep("scenario", "plain", text.as_bytes())?;
    keep("token", "plain", Token::of(&scenario).as_str().as_bytes())?;
    scenario.source_vm.vcpus = 4;
    scenario.lab.dhcp_pool = 20;
    scenario.route = "by-another-name".to_owned();
    keep("scenario", "edited", scenario.to_toml().as_bytes())?;
    keep("token", "edited", Token::of(&scenario).as_str().as_bytes())?;
    // What stands in a token before its checksum: version, four names, seed, no text.
    keep("token", "body", &[1, 1, 4, 5, 0, 1, b'r', 0x80, 1, 0])?;
    Ok(())
}

fn delta() -> Done {
    let mut bytes = b"DRYDELTA".to_vec();
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(10_000u64.to_le_bytes());
    bytes.extend(4096u32.to_le_bytes());
    bytes.extend(2u32.to_le_bytes());
    for offset in [0u64, 8192] {
        bytes.extend(offset.to_le_bytes());
        bytes.extend([7u8; 4096]);
    }
    keep("delta", "two-pages", &bytes)?;
    Ok(())
}
