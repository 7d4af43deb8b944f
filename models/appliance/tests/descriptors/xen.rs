//! Citrix' OVF dialects and VMware's converted machines.

use crate::support::foreign;
use drylab_appliance::ovf::{
    self, FORMAT_VHD, HostResource, Producer, XenDescription, XenDisk, XenNic, resource, write_xen,
};
use drylab_appliance::vmx::{Adapter, Destination, Machine, Vmx};
use drylab_appliance::xml::Charset;
use drylab_appliance::{Limits, Severity};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn centos(producer: Producer) -> XenDescription {
    let nic = |device: u32, network: &str| XenNic {
        mac: Some(format!("c6:1a:00:00:00:0{device}")),
        network: network.to_owned(),
        device,
    };
    XenDescription {
        producer,
        name: "Web server".to_owned(),
        is_hvm: false,
        cpus: 1,
        memory_mib: 64,
        os_id: 0,
        disks: vec![XenDisk {
            file: "5936bc8c-20ae-4052-9083-b8e5b96dc683.vhd".to_owned(),
            file_bytes: 16_777_216,
            capacity: 10_485_760,
            bootable: true,
            device: 0,
        }],
        cd_roms: vec![3],
        nics: vec![nic(0, "Network 0"), nic(1, "Network 0")],
        other: vec![
            (
                "platform".to_owned(),
                "nx=false;pae=true;acpi=true;viridian=true;apic=true;".to_owned(),
            ),
            ("PV_bootloader".to_owned(), "pygrub".to_owned()),
        ],
    }
}

fn read(description: &XenDescription) -> ovf::Envelope {
    let bytes = write_xen(description).unwrap();
    assert_eq!(bytes, write_xen(description).unwrap());
    ovf::parse(&bytes, &Limits::DEFAULT).unwrap()
}

#[test]
fn xencenter_claims_utf_16_and_hangs_its_disks_on_nothing() {
    let envelope = read(&centos(Producer::XenCenter));
    assert_eq!(envelope.encoding.declared.as_deref(), Some("utf-16"));
    assert!(envelope.encoding.actual == Charset::Utf8 && !envelope.encoding.label_is_true());
    let codes: Vec<(&str, Severity)> = envelope
        .findings
        .iter()
        .map(|finding| (finding.code, finding.severity))
        .collect();
    assert_eq!(codes, [("XML-ENCODING-LABEL", Severity::Warning)]);
    assert_eq!(envelope.sections[0].name, "StartupSection");
    let system = &envelope.systems[0];
    assert_eq!(system.system_types(), ["xen-3.0-unknown"]);
    let kinds: Vec<u16> = system
        .items()
        .iter()
        .map(|item| item.resource_type)
        .collect();
    assert_eq!(kinds, [19, 16, 10, 10, 3, 4]);
    let disk = &system.items()[0];
    assert_eq!(
        (disk.parent.as_deref(), disk.backing()),
        (None, Some(HostResource::Disk(&envelope.disks[0].disk_id)))
    );
    assert_eq!(
        disk.connection,
        [format!("{},device=0", envelope.disks[0].disk_id)]
    );
    assert_eq!(
        (
            envelope.disks[0].bootable,
            envelope.disks[0].format_uri.as_deref()
        ),
        (Some(true), Some(FORMAT_VHD))
    );
    assert_eq!(
        (envelope.disks[0].capacity, envelope.references[0].size),
        (Some(10_485_760), Some(16_777_216))
    );
    assert_eq!(
        system.items()[2].address.as_deref(),
        Some("c6:1a:00:00:00:00")
    );
    assert_eq!(envelope.networks.len(), 1);
    assert_eq!(
        envelope.networks[0].description.as_deref(),
        Some("Network 0")
    );
    assert_eq!(system.items()[5].memory_bytes().unwrap().bytes, 64 << 20);
    let hardware = &system.hardware[0];
    assert_eq!(
        (
            hardware.other("PV_bootloader"),
            hardware.other("HVM_boot_policy"),
            hardware.unknown
        ),
        (Some("pygrub"), None, 2)
    );
    // Firmware or not is the family's name.
    let firmware = XenDescription {
        is_hvm: true,
        ..centos(Producer::XenCenter)
    };
    assert_eq!(
        read(&firmware).systems[0].system_types(),
        ["hvm-3.0-unknown"]
    );
}

#[test]
fn xenconvert_hangs_disks_of_type_21_on_ide() {
    let envelope = read(&centos(Producer::XenConvert));
    let system = &envelope.systems[0];
    assert_eq!(
        (system.system_types(), envelope.sections.len()),
        (vec!["301"], 0)
    );
    let disk = system
        .items()
        .iter()
        .find(|item| item.resource_type == 21)
        .unwrap();
    let parent = system.item(disk.parent.as_deref().unwrap()).unwrap();
    assert_eq!(
        (parent.resource_type, parent.address.as_deref()),
        (resource::IDE, Some("0"))
    );
    assert_eq!(disk.address_on_parent.as_deref(), Some("0"));
}

#[test]
fn our_dialect_is_that_of_xencenters_own_sample() {
    let Some((root, rows)) = foreign(&["ovf"]) else {
        return;
    };
    let row = rows
        .iter()
        .find(|row| row.file.contains("sample_app.ovf"))
        .expect("the sample is there");
    let sample = ovf::parse(
        &std::fs::read(root.join(&row.file)).unwrap(),
        &Limits::DEFAULT,
    )
    .unwrap();
    let mut description = centos(Producer::XenCenter);
    (description.cd_roms, description.nics) = (Vec::new(), Vec::new());
    let mut ours = read(&description);
    assert_eq!(
        (&ours.encoding, &ours.namespace, &ours.version),
        (&sample.encoding, &sample.namespace, &sample.version)
    );
    // GUIDs are the exporter's dice; everything else of files, disks and items is the same.
    let mut sample = sample;
    for envelope in [&mut sample, &mut ours] {
        let id = envelope.disks[0].disk_id.clone();
        assert_eq!(envelope.disks[0].file_ref.as_ref(), Some(&id));
        envelope.references[0].id = "id".to_owned();
        envelope.disks[0].disk_id = "id".to_owned();
        envelope.disks[0].file_ref = None;
        for item in &mut envelope.systems[0].hardware[0].items {
            let is_disk = item.instance_id == id;
            assert_eq!(item.instance_id.len(), 36);
            item.instance_id = if is_disk { "id" } else { "" }.to_owned();
            item.connection
                .iter_mut()
                .chain(&mut item.host_resource)
                .for_each(|text| *text = text.replace(&id, "id"));
        }
    }
    let (sample, ours) = (sample.bare(), ours.bare());
    assert_eq!(ours.references, sample.references);
    assert_eq!(ours.disks, sample.disks);
    let hardware = |envelope: &ovf::Envelope| envelope.systems[0].hardware[0].clone();
    let (ours, sample) = (hardware(&ours), hardware(&sample));
    assert_eq!(ours.items, sample.items);
    assert_eq!(
        (ours.system_type, ours.family_name),
        (sample.system_type, sample.family_name)
    );
    assert_eq!(ours.other_configuration, sample.other_configuration);
}

fn converted(model: &str, is_static: bool) -> Machine {
    Machine {
        name: "web".to_owned(),
        guest_os: "windows7srv-64".to_owned(),
        memory_mib: 2048,
        cpus: 2,
        uuid: [0x56; 16],
        scsi: Some("lsisas1068".to_owned()),
        disks: vec![
            ("scsi0:0".to_owned(), "web.vmdk".to_owned()),
            ("ide0:1".to_owned(), "data.vmdk".to_owned()),
        ],
        cd_rom: Some("ide1:0".to_owned()),
        nics: vec![Adapter {
            model: model.to_owned(),
            network: "VM Network".to_owned(),
            mac: [0, 0x50, 0x56, 1, 2, 3],
            is_static,
            pci_slot: 32,
        }],
    }
}

#[test]
fn a_converted_machine_has_the_keys_of_its_destination() {
    // destination, static address, key, value
    let table: [(Destination, bool, &str, Option<&str>); 12] = [
        (Destination::Esx, false, "virtualHW.version", Some("8")),
        (
            Destination::Esx,
            false,
            "scsi0.virtualDev",
            Some("lsisas1068"),
        ),
        (
            Destination::Esx,
            false,
            "ethernet0.addressType",
            Some("generated"),
        ),
        (
            Destination::Esx,
            false,
            "ethernet0.generatedAddressOffset",
            Some("0"),
        ),
        (
            Destination::VirtualCenter,
            false,
            "ethernet0.addressType",
            Some("vpx"),
        ),
        (
            Destination::VirtualCenter,
            false,
            "ethernet0.generatedAddress",
            Some("00:50:56:01:02:03"),
        ),
        (
            Destination::VirtualCenter,
            false,
            "ethernet0.generatedAddressOffset",
            None,
        ),
        (
            Destination::VirtualCenter,
            true,
            "ethernet0.addressType",
            Some("static"),
        ),
        (
            Destination::VirtualCenter,
            true,
            "ethernet0.address",
            Some("00:50:56:01:02:03"),
        ),
        (
            Destination::Hosted,
            false,
            "ethernet0.connectionType",
            Some("bridged"),
        ),
        (Destination::Hosted, false, "ethernet0.networkName", None),
        (
            Destination::Hosted,
            false,
            "scsi0:0.deviceType",
            Some("disk"),
        ),
    ];
    for (destination, is_static, key, value) in table {
        let text = converted("vmxnet3", is_static)
            .converted(destination)
            .print()
            .unwrap();
        let vmx = Vmx::parse(text.as_bytes(), &Limits::DEFAULT).unwrap();
        assert_eq!(vmx.findings, [], "{destination:?}");
        assert_eq!(vmx.get(key), value, "{destination:?} {key}");
    }
    let flexible = converted("flexible", false).converted(Destination::Esx);
    assert_eq!(flexible.get("ethernet0.virtualDev"), None);
}

#[test]
fn addresses_and_numbers_that_are_none_are_corrupt() {
    for (line, says) in [
        ("memsize = \"much\"", "memsize is"),
        ("numvcpus = \"-1\"", "numvcpus is"),
        ("uuid.bios = \"56 4d\"", "no id of 16 bytes"),
        (
            "ethernet0.present = \"TRUE\"\nethernet0.generatedAddress = \"00:50\"",
            "no MAC",
        ),
    ] {
        let vmx = Vmx::parse(line.as_bytes(), &Limits::DEFAULT).unwrap();
        let wrong = Machine::read(&vmx).unwrap_err().to_string();
        assert!(wrong.contains(says), "{says}: {wrong}");
    }
    let vmx = Vmx::parse(
        b"scsi0.present = \"TRUE\"\nethernet0.present = \"TRUE\"\n",
        &Limits::DEFAULT,
    )
    .unwrap();
    let machine = Machine::read(&vmx).unwrap();
    assert_eq!(
        (machine.scsi.as_deref(), machine.nics[0].model.as_str()),
        (Some("buslogic"), "flexible")
    );
}

prop_compose! {
    fn machine()(
        (name, guest_os) in ("\\PC{0,12}", "[a-z0-9-]{1,12}"),
        (memory_mib, cpus, uuid) in (any::<u64>(), 1u32..64, any::<[u8; 16]>()),
        scsi in of(prop_oneof!["lsilogic", "lsisas1068", "buslogic", "pvscsi"]),
        units in proptest::sample::subsequence((0u32..16).collect::<Vec<_>>(), 0..5),
        file in "[a-z \"|#]{1,8}",
        cd_rom in any::<bool>(),
        nics in vec((prop_oneof!["e1000", "vmxnet3", "flexible", "vlance"], "[A-Za-z ]{1,9}", any::<[u8; 6]>(), any::<bool>(), any::<u32>()), 0..4),
    ) -> Machine {
        let disks = units.iter().map(|unit| (format!("scsi0:{unit}"), format!("{file}{unit}"))).collect();
        let nics = nics.into_iter().map(|(model, network, mac, is_static, pci_slot)| Adapter { model, network, mac, is_static, pci_slot }).collect();
        Machine { name, guest_os, memory_mib, cpus, uuid, scsi, disks, cd_rom: cd_rom.then(|| "ide1:0".to_owned()), nics }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_converted_machine_is_read_back_the_same(machine in machine(), which in 0usize..3) {
        let destination = [Destination::Esx, Destination::VirtualCenter, Destination::Hosted][which];
        let text = machine.converted(destination).print().unwrap();
        let vmx = Vmx::parse(text.as_bytes(), &Limits::DEFAULT).unwrap();
        let mut wanted = machine;
        if destination == Destination::Hosted {
            wanted.nics.iter_mut().for_each(|nic| nic.network = "bridged".to_owned());
        }
        prop_assert_eq!(Machine::read(&vmx).unwrap(), wanted);
    }

    #[test]
    fn a_machine_of_any_names_is_one_envelope_in_citrix_dialect(
        name in "\\PC{0,12}", network in "\\PC{0,8}", value in "[ -~]{0,12}",
        capacity in any::<u64>(), memory_mib in 0u64..(1 << 40), disks in 0u32..5, is_hvm in any::<bool>(), which in 0usize..2
    ) {
        let mut description = centos([Producer::XenCenter, Producer::XenConvert][which]);
        let disk = description.disks[0].clone();
        description.disks = (0..disks).map(|device| XenDisk { device, capacity, file: format!("{device}.vhd"), ..disk.clone() }).collect();
        description.nics[1].network.clone_from(&network);
        description.other[0].1.clone_from(&value);
        (description.name, description.memory_mib, description.is_hvm) = (name.clone(), memory_mib, is_hvm);
        match write_xen(&description) {
            Ok(bytes) => {
                let envelope = ovf::parse(&bytes, &Limits::DEFAULT).unwrap();
                prop_assert_eq!(&envelope.findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), &["XML-ENCODING-LABEL"]);
                let system = &envelope.systems[0];
                prop_assert_eq!(system.name.as_deref(), Some(name.trim()));
                prop_assert_eq!(system.hardware[0].other("platform"), Some(value.trim()));
                prop_assert!(envelope.disks.iter().all(|disk| disk.capacity == Some(capacity)));
                prop_assert_eq!(envelope.disks.len(), usize::try_from(disks).unwrap());
                let printed = ovf::print(&envelope).unwrap();
                prop_assert_eq!(ovf::parse(&printed, &Limits::DEFAULT).unwrap().bare(), envelope.bare());
            }
            Err(wrong) => prop_assert!(wrong.to_string().contains("cannot be written as XML"), "{}", wrong),
        }
    }
}
