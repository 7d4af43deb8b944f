//! Arbitrary envelopes, domains and damage.

use drylab_appliance::libvirt::{
    Address, Controller, Cpu, Disk, Domain, Graphics, Input, Interface, Os, Video,
};
use drylab_appliance::ovf::{
    Config, Dialect, DiskDecl, Encoding, Envelope, FileRef, Hardware, Item, NAMESPACE_1, Network,
    OperatingSystem, OtherConfiguration, VirtualSystem,
};
use drylab_appliance::units;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use std::sync::Arc;

/// Text of an element: what trimming leaves alone.
fn text() -> impl Strategy<Value = String> {
    "[ -~é\n\t\r]{0,10}|[a-zA-Z0-9:/-]{1,8}".prop_map(|text| text.trim().to_owned())
}

/// Value of an attribute: anything XML can spell.
fn value() -> impl Strategy<Value = String> {
    "[ -~é\n\t\r]{0,10}|[a-zA-Z0-9 ]{1,8}|\\PC{0,4}"
}

fn config() -> impl Strategy<Value = Config> {
    (value(), value(), any::<bool>()).prop_map(|(key, value, required)| Config {
        key,
        value,
        required,
        line: 0,
    })
}

fn disk() -> impl Strategy<Value = DiskDecl> {
    (
        value(),
        of("[a-z]{1,4}"),
        of(any::<u64>()),
        of(value()),
        of(any::<u64>()),
        of("[a-z]{1,4}"),
        of(any::<bool>()),
    )
        .prop_map(
            |(disk_id, file_ref, capacity, format_uri, populated_size, parent_ref, bootable)| {
                let text = capacity.map(units::capacity);
                DiskDecl {
                    disk_id,
                    file_ref,
                    capacity,
                    capacity_text: text.map(|(number, _)| number.to_string()),
                    units: text.map(|(_, unit)| unit.to_owned()),
                    format_uri,
                    populated_size,
                    parent_ref,
                    bootable,
                    line: 0,
                }
            },
        )
}

fn item() -> impl Strategy<Value = Item> {
    let texts = (
        of(text()),
        of(text()),
        of(text()),
        of(text()),
        of(text()),
        of(text()),
        of(text()),
        of(text()),
    );
    let numbers = (
        of(any::<u64>()),
        of(any::<u64>()),
        of(any::<u64>()),
        of(any::<u64>()),
        of(any::<u32>()),
    );
    let lists = (vec(text(), 0..3), vec(text(), 0..3), vec(config(), 0..3));
    let attributes = (any::<bool>(), of(value()), of(value()), of(any::<bool>()));
    (any::<u16>(), text(), texts, numbers, lists, attributes).prop_map(
        |(kind, id, texts, numbers, lists, attributes)| {
            let mut item = Item::new(kind, id);
            let (sub_type, parent, address, on_parent, element_name, caption, description, units) =
                texts;
            (
                item.sub_type,
                item.parent,
                item.address,
                item.address_on_parent,
            ) = (sub_type, parent, address, on_parent);
            (
                item.element_name,
                item.caption,
                item.description,
                item.allocation_units,
            ) = (element_name, caption, description, units);
            (
                item.virtual_quantity,
                item.reservation,
                item.limit,
                item.weight,
                item.cores_per_socket,
            ) = numbers;
            (item.host_resource, item.connection, item.configs) = lists;
            (
                item.required,
                item.configuration,
                item.bound,
                item.automatic_allocation,
            ) = attributes;
            item
        },
    )
}

fn hardware() -> impl Strategy<Value = Hardware> {
    let texts = (of(text()), of(text()), of(text()), of(value()));
    (
        texts,
        vec(item(), 0..5),
        vec(config(), 0..3),
        vec(config(), 0..2),
        vec((value(), text()), 0..2),
    )
        .prop_map(|(texts, items, configs, extra_config, other)| {
            let (system_type, identifier, family_name, transport) = texts;
            Hardware {
                system_type,
                identifier,
                family_name,
                transport,
                items,
                configs,
                extra_config,
                other_configuration: other
                    .into_iter()
                    .map(|(name, value)| OtherConfiguration {
                        name,
                        value,
                        line: 0,
                    })
                    .collect(),
                unknown: 0,
                line: 0,
            }
        })
}

fn system() -> impl Strategy<Value = VirtualSystem> {
    let os = (of(any::<u16>()), of(value()), of(value()), of(text())).prop_map(
        |(id, version, vmw_os_type, description)| OperatingSystem {
            id,
            version,
            vmw_os_type,
            description,
            line: 0,
        },
    );
    let collections = vec("[ab]{0,1}".prop_map(Arc::from), 0..4);
    (
        value(),
        of(text()),
        of(os),
        vec(hardware(), 0..3),
        of(text()),
        collections,
    )
        .prop_map(
            |(id, name, os, hardware, annotation, collections)| VirtualSystem {
                id,
                name,
                os,
                hardware,
                annotation,
                sections: Vec::new(),
                collections,
                line: 0,
            },
        )
}

/// Any envelope that the printer can write.
pub(crate) fn envelope() -> impl Strategy<Value = Envelope> {
    let file = (
        value(),
        value(),
        of(any::<u64>()),
        of(value()),
        of(any::<u64>()),
    )
        .prop_map(|(id, href, size, compression, chunk_size)| FileRef {
            id,
            href,
            size,
            compression,
            chunk_size,
            line: 0,
        });
    let network = (value(), of(text())).prop_map(|(name, description)| Network {
        name,
        description,
        line: 0,
    });
    let generator = of("[ -,.-~é]{0,20}".prop_map(|text: String| text.trim().to_owned()));
    let lists = (
        vec(file, 0..4),
        vec(disk(), 0..4),
        vec(network, 0..3),
        vec(system(), 0..4),
    );
    (of(value()), generator, lists, any::<bool>()).prop_map(
        |(build, generator, lists, collection)| {
            let (references, disks, networks, systems) = lists;
            let is_collection =
                collection || systems.iter().any(|system| !system.collections.is_empty());
            Envelope {
                dialect: Dialect::V1,
                namespace: NAMESPACE_1.to_owned(),
                version: None,
                build,
                generator,
                encoding: Encoding::utf8(),
                references,
                disks,
                networks,
                systems,
                is_collection,
                sections: Vec::new(),
                findings: Vec::new(),
            }
        },
    )
}

fn address() -> impl Strategy<Value = Address> {
    let pci = any::<u8>().prop_map(Address::pci);
    let drive = (
        value(),
        proptest::collection::btree_map("[a-su-z_][a-z0-9_]{0,5}", value(), 0..4),
    )
        .prop_map(|(kind, attributes)| Address {
            kind,
            attributes: attributes.into_iter().collect(),
        });
    prop_oneof![pci, drive]
}

fn domain_disk() -> impl Strategy<Value = Disk> {
    let kind = prop_oneof![
        Just("file"),
        Just("block"),
        Just("network"),
        Just("dir"),
        Just("volume"),
        Just("")
    ];
    let driver = (of(value()), of(value()), of(value()));
    let place = (
        of(value()),
        of(value()),
        of(value()),
        of(text()),
        of(address()),
    );
    (kind, value(), driver, place, any::<bool>(), any::<bool>()).prop_map(
        |(kind, device, driver, place, readonly, shareable)| {
            let (driver_name, driver_type, cache) = driver;
            let (source, target, bus, serial, address) = place;
            let kind = kind.to_owned();
            Disk {
                kind,
                device,
                driver_name,
                driver_type,
                cache,
                source,
                target,
                bus,
                readonly,
                shareable,
                serial,
                address,
                line: 0,
            }
        },
    )
}

fn interface() -> impl Strategy<Value = Interface> {
    let kind = prop_oneof![
        Just("bridge"),
        Just("network"),
        Just("direct"),
        Just("user"),
        Just("mcast"),
        Just("ethernet")
    ];
    (
        kind,
        of(value()),
        of(value()),
        of(value()),
        of(value()),
        of(address()),
    )
        .prop_map(|(kind, mac, source, target, model, address)| Interface {
            kind: kind.to_owned(),
            mac,
            source,
            target,
            model,
            address,
            line: 0,
        })
}

fn devices() -> impl Strategy<Value = Domain> {
    let controller = (value(), of(any::<u32>()), of(value()), of(address())).prop_map(
        |(kind, index, model, address)| Controller {
            kind,
            index,
            model,
            address,
            line: 0,
        },
    );
    let input = (value(), of(value())).prop_map(|(kind, bus)| Input { kind, bus });
    let graphics = (
        value(),
        of(any::<i32>()),
        of(value()),
        of(value()),
        of(value()),
    )
        .prop_map(|(kind, port, autoport, listen, keymap)| Graphics {
            kind,
            port,
            autoport,
            listen,
            keymap,
        });
    let video = (value(), of(any::<u64>()), of(any::<u32>()))
        .prop_map(|(kind, vram, heads)| Video { kind, vram, heads });
    let first = (
        vec(domain_disk(), 0..4),
        vec(controller, 0..3),
        vec(interface(), 0..3),
        vec(value(), 0..2),
        vec(value(), 0..2),
    );
    let second = (
        vec(input, 0..2),
        vec(graphics, 0..2),
        vec(value(), 0..2),
        vec(video, 0..2),
        of(value()),
        of(text()),
    );
    (first, second).prop_map(|(first, second)| {
        let (disks, controllers, interfaces, serials, consoles) = first;
        let (inputs, graphics, sounds, videos, memballoon, emulator) = second;
        Domain {
            disks,
            controllers,
            interfaces,
            serials,
            consoles,
            inputs,
            graphics,
            sounds,
            videos,
            memballoon,
            emulator,
            ..Domain::default()
        }
    })
}

/// Any domain that the printer can write.
pub(crate) fn domain() -> impl Strategy<Value = Domain> {
    let os = (
        of(text()),
        of(value()),
        of(value()),
        of(text()),
        of(text()),
        of(text()),
        of(text()),
        vec(value(), 0..3),
    )
        .prop_map(
            |(kind, arch, machine, loader, kernel, initrd, cmdline, boot)| {
                // The attributes hang on the type element, which is there when any of the three is.
                let kind = kind.or((arch.is_some() || machine.is_some()).then(String::new));
                Os {
                    kind,
                    arch,
                    machine,
                    loader,
                    kernel,
                    initrd,
                    cmdline,
                    boot,
                }
            },
        );
    let topology = of(any::<(u32, u32, u32)>());
    let cpu = (
        of(value()),
        of(value()),
        of(text()),
        of(text()),
        vec((of(value()), value()), 0..3),
        topology,
    )
        .prop_map(|(mode, matching, model, vendor, features, topology)| Cpu {
            mode,
            matching,
            model,
            vendor,
            features,
            topology,
        });
    let numbers = (any::<u64>(), of(any::<u64>()), any::<u32>());
    let texts = (value(), "[!-~]{1,10}", of(text()), of(text()), of(text()));
    let ends = (of(value()), of(text()), of(text()), of(text()));
    (
        devices(),
        os,
        of(cpu),
        numbers,
        texts,
        ends,
        vec("[a-z_][a-z0-9_-]{0,6}", 0..4),
    )
        .prop_map(|(mut domain, os, cpu, numbers, texts, ends, features)| {
            (domain.os, domain.cpu, domain.features) = (os, cpu, features);
            (domain.memory_kib, domain.current_memory_kib, domain.vcpus) = numbers;
            (
                domain.kind,
                domain.name,
                domain.uuid,
                domain.description,
                domain.bootloader,
            ) = texts;
            (
                domain.clock_offset,
                domain.on_poweroff,
                domain.on_reboot,
                domain.on_crash,
            ) = ends;
            domain
        })
}

/// What happens to bytes on a bad day.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    /// A byte becomes another.
    Set(prop::sample::Index, u8),
    /// A run of bytes is lost.
    Cut(prop::sample::Index, usize),
    /// A run of bytes is there twice.
    Twice(prop::sample::Index, usize),
    /// Something is put in.
    Insert(prop::sample::Index, &'static str),
}

/// A few damages, among them tokens that the grammars know.
pub(crate) fn damage() -> impl Strategy<Value = Vec<Damage>> {
    const TOKENS: [&str; 18] = [
        "<",
        ">",
        "</",
        "/>",
        "\"",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "<!DOCTYPE x [",
        "&#0;",
        "&#65;",
        "xmlns:a=\"b\"",
        "=",
        "|22",
        "^",
        "18446744073709551616",
        "\u{0}",
    ];
    let at = || any::<prop::sample::Index>();
    let one = prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (at(), 1usize..600).prop_map(|(at, length)| Damage::Cut(at, length)),
        (at(), 1usize..600).prop_map(|(at, length)| Damage::Twice(at, length)),
        (at(), prop::sample::select(&TOKENS[..])).prop_map(|(at, token)| Damage::Insert(at, token)),
    ];
    vec(one, 1..5)
}

/// Applies damages in order.
pub(crate) fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        match damage {
            Damage::Set(at, byte) => bytes[at.index(length)] = *byte,
            Damage::Cut(at, run) => {
                let at = at.index(length);
                bytes.drain(at..(at + run).min(length));
            }
            Damage::Twice(at, run) => {
                let at = at.index(length);
                let part = bytes[at..(at + run).min(length)].to_vec();
                bytes.splice(at..at, part);
            }
            Damage::Insert(at, token) => {
                let at = at.index(length);
                bytes.splice(at..at, token.bytes());
            }
        }
    }
    bytes
}
