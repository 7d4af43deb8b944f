//! Hyper-V: both files tell one machine, and a folder is imported once.

use crate::support::foreign;
use crate::support::strategies::{damage, damaged};
use drylab_appliance::hyperv::{
    Boot, Bus, Drive, Folder, Machine, Nic, Service, State, exp, export, import_marks, settings,
};
use drylab_appliance::{Error, Limits, Package, fuzz};
use drylab_block::ReadAt;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::subsequence;
use std::sync::Arc;

fn drive(bus: Bus, controller: u32, location: u32, path: &str) -> Drive {
    Drive {
        bus,
        controller,
        location,
        is_cd: path.is_empty(),
        path: path.to_owned(),
    }
}

/// Windows with its data disk on SCSI and a legacy adapter beside the synthetic one.
fn windows() -> Machine {
    let nic = |instance: &str, is_legacy: bool| Nic {
        instance: instance.to_owned(),
        is_legacy,
        name: "Network Adapter".to_owned(),
        mac: Some([0x00, 0x15, 0x5d, 0x0a, 0x01, u8::from(is_legacy)]),
        is_static: is_legacy,
        network: "External".to_owned(),
    };
    Machine {
        id: "0A9D8C7B-0000-4000-8000-000000000001".to_owned(),
        name: "web & <db>".to_owned(),
        notes: "first\nsecond".to_owned(),
        memory_mib: 2048,
        processors: 2,
        boot: vec![Boot::Cd, Boot::Ide, Boot::Network, Boot::Floppy],
        scsi: vec!["0A9D8C7B-0000-4000-8000-000000000002".to_owned()],
        drives: vec![
            drive(Bus::Ide, 0, 0, r"C:\VHD\web.vhd"),
            drive(Bus::Ide, 1, 0, ""),
            drive(Bus::Scsi, 0, 3, r"D:\VHD\100% data.vhd"),
        ],
        nics: vec![
            nic("0A9D8C7B-0000-4000-8000-000000000003", false),
            nic("0A9D8C7B-0000-4000-8000-000000000004", true),
        ],
        disabled: vec![Service::TimeSync],
    }
}

fn wide(bytes: &[u8]) -> String {
    assert!(bytes.starts_with(&[0xff, 0xfe]), "UTF-16 with its mark");
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .skip(1)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    String::from_utf16(&units).unwrap()
}

#[test]
fn both_files_tell_the_same_machine() {
    let text = wide(&settings::print(&windows()).unwrap());
    for line in [
        r#"<?xml version="1.0" encoding="UTF-16" standalone="yes"?>"#,
        r#"<_83f8638b-8dca-4152-9eda-2ca8b33039b4_>"#,
        r#"<pathname type="string">C:\VHD\web.vhd</pathname>"#,
        r#"<MacAddress type="string">00-15-5D-0A-01-00</MacAddress>"#,
        r#"<MacAddressIsStatic type="bool">True</MacAddressIsStatic>"#,
        r#"<device1 type="string">HardDrive</device1>"#,
        r#"<size type="integer">2048</size>"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let text = wide(&exp::print(&windows()).unwrap());
    for line in [
        r#"<INSTANCE CLASSNAME="Msvm_SyntheticEthernetPortSettingData">"#,
        r#"<INSTANCE CLASSNAME="Msvm_EmulatedEthernetPortSettingData">"#,
        "<VALUE>Microsoft Synthetic SCSI Controller</VALUE>",
        "<VALUE>00155D0A0100</VALUE>",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    for (bytes, read) in [
        (
            settings::print(&windows()).unwrap(),
            settings::parse as fn(&[u8], &Limits) -> _,
        ),
        (exp::print(&windows()).unwrap(), exp::parse),
    ] {
        let (machine, findings): (Machine, Vec<_>) = read(&bytes, &Limits::DEFAULT).unwrap();
        assert_eq!(machine, windows());
        assert!(
            findings
                .iter()
                .all(|finding| finding.code == "XML-BYTE-ORDER-MARK"),
            "{findings:?}"
        );
    }
}

#[test]
fn machines_that_no_host_could_hold_are_not_written() {
    let with = |edit: fn(&mut Machine)| {
        let mut machine = windows();
        edit(&mut machine);
        machine
    };
    for (machine, says) in [
        (with(|machine| machine.id = "web".to_owned()), "is no GUID"),
        (
            with(|machine| machine.scsi.push(machine.id.clone())),
            "is no GUID of its own",
        ),
        (
            with(|machine| {
                machine.nics[0].instance = "83F8638B-8DCA-4152-9EDA-2CA8B33039B4".to_owned()
            }),
            "is no GUID of its own",
        ),
        (with(|machine| machine.drives[0].location = 2), "IDE 0:2"),
        (with(|machine| machine.drives[2].controller = 1), "SCSI 1:3"),
        (
            with(|machine| machine.drives[1].controller = 0),
            "IDE 0:0, which is not there or taken",
        ),
    ] {
        for print in [settings::print, exp::print] {
            let wrong = print(&machine).unwrap_err();
            assert!(
                matches!(wrong, Error::Unsupported(_)) && wrong.to_string().contains(says),
                "{says}: {wrong}"
            );
        }
    }
}

#[test]
fn what_is_no_machine_is_corrupt() {
    for (text, says) in [
        ("<domain/>", "not a configuration of Hyper-V"),
        ("<configuration/>", "no properties/global_id"),
        (
            "<configuration><properties><global_id>x</global_id></properties><settings><memory><bank><size>a</size></bank></memory></settings></configuration>",
            "not a number",
        ),
    ] {
        let wrong = settings::parse(text.as_bytes(), &Limits::DEFAULT).unwrap_err();
        assert!(
            matches!(wrong, Error::Corrupt(_)) && wrong.to_string().contains(says),
            "{says}: {wrong}"
        );
    }
    let wrong = exp::parse(b"<CIM/>", &Limits::DEFAULT).unwrap_err();
    assert!(
        wrong
            .to_string()
            .contains("no instance of Msvm_VirtualSystemGlobalSettingData"),
        "{wrong}"
    );
}

fn disks() -> Vec<Arc<dyn ReadAt>> {
    vec![Arc::new(vec![1u8; 1536]), Arc::new(vec![2u8; 2048])]
}

#[test]
fn an_export_is_imported_once_and_then_runs_in_its_folder() {
    let package = export(&windows(), &disks()).unwrap();
    let names: Vec<&str> = package.files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "Virtual Hard Disks/100% data.vhd",
            "Virtual Hard Disks/web.vhd",
            "Virtual Machines/0A9D8C7B-0000-4000-8000-000000000001.exp",
            "config.xml",
        ]
    );
    let folder = Folder::open(&package, &Limits::DEFAULT).unwrap();
    assert_eq!(
        (folder.state, &folder.machine),
        (State::Exported, &windows())
    );
    let found: Vec<&str> = folder
        .disks
        .iter()
        .map(|file| file.as_deref().unwrap())
        .collect();
    assert_eq!(found, package.disks);
    assert_eq!(
        package.disks,
        [
            "Virtual Hard Disks/web.vhd",
            "Virtual Hard Disks/100% data.vhd"
        ]
    );

    let used = import_marks(&package, r"D:\in\web", &Limits::DEFAULT).unwrap();
    let folder = Folder::open(&used, &Limits::DEFAULT).unwrap();
    assert_eq!(folder.state, State::Imported);
    assert_eq!(
        folder.machine.drives[0].path,
        r"D:\in\web\Virtual Hard Disks\web.vhd"
    );
    assert!(
        folder.disks.iter().all(Option::is_some),
        "{:?}",
        folder.disks
    );
    let wrong = import_marks(&used, r"D:\in\web", &Limits::DEFAULT).unwrap_err();
    assert!(wrong.to_string().contains("imported before"), "{wrong}");
}

#[test]
fn a_folder_that_lacks_something_says_what() {
    let mut package = export(&windows(), &disks()).unwrap();
    package.files.remove("Virtual Hard Disks/web.vhd");
    package.files.remove("config.xml");
    let folder = Folder::open(&package, &Limits::DEFAULT).unwrap();
    let codes: Vec<&str> = folder.findings.iter().map(|finding| finding.code).collect();
    assert!(
        codes.contains(&"HYPERV-NO-CONFIG") && codes.contains(&"HYPERV-DISK-MISSING"),
        "{codes:?}"
    );
    assert_eq!(
        folder.disks,
        [None, Some("Virtual Hard Disks/100% data.vhd".to_owned())]
    );
    // A bare VHD, or the folder of another product, is no export.
    let mut bare = Package::default();
    bare.put("web.vhd", Arc::new(vec![0u8; 512]));
    let wrong = Folder::open(&bare, &Limits::DEFAULT).unwrap_err();
    assert!(
        wrong.to_string().contains("not the export of one machine"),
        "{wrong}"
    );
    let mut twice = windows();
    twice.drives[2].path = r"D:\other\WEB.vhd".to_owned();
    assert!(
        export(&twice, &disks())
            .unwrap_err()
            .to_string()
            .contains("two disks have the file name")
    );
    assert!(
        export(&windows(), &disks()[..1])
            .unwrap_err()
            .to_string()
            .contains("1 disks for 2 drives")
    );
    twice.drives[2].path = r"D:\other\..".to_owned();
    assert!(export(&twice, &disks()).is_err());
}

#[test]
fn a_foreign_configuration_of_a_later_version_is_read() {
    let Some((root, rows)) = foreign(&["hyperv"]) else {
        return;
    };
    assert!(!rows.is_empty());
    for row in rows {
        let bytes = std::fs::read(root.join(&row.file)).unwrap();
        let (machine, _) = settings::parse(&bytes, &Limits::DEFAULT).unwrap();
        assert_eq!(
            (
                machine.name.as_str(),
                machine.memory_mib,
                machine.processors
            ),
            ("Default Generation 2", 512, 1)
        );
        assert_eq!(
            machine.boot,
            [Boot::Cd, Boot::Ide, Boot::Network, Boot::Floppy]
        );
        assert_eq!(machine.scsi, ["3AFC77D9-23AB-4C97-BE1C-F47A18CE3B4A"]);
        assert_eq!(
            machine.drives,
            [drive(
                Bus::Scsi,
                0,
                0,
                r"C:\Disks\Default Generation 2.vhdx"
            )]
        );
        let nic = &machine.nics[0];
        assert_eq!(
            (nic.is_legacy, nic.is_static, nic.mac),
            (false, false, None)
        );
        assert_eq!(
            settings::parse(&settings::print(&machine).unwrap(), &Limits::DEFAULT)
                .unwrap()
                .0,
            machine
        );
    }
}

fn text() -> impl Strategy<Value = String> {
    "[ -~é\n]{0,10}|\\PC{0,5}".prop_map(|text| text.trim().to_owned())
}

prop_compose! {
    fn nic()(
        (is_legacy, is_static) in any::<(bool, bool)>(),
        name in text(),
        mac in of(any::<[u8; 6]>().prop_filter("an address", |mac| *mac != [0; 6])),
        network in text(),
    ) -> Nic {
        Nic { instance: String::new(), is_legacy, name, mac, is_static, network }
    }
}

prop_compose! {
    fn machine()(
        (name, notes) in (text(), text()),
        (memory_mib, processors) in any::<(u64, u32)>(),
        boot in subsequence(vec![Boot::Floppy, Boot::Cd, Boot::Ide, Boot::Network], 0..=4).prop_shuffle(),
        guids in btree_set("[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}", 8),
        scsi in 0usize..4,
        ide_drives in btree_map((0u32..2, 0u32..2), ("[A-Z]:\\\\[a-z. ]{0,6}[a-z]", any::<bool>()), 0..4),
        scsi_drives in btree_map((0u32..4, 0u32..64), ("[A-Z]:\\\\[a-z. ]{0,6}[a-z]", any::<bool>()), 0..6),
        mut nics in vec(nic(), 0..4),
        disabled in subsequence(vec![Service::Shutdown, Service::TimeSync, Service::DataExchange, Service::Heartbeat, Service::Backup], 0..=5),
    ) -> Machine {
        let guids: Vec<String> = guids.into_iter().collect();
        for (nic, guid) in nics.iter_mut().zip(&guids[4..]) {
            nic.instance.clone_from(guid);
        }
        let drives = ide_drives.into_iter().map(|place| (Bus::Ide, place));
        let drives = drives.chain(scsi_drives.into_iter().map(|place| (Bus::Scsi, place)));
        let drives = drives.filter(|(bus, ((controller, _), _))| *bus == Bus::Ide || usize::try_from(*controller).unwrap() < scsi);
        let drives = drives.map(|(bus, ((controller, location), (path, is_cd)))| Drive { bus, controller, location, is_cd, path });
        Machine {
            id: guids[0].clone(),
            drives: drives.collect(),
            scsi: guids[1..4][..scsi.min(3)].to_vec(),
            name, notes, memory_mib, processors, boot, nics, disabled,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_machine_of_any_content_comes_back_from_either_file(machine in machine()) {
        let mut machine = machine;
        machine.drives.retain(|drive| drive.bus == Bus::Ide || drive.controller < u32::try_from(machine.scsi.len()).unwrap());
        for (print, read) in [(settings::print as fn(&Machine) -> _, settings::parse as fn(&[u8], &Limits) -> _), (exp::print, exp::parse)] {
            match print(&machine) {
                Ok(bytes) => {
                    let (found, _): (Machine, Vec<_>) = read(&bytes, &Limits::DEFAULT).unwrap();
                    prop_assert_eq!(&found, &machine);
                    prop_assert_eq!(print(&found).unwrap(), bytes);
                }
                Err(wrong) => prop_assert!(wrong.to_string().contains("cannot be written as XML"), "{}", wrong),
            }
        }
    }

    #[test]
    fn damage_to_either_file_is_a_verdict_and_never_a_panic(damages in damage()) {
        for bytes in [settings::print(&windows()).unwrap(), exp::print(&windows()).unwrap()] {
            fuzz::hyperv_xml(&damaged(&bytes, &damages));
            fuzz::hyperv_xml(&damaged(wide(&bytes).as_bytes(), &damages));
        }
    }
}
