//! The sparse extents of ESX: COWD and seSparse, made by their descriptions and read by qemu-img, too.

use crate::common::{Kind, fill, have_qemu_img, qemu_img};
use crate::vmdk_chain::{Files, bytes_of, codes};
use drylab_block::{ExtentKind, ReadAt};
use drylab_image::{Format, detect};

/// A COWD extent of 3 grains of one sector in 2 tables, written by its description.
fn cowd() -> (Vec<u8>, Vec<u8>) {
    let capacity = 5000u32;
    let mut file = vec![0u8; 4 * 512];
    let mut expected = vec![0u8; capacity as usize * 512];
    file[..4].copy_from_slice(b"COWD");
    for (at, value) in [
        (4, 1u32),
        (8, 3),
        (12, capacity),
        (16, 1),
        (20, 4),
        (24, 2),
        (28, 40),
    ] {
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let mut sector = vec![0u8; 512];
    sector[..4].copy_from_slice(&5u32.to_le_bytes());
    sector[4..8].copy_from_slice(&37u32.to_le_bytes());
    file.extend(sector);
    let (mut first, mut second) = (vec![0u8; 32 * 512], vec![0u8; 32 * 512]);
    let grains = [(0usize, 69u32), (4095, 70), (4096, 71)];
    for (grain, place) in grains {
        let (table, at) = if grain < 4096 {
            (&mut first, grain * 4)
        } else {
            (&mut second, (grain - 4096) * 4)
        };
        table[at..at + 4].copy_from_slice(&place.to_le_bytes());
    }
    file.extend(first);
    file.extend(second);
    for (grain, _) in grains {
        let bytes = fill(Kind::Noise(grain as u64), 512);
        expected[grain * 512..grain * 512 + 512].copy_from_slice(&bytes);
        file.extend(bytes);
    }
    (file, expected)
}

/// A seSparse extent of 4 grains of 8 sectors in a table of 64 sectors, written by its description.
fn se_sparse() -> (Vec<u8>, Vec<u8>) {
    let put = |file: &mut Vec<u8>, at: usize, value: u64| {
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    let capacity = 4096 * 8u64;
    let mut file = vec![0u8; 75 * 512 + 3 * 4096];
    let fields = [
        0xcafe_babe,
        0x2_0000_0001,
        capacity,
        8,
        64,
        0,
        0,
        0,
        0,
        0,
        1,
        1,
        2,
        1,
        3,
        1,
        4,
        1,
        8,
        64,
        72,
        1,
        73,
        1,
        75,
        capacity,
    ];
    for (at, value) in fields.into_iter().enumerate() {
        put(&mut file, at * 8, value);
    }
    put(&mut file, 512, 0xcafe_cafe);
    put(&mut file, 4 * 512, 0x1000_0000_0000_0000);
    let mut expected = vec![0u8; capacity as usize * 512];
    let table = 8 * 512;
    // A grain whose index is above 11 bits cannot be in so small a file; its low bits are the high ones of the entry.
    for (grain, entry) in [
        (0usize, 0x3001u64 << 48),
        (1, 2 << 60),
        (2, 1 << 60),
        (4095, 0x3002 << 48),
        (7, 0x3000 << 48),
    ] {
        put(&mut file, table + grain * 8, entry);
        if entry >> 60 == 3 {
            let number = ((entry >> 48) & 0xfff) as usize;
            let bytes = fill(Kind::Noise(grain as u64 + 1), 4096);
            let at = 75 * 512 + number * 4096;
            file[at..at + 4096].copy_from_slice(&bytes);
            expected[grain * 4096..grain * 4096 + 4096].copy_from_slice(&bytes);
        }
    }
    (file, expected)
}

/// An extent of each kind.
pub(crate) fn extents() -> [Vec<u8>; 2] {
    [cowd().0, se_sparse().0]
}

fn esx_descriptor(kind: &str, word: &str, sectors: u64, name: &str) -> Vec<u8> {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=00000009\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\
         RW {sectors} {word} \"{name}\"\nddb.adapterType = \"lsilogic\"\n"
    )
    .into_bytes()
}

fn esx() -> [(&'static str, Files, Vec<u8>); 2] {
    let (cowd, first) = cowd();
    let (se, second) = se_sparse();
    let cowd_text = esx_descriptor("vmfsSparse", "VMFSSPARSE", 5000, "a-delta.vmdk");
    let se_text = esx_descriptor("seSparse", "SESPARSE", 32_768, "a-sesparse.vmdk");
    let one = Files::default()
        .with("a.vmdk", cowd_text)
        .with("a-delta.vmdk", cowd);
    let two = Files::default()
        .with("a.vmdk", se_text)
        .with("a-sesparse.vmdk", se);
    [("vmfsSparse", one, first), ("seSparse", two, second)]
}

#[test]
fn extents_of_esx_are_read_as_qemu_img_reads_them() {
    for (kind, files, expected) in esx() {
        let image = files.open("a.vmdk").unwrap();
        assert_eq!((image.format(), image.subformat()), (Format::Vmdk, kind));
        assert_eq!(image.check().unwrap().list(), []);
        assert!(bytes_of(&image) == expected, "{kind}");
        if have_qemu_img() {
            let folder = tempfile::tempdir().unwrap();
            files.save(folder.path());
            let path = |name| folder.path().join(name).to_str().unwrap().to_owned();
            qemu_img(&[
                "convert",
                "-f",
                "vmdk",
                "-O",
                "raw",
                &path("a.vmdk"),
                &path("raw"),
            ]);
            assert!(std::fs::read(path("raw")).unwrap() == expected, "{kind}");
        }
        // Alone it is known for what it is, and that it may be a snapshot.
        let name = files.0.keys().find(|name| name.contains('-')).unwrap();
        assert_eq!(detect(&*files.0[name]).unwrap().subformat, kind);
        let alone = files.open(name).unwrap();
        assert_eq!(codes(&alone), ["VMDK-NO-DESCRIPTOR"]);
        assert!(bytes_of(&alone) == expected);
        assert!(alone.repair().is_err() && alone.resize(1 << 20).is_err());
    }
}

#[test]
fn a_snapshot_of_esx_shows_its_parent_where_it_has_nothing() {
    for (kind, files, own) in esx() {
        let mut base = fill(Kind::Noise(77), own.len());
        let flat = b"# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"vmfs\"\n";
        let line = format!("RW {} VMFS \"base-flat.vmdk\"\n", own.len() / 512);
        let text = String::from_utf8(bytes_of(&*files.0["a.vmdk"])).unwrap();
        let text = text.replace(
            "parentCID=ffffffff",
            "parentCID=00000001\nparentFileNameHint=\"base.vmdk\"",
        );
        let files = files
            .with("a.vmdk", text.into_bytes())
            .with("base.vmdk", [&flat[..], line.as_bytes()].concat())
            .with("base-flat.vmdk", base.clone());
        let image = files.open("a.vmdk").unwrap();
        let grain = if kind == "seSparse" { 4096 } else { 512 };
        let zeros = if kind == "seSparse" {
            vec![1, 2]
        } else {
            vec![]
        };
        for (number, bytes) in own.chunks(grain).enumerate() {
            if bytes.iter().any(|byte| *byte != 0) || zeros.contains(&number) {
                base[number * grain..number * grain + bytes.len()].copy_from_slice(bytes);
            }
        }
        assert!(bytes_of(&image) == base, "{kind}");
        assert_eq!(image.check().unwrap().list(), []);
    }
}

#[test]
fn damage_in_extents_of_esx_is_found() {
    let [(_, cowd, _), (_, se, _)] = esx();
    let check = |files: &Files, name: &str, at: usize, new: &[u8], code: &str| {
        let mut bytes = bytes_of(&*files.0[name]);
        bytes[at..at + new.len()].copy_from_slice(new);
        let image = files.clone().with(name, bytes).open("a.vmdk").unwrap();
        let found = image.check().unwrap();
        let hit = found
            .list()
            .iter()
            .find(|finding| finding.rule.code == code);
        let hit = hit.unwrap_or_else(|| panic!("{name} {at}: no {code} in {found:?}"));
        assert_eq!((hit.file.as_str(), hit.offset), (name, at as u64));
    };
    let word = |value: u32| value.to_le_bytes();
    let name = "a-delta.vmdk";
    check(&cowd, name, 1648, &[1], "VMDK-UNCLEAN");
    check(&cowd, name, 4 * 512, &word(9_999_999), "VMDK-GT-LOST");
    check(&cowd, name, 4 * 512 + 4, &word(5), "VMDK-GT-OVERLAP");
    check(
        &cowd,
        name,
        5 * 512 + 4095 * 4,
        &word(9_999_999),
        "VMDK-GRAIN-RANGE",
    );
    check(
        &cowd,
        name,
        5 * 512 + 4095 * 4,
        &word(6),
        "VMDK-GRAIN-IN-METADATA",
    );
    check(
        &cowd,
        name,
        5 * 512 + 4095 * 4,
        &word(69),
        "VMDK-GRAIN-ALIAS",
    );
    let long = |value: u64| value.to_le_bytes();
    let (name, table) = ("a-sesparse.vmdk", 8 * 512);
    check(&se, name, 512 + 24, &long(1), "VMDK-SESPARSE-JOURNAL");
    check(&se, name, 512, &long(1), "VMDK-SESPARSE-VOLATILE-HEADER");
    check(&se, name, 8, &long(0x2_0000_0002), "VMDK-SESPARSE-GEOMETRY");
    check(
        &se,
        name,
        4 * 512,
        &long(0x2000_0000_0000_0000),
        "VMDK-GT-LOST",
    );
    check(&se, name, table, &long(0x3fff << 48), "VMDK-GRAIN-RANGE");
    check(
        &se,
        name,
        table + 8,
        &long(0x4001 << 48),
        "VMDK-GRAIN-RANGE",
    );
    check(
        &se,
        name,
        table + 4095 * 8,
        &long(0x3001 << 48),
        "VMDK-GRAIN-ALIAS",
    );
}

#[test]
fn a_se_sparse_of_esxi_is_read() {
    let Some((folder, _)) = crate::foreign::unpacking::foreign() else {
        return;
    };
    let path = folder.join("disk/dissect.hypervisor__set/sesparse.vmdk.gz");
    let packed = std::fs::read(path).unwrap();
    // A gzip member with neither name nor extra field, or with a name.
    let start = 10
        + if packed[3] & 8 == 0 {
            0
        } else {
            packed[10..].iter().position(|byte| *byte == 0).unwrap() + 1
        };
    let mut inflate = flate2::Decompress::new(false);
    let mut bytes = Vec::with_capacity(24 << 20);
    inflate
        .decompress_vec(
            &packed[start..],
            &mut bytes,
            flate2::FlushDecompress::Finish,
        )
        .unwrap();
    assert_eq!(bytes.len(), 23_072_768);
    let text = esx_descriptor("seSparse", "SESPARSE", 1 << 20, "d-sesparse.vmdk");
    let files = Files::default()
        .with("d.vmdk", text)
        .with("d-sesparse.vmdk", bytes);
    let image = files.open("d.vmdk").unwrap();
    assert_eq!(image.check().unwrap().list(), []);
    assert_eq!(image.len(), 512 << 20);
    let mut head = vec![0; 16 << 20];
    image.read_at(0, &mut head).unwrap();
    assert!(head.iter().all(|byte| *byte == b'a'));
    assert_eq!(image.extent_at(16 << 20).kind, ExtentKind::Hole);
}
