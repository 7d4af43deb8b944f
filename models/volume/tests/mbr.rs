//! Partition tables made by sfdisk and by hand.

#[path = "../../../properties/skip.rs"]
mod skipping;

use drylab_block::{Error, Limits, Overlay, ReadAt, SparseBytes, WriteAt};
use drylab_volume::{Layout, Role, WindowMut, scan};
use proptest::prelude::*;
use std::process::{Command, Stdio};
use std::sync::Arc;

type Entry = (u8, u8, u32, u32);

/// A table sector with these (status, type, start, sectors) entries.
fn table(entries: &[Entry]) -> [u8; 512] {
    let mut sector = [0u8; 512];
    sector[0x1b8..0x1bc].copy_from_slice(&0x0102_0304u32.to_le_bytes());
    for (slot, (status, kind, start, sectors)) in entries.iter().enumerate() {
        let at = 0x1be + slot * 16;
        sector[at] = *status;
        sector[at + 4] = *kind;
        sector[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    }
    sector[0x1fe] = 0x55;
    sector[0x1ff] = 0xaa;
    sector
}

fn disk(sectors: u64, tables: &[(u64, &[Entry])]) -> Arc<SparseBytes> {
    let disk = SparseBytes::new(sectors * 512);
    for (at, entries) in tables {
        disk.write_at(at * 512, &table(entries)).unwrap();
    }
    Arc::new(disk)
}

fn codes(layout: &Layout) -> Vec<&'static str> {
    layout.findings.iter().map(|finding| finding.code).collect()
}

fn names(layout: &Layout) -> Vec<String> {
    layout
        .volumes
        .iter()
        .map(|volume| volume.name.to_string())
        .collect()
}

#[test]
fn primary_and_logical_partitions_are_numbered_as_linux_does() {
    let disk = disk(
        100_000,
        &[
            (
                0,
                &[
                    (0x80, 0x83, 2048, 8192),
                    (0, 0, 0, 0),
                    (0, 0x05, 20_000, 40_000),
                ],
            ),
            (20_000, &[(0, 0x83, 63, 1000), (0, 0x05, 10_000, 5000)]),
            (30_000, &[(0, 0x82, 63, 2000)]),
        ],
    );
    let layout = scan(disk, &Limits::DEFAULT).unwrap();
    assert_eq!(names(&layout), ["p1", "p5", "p6"]);
    assert_eq!(codes(&layout), [] as [&str; 0]);
    let starts: Vec<u64> = layout
        .volumes
        .iter()
        .map(|volume| volume.start_byte() / 512)
        .collect();
    assert_eq!(starts, [2048, 20_063, 30_063]);
    assert!(layout.volumes[0].active);
    assert_eq!(layout.volumes[2].mbr_type, Some(0x82));
    let mbr = layout.disks[0].table.as_ref().unwrap();
    assert_eq!(mbr.disk_signature, 0x0102_0304);
    assert!(!mbr.has_boot_code());
    assert_eq!(mbr.partitions[1].role, Role::Extended);
    assert_eq!(mbr.partitions[1].number, 3);
}

#[test]
fn a_circular_chain_is_refused_with_its_place() {
    let disk = disk(
        100_000,
        &[
            (0, &[(0, 0x0f, 20_000, 40_000)]),
            (20_000, &[(0, 0x83, 63, 100), (0, 0x05, 10_000, 5000)]),
            (30_000, &[(0, 0x83, 63, 100), (0, 0x05, 0, 5000)]),
        ],
    );
    let error = scan(disk, &Limits::DEFAULT).unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    assert!(
        error.to_string().contains("sector 20000, linked from byte"),
        "{error}"
    );
}

#[test]
fn a_chain_longer_than_the_limit_is_refused() {
    let mut tables: Vec<(u64, Vec<Entry>)> = vec![(0, vec![(0, 5, 100, 90_000)])];
    for link in 0..50u32 {
        tables.push((
            u64::from(100 + link * 10),
            vec![(0, 0x83, 1, 2), (0, 5, link * 10 + 10, 10)],
        ));
    }
    let tables: Vec<(u64, &[Entry])> = tables
        .iter()
        .map(|(at, entries)| (*at, entries.as_slice()))
        .collect();
    let mut limits = Limits::DEFAULT;
    limits.chain_max = 40;
    let error = scan(disk(100_000, &tables), &limits).unwrap_err();
    assert!(error.to_string().contains("longer than 40"), "{error}");
    let layout = scan(disk(100_000, &tables), &Limits::DEFAULT).unwrap();
    assert_eq!(layout.volumes.len(), 50);
    assert_eq!(codes(&layout), ["MBR-EBR-NO-SIGNATURE"]);
}

#[test]
fn a_partition_past_the_end_is_cut_there_and_said() {
    let layout = scan(
        disk(
            10_000,
            &[(0, &[(0, 0x83, 2048, 20_000), (0, 0x83, 50_000, 10)])],
        ),
        &Limits::DEFAULT,
    )
    .unwrap();
    assert_eq!(
        codes(&layout),
        ["MBR-PARTITION-BEYOND-END", "MBR-PARTITION-BEYOND-END"]
    );
    assert_eq!(names(&layout), ["p1"]);
    assert_eq!(layout.volumes[0].length(), (10_000 - 2048) * 512);
    assert!(layout.findings[0].message.contains("2048..22048"));
    assert_eq!(layout.findings[0].offset, 0x1be);
}

#[test]
fn overlaps_are_found_even_across_a_partition_between() {
    let layout = scan(
        disk(
            10_000,
            &[(
                0,
                &[
                    (0, 0x83, 100, 5000),
                    (0, 0x83, 200, 10),
                    (0, 0x83, 4000, 2000),
                    (0, 0x83, 7000, 10),
                ],
            )],
        ),
        &Limits::DEFAULT,
    )
    .unwrap();
    assert_eq!(codes(&layout), ["MBR-OVERLAP", "MBR-OVERLAP"]);
    assert!(
        layout.findings[1].message.contains("partition 3")
            && layout.findings[1].message.contains("partition 1")
    );
}

#[test]
fn a_link_past_the_end_and_a_logical_partition_outside_are_findings() {
    let layout = scan(
        disk(
            10_000,
            &[
                (0, &[(0, 0x05, 1000, 2000)]),
                (1000, &[(0, 0x83, 63, 5000), (0, 0x05, 2_000_000, 5)]),
            ],
        ),
        &Limits::DEFAULT,
    )
    .unwrap();
    assert_eq!(
        codes(&layout),
        ["MBR-LOGICAL-OUTSIDE", "MBR-EBR-BEYOND-END"]
    );
    assert_eq!(names(&layout), ["p5"]);
}

#[test]
fn a_disk_without_a_table_is_one_volume_and_a_boot_sector_is_no_table() {
    let plain: Arc<dyn ReadAt> = Arc::new(SparseBytes::new(1 << 20));
    assert_eq!(names(&scan(plain, &Limits::DEFAULT).unwrap()), ["whole"]);
    let ntfs = disk(4096, &[(0, &[(0x80, 7, 10, 10)])]);
    ntfs.write_at(3, b"NTFS    ").unwrap();
    assert_eq!(names(&scan(ntfs, &Limits::DEFAULT).unwrap()), ["whole"]);
    let empty: Arc<dyn ReadAt> = Arc::new(Vec::new());
    assert_eq!(
        names(&scan(empty, &Limits::DEFAULT).unwrap()),
        [] as [&str; 0]
    );
}

#[test]
fn a_protective_table_is_said_and_not_taken_for_a_partition() {
    let layout = scan(
        disk(4096, &[(0, &[(0, 0xee, 1, u32::MAX)])]),
        &Limits::DEFAULT,
    )
    .unwrap();
    assert_eq!(names(&layout), [] as [&str; 0]);
    assert!(codes(&layout).contains(&"GPT-NOT-READ"));
}

#[test]
fn a_table_made_by_sfdisk_is_read_as_sfdisk_dumps_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    let script = "label: dos\nlabel-id: 0xdeadbeef\nstart=2048,size=20480,type=83,bootable\nstart=22528,size=2048,type=7\n\
                  start=24576,type=5\nstart=26624,size=4096,type=83\nstart=32768,size=8192,type=82\nstart=43008,type=8e\n";
    let child = Command::new("sfdisk")
        .arg("-q")
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let Ok(mut child) = child else {
        return skipping::skip("sfdisk is missing");
    };
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let dump = Command::new("sfdisk")
        .arg("-d")
        .arg(&path)
        .output()
        .unwrap();
    let dump = String::from_utf8(dump.stdout).unwrap();
    let layout = scan(Arc::new(std::fs::read(&path).unwrap()), &Limits::DEFAULT).unwrap();
    let mbr = layout.disks[0].table.as_ref().unwrap();
    assert!(
        dump.contains(&format!("label-id: 0x{:08x}", mbr.disk_signature)),
        "{dump}"
    );
    let lines: Vec<String> = dump
        .lines()
        .filter(|line| line.contains(" start="))
        .map(|line| line.replace(' ', ""))
        .collect();
    assert_eq!(lines.len(), mbr.partitions.len());
    for (line, partition) in lines.iter().zip(&mbr.partitions) {
        let active = if partition.active { ",bootable" } else { "" };
        let ours = format!(
            "start={},size={},type={:x}{active}",
            partition.start_sector, partition.sectors, partition.type_byte
        );
        assert!(
            line.ends_with(&format!("disk.raw{}:{ours}", partition.number)),
            "{line} against {ours}"
        );
    }
    assert_eq!(layout.findings, []);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Whatever four entries and links say, scanning ends without panic and volumes lie on the disk.
    #[test]
    fn any_table_is_read_without_panic(
        entries in proptest::collection::vec((prop_oneof![Just(0u8), Just(0x80)], prop_oneof![Just(5u8), Just(0x0f), any::<u8>()],
            0u32..3000, 0u32..3000), 4),
        links in proptest::collection::vec((0u64..2000, 0u32..2000, 0u32..2000), 0..6),
    ) {
        let disk = disk(2048, &[]);
        for (at, logical, link) in &links {
            disk.write_at(at * 512, &table(&[(0, 0x83, *logical, 5), (0, 5, *link, 5)])).unwrap();
        }
        disk.write_at(0, &table(&entries)).unwrap();
        let mut bytes = vec![0; 2048 * 512];
        disk.read_at(0, &mut bytes).unwrap();
        drylab_volume::fuzz::mbr(&bytes);
    }

    /// Reading a volume in pieces gives what reading it at once gives, and a write through a window is read back there
    /// and nowhere else.
    #[test]
    fn a_window_is_the_same_in_any_chunks(start in 1u32..100, length in 1u32..50, cut in 1usize..2000, at in 0u64..512, fill: u8) {
        let base: Vec<u8> = (0..200u32 * 512).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut base = base;
        base[..512].copy_from_slice(&table(&[(0, 0x83, start, length)]));
        let base: Arc<dyn ReadAt> = Arc::new(base);
        let layout = scan(base.clone(), &Limits::DEFAULT).unwrap();
        let volume = &layout.volumes[0];
        let mut whole = vec![0; volume.length() as usize];
        volume.source.read_at(0, &mut whole).unwrap();
        let mut pieces = Vec::new();
        while pieces.len() < whole.len() {
            let mut piece = vec![0; cut.min(whole.len() - pieces.len())];
            volume.source.read_at(pieces.len() as u64, &mut piece).unwrap();
            pieces.extend(piece);
        }
        prop_assert_eq!(&whole, &pieces);
        let over: Arc<dyn WriteAt> = Arc::new(Overlay::new(base.clone()));
        let window = WindowMut::new(vec![over.clone()], volume.map.clone());
        let room = volume.length() - at.min(volume.length());
        let bytes = vec![fill; room.min(300) as usize];
        window.write_at(at.min(volume.length()), &bytes).unwrap();
        let mut expected = vec![0; base.len() as usize];
        base.read_at(0, &mut expected).unwrap();
        let from = (u64::from(start) * 512 + at.min(volume.length())) as usize;
        expected[from..from + bytes.len()].copy_from_slice(&bytes);
        let mut after = vec![0; base.len() as usize];
        over.read_at(0, &mut after).unwrap();
        prop_assert!(after == expected);
        prop_assert!(window.write_at(volume.length(), &[1]).is_err());
    }
}
