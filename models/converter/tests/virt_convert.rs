//! virt-convert where the oracle's table is silent here: what one mechanism does to one machine.

use drylab_appliance::{Package, virt_image};
use drylab_block::{Limits, ReadAt, read_vec};
use drylab_catalog::Witness;
use drylab_converter::virt_convert_0_600::{Converted, Options, Output, convert};
use std::sync::Arc;

const OVF: &str = include_str!("descriptors/guest.ovf");
const VMX: &str = include_str!("descriptors/guest.vmx");

fn package(descriptor: &str, text: &str, files: &[(&str, &[u8])]) -> Package {
    let mut package = Package {
        descriptor: descriptor.to_owned(),
        ..Package::default()
    };
    package.put(descriptor, Arc::new(text.as_bytes().to_vec()));
    for (name, bytes) in files {
        package.put(*name, Arc::new(bytes.to_vec()));
    }
    package
}

fn image(made: &Converted) -> virt_image::VirtImage {
    let text = made
        .package
        .text(&made.package.descriptor, &Limits::DEFAULT);
    virt_image::parse(&text.unwrap(), &Limits::DEFAULT).unwrap()
}

fn bytes_of(made: &Converted, name: &str) -> Vec<u8> {
    let file = &made.package.files[name];
    read_vec(file, name, 0, file.len(), &Limits::DEFAULT).unwrap()
}

fn cites(made: &Converted, id: &str) -> bool {
    made.notes.contains(&Witness::quirk(id))
}

#[test]
fn a_descriptor_as_esxi_writes_it_leads_to_the_flat_file() {
    let descriptor =
        b"# Disk DescriptorFile\nversion=1\ncreateType=\"vmfs\"\nRW 4 VMFS \"disk-flat.vmdk\"\n";
    let flat = [5u8; 2048];
    let files: [(&str, &[u8]); 2] = [("disk.vmdk", descriptor), ("disk-flat.vmdk", &flat)];
    let made = convert(&package("guest.vmx", VMX, &files), &Options::default()).unwrap();
    assert_eq!(made.package.disks, ["disk-flat.raw"]);
    assert_eq!(bytes_of(&made, "disk-flat.raw"), flat);
    let image = image(&made);
    assert_eq!(image.name, "made_here");
    assert_eq!(made.package.descriptor, "made-here.virt-image.xml");
    assert_eq!(
        (image.vcpus, image.memory_kib, image.interfaces),
        (2, 786_432, 1)
    );
    for id in ["GQ97", "GQ98", "GQ99", "GQ103", "GQ106", "GQ154"] {
        assert!(cites(&made, id), "{id}");
    }
}

#[test]
fn two_extents_are_refused_and_a_descriptor_beyond_ten_kib_is_data() {
    let two = "# Disk DescriptorFile\nRW 4 VMFS \"a\"\nRW 4 VMFS \"b\"\n";
    let files: [(&str, &[u8]); 1] = [("disk.vmdk", two.as_bytes())];
    let error = convert(&package("guest.vmx", VMX, &files), &Options::default()).unwrap_err();
    assert!(error.message.contains("multistorage"), "{error}");
    for id in ["GQ105", "HQ56"] {
        assert!(error.witness.contains(&Witness::quirk(id)), "{id}");
    }
    let large = format!("{two}{}", "# filled\n".repeat(1200));
    let files: [(&str, &[u8]); 1] = [("disk.vmdk", large.as_bytes())];
    let made = convert(&package("guest.vmx", VMX, &files), &Options::default()).unwrap();
    assert!(cites(&made, "GQ105") && cites(&made, "GQ109"));
    assert_eq!(
        made.package.files["disk.raw"].len(),
        large.len() as u64 / 512 * 512
    );
}

#[test]
fn two_disks_at_one_address_of_two_controllers_are_one() {
    let item = |id: u32, kind: u32, rest: &str| {
        format!(
            "<Item><rasd:InstanceID>{id}</rasd:InstanceID><rasd:ResourceType>{kind}</rasd:ResourceType>{rest}</Item>\n"
        )
    };
    let disk = |id: u32, parent: u32, name: &str| {
        let rest = format!(
            "<rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf:/file/{name}</rasd:HostResource><rasd:Parent>{parent}</rasd:Parent>"
        );
        item(id, 17, &rest)
    };
    let more = [
        item(20, 5, ""),
        item(21, 5, ""),
        disk(22, 20, "f"),
        disk(23, 21, "g"),
    ]
    .concat();
    let (head, tail) = OVF.split_once("      <Item><rasd:InstanceID>3<").unwrap();
    let end = tail.find("    </VirtualHardwareSection>").unwrap();
    let text = format!("{head}{more}{}", &tail[end..]);
    let text = text.replace(
        "</References>",
        "<File ovf:id=\"g\" ovf:href=\"disk2.vmdk\"/></References>",
    );
    let files: [(&str, &[u8]); 2] = [("disk1.vmdk", &[1; 512]), ("disk2.vmdk", &[2; 512])];
    let made = convert(&package("guest.ovf", &text, &files), &Options::default()).unwrap();
    assert_eq!(made.package.disks, ["disk2.raw"]);
    assert!(cites(&made, "DQ502"));
}

#[test]
fn two_systems_become_one_with_the_disks_of_the_first() {
    let second = "<VirtualSystem ovf:id=\"w\"><Info>w</Info><Name>second</Name><VirtualHardwareSection><Info>h</Info>\
        <Item><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>64</rasd:VirtualQuantity></Item>\
        </VirtualHardwareSection></VirtualSystem></Envelope>";
    let text = OVF.replace("</Envelope>", second);
    let files: [(&str, &[u8]); 1] = [("disk1.vmdk", &[1; 512])];
    let made = convert(&package("guest.ovf", &text, &files), &Options::default()).unwrap();
    let image = image(&made);
    assert_eq!(
        (image.name.as_str(), image.memory_kib, image.vcpus),
        ("second", 65_536, 1)
    );
    assert_eq!(image.drives.len(), 1);
    assert!(cites(&made, "GQ102"));
}

#[test]
fn a_disk_with_another_suffix_in_the_same_folder_is_destroyed_with_exit_0() {
    let text = OVF.replace("disk1.vmdk", "disk1.vhd");
    let files: [(&str, &[u8]); 1] = [("disk1.vhd", &[9; 4096])];
    let input = package("guest.ovf", &text, &files);
    let apart = convert(&input, &Options::default()).unwrap();
    assert_eq!(bytes_of(&apart, "disk1.vhd"), [9; 4096]);
    assert!(cites(&apart, "GQ95") && cites(&apart, "HQ55") && !cites(&apart, "GQ153"));
    let options = Options {
        same_folder: true,
        ..Options::default()
    };
    let same = convert(&input, &options).unwrap();
    assert_eq!(bytes_of(&same, "disk1.vhd"), [0; 4096]);
    assert!(cites(&same, "GQ153"));
}

#[test]
fn a_configuration_without_a_name_is_refused() {
    let nameless: String = VMX
        .lines()
        .filter(|line| !line.starts_with("displayName"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_ne!(nameless, VMX);
    let error = convert(&package("guest.vmx", &nameless, &[]), &Options::default());
    let error = error.err().unwrap();
    assert!(
        error.witness.contains(&Witness::quirk("HQ57")),
        "{error}: {:?}",
        error.witness
    );
}

/// Notes of a conversion or the witnesses of its error.
fn why(text: &str, options: &Options) -> Vec<Witness> {
    let files: [(&str, &[u8]); 1] = [("disk1.vmdk", &[1; 512])];
    match convert(&package("guest.ovf", text, &files), options) {
        Ok(made) => made.notes,
        Err(error) => error.witness,
    }
}

#[test]
fn each_change_to_an_ovf_is_named_by_its_row_and_the_unchanged_one_is_not() {
    let collection = OVF
        .replace(
            "<VirtualSystem ",
            "<VirtualSystemCollection><VirtualSystem ",
        )
        .replace(
            "</VirtualSystem>",
            "</VirtualSystem></VirtualSystemCollection>",
        );
    let required = OVF.replace(
        "<VirtualSystem ",
        "<StartupSection ovf:required=\"true\"/><VirtualSystem ",
    );
    let memory = |amount: &str| OVF.replace(">512<", &format!(">{amount}<"));
    let placeless = OVF.replace("<rasd:AddressOnParent>0</rasd:AddressOnParent>", "");
    let as_xencenter = OVF.replace(
        "<rasd:ResourceType>17</rasd:ResourceType>",
        "<rasd:ResourceType>19</rasd:ResourceType>",
    );
    let prefixed = OVF
        .replace("<Envelope", "<ovf:Envelope")
        .replace("</Envelope>", "</ovf:Envelope>");
    let rows: [(&str, &str); 8] = [
        ("GQ93", &prefixed),
        ("GQ94", &memory("536870912")),
        ("GQ100", &required),
        ("GQ101", &placeless),
        ("GQ102", &collection),
        ("HQ02", &as_xencenter),
        ("HQ53", &memory("24")),
        ("HQ54", &collection),
    ];
    let options = Options::default();
    let whole = why(OVF, &options);
    assert!(whole.contains(&Witness::quirk("GQ96")), "{whole:?}");
    for (id, text) in rows {
        assert_ne!(text, OVF, "{id}");
        let changed = why(text, &options);
        assert!(changed.contains(&Witness::quirk(id)), "{id}: {changed:?}");
        assert!(!whole.contains(&Witness::quirk(id)), "{id}");
    }
    let large = why(&memory("536870912"), &options);
    assert!(
        !large.contains(&Witness::quirk("HQ53")),
        "only small numbers are GiB"
    );
}

#[test]
fn a_vmx_is_written_with_the_template_of_an_old_product() {
    let options = Options {
        output: Output::Vmx,
        ..Options::default()
    };
    let files: [(&str, &[u8]); 1] = [("disk1.vmdk", &[1; 512])];
    let made = convert(&package("guest.ovf", OVF, &files), &options).unwrap();
    let text = made
        .package
        .text(&made.package.descriptor, &Limits::DEFAULT);
    let text = String::from_utf8(text.unwrap()).unwrap();
    assert!(text.contains("virtualHW.version = \"4\""), "{text}");
    for id in ["GQ104", "HQ58"] {
        assert!(cites(&made, id), "{id}");
    }
}
