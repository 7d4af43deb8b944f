//! Disks that nobody of this house made. Sizes, places and UUIDs must be those that sfdisk and blkid read.

#[path = "../../../properties/skip.rs"]
mod skipping;
#[path = "../../../properties/foreign.rs"]
mod unpacking;

use drylab_block::Limits;
use drylab_volume::scan;
use std::sync::Arc;

#[test]
fn foreign_disks_agree_with_sfdisk_and_blkid_and_never_panic() {
    let Some((root, manifest)) = unpacking::foreign() else {
        return;
    };
    let (mut opened, mut tables, mut members, mut groups) = (0, 0, 0, 0);
    for line in manifest.lines().skip(1) {
        let mut columns = line.split('\t');
        let (Some(file), Some(kind)) = (columns.next(), columns.next()) else {
            continue;
        };
        if !matches!(kind, "part" | "volume" | "fs")
            || file.ends_with(".xz")
            || file.ends_with(".gz")
        {
            continue;
        }
        let Ok(bytes) = std::fs::read(root.join(file)) else {
            continue;
        };
        let oracle: serde_json::Value = columns
            .nth(6)
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default();
        opened += 1;
        drylab_volume::fuzz::mbr(&bytes[..bytes.len().min(64 << 20)]);
        let layout = scan(Arc::new(bytes), &Limits::DEFAULT)
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        if oracle["sfdisk"][0] == "dos" && kind == "part" {
            let theirs: Vec<(u64, u64, String)> = oracle["sfdisk"].as_array().unwrap()[1..]
                .iter()
                .map(|row| {
                    (
                        row[0].as_u64().unwrap(),
                        row[1].as_u64().unwrap(),
                        row[2].as_str().unwrap().to_owned(),
                    )
                })
                .map(|row| {
                    if row.2 == "ee" {
                        (row.0, 0, row.2)
                    } else {
                        row
                    }
                })
                .collect();
            let table = layout.disks[0]
                .table
                .as_ref()
                .unwrap_or_else(|| panic!("{file}: no table"));
            let ours: Vec<(u64, u64, String)> = table
                .partitions
                .iter()
                .map(|partition| {
                    (
                        partition.start_sector,
                        partition.sectors,
                        format!("{:x}", partition.type_byte),
                    )
                })
                // sfdisk shows a protective entry cut at the end of the disk.
                .map(|row| {
                    if row.2 == "ee" {
                        (row.0, 0, row.2)
                    } else {
                        row
                    }
                })
                .collect();
            assert_eq!(ours, theirs, "{file}");
            tables += 1;
        }
        if oracle["blkid"]["TYPE"] == "LVM2_member" {
            let physical = layout
                .volumes
                .iter()
                .find_map(|volume| volume.physical.as_ref());
            let physical =
                physical.unwrap_or_else(|| panic!("{file}: no physical volume in {layout:?}"));
            assert_eq!(oracle["blkid"]["UUID"], physical.pv_uuid.as_str(), "{file}");
            members += 1;
            groups += u32::from(layout.volumes.iter().any(|volume| volume.logical.is_some()));
        }
    }
    eprintln!(
        "{opened} disks opened, {tables} tables and {members} physical volumes agree, {groups} groups read"
    );
    assert!(
        opened >= 20 && tables >= 4 && members >= 3 && groups >= 2,
        "{opened} opened, {tables} tables, {groups} groups"
    );
}
