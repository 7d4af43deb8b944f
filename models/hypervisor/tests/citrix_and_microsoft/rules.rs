//! The rules of XenCenter's importer, one by one: the smallest package that meets each.

use crate::support::{XEN, all, cites, convert, disk, make, operator, product, xencenter};
use drylab_appliance::Package;
use drylab_hypervisor::importer::{OvfOptions, ReadError, Reading, Verdict, xencenter_import_disk};
use drylab_image::{Target, VhdOptions, VmdkOptions};
use std::sync::Arc;

/// A disk of 1 MiB times its number, so that the order shows.
fn size(number: u64) -> u64 {
    number << 20
}

/// An item of an OVF: resource type and other elements.
fn item(kind: u32, id: &str, rest: &str) -> String {
    format!(
        "<Item><rasd:InstanceID>{id}</rasd:InstanceID>{rest}<rasd:ResourceType>{kind}</rasd:ResourceType></Item>"
    )
}

fn hard_disk(number: u64, parent: &str, name: &str, rest: &str) -> String {
    let parent = match parent {
        "" => String::new(),
        id => format!("<rasd:Parent>{id}</rasd:Parent>"),
    };
    let rest = format!(
        "<rasd:ElementName>{name}</rasd:ElementName><rasd:HostResource>ovf:/disk/disk{number:03}</rasd:HostResource>{parent}{rest}"
    );
    item(17, &format!("1{number:02}"), &rest)
}

const MEMORY: &str = "<Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>";
const SYSTEM: &str = "<System><vssd:InstanceID>0</vssd:InstanceID><vssd:VirtualSystemIdentifier>vm</vssd:VirtualSystemIdentifier><vssd:VirtualSystemType>vmx-07</vssd:VirtualSystemType></System>";

fn package_of(attributes: &str, system: &str, items: &str, disks: u64) -> Package {
    let numbers = 1..=disks;
    let files: String = numbers
        .clone()
        .map(|number| {
            format!("<File ovf:id=\"file{number:03}\" ovf:href=\"disk{number:03}.vhd\"/>")
        })
        .collect();
    let declared: String = numbers
        .clone()
        .map(|number| format!("<Disk ovf:diskId=\"disk{number:03}\" ovf:fileRef=\"file{number:03}\" ovf:capacity=\"{}\"/>", size(number)))
        .collect();
    let text = format!(
        "<?xml version=\"1.0\"?><Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\" \
         xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData\" {attributes}>\
         <References>{files}</References><DiskSection><Info/>{declared}</DiskSection>\
         <VirtualSystem ovf:id=\"vm\"><Info/><VirtualHardwareSection><Info/>{system}{items}</VirtualHardwareSection></VirtualSystem></Envelope>"
    );
    let mut package = Package {
        descriptor: "vm.ovf".to_owned(),
        ..Package::default()
    };
    package.put("vm.ovf", Arc::new(text.into_bytes()));
    for number in numbers {
        let name = format!("disk{number:03}.vhd");
        let file = convert(
            &disk(size(number)),
            &Target::VhdDynamic(VhdOptions::default()),
        )
        .unwrap();
        package.put(name.clone(), file);
        package.disks.push(name);
    }
    package
}

fn read(package: &Package) -> Result<Reading, ReadError> {
    xencenter(package, OvfOptions::default())
}

fn read_items(items: &str, disks: u64) -> Result<Reading, ReadError> {
    read(&package_of("", SYSTEM, &format!("{MEMORY}{items}"), disks))
}

/// Numbers of the disks of a reading, in its order.
fn order(reading: &Result<Reading, ReadError>) -> Vec<u64> {
    let reading = reading.as_ref().expect("a reading");
    reading
        .request
        .disks
        .iter()
        .map(|disk| disk.bytes >> 20)
        .collect()
}

fn is_refused(reading: &Result<Reading, ReadError>) -> bool {
    match reading {
        Err(ReadError::Refused(_)) => true,
        Err(ReadError::Missing(fact)) => panic!("{fact}"),
        Ok(reading) => reading
            .remarks
            .iter()
            .any(|remark| remark.verdict == Verdict::Refused),
    }
}

#[test]
fn memory_counts_in_the_plural_only() {
    // unit, quantity, MiB made of it, quirk cited
    let table = [
        ("byte * 2^20", 4, 4, false),
        ("MegaBytes", 4, 4, false),
        ("byte * 2^30", 4, 4, true),
        ("byte * 2 ^ 30", 4, 4, true),
        ("bytes * 2^30", 4, 4096, false),
        ("Bytes * 2 ^ 20", 4, 4, false),
        ("byte", 1 << 20, 1 << 20, true),
        ("GigaBytes", 2, 2, true),
    ];
    for (unit, quantity, mib, cited) in table {
        let items = MEMORY
            .replace("byte * 2^20", unit)
            .replace("1024", &quantity.to_string());
        let reading = read(&package_of("", SYSTEM, &items, 0));
        assert_eq!(cites(&all(&reading), "HQ13"), cited, "{unit}");
        assert_eq!(
            reading.expect("a reading").request.memory_mib,
            mib,
            "{unit}"
        );
    }
    let bare = MEMORY.replace(
        "<rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>",
        "",
    );
    let reading = read(&package_of("", SYSTEM, &bare, 0));
    assert!(is_refused(&reading) && cites(&all(&reading), "HQ14"));
    let reading = read(&package_of("", SYSTEM, "", 0));
    assert!(cites(&all(&reading), "HQ15"));
    assert_eq!(reading.unwrap().request.memory_mib, 512);
}

#[test]
fn versions_and_families_off_the_lists_are_warnings_and_a_missing_family_is_fatal() {
    let untyped = SYSTEM.replace(
        "<vssd:VirtualSystemType>vmx-07</vssd:VirtualSystemType>",
        "",
    );
    let nameless = untyped.replace(
        "<vssd:VirtualSystemIdentifier>vm</vssd:VirtualSystemIdentifier>",
        "",
    );
    // root attributes, System, quirk, refused
    let table = [
        ("", SYSTEM.to_owned(), "", false),
        ("ovf:version=\"1.0\"", SYSTEM.to_owned(), "", false),
        ("ovf:version=\"1.1\"", SYSTEM.to_owned(), "HQ19", false),
        ("", SYSTEM.replace("vmx-07", "vmx-08"), "HQ18", false),
        ("", untyped, "HQ17", true),
        ("", nameless, "", false),
    ];
    for (attributes, system, quirk, refused) in table {
        let reading = read(&package_of(attributes, &system, MEMORY, 0));
        assert_eq!(is_refused(&reading), refused, "{attributes} {system}");
        let witness = all(&reading);
        for id in ["HQ17", "HQ18", "HQ19"] {
            assert_eq!(
                cites(&witness, id),
                id == quirk,
                "{id}: {attributes} {system}"
            );
        }
    }
}

#[test]
fn ide_comes_before_scsi_whatever_the_order_of_the_document() {
    let scsi = item(6, "4", "");
    let ide = item(5, "5", "");
    let items = [
        scsi,
        ide,
        hard_disk(1, "4", "Hard disk 1", ""),
        hard_disk(2, "5", "Hard disk 2", ""),
    ]
    .concat();
    let reading = read_items(&items, 2);
    assert_eq!(order(&reading), [2, 1], "the IDE disk became the first");
    assert!(cites(&all(&reading), "HQ90"));
    let one = [
        item(6, "4", ""),
        hard_disk(1, "4", "Hard disk 1", ""),
        hard_disk(2, "4", "Hard disk 2", ""),
    ]
    .concat();
    let reading = read_items(&one, 2);
    assert_eq!(order(&reading), [1, 2]);
    assert!(!cites(&all(&reading), "HQ90"));
}

#[test]
fn disks_are_known_by_what_they_are_called() {
    let controllers = item(6, "4", "");
    let items = |first: &str| {
        [
            controllers.clone(),
            hard_disk(1, "4", first, ""),
            hard_disk(2, "4", "Hard disk 2", ""),
        ]
        .concat()
    };
    let reading = read_items(&items("SCSI Drive"), 2);
    // The first takes the lowest free number because it has none; the second asks for that number and finds it taken.
    assert_eq!(order(&reading), [1]);
    assert!(cites(&all(&reading), "HQ132") && cites(&all(&reading), "DQ420"));
    let neither = [
        controllers.clone(),
        hard_disk(1, "4", "SCSI Drive", ""),
        hard_disk(2, "4", "SCSI Drive", ""),
    ];
    assert_eq!(
        order(&read_items(&neither.concat(), 2)),
        [1, 2],
        "document order"
    );
    let both = read_items(&items("hard disk"), 2);
    assert_eq!(order(&both), [1, 2]);
    assert!(!cites(&all(&both), "HQ132"));
}

#[test]
fn a_parent_is_found_by_a_part_of_its_name() {
    let items = [
        item(6, "3", ""),
        item(6, "13", ""),
        hard_disk(1, "13", "Hard disk 1", ""),
        hard_disk(2, "3", "Hard disk 2", ""),
    ]
    .concat();
    let reading = read_items(&items, 2);
    assert!(cites(&all(&reading), "HQ131"));
    let apart = [
        item(6, "3", ""),
        item(6, "4", ""),
        hard_disk(1, "4", "Hard disk 1", ""),
    ]
    .concat();
    assert!(!cites(&all(&read_items(&apart, 1)), "HQ131"));
}

#[test]
fn captions_make_disks_into_other_things() {
    for (caption, is_lost) in [
        ("Isolated data", true),
        ("COM 1", true),
        ("floppy image", true),
        ("Hard disk", false),
        ("Disk 1", false),
    ] {
        let rest = format!("<rasd:Caption>{caption}</rasd:Caption>");
        let reading = read_items(&hard_disk(1, "", "Hard disk 1", &rest), 1);
        assert_eq!(cites(&all(&reading), "HQ94"), is_lost, "{caption}");
        assert_eq!(order(&reading).is_empty(), is_lost, "{caption}");
    }
}

#[test]
fn several_disks_may_be_called_bootable() {
    let at_zero = "<rasd:AddressOnParent>0</rasd:AddressOnParent>";
    let items = [
        item(5, "3", ""),
        item(6, "4", ""),
        hard_disk(1, "3", "Hard disk 1", at_zero),
        hard_disk(2, "4", "Hard disk 2", at_zero),
    ]
    .concat();
    assert!(cites(&all(&read_items(&items, 2)), "HQ91"));
    let alone = [item(6, "4", ""), hard_disk(1, "4", "Hard disk 1", at_zero)].concat();
    assert!(!cites(&all(&read_items(&alone, 1)), "HQ91"));
}

#[test]
fn a_machine_has_one_cd_rom_drive_and_four_devices_until_its_drivers_ran() {
    let cds = [
        item(5, "3", ""),
        item(15, "7", "<rasd:Parent>3</rasd:Parent>"),
        item(16, "8", "<rasd:Parent>3</rasd:Parent>"),
    ]
    .concat();
    let reading = read_items(&cds, 0);
    assert!(cites(&all(&reading), "HQ93"));
    let made = make(XEN, &reading.unwrap().request, 1).machine;
    assert_eq!(made.cdroms.len(), 1);
    let disks: String = (1..=6)
        .map(|number| hard_disk(number, "4", "Hard disk", ""))
        .collect();
    let reading = read_items(&[item(6, "4", ""), disks].concat(), 6);
    assert_eq!(
        order(&reading),
        [1, 2, 3, 4],
        "two were copied and not attached"
    );
    assert!(cites(&all(&reading), "DQ420") && !is_refused(&reading));
}

#[test]
fn the_table_of_numbers_ends_at_sixteen() {
    let disks: String = (1..=17)
        .map(|number| hard_disk(number, "4", "Hard disk", ""))
        .collect();
    let reading = read_items(&[item(6, "4", ""), disks].concat(), 17);
    assert!(cites(&all(&reading), "HQ89"));
    let disks: String = (1..=16)
        .map(|number| hard_disk(number, "4", "Hard disk", ""))
        .collect();
    let reading = read_items(&[item(6, "4", ""), disks].concat(), 16);
    assert!(!cites(&all(&reading), "HQ89"));
}

#[test]
fn a_paravirtual_machine_may_have_sixteen_devices_of_which_seven_are_recommended() {
    let other = "<x:VirtualSystemOtherConfigurationData xmlns:x=\"http://schemas.citrix.com/ovf/envelope/1\" Name=\"PV_bootloader\"><x:Value>pygrub</x:Value></x:VirtualSystemOtherConfigurationData>";
    for (count, is_warned) in [(6, false), (7, true)] {
        let disks: String = (1..=count)
            .map(|number| hard_disk(number, "4", "Hard disk", ""))
            .collect();
        let reading = read_items(&[item(6, "4", ""), disks, other.to_owned()].concat(), count);
        assert_eq!(
            cites(&all(&reading), "DQ421"),
            is_warned,
            "{count} disks and a CD-ROM drive"
        );
        assert_eq!(order(&reading).len(), usize::try_from(count).unwrap());
    }
}

#[test]
fn an_adapter_needs_a_network_and_keeps_the_address_that_is_written() {
    let nic = |id: &str, network: &str, address: &str| {
        let network = match network {
            "" => String::new(),
            name => format!("<rasd:Connection>{name}</rasd:Connection>"),
        };
        let address = match address {
            "" => String::new(),
            text => format!("<rasd:Address>{text}</rasd:Address>"),
        };
        item(10, id, &format!("{address}{network}"))
    };
    let reading = read_items(&nic("7", "", ""), 0);
    assert!(is_refused(&reading) && cites(&all(&reading), "HQ87"));
    for written in ["00:0c:29:aa:bb:cc", "000c29aabbcc"] {
        let reading = read_items(&nic("7", "LAN", written), 0).expect("a reading");
        let mac = reading.request.nics[0].mac.expect("an address");
        assert_eq!(mac.to_string(), "00:0c:29:aa:bb:cc", "{written}");
    }
    assert!(is_refused(&read_items(&nic("7", "LAN", "no address"), 0)));
    let two = [nic("7", "LAN", ""), nic("8", "Storage", "")].concat();
    let reading = read_items(&two, 0);
    assert!(cites(&all(&reading), "HQ88") && !is_refused(&reading));
    let made = make(XEN, &reading.unwrap().request, 1).machine;
    assert_eq!(made.nics[0].network, made.nics[1].network);
    let own = [nic("7", "Network 0", ""), nic("8", "Network 0", "")].concat();
    let witness = all(&read_items(&own, 0));
    assert!(!cites(&witness, "HQ87") && !cites(&witness, "HQ88"));
}

#[test]
fn an_encrypted_package_needs_its_pass_phrase() {
    let mut package = package_of("", SYSTEM, MEMORY, 0);
    let text = crate::support::text(&package).replace(
        "<VirtualSystem ",
        "<x:SecuritySection xmlns:x=\"http://schemas.citrix.com/ovf/envelope/1\"/><VirtualSystem ",
    );
    package.put("vm.ovf", Arc::new(text.into_bytes()));
    let reading = read(&package);
    assert!(is_refused(&reading) && cites(&all(&reading), "HQ95"));
    let known = OvfOptions {
        has_pass_phrase: true,
        ..OvfOptions::default()
    };
    assert!(!is_refused(&xencenter(&package, known)));
}

#[test]
fn a_disk_image_becomes_a_whole_pc_when_it_is_vhd_or_vmdk() {
    let xen = product(XEN);
    let table = [
        (Target::VhdDynamic(VhdOptions::default()), false),
        (Target::VhdFixed(VhdOptions::default()), false),
        (Target::VmdkStream(VmdkOptions::default()), false),
        (Target::VmdkSparse(VmdkOptions::default()), false),
        (Target::Raw, true),
        (Target::Qcow2(drylab_image::Qcow2Options::default()), true),
    ];
    for (target, refused) in table {
        let mut package = Package::default();
        package.put("disk", convert(&disk(size(3)), &target).unwrap());
        package.disks.push("disk".to_owned());
        let reading = xencenter_import_disk(&xen.facts(), &package, &operator("centos-6.3"));
        assert_eq!(is_refused(&reading), refused, "{target:?}");
        let witness = all(&reading);
        assert_eq!(cites(&witness, "DQ422"), refused, "{target:?}");
        assert!(cites(&witness, "DQ423") && cites(&witness, "HQ92"));
        let made = make(XEN, &reading.unwrap().request, 1).machine;
        assert_eq!((made.disks[0].bytes, made.xen_platform), (size(3), true));
    }
}

#[test]
fn a_disk_past_the_product_s_largest_is_refused() {
    let xen = product(XEN);
    for (bytes, refused) in [(2_194_728_288_256, false), (2_194_728_288_768, true)] {
        let mut package = Package::default();
        let sparse = VmdkOptions::default();
        package.put(
            "disk",
            convert(&disk(bytes), &Target::VmdkSparse(sparse)).unwrap(),
        );
        package.disks.push("disk".to_owned());
        let reading = xencenter_import_disk(&xen.facts(), &package, &operator("centos-6.3"));
        assert_eq!(cites(&all(&reading), "DQ419"), refused, "{bytes}");
    }
}
