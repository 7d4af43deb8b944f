//! The sections the model holds: files, disks, networks, guest, hardware.

use super::read::Reader;
use super::{
    Config, DiskDecl, FileRef, Hardware, Item, NAMESPACE_VMW, NAMESPACE_XEN, Network,
    OperatingSystem, OtherConfiguration,
};
use crate::findings::quote;
use crate::units::{self, Absent};
use crate::xml::{elements, text_of};
use roxmltree::Node;

/// Last part of the CIM namespaces, whatever stands before it.
const RASD: &str = "CIM_ResourceAllocationSettingData";
const VSSD: &str = "CIM_VirtualSystemSettingData";

fn in_cim(node: Node<'_, '_>, class: &str) -> bool {
    node.tag_name()
        .namespace()
        .is_some_and(|namespace| namespace.trim_end_matches('/').ends_with(class))
}

fn in_vmw(node: Node<'_, '_>) -> bool {
    node.tag_name().namespace() == Some(NAMESPACE_VMW)
}

impl Reader<'_, '_> {
    pub(super) fn references(&mut self, section: Node<'_, '_>, files: &mut Vec<FileRef>) {
        for node in elements(section).filter(|node| node.tag_name().name() == "File") {
            let at = self.xml.at(node);
            let size = self.attribute(node, "size");
            let chunk_size = self.attribute(node, "chunkSize");
            files.push(FileRef {
                id: self.required_attribute(node, "id", "OVF-FILE-ID"),
                href: self.required_attribute(node, "href", "OVF-FILE-HREF"),
                size: size.and_then(|text| self.number(&text, "ovf:size", at)),
                compression: self.attribute(node, "compression"),
                chunk_size: chunk_size.and_then(|text| self.number(&text, "ovf:chunkSize", at)),
                line: at.line,
            });
        }
    }

    pub(super) fn disks(&mut self, section: Node<'_, '_>, disks: &mut Vec<DiskDecl>) {
        for node in elements(section).filter(|node| node.tag_name().name() == "Disk") {
            let at = self.xml.at(node);
            let populated = self.attribute(node, "populatedSize");
            let mut disk = DiskDecl {
                disk_id: self.required_attribute(node, "diskId", "OVF-DISK-ID"),
                file_ref: self.attribute(node, "fileRef").filter(|id| !id.is_empty()),
                capacity: None,
                capacity_text: self.attribute(node, "capacity"),
                units: self.attribute(node, "capacityAllocationUnits"),
                format_uri: self.attribute(node, "format"),
                populated_size: populated
                    .and_then(|text| self.number(&text, "ovf:populatedSize", at)),
                parent_ref: self
                    .attribute(node, "parentRef")
                    .filter(|id| !id.is_empty()),
                bootable: None,
                line: at.line,
            };
            if let Some(text) = node.attribute((NAMESPACE_XEN, "isBootable")) {
                disk.bootable = self.boolean(text, "xenovf:isBootable", at);
            }
            self.capacity(node, &mut disk);
            disks.push(disk);
        }
    }

    /// Capacity times unit; anything unreadable is a finding and leaves `None`.
    fn capacity(&mut self, node: Node<'_, '_>, disk: &mut DiskDecl) {
        let at = self.xml.at(node);
        let Some(text) = &disk.capacity_text else {
            self.findings
                .error("OVF-DISK-CAPACITY", at, "the disk has no ovf:capacity");
            return;
        };
        if text.contains("${") {
            self.findings.warning(
                "OVF-CAPACITY-PROPERTY",
                at,
                format_args!("capacity {} is a property of the deployment", quote(text)),
            );
            return;
        }
        let Some(value) = self.number::<u64>(text, "ovf:capacity", at) else {
            return;
        };
        match units::to_bytes(value, disk.units.as_deref(), Absent::Byte) {
            Ok(amount) => {
                disk.capacity = amount.bytes64();
                if disk.capacity.is_none() {
                    self.findings.error(
                        "OVF-DISK-CAPACITY",
                        at,
                        format_args!("capacity of {} bytes passes 2^64", amount.bytes),
                    );
                }
                // The default of a missing unit is the specification's own; only spellings are worth a word.
                if let (Some(assumed), Some(_)) = (amount.assumed, &disk.units) {
                    self.findings.note("OVF-UNIT", at, assumed);
                }
            }
            Err(wrong) => self.findings.error("OVF-UNIT", at, wrong),
        }
    }

    pub(super) fn networks(&mut self, section: Node<'_, '_>, networks: &mut Vec<Network>) {
        for node in elements(section).filter(|node| node.tag_name().name() == "Network") {
            let description = elements(node).find(|node| node.tag_name().name() == "Description");
            networks.push(Network {
                name: self.required_attribute(node, "name", "OVF-NETWORK-NAME"),
                description: description.map(text_of),
                line: self.xml.at(node).line,
            });
        }
    }

    pub(super) fn operating_system(&mut self, section: Node<'_, '_>) -> OperatingSystem {
        let at = self.xml.at(section);
        let id = self.required_attribute(section, "id", "OVF-OS-ID");
        let description = elements(section).find(|node| node.tag_name().name() == "Description");
        OperatingSystem {
            id: if id.is_empty() {
                None
            } else {
                self.number(&id, "the operating system's ovf:id", at)
            },
            version: self.attribute(section, "version"),
            vmw_os_type: self.vmw_attribute(section, "osType"),
            description: description.map(text_of),
            line: at.line,
        }
    }

    pub(super) fn hardware(&mut self, section: Node<'_, '_>) -> Hardware {
        let transport = self.attribute(section, "transport");
        let mut hardware = Hardware {
            transport,
            line: self.xml.at(section).line,
            ..Hardware::default()
        };
        for node in elements(section) {
            match node.tag_name().name() {
                "Info" => {}
                "System" if self.is_ovf(node) => read_system(node, &mut hardware),
                "Item" if self.is_ovf(node) => hardware.items.push(self.item(node)),
                "Config" if in_vmw(node) => hardware.configs.push(self.config(node)),
                "ExtraConfig" if in_vmw(node) => hardware.extra_config.push(self.config(node)),
                _ => {
                    hardware.unknown = hardware.unknown.saturating_add(1);
                    hardware
                        .other_configuration
                        .extend(self.other_configuration(node));
                }
            }
        }
        hardware
    }

    /// Citrix' configuration data; `None` for any other element.
    fn other_configuration(&self, node: Node<'_, '_>) -> Option<OtherConfiguration> {
        let name = node.tag_name();
        let is_data = name.name() == "VirtualSystemOtherConfigurationData";
        if !is_data || name.namespace() != Some(NAMESPACE_XEN) {
            return None;
        }
        let value = elements(node).find(|node| node.tag_name().name() == "Value");
        Some(OtherConfiguration {
            name: node.attribute("Name").unwrap_or("").to_owned(),
            value: value.map(text_of).unwrap_or_default(),
            line: self.xml.at(node).line,
        })
    }

    fn config(&mut self, node: Node<'_, '_>) -> Config {
        let at = self.xml.at(node);
        let key = self.vmw_attribute(node, "key");
        if key.is_none() {
            self.findings
                .error("OVF-CONFIG-KEY", at, "vmw:Config without vmw:key");
        }
        Config {
            key: key.unwrap_or_default(),
            value: self.vmw_attribute(node, "value").unwrap_or_default(),
            required: self.required(node),
            line: at.line,
        }
    }

    fn item(&mut self, node: Node<'_, '_>) -> Item {
        let at = self.xml.at(node);
        let mut item = Item::new(0, "");
        item.line = at.line;
        item.required = self.required(node);
        item.configuration = self.attribute(node, "configuration");
        item.bound = self.attribute(node, "bound");
        let mut has_type = false;
        for child in elements(node) {
            if in_vmw(child) {
                self.vmw_child(child, &mut item);
            } else if in_cim(child, RASD) {
                has_type |= child.tag_name().name() == "ResourceType";
                self.field(child, &mut item);
            } else {
                item.unknown = item.unknown.saturating_add(1);
            }
        }
        if !has_type {
            self.findings
                .error("OVF-ITEM-TYPE", at, "the item has no rasd:ResourceType");
        }
        if item.instance_id.is_empty() {
            self.findings.error(
                "OVF-ITEM-INSTANCE-ID",
                at,
                "the item has no rasd:InstanceID",
            );
        }
        item
    }

    fn vmw_child(&mut self, node: Node<'_, '_>, item: &mut Item) {
        match node.tag_name().name() {
            "Config" => item.configs.push(self.config(node)),
            "CoresPerSocket" if item.cores_per_socket.is_none() => {
                item.cores_per_socket =
                    self.number(&text_of(node), "vmw:CoresPerSocket", self.xml.at(node));
            }
            _ => item.unknown = item.unknown.saturating_add(1),
        }
    }

    /// One property of an item. The first of several wins, and the others are a finding (quirk HQ135).
    fn field(&mut self, node: Node<'_, '_>, item: &mut Item) {
        let at = self.xml.at(node);
        let name = node.tag_name().name();
        let text = text_of(node);
        let fresh = match name {
            "ResourceType" => {
                let fresh = item.resource_type == 0;
                if fresh {
                    item.resource_type = self.number(&text, "rasd:ResourceType", at).unwrap_or(0);
                }
                fresh
            }
            "InstanceID" | "InstanceId" => {
                if name == "InstanceId" {
                    self.findings.note(
                        "OVF-INSTANCE-ID-CASE",
                        at,
                        "InstanceId is the spelling of 0.9; 1.x has InstanceID",
                    );
                }
                let fresh = item.instance_id.is_empty();
                if fresh {
                    item.instance_id = text;
                }
                fresh
            }
            "HostResource" => {
                item.host_resource.push(text);
                true
            }
            "Connection" => {
                item.connection.push(text);
                true
            }
            "AutomaticAllocation" => {
                let value = self.boolean(&text, "rasd:AutomaticAllocation", at);
                set(&mut item.automatic_allocation, value)
            }
            "VirtualQuantity" => set(
                &mut item.virtual_quantity,
                self.number(&text, "rasd:VirtualQuantity", at),
            ),
            "Reservation" => set(
                &mut item.reservation,
                self.number(&text, "rasd:Reservation", at),
            ),
            "Limit" => set(&mut item.limit, self.number(&text, "rasd:Limit", at)),
            "Weight" => set(&mut item.weight, self.number(&text, "rasd:Weight", at)),
            _ => match text_field(item, name) {
                Some(field) => set(field, Some(text)),
                None => {
                    item.unknown = item.unknown.saturating_add(1);
                    true
                }
            },
        };
        if !fresh {
            self.findings.warning(
                "OVF-ITEM-DUPLICATE",
                at,
                format_args!("rasd:{name} occurs twice; the first is taken"),
            );
        }
    }
}

/// Sets a field that has no value yet; says whether it had none.
fn set<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    let fresh = field.is_none();
    if fresh {
        *field = value;
    }
    fresh
}

/// The field of an item that holds text under this name.
fn text_field<'i>(item: &'i mut Item, name: &str) -> Option<&'i mut Option<String>> {
    Some(match name {
        "ResourceSubType" => &mut item.sub_type,
        "Parent" => &mut item.parent,
        "Address" => &mut item.address,
        "AddressOnParent" => &mut item.address_on_parent,
        "ElementName" => &mut item.element_name,
        "Caption" => &mut item.caption,
        "Description" => &mut item.description,
        "AllocationUnits" => &mut item.allocation_units,
        _ => return None,
    })
}

fn read_system(node: Node<'_, '_>, hardware: &mut Hardware) {
    for child in elements(node).filter(|child| in_cim(*child, VSSD)) {
        let field = match child.tag_name().name() {
            "VirtualSystemType" => &mut hardware.system_type,
            "VirtualSystemIdentifier" => &mut hardware.identifier,
            "ElementName" => &mut hardware.family_name,
            _ => continue,
        };
        set(field, Some(text_of(child)));
    }
}
