//! File type identifier, headers, region tables, metadata region.

use super::log::Pending;
use super::rules::{Item, Role, Slotted};
use super::{MIB, Plan};
use crate::choices::{Choices, len};
use crate::field::{Class, Sum};
use crate::make::Maker;

/// Where log and regions are: offset and length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) log: (u64, u64),
    pub(super) bat: (u64, u64),
    pub(super) metadata: (u64, u64),
    pub(super) unknown: Option<(u64, u64)>,
}

impl Area {
    /// All of them, the header section first.
    pub(super) fn all(&self) -> Vec<(u64, u64)> {
        let mut all = vec![(0, MIB), self.log, self.bat, self.metadata];
        all.extend(self.unknown);
        all
    }
}

/// A GUID as Microsoft stores it, from its text without separators.
fn guid(text: &str) -> [u8; 16] {
    let hex = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
    let order = [6, 4, 2, 0, 10, 8, 14, 12, 16, 18, 20, 22, 24, 26, 28, 30];
    order.map(hex)
}

const BAT: &str = "2dc27766f62342009d64115e9bfd4a08";
const METADATA: &str = "8b7ca20647904b9ab8fe575f050f886e";
/// Items: file parameters, size, id, logical and physical sector size, parent locator.
const FILE_PARAMETERS: &str = "caa16737fa364d43b3b633f0aa44e76b";
const DISK_SIZE: &str = "2fa54224cd1b4876b2115dbed83bf4b8";
const DISK_ID: &str = "beca12abb2e6452393efc309e000c746";
const LOGICAL: &str = "8141bf1da96f4709ba47f233a8faab5f";
const PHYSICAL: &str = "cda348c7445d44719cc9e9885251c556";
const LOCATOR: &str = "a8d35f2db30b454dabf7d3d84834ab0c";
const LOCATOR_TYPE: &str = "b04aefb7d19e4a81b78925b8e9445913";

/// Everything in the header section.
pub(super) fn front(
    choices: &mut impl Choices,
    maker: &mut Maker<Role>,
    plan: &Plan,
    area: &Area,
    log: Option<&Pending>,
) {
    maker.text(
        "fileTypeIdentifier.Signature",
        0,
        b"vhdxfile",
        Class::Magic,
        Role::Signature,
    );
    let creator: Vec<u8> = "Specimen"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    maker.text(
        "fileTypeIdentifier.Creator",
        8,
        &creator,
        Class::Text,
        Role::Idle,
    );
    let sequence = choices.between(1, 1 << 20);
    let file_write_guid = choices.id();
    let second = choices.one_in(2);
    for (number, at) in [(0u64, 64 << 10), (1, 128 << 10)] {
        let current = second == (number == 1);
        let name = |field: &str| format!("header[{number}].{field}");
        let role = |what| Role::Header { current, what };
        maker.put(at, &[0; 4096]);
        maker.text(
            name("Signature"),
            at,
            b"head",
            Class::Magic,
            role(Slotted::Invalid),
        );
        let log_guid = log.map_or([0; 16], |log| log.guid);
        for (field, offset, id, what) in [
            ("FileWriteGuid", 16, file_write_guid, Slotted::Idle),
            ("DataWriteGuid", 32, plan.data_write_guid, Slotted::Idle),
            ("LogGuid", 48, log_guid, Slotted::LogGuid),
        ] {
            maker.text(name(field), at + offset, &id, Class::Id, role(what));
        }
        for (field, offset, width, value, class, what) in [
            (
                "SequenceNumber",
                8,
                8,
                sequence + u64::from(current),
                Class::Count,
                Slotted::Sequence,
            ),
            ("LogVersion", 64, 2, 0, Class::Version, Slotted::LogVersion),
            ("Version", 66, 2, 1, Class::Version, Slotted::Version),
            (
                "LogLength",
                68,
                4,
                area.log.1,
                Class::Size,
                Slotted::LogLength,
            ),
            (
                "LogOffset",
                72,
                8,
                area.log.0,
                Class::Place,
                Slotted::LogOffset,
            ),
        ] {
            maker.number(name(field), (at + offset, width), value, class, role(what));
        }
        maker.text(
            name("Reserved"),
            at + 80,
            &[0; 16],
            Class::Reserved,
            role(Slotted::Idle),
        );
        let checksum = role(Slotted::Invalid);
        maker.seal(name("Checksum"), (at, 4096), at + 4, Sum::Crc32c, checksum);
    }
    regions(choices, maker, area);
}

fn regions(choices: &mut impl Choices, maker: &mut Maker<Role>, area: &Area) {
    let mut all = vec![
        (guid(BAT), area.bat, 1u64),
        (guid(METADATA), area.metadata, 1),
    ];
    if let Some(place) = area.unknown {
        all.push((choices.id(), place, 0));
    }
    if choices.one_in(2) {
        all.reverse();
    }
    for (number, at) in [(0u64, 192 << 10), (1, 256 << 10)] {
        let name = |field: &str| format!("regionTable[{number}].{field}");
        let role = |what| Role::Region {
            first: number == 0,
            what,
        };
        maker.text(
            name("Signature"),
            at,
            b"regi",
            Class::Magic,
            role(Item::Invalid),
        );
        maker.number(
            name("EntryCount"),
            (at + 8, 4),
            len(&all),
            Class::Count,
            role(Item::Count),
        );
        maker.number(
            name("Reserved"),
            (at + 12, 4),
            0,
            Class::Reserved,
            role(Item::Idle),
        );
        for (entry, (guid, place, required)) in (0u64..).zip(&all) {
            let name = |field: &str| name(&format!("entry[{entry}].{field}"));
            let at = at + 16 + 32 * entry;
            maker.text(name("Guid"), at, guid, Class::Id, role(Item::Guid));
            maker.number(
                name("FileOffset"),
                (at + 16, 8),
                place.0,
                Class::Place,
                role(Item::Offset),
            );
            maker.number(
                name("Length"),
                (at + 24, 4),
                place.1,
                Class::Size,
                role(Item::Length),
            );
            maker.number(
                name("Required"),
                (at + 28, 4),
                *required,
                Class::Flags,
                role(Item::Flags),
            );
        }
        let checksum = role(Item::Invalid);
        maker.seal(
            name("Checksum"),
            (at, 64 << 10),
            at + 4,
            Sum::Crc32c,
            checksum,
        );
    }
}

/// The locator of a parent: pairs of texts.
fn locator(link: [u8; 16]) -> Vec<u8> {
    let [a, b, c, d, e, f, g, h, tail @ ..] = link;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (node, last) = tail.split_at(2);
    let linkage = format!(
        "{{{}-{}-{}-{}-{}}}",
        hex(&[d, c, b, a]),
        hex(&[f, e]),
        hex(&[h, g]),
        hex(node),
        hex(last)
    );
    let pairs = [
        ("parent_linkage", linkage),
        ("relative_path", ".\\parent.vhdx".to_owned()),
    ];
    let mut bytes = guid(LOCATOR_TYPE).to_vec();
    bytes.extend_from_slice(&[0, 0, 2, 0]);
    let mut strings = Vec::new();
    let mut at = 20 + 12 * u32::try_from(pairs.len()).expect("two pairs");
    for (key, value) in &pairs {
        let (mut places, mut lengths) = (Vec::new(), Vec::new());
        for text in [*key, value] {
            let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let length = u16::try_from(units.len()).expect("short texts");
            places.extend_from_slice(&at.to_le_bytes());
            lengths.extend_from_slice(&length.to_le_bytes());
            at += u32::from(length);
            strings.extend_from_slice(&units);
        }
        bytes.extend_from_slice(&places);
        bytes.extend_from_slice(&lengths);
    }
    bytes.extend_from_slice(&strings);
    bytes
}

/// The metadata region.
pub(super) fn metadata(choices: &mut impl Choices, maker: &mut Maker<Role>, plan: &Plan, at: u64) {
    let flags = u64::from(plan.fixed) | if plan.parent.is_some() { 2 } else { 0 };
    let parameters = [plan.block | flags << 32].map(u64::to_le_bytes).concat();
    let word = |value: u64| value.to_le_bytes()[..4].to_vec();
    let mut items = vec![
        (guid(FILE_PARAMETERS), 4u64, parameters),
        (guid(DISK_SIZE), 6, plan.size.to_le_bytes().to_vec()),
        (guid(DISK_ID), 6, choices.id().to_vec()),
        (guid(LOGICAL), 6, word(plan.sector)),
        (guid(PHYSICAL), 6, word(plan.physical)),
    ];
    if let Some(link) = plan.parent {
        items.push((guid(LOCATOR), 4, locator(link)));
    }
    if choices.one_in(3) {
        items.push((choices.id(), 1, b"a user's item".to_vec()));
    }
    let mut order: Vec<usize> = (0..items.len()).collect();
    if choices.one_in(2) {
        choices.shuffle(&mut order);
    }
    maker.put(at, &[0; 32]);
    maker.text(
        "metadata.Signature",
        at,
        b"metadata",
        Class::Magic,
        Role::Metadata(Item::Invalid),
    );
    maker.number(
        "metadata.Reserved",
        (at + 8, 2),
        0,
        Class::Reserved,
        Role::Metadata(Item::Idle),
    );
    let count = len(&items);
    maker.number(
        "metadata.EntryCount",
        (at + 10, 2),
        count,
        Class::Count,
        Role::Metadata(Item::Count),
    );
    let mut end = 64 << 10;
    for (number, which) in (0u64..).zip(order) {
        let (id, flags, bytes) = &items[which];
        end += choices.below(3) * 8;
        let name = |field: &str| format!("metadata.entry[{number}].{field}");
        let entry = at + 32 + 32 * number;
        let user = flags & 1 != 0;
        let role = |what| {
            if user {
                Role::UserItem(what)
            } else {
                Role::Metadata(what)
            }
        };
        maker.text(name("ItemId"), entry, id, Class::Id, role(Item::Guid));
        for (field, offset, value, class, what) in [
            ("Offset", 16, end, Class::Place, Item::Offset),
            ("Length", 20, len(bytes), Class::Size, Item::Length),
            ("Flags", 24, *flags, Class::Flags, Item::Flags),
        ] {
            maker.number(name(field), (entry + offset, 4), value, class, role(what));
        }
        maker.put(at + end, bytes);
        fields(maker, plan, which, at + end);
        end += len(bytes);
    }
}

/// Fields inside an item, by its place in the list of the specification.
fn fields(maker: &mut Maker<Role>, plan: &Plan, which: usize, at: u64) {
    let mut number = |name: &str, place, value, class, role| {
        maker.number(format!("metadata.{name}"), place, value, class, role);
    };
    match which {
        0 => {
            let flags = u64::from(plan.fixed) | if plan.parent.is_some() { 2 } else { 0 };
            number(
                "BlockSize",
                (at, 4),
                plan.block,
                Class::Size,
                Role::BlockSize,
            );
            number(
                "FileParametersFlags",
                (at + 4, 4),
                flags,
                Class::Flags,
                Role::ParameterFlags,
            );
        }
        1 => number(
            "VirtualDiskSize",
            (at, 8),
            plan.size,
            Class::Size,
            Role::DiskSize,
        ),
        2 => maker.note(
            "metadata.VirtualDiskId",
            (at, 16),
            crate::Endian::Bytes,
            Class::Id,
            Role::Idle,
        ),
        3 => number(
            "LogicalSectorSize",
            (at, 4),
            plan.sector,
            Class::Size,
            Role::Logical,
        ),
        4 => number(
            "PhysicalSectorSize",
            (at, 4),
            plan.physical,
            Class::Size,
            Role::Physical,
        ),
        5 if plan.parent.is_some() => {
            let text = guid(LOCATOR_TYPE);
            maker.text(
                "metadata.LocatorType",
                at,
                &text,
                Class::Id,
                Role::LocatorType,
            );
            let mut number = |name: &str, place, value, class| {
                maker.number(
                    format!("metadata.{name}"),
                    place,
                    value,
                    class,
                    Role::Locator,
                );
            };
            number("LocatorKeyValueCount", (at + 18, 2), 2, Class::Count);
            let places = [44, 44 + 28, 44 + 28 + 76, 44 + 28 + 76 + 26];
            number(
                "Locator[0].KeyOffset",
                (at + 20, 4),
                places[0],
                Class::Place,
            );
            number(
                "Locator[0].ValueOffset",
                (at + 24, 4),
                places[1],
                Class::Place,
            );
            number("Locator[0].KeyLength", (at + 28, 2), 28, Class::Size);
            number("Locator[0].ValueLength", (at + 30, 2), 76, Class::Size);
            number(
                "Locator[1].KeyOffset",
                (at + 32, 4),
                places[2],
                Class::Place,
            );
            number(
                "Locator[1].ValueOffset",
                (at + 36, 4),
                places[3],
                Class::Place,
            );
        }
        _ => {}
    }
}
