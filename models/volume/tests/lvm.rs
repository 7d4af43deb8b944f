//! A volume group that lvm2 made over two disks (`data/README.md` says how).

use drylab_block::{Extents, Limits, Overlay, ReadAt, SparseBytes, WriteAt};
use drylab_volume::{Layout, Map, Segment, Spot, WindowMut, lvm, scan, scan_all};
use proptest::prelude::*;
use std::io::Read;
use std::sync::{Arc, LazyLock};

const MIB: u64 = 1 << 20;

fn unpack(bytes: &[u8]) -> Arc<dyn ReadAt> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .read_to_end(&mut out)
        .unwrap();
    Arc::new(out)
}

fn a() -> Arc<dyn ReadAt> {
    unpack(include_bytes!("data/vg-lab-a.img.gz"))
}

fn b() -> Arc<dyn ReadAt> {
    unpack(include_bytes!("data/vg-lab-b.img.gz"))
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
fn names_and_uuids_are_those_lvm_printed() {
    let layout = scan_all(&[a(), b()], &Limits::DEFAULT).unwrap();
    assert_eq!(layout.findings, []);
    let volumes = [
        "p1",
        "p2",
        "disk1:whole",
        "vg_lab/lv_far",
        "vg_lab/lv_root",
        "vg_lab/lv_striped",
        "vg_lab/lv_swap",
    ];
    assert_eq!(names(&layout), volumes);
    assert_eq!(
        layout.disks[0].table.as_ref().unwrap().disk_signature,
        0x1bad_b002
    );
    let pv = layout.volume("p2").unwrap().physical.as_ref().unwrap();
    assert_eq!(pv.pv_uuid, "HdPMER-K3WW-n9RI-Vqt0-5qZw-Bth2-DT82Wk");
    assert_eq!(pv.vg_name, "vg_lab");
    assert!(layout.volume("p1").unwrap().physical.is_none());
    let root = layout.volume("vg_lab/lv_root").unwrap();
    let logical = root.logical.as_ref().unwrap();
    assert_eq!(logical.vg_uuid, "nsLL3V-GxzQ-wFuR-dbws-IR0X-OEdn-lwdoTT");
    assert_eq!(logical.lv_uuid, "ERAV1Z-CYTs-tjhs-8Z6p-0jcA-mEDu-OoEGpV");
    assert_eq!(root.length(), 7 * MIB);
}

/// Writes the extent's own number (disk, extent) into every 64 KiB of every extent.
fn numbered(disk: Arc<dyn ReadAt>, first: u64, extents: u64, tag: u64) -> Arc<dyn ReadAt> {
    let over = Overlay::new(disk);
    for piece in 0..extents * 16 {
        let text = format!("{tag}:{}:{}", piece / 16, piece % 16);
        over.write_at(first + piece * 65536, text.as_bytes())
            .unwrap();
    }
    Arc::new(over)
}

#[test]
fn bytes_come_from_the_extents_lvs_reported() {
    let disks = [
        numbered(a(), 4096 * 512 + MIB, 20, 0),
        numbered(b(), MIB, 14, 1),
    ];
    let layout = scan_all(&disks, &Limits::DEFAULT).unwrap();
    let text = |key: &str, at: u64| {
        let mut bytes = [0; 12];
        layout
            .volume(key)
            .unwrap()
            .source
            .read_at(at, &mut bytes)
            .unwrap();
        String::from_utf8(bytes.into_iter().take_while(|byte| *byte != 0).collect()).unwrap()
    };
    for (extent, stands) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 6), (5, 7), (6, 8)] {
        assert_eq!(
            text("vg_lab/lv_root", extent * MIB),
            format!("0:{stands}:0")
        );
    }
    assert_eq!(text("vg_lab/lv_swap", MIB), "0:5:0");
    assert_eq!(text("vg_lab/lv_far", 2 * MIB + 3 * 65536), "1:2:3");
    // Stripes of 64 KiB by turns on a:9-10 and b:3-4.
    for piece in 0..64u64 {
        let (disk, first) = if piece % 2 == 0 { (0, 9) } else { (1, 3) };
        let expected = format!("{disk}:{}:{}", first + piece / 2 / 16, piece / 2 % 16);
        assert_eq!(text("vg_lab/lv_striped", piece * 65536), expected);
    }
    // A read across the border of two segments.
    let mut bytes = [0; 65536 + 8];
    layout
        .volume("vg_lab/lv_root")
        .unwrap()
        .source
        .read_at(4 * MIB - 65536, &mut bytes)
        .unwrap();
    assert!(bytes.starts_with(b"0:3:15\0") && bytes[65536..].starts_with(b"0:6:0\0"));
}

#[test]
fn a_write_into_a_logical_volume_lands_on_its_disks() {
    let disks: Vec<Arc<Overlay>> = [a(), b()]
        .into_iter()
        .map(|disk| Arc::new(Overlay::new(disk)))
        .collect();
    let readable: Vec<Arc<dyn ReadAt>> = disks
        .iter()
        .map(|disk| disk.clone() as Arc<dyn ReadAt>)
        .collect();
    let writable: Vec<Arc<dyn WriteAt>> = disks
        .iter()
        .map(|disk| disk.clone() as Arc<dyn WriteAt>)
        .collect();
    let layout = scan_all(&readable, &Limits::DEFAULT).unwrap();
    let volume = layout.volume("vg_lab/lv_striped").unwrap();
    let window = WindowMut::new(writable, volume.map.clone());
    let bytes: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
    window.write_at(30_000, &bytes).unwrap();
    let mut read = vec![0; bytes.len()];
    volume.source.read_at(30_000, &mut read).unwrap();
    assert_eq!(read, bytes);
    assert!(disks.iter().all(|disk| !disk.delta().unwrap().0.is_empty()));
}

#[test]
fn a_missing_disk_hides_only_the_volumes_that_stand_on_it() {
    let layout = scan(a(), &Limits::DEFAULT).unwrap();
    assert_eq!(
        names(&layout),
        ["p1", "p2", "vg_lab/lv_root", "vg_lab/lv_swap"]
    );
    assert_eq!(codes(&layout), ["LVM-VOLUME-NOT-READ"; 2]);
    assert!(
        layout.findings[0]
            .message
            .contains("X8S0uC-8bsG-060N-yeGt-TJBJ-hXC8-VrLF53"),
        "{:?}",
        layout.findings
    );
}

#[test]
fn a_physical_volume_cut_short_is_said_and_its_volumes_past_the_end_are_not_read() {
    let whole = a();
    let mut bytes = vec![0; (4096 * 512 + 6 * MIB) as usize];
    whole.read_at(0, &mut bytes).unwrap();
    let layout = scan_all(&[Arc::new(bytes), b()], &Limits::DEFAULT).unwrap();
    assert!(
        codes(&layout).contains(&"LVM-PV-BIGGER-THAN-DEVICE"),
        "{:?}",
        layout.findings
    );
    assert_eq!(names(&layout), ["p1", "p2", "disk1:whole", "vg_lab/lv_far"]);
}

#[test]
fn a_copy_of_a_physical_volume_is_said() {
    let layout = scan_all(&[a(), b(), b()], &Limits::DEFAULT).unwrap();
    assert_eq!(codes(&layout), ["LVM-DUPLICATE-PV"]);
}

#[test]
fn a_damaged_label_or_text_is_a_finding_and_the_rest_is_read() {
    let over = Overlay::new(b());
    over.write_at(512 + 0x30, b"X").unwrap();
    let layout = scan(Arc::new(over), &Limits::DEFAULT).unwrap();
    assert_eq!(
        (names(&layout), codes(&layout)),
        (vec!["whole".into()], vec!["LVM-LABEL-CHECKSUM"])
    );
    let over = Overlay::new(b());
    over.write_at(4096 + 4, b"X").unwrap();
    let layout = scan(Arc::new(over), &Limits::DEFAULT).unwrap();
    assert_eq!(codes(&layout), ["LVM-METADATA"]);
}

/// A physical volume that holds exactly this text.
fn with_text(text: &str) -> Vec<u8> {
    let mut bytes = vec![0u8; 4 << 20];
    b().read_at(0, &mut bytes[..8192]).unwrap();
    bytes[8192..].fill(0);
    bytes[4096 + 0x28..4096 + 0x30].copy_from_slice(&512u64.to_le_bytes());
    bytes[4096 + 0x30..4096 + 0x38].copy_from_slice(&(text.len() as u64).to_le_bytes());
    bytes[4096 + 512..4096 + 512 + text.len()].copy_from_slice(text.as_bytes());
    drylab_volume::lvm::mend_checksums(&mut bytes);
    bytes
}

fn group_text(volumes: &str) -> String {
    format!(
        "vg {{ id = \"vg-id\" seqno = 3 extent_size = 128 # 64 KiB\n physical_volumes {{ pv0 {{ \
         id = \"X8S0uC-8bsG-060N-yeGt-TJBJ-hXC8-VrLF53\" pe_start = 2048 pe_count = 40 }} }} \
         logical_volumes {{ {volumes} }} }} contents = \"Text Format Volume Group\" version = 1"
    )
}

fn leg(name: &str, first: u32) -> String {
    format!(
        "{name} {{ id = \"{name}-id\" status = [\"READ\"] segment1 {{ start_extent = 0 extent_count = 4 type = \"striped\" \
         stripe_count = 1 stripes = [\"pv0\", {first}] }} }} "
    )
}

#[test]
fn a_mirror_is_read_from_its_first_leg_and_hidden_volumes_are_not_listed() {
    let twin = "twin { id = \"twin-id\" status = [\"READ\", \"VISIBLE\"] segment1 { start_extent = 0 extent_count = 4 \
                type = \"raid1\" device_count = 2 raids = [\"m0\", \"i0\", \"m1\", \"i1\"] } } ";
    let text = group_text(&format!(
        "{twin}{}{}{}{}",
        leg("i0", 8),
        leg("i1", 16),
        leg("m0", 0),
        leg("m1", 4)
    ));
    let mut bytes = with_text(&text);
    bytes[(MIB + 8 * 65536) as usize..][..5].copy_from_slice(b"first");
    let layout = scan(Arc::new(bytes), &Limits::DEFAULT).unwrap();
    assert_eq!(
        names(&layout),
        ["whole", "vg/twin"],
        "{:?}",
        layout.findings
    );
    let mut read = [0; 5];
    layout
        .volume("vg/twin")
        .unwrap()
        .source
        .read_at(0, &mut read)
        .unwrap();
    assert_eq!(&read, b"first");
    assert_eq!(layout.volume("vg/twin").unwrap().length(), 4 * 65536);
}

#[test]
fn circular_logical_volumes_are_refused_with_their_way() {
    let ring = |name: &str, on: &str| {
        format!(
            "{name} {{ id = \"x\" status = [\"VISIBLE\"] segment1 {{ start_extent = 0 extent_count = 4 type = \"striped\" \
             stripe_count = 1 stripes = [\"{on}\", 0] }} }} "
        )
    };
    let text = group_text(&format!("{}{}", ring("one", "two"), ring("two", "one")));
    let error = scan(Arc::new(with_text(&text)), &Limits::DEFAULT).unwrap_err();
    assert!(error.to_string().contains("one → two → one"), "{error}");
}

#[test]
fn a_thin_volume_is_named_as_not_read() {
    let thin = "t { id = \"t\" status = [\"VISIBLE\"] segment1 { start_extent = 0 extent_count = 4 type = \"thin\" } }";
    let layout = scan(Arc::new(with_text(&group_text(thin))), &Limits::DEFAULT).unwrap();
    assert_eq!(
        codes(&layout),
        ["LVM-PV-BIGGER-THAN-DEVICE", "LVM-VOLUME-NOT-READ"]
    );
    assert!(layout.findings[1].message.contains("type thin"));
}

#[test]
fn text_that_wraps_around_the_ring_is_joined() {
    let text = group_text(&leg("plain", 2).replace("\"READ\"", "\"VISIBLE\""));
    let mut bytes = with_text(&text);
    let area = u64::from_le_bytes(bytes[4096 + 0x20..4096 + 0x28].try_into().unwrap());
    let head = 100;
    let at = 4096 + area as usize - head;
    bytes.copy_within(4096 + 512..4096 + 512 + head, at);
    bytes.copy_within(4096 + 512 + head..4096 + 512 + text.len(), 4096 + 512);
    bytes[4096 + 0x28..4096 + 0x30].copy_from_slice(&(area - head as u64).to_le_bytes());
    let crc_header = 4096;
    // Only the header's own checksum changes: the text and its checksum are the same.
    let text_crc = bytes[crc_header + 0x38..crc_header + 0x3c].to_vec();
    lvm::mend_checksums(&mut bytes);
    bytes[crc_header + 0x38..crc_header + 0x3c].copy_from_slice(&text_crc);
    lvm::mend_header_checksum(&mut bytes[crc_header..crc_header + 512]);
    let layout = scan(Arc::new(bytes), &Limits::DEFAULT).unwrap();
    assert_eq!(
        names(&layout),
        ["whole", "vg/plain"],
        "{:?}",
        layout.findings
    );
}

#[test]
fn deep_nesting_and_endless_lists_are_refused() {
    for text in [
        "a {".repeat(10_000),
        format!("a = {}", "[".repeat(10_000)),
        "a = [1,".repeat(3),
        "a = \"x".into(),
    ] {
        assert!(
            lvm::parse_text(text.as_bytes(), &Limits::DEFAULT).is_err(),
            "{}",
            &text[..6]
        );
    }
    let mut limits = Limits::DEFAULT;
    limits.entries_max = 100;
    assert!(lvm::parse_text("a = 1 ".repeat(60).as_bytes(), &limits).is_err());
    assert!(lvm::parse_text("a = 1 ".repeat(40).as_bytes(), &limits).is_ok());
}

/// The physical volume b with everything after its metadata cut away.
fn small() -> Vec<u8> {
    static SMALL: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut bytes = vec![0; 40 << 10];
        b().read_at(0, &mut bytes).unwrap();
        bytes
    });
    SMALL.clone()
}

/// Where the committed text stands in [`small`].
fn text_range(bytes: &[u8]) -> std::ops::Range<usize> {
    let field = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let start = 4096 + field(4096 + 0x28);
    start..start + field(4096 + 0x30)
}

#[test]
fn the_fuzz_target_gets_past_label_header_and_text() {
    let bytes = small();
    let layout = scan(Arc::new(bytes.clone()), &Limits::DEFAULT).unwrap();
    assert_eq!(
        layout
            .volume("whole")
            .unwrap()
            .physical
            .as_ref()
            .unwrap()
            .vg_name,
        "vg_lab"
    );
    drylab_volume::fuzz::lvm(&bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Damage anywhere in label, headers and text, with checksums set right behind it, never panics.
    #[test]
    fn mutated_metadata_never_panics(edits in proptest::collection::vec((0u8..3, any::<u32>(), any::<u8>()), 1..5)) {
        let mut bytes = small();
        let text = text_range(&bytes);
        for (part, at, value) in edits {
            let range = match part { 0 => 512..640, 1 => 4096..4160, _ => text.clone() };
            let at = range.start + at as usize % range.len();
            bytes[at] = value;
        }
        drylab_volume::fuzz::lvm(&bytes);
    }

    /// A digit changed in the text (extents, counts, sizes) keeps every volume on its disk.
    #[test]
    fn changed_numbers_never_leave_the_disk(edits in proptest::collection::vec((any::<u32>(), b'0'..=b'9'), 1..4)) {
        let mut bytes = small();
        let range = text_range(&bytes);
        let digits: Vec<usize> = range.filter(|at| bytes[*at].is_ascii_digit()).collect();
        for (at, digit) in edits {
            bytes[digits[at as usize % digits.len()]] = digit;
        }
        drylab_volume::fuzz::lvm(&bytes);
    }

    /// Any map of linear and striped segments is read in pieces as byte by byte, is covered by its extents, and keeps
    /// what is written through it.
    #[test]
    fn a_map_is_the_same_in_any_chunks(
        segments in proptest::collection::vec((1u64..300, 1u64..40, proptest::collection::vec((0usize..2, 0u64..2000), 1..4)), 1..5),
        cut in 1usize..500,
    ) {
        let disks: Vec<Arc<dyn WriteAt>> = (0..2u64)
            .map(|disk| {
                let bytes = SparseBytes::new(4096);
                let content: Vec<u8> = (0..4096u64).map(|at| (at * 31 + at / 256 * 7 + disk * 101) as u8).collect();
                bytes.write_at(0, &content).unwrap();
                Arc::new(bytes) as Arc<dyn WriteAt>
            })
            .collect();
        let mut map = Map::default();
        let mut expected = Vec::new();
        for (length, stripe, legs) in &segments {
            let legs: Vec<Spot> = legs.iter().map(|(disk, offset)| Spot { disk: *disk, offset: *offset }).collect();
            for at in 0..*length {
                let (leg, within) = match legs.len() as u64 {
                    1 => (0, at),
                    count => (at / stripe % count, at / stripe / count * stripe + at % stripe),
                };
                let spot = legs[leg as usize];
                let mut byte = [0];
                disks[spot.disk].read_at(spot.offset + within, &mut byte).unwrap();
                expected.push(byte[0]);
            }
            map.push(Segment { length: *length, stripe: *stripe, legs }).unwrap();
        }
        let window = WindowMut::new(disks, Arc::new(map));
        let mut pieces = Vec::new();
        while pieces.len() < expected.len() {
            let mut piece = vec![0; cut.min(expected.len() - pieces.len())];
            window.read_at(pieces.len() as u64, &mut piece).unwrap();
            pieces.extend(piece);
        }
        prop_assert_eq!(&pieces, &expected);
        let mut next = 0;
        for extent in Extents::new(&window) {
            prop_assert_eq!(extent.offset, next);
            next += extent.length;
        }
        prop_assert_eq!(next, window.len());
        window.write_at(next - 1, b"!").unwrap();
        let mut last = [0];
        window.read_at(next - 1, &mut last).unwrap();
        prop_assert_eq!(&last, b"!");
        prop_assert!(window.read_at(next, &mut last).is_err());
    }

    /// Any text is parsed or refused.
    #[test]
    fn any_text_is_parsed_or_refused(text in "[a-z0-9 ={}\\[\\]\",#\n\\\\-]{0,300}") {
        let _ = lvm::parse_text(text.as_bytes(), &Limits::DEFAULT);
    }
}

#[test]
fn an_empty_disk_has_no_group() {
    let layout = scan(Arc::new(SparseBytes::new(1 << 20)), &Limits::DEFAULT).unwrap();
    assert_eq!(names(&layout), ["whole"]);
}
