//! XVA: what is written is read back, by us and by GNU tar, and every rule of the importer holds.

use crate::support::{foreign, run};
use drylab_appliance::xva::{
    Appliance, BLOCK, Drive, Machine, Nic, Pairs, Value, VirtualDisk, Xva, write,
};
use drylab_appliance::{Error, Limits, Result, Severity};
use drylab_block::{Extents, ReadAt, SparseBytes, WriteAt, read_vec};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

pub(crate) fn bytes_of(source: &dyn ReadAt) -> Vec<u8> {
    read_vec(source, "bytes", 0, source.len(), &Limits::DEFAULT).unwrap()
}

fn pairs(list: &[(&str, &str)]) -> Pairs {
    let owned = list
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    owned.collect()
}

/// Ubuntu 12.04 as XenServer's template makes it, with one disk and an empty CD drive.
pub(crate) fn paravirtual(size: u64) -> Machine {
    let disk = VirtualDisk {
        id: "Ref:4".to_owned(),
        uuid: "0f9d8c7b-0000-4000-8000-000000000001".to_owned(),
        name: "0".to_owned(),
        size,
        storage: "Local storage".to_owned(),
    };
    let drive = |userdevice: &str, is_cd: bool, disk| Drive {
        userdevice: userdevice.to_owned(),
        bootable: !is_cd,
        read_only: is_cd,
        is_cd,
        disk,
    };
    Machine {
        uuid: "0f9d8c7b-0000-4000-8000-000000000000".to_owned(),
        name: "web & <db>".to_owned(),
        memory_static_max: 1 << 30,
        memory_dynamic_max: 1 << 30,
        memory_dynamic_min: 1 << 29,
        memory_static_min: 1 << 28,
        vcpus_max: 2,
        vcpus_at_startup: 2,
        pv_bootloader: "pygrub".to_owned(),
        pv_args: "root=/dev/xvda1 ro".to_owned(),
        platform: pairs(&[("nx", "false"), ("acpi", "true"), ("viridian", "true")]),
        other_config: pairs(&[("mac_seed", "5e1f0000-0000-4000-8000-000000000000")]),
        drives: vec![drive("0", false, Some(disk)), drive("3", true, None)],
        nics: vec![Nic {
            device: 0,
            mac: "c6:1a:00:00:00:01".to_owned(),
            is_generated: true,
            mtu: 1500,
            network: "Pool-wide network associated with eth0".to_owned(),
            other_config: Pairs::new(),
        }],
        ..Machine::default()
    }
}

pub(crate) fn packed(machine: &Machine, disk: &dyn ReadAt) -> Vec<u8> {
    let sink = SparseBytes::new(0);
    write(&machine.appliance(), &[("Ref:4", disk)], &sink).unwrap();
    bytes_of(&sink)
}

pub(crate) fn open(bytes: Vec<u8>) -> Result<Xva> {
    Xva::open(Arc::new(bytes), &Limits::DEFAULT)
}

/// A plain tar of these members: for what no writer of ours would make.
pub(crate) fn archive(members: &Members<'_>) -> Vec<u8> {
    let owned: Vec<(String, Vec<u8>)> = members
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()))
        .collect();
    let list: Vec<(String, &dyn ReadAt)> = owned
        .iter()
        .map(|(name, bytes)| (name.clone(), bytes as &dyn ReadAt))
        .collect();
    let sink = SparseBytes::new(0);
    drylab_appliance::ova::write_ova(&list, &sink).unwrap();
    bytes_of(&sink)
}

/// Names and bytes of members.
pub(crate) type Members<'a> = [(&'a str, &'a [u8])];

fn codes(archive: &Xva) -> Vec<&'static str> {
    archive
        .findings
        .iter()
        .map(|finding| finding.code)
        .collect()
}

#[test]
fn a_machine_comes_back_with_its_records_its_disk_and_the_same_bytes() {
    // Data in block 0, 2 and the last, which is short; 1, 3 and 4 are zeros.
    let size = 5 * BLOCK + 1536;
    let disk = SparseBytes::new(size);
    for (at, byte) in [(100, 1u8), (2 * BLOCK + 7, 2), (size - 1, 3)] {
        disk.write_at(at, &[byte]).unwrap();
    }
    let machine = paravirtual(size);
    let bytes = packed(&machine, &disk);
    assert_eq!(bytes, packed(&machine, &disk));
    let read = open(bytes.clone()).unwrap();
    assert_eq!(
        (read.findings.as_slice(), read.appliance.findings.as_slice()),
        (&[][..], &[][..])
    );
    assert_eq!(read.appliance, machine.appliance());
    let found = read.appliance.machine().unwrap();
    assert_eq!(found, machine);
    assert!(
        !found.is_hvm() && found.mac_seed().is_some() && found.platform("viridian") == Some("true")
    );
    let out = read.disk("Ref:4").unwrap();
    assert_eq!((out.blocks(), out.len()), (3, size));
    assert_eq!(bytes_of(out), bytes_of(&disk));
    assert_eq!(read.verify().unwrap(), []);
    let again = SparseBytes::new(0);
    write(&read.appliance, &[("Ref:4", out)], &again).unwrap();
    assert_eq!(bytes_of(&again), bytes);
    assert!(read.disk("Ref:5").is_err());
}

/// Fails when a write does not begin where the one before ended.
#[derive(Default)]
struct Pipe(Mutex<Vec<u8>>);

impl ReadAt for Pipe {
    fn len(&self) -> u64 {
        u64::try_from(self.0.lock().unwrap().len()).unwrap()
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<()> {
        Err(Error::io("a pipe is not read"))
    }
}

impl WriteAt for Pipe {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        assert_eq!(offset, self.len(), "a pipe has one place to write to");
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        assert_eq!((length, self.len()), (0, 0), "a pipe has no length to set");
        Ok(())
    }
}

#[test]
fn the_writer_is_a_stream() {
    let disk = vec![7u8; 3_000_000];
    let (machine, pipe) = (paravirtual(3_000_000), Pipe::default());
    write(&machine.appliance(), &[("Ref:4", &disk)], &pipe).unwrap();
    assert_eq!(pipe.0.into_inner().unwrap(), packed(&machine, &disk));
}

#[test]
fn a_block_of_no_bytes_uses_up_a_number_and_moves_nothing() {
    let records = paravirtual(2000).appliance().print().unwrap();
    let (first, other, last) = ([1u8; 500], [2u8; 500], [3u8; 500]);
    // Blocks of 500: 0 at 0; 1 is left out; 2 keeps the line alive; 3 at 1000; 4 at 1500. By number, 3 would be at 1500.
    let bytes = archive(&[
        ("ova.xml", &records),
        ("Ref:4/00000000", &first),
        ("Ref:4/00000002", &[]),
        ("Ref:4/00000003", &other),
        ("Ref:4/00000004", &last),
    ]);
    let read = open(bytes).unwrap();
    let disk = read.disk("Ref:4").unwrap();
    assert_eq!(
        bytes_of(disk),
        [[1; 500], [0; 500], [2; 500], [3; 500]].concat()
    );
    let kinds: Vec<(u64, bool)> = Extents::new(disk)
        .map(|extent| (extent.length, extent.kind.has_bytes()))
        .collect();
    assert_eq!(kinds, [(500, true), (500, false), (500, true), (500, true)]);
    assert_eq!(codes(&read), ["XVA-CHECKSUM-MISSING"; 4]);
}

#[test]
fn what_the_importer_calls_invalid_is_corrupt() {
    let records = paravirtual(2000).appliance().print().unwrap();
    let block = [1u8; 500];
    let data: &[u8] = &block;
    let cases: [(&Members<'_>, &str); 8] = [
        (
            &[("Ref:4/00000000", data), ("ova.xml", &records)],
            "the first member is",
        ),
        (
            &[("ova.xml", &records), ("Ref:9/00000000", data)],
            "belongs to no VDI",
        ),
        (
            &[
                ("ova.xml", &records),
                ("Ref:4/00000001", data),
                ("Ref:4/00000000", data),
            ],
            "follows block",
        ),
        (
            &[
                ("ova.xml", &records),
                ("Ref:4/00000001", data),
                ("Ref:4/00000001", data),
            ],
            "follows block",
        ),
        // As texts, 10 comes before 2.
        (
            &[
                ("ova.xml", &records),
                ("Ref:4/1", data),
                ("Ref:4/2", &[]),
                ("Ref:4/10", &[]),
            ],
            "follows block",
        ),
        (
            &[("ova.xml", &records), ("Ref:4/-1", data)],
            "has no number",
        ),
        (
            &[("ova.xml", &records), ("Ref:4/00000004", data)],
            "ends past the disk's 2000 bytes",
        ),
        (&[("ova.xml", b"<value><struct/></value>")], "no objects"),
    ];
    for (members, says) in cases {
        let wrong = open(archive(members)).unwrap_err();
        assert!(
            matches!(wrong, Error::Corrupt(_)) && wrong.to_string().contains(says),
            "{says}: {wrong}"
        );
    }
    for (bytes, says) in [
        (vec![0x1f, 0x8b, 8, 0], "gzip"),
        (vec![0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (
            archive(&[("ova.xml", b"<appliance version=\"0.1\"/>")]),
            "version 1",
        ),
    ] {
        let mut bytes = bytes;
        bytes.resize(bytes.len().max(1024), 0);
        let wrong = open(bytes).unwrap_err();
        assert!(
            matches!(wrong, Error::Unsupported(_)) && wrong.to_string().contains(says),
            "{says}: {wrong}"
        );
    }
}

#[test]
fn what_is_missing_or_damaged_is_found() {
    let records = paravirtual(2000).appliance().print().unwrap();
    let block: &[u8] = &[1u8; 500];
    let digits = [b'0'; 40];
    let read = open(archive(&[
        ("ova.xml", &records),
        ("notes.txt", b"x"),
        ("Ref:4/00000000", block),
        ("Ref:4/00000000.checksum", &digits),
        ("Ref:4/00000002.checksum", &digits),
    ]))
    .unwrap();
    assert_eq!(
        codes(&read),
        ["XVA-MEMBER-UNKNOWN", "XVA-CHECKSUM", "XVA-SHORT"]
    );
    let wrong = read.verify().unwrap();
    assert_eq!(wrong.len(), 1);
    assert_eq!(
        (wrong[0].code, wrong[0].severity),
        ("XVA-CHECKSUM-WRONG", Severity::Error)
    );
    assert_eq!(
        codes(&open(archive(&[("ova.xml", &records)])).unwrap()),
        ["XVA-NO-BLOCKS"]
    );

    // Cut inside the block: the index knows it, and reading it is an error, not zeros.
    let mut bytes = archive(&[("ova.xml", &records), ("Ref:4/00000000", &[1; 2000])]);
    bytes.truncate(bytes.len() - 1024 - 2048 + 600);
    let read = open(bytes).unwrap();
    assert!(codes(&read).contains(&"XVA-TRUNCATED"));
    let wrong = read
        .disk("Ref:4")
        .unwrap()
        .read_at(0, &mut [0; 10])
        .unwrap_err();
    assert!(matches!(wrong, Error::Corrupt(_)), "{wrong}");
}

#[test]
fn a_disk_without_its_record_or_of_another_size_is_not_written() {
    let (machine, sink) = (paravirtual(2000), SparseBytes::new(0));
    for (id, length, says) in [
        ("Ref:4", 1999, "its VDI record says 2000"),
        ("Ref:0", 2000, "has no VDI record"),
        ("Ref:77", 2000, "has no VDI record"),
    ] {
        let disk = vec![0u8; length];
        let wrong = write(&machine.appliance(), &[(id, &disk)], &sink).unwrap_err();
        assert!(wrong.to_string().contains(says), "{says}: {wrong}");
    }
}

#[test]
fn claims_of_sizes_and_floods_of_blocks_are_bounded() {
    let mut machine = paravirtual(1 << 60);
    let records = machine.appliance().print().unwrap();
    let wrong = open(archive(&[("ova.xml", &records)])).unwrap_err();
    assert!(matches!(wrong, Error::Unsupported(_)), "{wrong}");
    // 2040 GiB, the largest disk of XenServer, with two blocks: nothing is made of the size.
    let size = 2040u64 << 30;
    machine = paravirtual(size);
    let disk = SparseBytes::new(size);
    disk.write_at(size / 2, b"middle").unwrap();
    let bytes = packed(&machine, &disk);
    assert!(bytes.len() < 4 << 20, "{} bytes", bytes.len());
    let read = open(bytes.clone()).unwrap();
    let mut found = [0u8; 6];
    read.disk("Ref:4")
        .unwrap()
        .read_at(size / 2, &mut found)
        .unwrap();
    assert_eq!(&found, b"middle");
    let mut limits = Limits::DEFAULT;
    limits.table_bytes_max = 64;
    let wrong = Xva::open(Arc::new(bytes), &limits).unwrap_err().to_string();
    assert!(wrong.contains("the index of blocks"), "{wrong}");
}

#[test]
fn the_foreign_records_of_xenserver_5_are_read_and_written_again() {
    let Some((root, rows)) = foreign(&["xva"]) else {
        return;
    };
    assert!(!rows.is_empty());
    for row in rows {
        let bytes = std::fs::read(root.join(&row.file)).unwrap();
        let read = Appliance::parse(&bytes, &Limits::DEFAULT).unwrap();
        assert_eq!(read.findings, [], "{}", row.file);
        let machine = read.machine().unwrap();
        assert!(machine.is_hvm() && machine.hvm_boot_params == pairs(&[("order", "dc")]));
        assert_eq!(
            (machine.memory_static_max, machine.vcpus_max),
            (256 << 20, 1)
        );
        assert_eq!(
            (machine.platform("viridian"), machine.mac_seed()),
            (Some("true"), Some(""))
        );
        assert_eq!(
            (machine.drives.len(), machine.nics[0].mac.as_str()),
            (2, "00:00:00:00:00:00")
        );
        let disk = machine.drives.iter().find(|drive| drive.bootable).unwrap();
        assert_eq!(disk.disk.as_ref().unwrap().size, 5 << 30);
        let again = Appliance::parse(&read.print().unwrap(), &Limits::DEFAULT).unwrap();
        assert_eq!(again, read);
    }
}

fn tar(arguments: &[&str], folder: &Path) -> Option<std::process::Output> {
    let output = run(Command::new("tar").args(arguments).current_dir(folder))?;
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(output)
}

#[test]
fn gnu_tar_lists_and_unpacks_ours_and_we_read_what_it_packs_of_the_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let size = 3 * BLOCK + 700;
    let disk = SparseBytes::new(size);
    disk.write_at(BLOCK + 5, b"middle").unwrap();
    let machine = paravirtual(size);
    std::fs::write(folder.path().join("ours.xva"), packed(&machine, &disk)).unwrap();
    let Some(listed) = tar(&["-tvf", "ours.xva"], folder.path()) else {
        return;
    };
    let listed = String::from_utf8(listed.stdout).unwrap();
    let lines: Vec<&str> = listed.lines().collect();
    let names: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    let mut wanted = vec!["ova.xml".to_owned()];
    for number in [0, 1, 3] {
        wanted.extend([
            format!("Ref:4/{number:08}"),
            format!("Ref:4/{number:08}.checksum"),
        ]);
    }
    assert_eq!(names, wanted);
    // Owner, mode and time are nought.
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with("---------- 0/0 ") && line.contains(" 1970-01-01 ")),
        "{listed}"
    );

    // Mode 0 would lock the pieces away from anyone but root.
    let pieces = folder.path().join("pieces");
    std::fs::create_dir_all(pieces.join("Ref:4")).unwrap();
    let mut blocks = Vec::new();
    for name in &wanted {
        let piece = tar(&["-xOf", "ours.xva", name], folder.path())
            .unwrap()
            .stdout;
        std::fs::write(pieces.join(name), &piece).unwrap();
        blocks.push(piece);
    }
    let content = bytes_of(&disk);
    assert_eq!(
        [&blocks[1][..], &blocks[3], &blocks[5]].concat().len(),
        2 * (1 << 20) + 700
    );
    assert!(content.starts_with(&blocks[1]) && content.ends_with(&blocks[5]));
    if let Some(sum) = run(Command::new("sha1sum").arg(pieces.join("Ref:4/00000001"))) {
        assert!(
            sum.stdout.starts_with(&blocks[4]),
            "the checksum is that of sha1sum"
        );
    }
    for format in ["gnu", "pax", "ustar"] {
        let flag = format!("--format={format}");
        tar(
            &[
                "-C",
                "pieces",
                "-cf",
                "theirs.xva",
                "--sort=name",
                &flag,
                "ova.xml",
                "Ref:4",
            ],
            folder.path(),
        )
        .unwrap();
        let read = open(std::fs::read(folder.path().join("theirs.xva")).unwrap()).unwrap();
        // The folder itself is a member that no exporter writes.
        assert_eq!(codes(&read), ["XVA-MEMBER-KIND"], "{format}");
        assert_eq!(read.appliance.machine().unwrap(), machine, "{format}");
        assert!(bytes_of(read.disk("Ref:4").unwrap()) == content, "{format}");
        assert_eq!(read.verify().unwrap(), [], "{format}");
        let again = SparseBytes::new(0);
        write(
            &read.appliance,
            &[("Ref:4", read.disk("Ref:4").unwrap())],
            &again,
        )
        .unwrap();
        assert!(bytes_of(&again) == packed(&machine, &disk), "{format}");
    }
}

#[test]
fn types_of_xml_rpc_are_kept_as_they_are_spelled() {
    let text = b"<value><struct><member><name>version</name><value><struct><member><name>export_vsn</name>\
        <value><i4>2</i4></value></member></struct></value></member>\n<member><name>objects</name><value><array><data>\
        <value><struct><member><name>class</name><value><string>VM</string></value></member><member><name>id</name>\
        <value>Ref:0</value></member><member><name>snapshot</name><value><struct><member><name>a</name><value> b </value>\
        </member><member><name>a</name><value><double>1.5</double></value></member></struct></value></member></struct>\
        </value></data></array></value></member></struct></value>";
    let read = Appliance::parse(text, &Limits::DEFAULT).unwrap();
    assert_eq!(read.findings.len(), 1, "{:?}", read.findings);
    assert_eq!(read.findings[0].code, "XVA-MEMBER-TWICE");
    assert_eq!(read.objects[0].snapshot.get("a"), Some(&Value::text(" b ")));
    let again = Appliance::parse(&read.print().unwrap(), &Limits::DEFAULT).unwrap();
    assert_eq!(
        (again.version, again.objects),
        (read.version.clone(), read.objects.clone())
    );
    let wrong =
        Appliance::parse(b"<value><number>1</number></value>", &Limits::DEFAULT).unwrap_err();
    assert!(wrong.to_string().contains("no type of XML-RPC"), "{wrong}");
    assert!(
        read.machine()
            .unwrap_err()
            .to_string()
            .contains("memory_static_max")
    );
}
