//! An internal snapshot that was just made: its L1 table says what the active one says.

use super::Plan;
use super::make::Room;
use super::rules::{Role, Shot, Thing};
use crate::choices::{Choices, len};
use crate::field::Class;
use crate::make::Maker;

/// Puts the snapshot's L1 table and the snapshot table behind everything; the answer is where the second stands.
pub(super) fn put(
    choices: &mut impl Choices,
    maker: &mut Maker<Role>,
    plan: &Plan,
    room: &mut Room,
    l1: &[u64],
) -> u64 {
    let cluster = plan.cluster();
    let first = maker.end() / cluster;
    let count = (len(l1) * 8).div_ceil(cluster);
    room.row(first, count, Thing::L1);
    room.row(first + count, 1, Thing::Snapshots);
    maker.set_len((first + count + 1) * cluster);
    for (number, entry) in (0u64..).zip(l1) {
        let place = (first * cluster + 8 * number, 8);
        let name = format!("snapshot.l1[{number}]");
        maker.number(
            name,
            place,
            *entry,
            Class::Entry,
            Role::Shot(Shot::L1(*entry)),
        );
    }
    let at = (first + count) * cluster;
    let (id, name) = ("1", "before the update");
    // Version 3 asks for the size of the disk; 16 bytes have it behind that of the machine's state.
    let extra = if plan.version == 3 || choices.one_in(2) {
        16
    } else {
        0
    };
    for (field, offset, width, value, class, what) in [
        (
            "l1_table_offset",
            0,
            8,
            first * cluster,
            Class::Place,
            Shot::Offset,
        ),
        ("l1_size", 8, 4, len(l1), Class::Count, Shot::Size),
        (
            "id_str_size",
            12,
            2,
            len(id.as_bytes()),
            Class::Size,
            Shot::Length,
        ),
        (
            "name_size",
            14,
            2,
            len(name.as_bytes()),
            Class::Size,
            Shot::Length,
        ),
        (
            "date_sec",
            16,
            4,
            choices.below(1 << 31),
            Class::Time,
            Shot::Idle,
        ),
        (
            "date_nsec",
            20,
            4,
            choices.below(1_000_000_000),
            Class::Time,
            Shot::Idle,
        ),
        (
            "vm_clock_nsec",
            24,
            8,
            choices.below(1 << 40),
            Class::Time,
            Shot::Idle,
        ),
        ("vm_state_size", 32, 4, 0, Class::Size, Shot::State),
        ("extra_data_size", 36, 4, extra, Class::Size, Shot::Length),
    ] {
        let name = format!("snapshot.{field}");
        maker.number(name, (at + offset, width), value, class, Role::Shot(what));
    }
    if extra > 0 {
        for (field, offset, value, what) in [
            ("vm_state_size_large", 40, 0, Shot::State),
            ("disk_size", 48, plan.size, Shot::State),
        ] {
            let name = format!("snapshot.{field}");
            maker.number(name, (at + offset, 8), value, Class::Size, Role::Shot(what));
        }
    }
    maker.put(at + 40 + extra, id.as_bytes());
    maker.put(at + 40 + extra + len(id.as_bytes()), name.as_bytes());
    at
}
