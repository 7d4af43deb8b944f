//! [`Envelope`] to text, in the layout of vSphere: namespaces on the root, elements of an item in alphabetical order.

use super::{
    Config, DiskDecl, Envelope, FileRef, Hardware, Item, NAMESPACE_1, NAMESPACE_VMW, NAMESPACE_XEN,
    VirtualSystem,
};
use crate::xml::Printer;
use drylab_block::Result;

pub(super) const CIM: &str = "http://schemas.dmtf.org/wbem/wscim/1/common";
pub(super) const RASD: &str =
    "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData";
pub(super) const VSSD: &str =
    "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData";
pub(super) const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// Attributes, in order, of those that are there.
type Attributes<'a> = Vec<(&'a str, &'a str)>;

/// Writes an envelope as OVF 1.x in UTF-8, the same bytes for the same value.
///
/// What [`Envelope::bare`] leaves out is not written.
///
/// # Errors
/// [`drylab_block::Error::Unsupported`] when a text has a character that XML cannot spell, or the generator's comment two
/// hyphens in a row.
pub fn print(envelope: &Envelope) -> Result<Vec<u8>> {
    let mut printer = Printer::new();
    printer.declaration();
    if let Some(generator) = &envelope.generator {
        printer.comment(generator);
    }
    let mut root: Attributes<'_> = Vec::new();
    push(&mut root, "vmw:buildId", envelope.build.as_deref());
    root.extend([
        ("xmlns", NAMESPACE_1),
        ("xmlns:cim", CIM),
        ("xmlns:ovf", NAMESPACE_1),
        ("xmlns:rasd", RASD),
        ("xmlns:vmw", NAMESPACE_VMW),
        ("xmlns:vssd", VSSD),
        ("xmlns:xsi", XSI),
    ]);
    if has_xen(envelope) {
        root.push(("xmlns:xenovf", NAMESPACE_XEN));
    }
    printer.open("Envelope", &root);
    print_references(&mut printer, &envelope.references);
    print_disks(&mut printer, &envelope.disks);
    if !envelope.networks.is_empty() {
        printer.open("NetworkSection", &[]);
        printer.leaf("Info", &[], "The list of logical networks");
        for network in &envelope.networks {
            match &network.description {
                None => printer.empty("Network", &[("ovf:name", &network.name)]),
                Some(description) => {
                    printer.open("Network", &[("ovf:name", &network.name)]);
                    printer.leaf("Description", &[], description);
                    printer.close("Network");
                }
            }
        }
        printer.close("NetworkSection");
    }
    print_systems(&mut printer, envelope);
    printer.close("Envelope");
    printer.finish()
}

/// Whether anything of Citrix' namespace is to be written.
fn has_xen(envelope: &Envelope) -> bool {
    let mut hardware = envelope.systems.iter().flat_map(|system| &system.hardware);
    envelope.disks.iter().any(|disk| disk.bootable.is_some())
        || hardware.any(|hardware| !hardware.other_configuration.is_empty())
}

pub(super) fn boolean(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn push<'a>(attributes: &mut Attributes<'a>, name: &'a str, value: Option<&'a str>) {
    attributes.extend(value.map(|value| (name, value)));
}

fn print_references(printer: &mut Printer, files: &[FileRef]) {
    printer.open("References", &[]);
    for file in files {
        let size = file.size.map(|size| size.to_string());
        let chunk = file.chunk_size.map(|size| size.to_string());
        let mut attributes: Attributes<'_> = Vec::new();
        push(&mut attributes, "ovf:chunkSize", chunk.as_deref());
        push(
            &mut attributes,
            "ovf:compression",
            file.compression.as_deref(),
        );
        attributes.push(("ovf:href", &file.href));
        attributes.push(("ovf:id", &file.id));
        push(&mut attributes, "ovf:size", size.as_deref());
        printer.empty("File", &attributes);
    }
    printer.close("References");
}

fn print_disks(printer: &mut Printer, disks: &[DiskDecl]) {
    if disks.is_empty() {
        return;
    }
    printer.open("DiskSection", &[]);
    printer.leaf("Info", &[], "Virtual disk information");
    for disk in disks {
        let populated = disk.populated_size.map(|size| size.to_string());
        let mut attributes: Attributes<'_> = Vec::new();
        push(
            &mut attributes,
            "ovf:capacity",
            disk.capacity_text.as_deref(),
        );
        push(
            &mut attributes,
            "ovf:capacityAllocationUnits",
            disk.units.as_deref(),
        );
        attributes.push(("ovf:diskId", &disk.disk_id));
        push(&mut attributes, "ovf:fileRef", disk.file_ref.as_deref());
        push(&mut attributes, "ovf:format", disk.format_uri.as_deref());
        push(&mut attributes, "ovf:parentRef", disk.parent_ref.as_deref());
        push(&mut attributes, "ovf:populatedSize", populated.as_deref());
        push(
            &mut attributes,
            "xenovf:isBootable",
            disk.bootable.map(boolean),
        );
        printer.empty("Disk", &attributes);
    }
    printer.close("DiskSection");
}

/// Systems, with the collections around them opened and closed as their paths ask.
fn print_systems(printer: &mut Printer, envelope: &Envelope) {
    const NAME: &str = "VirtualSystemCollection";
    let mut open: &[std::sync::Arc<str>] = &[];
    let mut opened = false;
    for system in &envelope.systems {
        let shared = open
            .iter()
            .zip(&system.collections)
            .take_while(|(left, right)| left == right)
            .count();
        for _ in open.iter().skip(shared) {
            printer.close(NAME);
        }
        for id in system.collections.iter().skip(shared) {
            printer.open(NAME, &[("ovf:id", id)]);
            printer.leaf("Info", &[], "A collection of virtual machines");
            opened = true;
        }
        open = &system.collections;
        print_system(printer, system);
    }
    for _ in open {
        printer.close(NAME);
    }
    if envelope.is_collection && !opened {
        printer.open(NAME, &[("ovf:id", "")]);
        printer.leaf("Info", &[], "A collection of virtual machines");
        printer.close(NAME);
    }
}

fn print_system(printer: &mut Printer, system: &VirtualSystem) {
    printer.open("VirtualSystem", &[("ovf:id", &system.id)]);
    printer.leaf("Info", &[], "A virtual machine");
    printer.optional("Name", system.name.as_deref());
    if let Some(os) = &system.os {
        let id = os.id.map(|id| id.to_string());
        let mut attributes: Attributes<'_> = Vec::new();
        push(&mut attributes, "ovf:id", id.as_deref());
        push(&mut attributes, "ovf:version", os.version.as_deref());
        push(&mut attributes, "vmw:osType", os.vmw_os_type.as_deref());
        printer.open("OperatingSystemSection", &attributes);
        printer.leaf("Info", &[], "The kind of installed guest operating system");
        printer.optional("Description", os.description.as_deref());
        printer.close("OperatingSystemSection");
    }
    for hardware in &system.hardware {
        print_hardware(printer, hardware);
    }
    if let Some(annotation) = &system.annotation {
        printer.open("AnnotationSection", &[("ovf:required", "false")]);
        printer.leaf("Info", &[], "A human-readable annotation");
        printer.leaf("Annotation", &[], annotation);
        printer.close("AnnotationSection");
    }
    printer.close("VirtualSystem");
}

fn print_hardware(printer: &mut Printer, hardware: &Hardware) {
    let mut attributes: Attributes<'_> = Vec::new();
    push(
        &mut attributes,
        "ovf:transport",
        hardware.transport.as_deref(),
    );
    printer.open("VirtualHardwareSection", &attributes);
    printer.leaf("Info", &[], "Virtual hardware requirements");
    if hardware.family_name.is_some()
        || hardware.identifier.is_some()
        || hardware.system_type.is_some()
    {
        printer.open("System", &[]);
        printer.optional("vssd:ElementName", hardware.family_name.as_deref());
        printer.leaf("vssd:InstanceID", &[], "0");
        printer.optional(
            "vssd:VirtualSystemIdentifier",
            hardware.identifier.as_deref(),
        );
        printer.optional("vssd:VirtualSystemType", hardware.system_type.as_deref());
        printer.close("System");
    }
    for item in &hardware.items {
        print_item(printer, item);
    }
    print_configs(printer, "vmw:Config", &hardware.configs);
    print_configs(printer, "vmw:ExtraConfig", &hardware.extra_config);
    for other in &hardware.other_configuration {
        let name = "xenovf:VirtualSystemOtherConfigurationData";
        printer.open(name, &[("Name", &other.name)]);
        printer.leaf("xenovf:Value", &[], &other.value);
        printer.close(name);
    }
    printer.close("VirtualHardwareSection");
}

fn print_configs(printer: &mut Printer, name: &str, configs: &[Config]) {
    for config in configs {
        let mut attributes: Attributes<'_> = Vec::new();
        push(
            &mut attributes,
            "ovf:required",
            (!config.required).then_some("false"),
        );
        attributes.push(("vmw:key", &config.key));
        attributes.push(("vmw:value", &config.value));
        printer.empty(name, &attributes);
    }
}

fn print_item(printer: &mut Printer, item: &Item) {
    let mut attributes: Attributes<'_> = Vec::new();
    push(&mut attributes, "ovf:bound", item.bound.as_deref());
    push(
        &mut attributes,
        "ovf:configuration",
        item.configuration.as_deref(),
    );
    push(
        &mut attributes,
        "ovf:required",
        (!item.required).then_some("false"),
    );
    printer.open("Item", &attributes);
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    printer.optional("rasd:Address", item.address.as_deref());
    printer.optional("rasd:AddressOnParent", item.address_on_parent.as_deref());
    printer.optional("rasd:AllocationUnits", item.allocation_units.as_deref());
    printer.optional(
        "rasd:AutomaticAllocation",
        item.automatic_allocation.map(boolean),
    );
    printer.optional("rasd:Caption", item.caption.as_deref());
    for connection in &item.connection {
        printer.leaf("rasd:Connection", &[], connection);
    }
    printer.optional("rasd:Description", item.description.as_deref());
    printer.optional("rasd:ElementName", item.element_name.as_deref());
    for resource in &item.host_resource {
        printer.leaf("rasd:HostResource", &[], resource);
    }
    printer.leaf("rasd:InstanceID", &[], &item.instance_id);
    printer.optional("rasd:Limit", number(item.limit).as_deref());
    printer.optional("rasd:Parent", item.parent.as_deref());
    printer.optional("rasd:Reservation", number(item.reservation).as_deref());
    printer.optional("rasd:ResourceSubType", item.sub_type.as_deref());
    if item.resource_type != 0 {
        printer.leaf("rasd:ResourceType", &[], &item.resource_type.to_string());
    }
    printer.optional(
        "rasd:VirtualQuantity",
        number(item.virtual_quantity).as_deref(),
    );
    printer.optional("rasd:Weight", number(item.weight).as_deref());
    if let Some(cores) = item.cores_per_socket {
        printer.leaf(
            "vmw:CoresPerSocket",
            &[("ovf:required", "false")],
            &cores.to_string(),
        );
    }
    print_configs(printer, "vmw:Config", &item.configs);
    printer.close("Item");
}
