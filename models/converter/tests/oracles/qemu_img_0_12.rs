//! Every row of what CentOS 6.3's qemu-img did, done again by the model on the same files.

use crate::common::{Hashes, Row, load, oracle};
use drylab_block::{
    Error, Limits, ReadAt, Reference, Resolver, Window, be_u16, be_u32, be_u64, le_u16, le_u32,
    le_u64,
};
use drylab_converter::qemu_img_0_12::{
    Converted, Format, Input, convert_named, create_vpc, info, info_named,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;

/// Rows that do not agree, by the start of their id, and why.
const LISTED: &[(&str, &str)] = &[
    ("raw-0#convert-vmdk", NOTHING),
    ("raw-text#convert-vmdk", NOTHING),
    ("vmdk-desc511#convert-vmdk", NOTHING),
    ("vmdk-vmfs-desc#convert-vmdk", NOTHING),
];
const NOTHING: &str = "the file is the same, but the reader of the table refuses a VMDK of capacity 0 that ours opens as a disk of 0 bytes";

/// Largest output that is hashed; the table has no hashes above it.
const HASHED_MAX: u64 = 4 << 30;

struct Beside(PathBuf);

impl Resolver for Beside {
    fn resolve(&self, reference: &Reference) -> drylab_block::Result<Arc<dyn ReadAt>> {
        let path = self.0.join(&reference.name);
        if !path.is_file() {
            return Err(Error::io(format_args!("no file {}", reference.name)));
        }
        Ok(load(&path))
    }
}

/// The file a row names: an extent, or the one called disk.
fn input_of(folder: &Path, id: &str) -> PathBuf {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("disk"))
        .collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    let wanted = if id.ends_with("-extent") {
        names.iter().find(|name| !name.starts_with("disk."))
    } else {
        names.first()
    };
    folder.join(wanted.unwrap())
}

fn window(file: &Arc<dyn ReadAt>, length: u64) -> Arc<dyn ReadAt> {
    if length > file.len() {
        let longer = drylab_block::SparseBytes::new(length);
        drylab_block::copy_data(file, &longer).unwrap();
        drylab_block::WriteAt::set_len(&longer, length).unwrap();
        return Arc::new(longer);
    }
    Arc::new(Window::new(file.clone(), 0, length).unwrap())
}

/// Bytes of a VHD we wrote, for a size: by our own reading of its blocks.
fn vhd_content(file: &Arc<dyn ReadAt>) -> Arc<dyn ReadAt> {
    convert_named(
        &Input {
            name: "out",
            file: Some(file),
            declared: Some("vpc"),
            resolver: &Beside(PathBuf::new()),
        },
        "raw",
        Format::Raw,
    )
    .unwrap()
    .file
}

fn hash_or_dash(hashes: &Hashes, disk: &dyn ReadAt, wanted: &str) -> String {
    if wanted == "-" || disk.len() > HASHED_MAX {
        "-".to_owned()
    } else {
        hashes.of(disk)
    }
}

/// Size and hash of what is in an output, as the columns spell them.
fn content(hashes: &Hashes, format: Format, file: &Arc<dyn ReadAt>, row: &Row) -> (String, String) {
    let wanted = row["output_content_sha256"].as_str();
    match format {
        Format::Raw => {
            let size = if row["output_content_size"] == "-" {
                "-".to_owned()
            } else {
                file.len().to_string()
            };
            (size, hash_or_dash(hashes, file, wanted))
        }
        Format::Vpc => {
            let disk = vhd_content(file);
            let current = be_u64(
                &drylab_block::read_vec(file, "footer", 0, 512, &Limits::DEFAULT).unwrap(),
                0x30,
            )
            .unwrap();
            let both = [("chs", disk.clone()), ("cur", window(&disk, current))];
            let size = both
                .iter()
                .map(|(name, disk)| format!("{name}:{}", disk.len()));
            let size = size.collect::<Vec<_>>().join("|");
            if !wanted.contains("chs:") {
                return (size, wanted.to_owned());
            }
            let hash = both
                .iter()
                .map(|(name, disk)| format!("{name}:{}", hash_or_dash(hashes, disk, wanted)));
            (size, hash.collect::<Vec<_>>().join("|"))
        }
        Format::Vmdk | Format::Qcow2 => match drylab_image::open(file.clone(), &Limits::DEFAULT) {
            Ok(image) => (
                image.virtual_size().to_string(),
                hash_or_dash(hashes, &image, wanted),
            ),
            Err(_) => ("unreadable".to_owned(), "-".to_owned()),
        },
    }
}

fn checksum_ok(bytes: &[u8], at: usize) -> bool {
    let sum: u32 = bytes
        .iter()
        .enumerate()
        .filter(|(i, _)| !(at..at + 4).contains(i))
        .map(|(_, b)| u32::from(*b))
        .sum();
    be_u32(bytes, at) == Some(!sum)
}

fn bytes_of(file: &Arc<dyn ReadAt>, at: u64, length: u64) -> Vec<u8> {
    drylab_block::read_vec(file, "test", at, length, &Limits::DEFAULT).unwrap()
}

fn vpc_facts(file: &Arc<dyn ReadAt>) -> BTreeMap<String, String> {
    let front = bytes_of(file, 0, 512);
    let tail = bytes_of(file, file.len() - 512, 512);
    let header = bytes_of(file, 512, 1024);
    let bit = |value: bool| u8::from(value).to_string();
    let chs = (be_u16(&front, 0x38).unwrap(), front[0x3a], front[0x3b]);
    let table_at = be_u64(&header, 0x10).unwrap();
    let entries = be_u32(&header, 0x1c).unwrap();
    let table = bytes_of(file, table_at, u64::from(entries) * 4);
    let used = table.chunks(4).filter(|entry| *entry != [0xff; 4]).count();
    let differing: Vec<String> = (0..512)
        .filter(|i| front[*i] != tail[*i])
        .map(|i| i.to_string())
        .collect();
    let facts = [
        (
            "creator",
            String::from_utf8_lossy(&front[0x1c..0x20]).into_owned(),
        ),
        (
            "creator_ver",
            format!("{:#x}", be_u32(&front, 0x20).unwrap()),
        ),
        ("host_os", format!("{:x}", be_u32(&front, 0x24).unwrap())),
        ("features", be_u32(&front, 8).unwrap().to_string()),
        ("fver", format!("{:#x}", be_u32(&front, 0xc).unwrap())),
        (
            "footer_data_offset",
            be_u64(&front, 0x10).unwrap().to_string(),
        ),
        ("orig", be_u64(&front, 0x28).unwrap().to_string()),
        ("current", be_u64(&front, 0x30).unwrap().to_string()),
        ("chs", format!("{}/{}/{}", chs.0, chs.1, chs.2)),
        (
            "chs_bytes",
            (u64::from(chs.0) * u64::from(chs.1) * u64::from(chs.2) * 512).to_string(),
        ),
        ("type", be_u32(&front, 0x3c).unwrap().to_string()),
        ("timestamp_zero", bit(be_u32(&front, 0x18) == Some(0))),
        ("uuid_zero", bit(front[0x44..0x54] == [0; 16])),
        ("footer_cksum_ok", bit(checksum_ok(&front, 0x40))),
        ("front_equals_tail", bit(front == tail)),
        ("tail_cookie_ok", bit(tail.starts_with(b"conectix"))),
        ("tail_cksum_ok", bit(checksum_ok(&tail, 0x40))),
        (
            "tail_cksum",
            format!("0x{:08x}", be_u32(&tail, 0x40).unwrap()),
        ),
        (
            "differing_footer_bytes",
            if differing.is_empty() {
                "none".to_owned()
            } else {
                differing.join("+")
            },
        ),
        (
            "hdr_magic",
            String::from_utf8_lossy(&header[..8]).into_owned(),
        ),
        (
            "hdr_data_offset",
            format!("0x{:016x}", be_u64(&header, 8).unwrap()),
        ),
        ("table_offset", table_at.to_string()),
        ("hdr_ver", format!("{:#x}", be_u32(&header, 0x18).unwrap())),
        ("max_entries", entries.to_string()),
        ("block_size", be_u32(&header, 0x20).unwrap().to_string()),
        ("hdr_cksum_ok", bit(checksum_ok(&header, 0x24))),
        ("bat_used", used.to_string()),
    ];
    facts.map(|(name, value)| (name.to_owned(), value)).into()
}

fn vmdk_facts(file: &Arc<dyn ReadAt>) -> BTreeMap<String, String> {
    let head = bytes_of(file, 0, 512);
    let text = bytes_of(file, 512, 20 * 512);
    let text = String::from_utf8_lossy(&text).into_owned();
    let long = |at| le_u64(&head, at).unwrap().to_string();
    let mut facts: BTreeMap<String, String> = [
        ("version", le_u32(&head, 4).unwrap().to_string()),
        ("flags", le_u32(&head, 8).unwrap().to_string()),
        ("capacity", long(0xc)),
        ("grain", long(0x14)),
        ("desc_off", long(0x1c)),
        ("desc_size", long(0x24)),
        ("gtes", le_u32(&head, 0x2c).unwrap().to_string()),
        ("rgd", long(0x30)),
        ("gd", long(0x38)),
        ("overhead", long(0x40)),
        (
            "check",
            head[0x49..0x4d]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        ),
        ("compress", le_u16(&head, 0x4d).unwrap().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for line in text.lines() {
        if let Some((key, value)) = line
            .split_once('=')
            .filter(|(key, _)| *key != "version" && *key != "CID")
        {
            facts.insert(
                key.trim().to_owned(),
                value.trim().trim_matches('"').to_owned(),
            );
        } else if let Some(extent) = line.strip_prefix("RW ") {
            let extent = extent.split('"').next().unwrap_or_default();
            facts.insert("extent".to_owned(), format!("RW {extent}<self>"));
        }
    }
    facts
}

fn qcow2_facts(file: &Arc<dyn ReadAt>) -> BTreeMap<String, String> {
    let head = bytes_of(file, 0, 72);
    let word = |at| be_u32(&head, at).unwrap().to_string();
    [
        ("version", word(4)),
        ("cluster_bits", word(0x14)),
        ("size", be_u64(&head, 0x18).unwrap().to_string()),
        ("crypt", word(0x20)),
        ("l1_size", word(0x24)),
        ("refcount_table_clusters", word(0x38)),
        ("snapshots", word(0x3c)),
        ("backing", be_u64(&head, 8).unwrap().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// What of the row's facts is not so; the checksum of a footer depends on the clock.
fn wrong_facts(wanted: &str, ours: &BTreeMap<String, String>) -> Vec<String> {
    let pairs = wanted.split(';').filter_map(|fact| fact.split_once('='));
    pairs
        .filter(|(name, value)| !(*name == "tail_cksum" && *value != "0x00000000"))
        .filter(|(name, value)| ours.get(*name).map(String::as_str) != Some(*value))
        .map(|(name, value)| format!("fact {name}: {value}, ours {:?}", ours.get(name)))
        .collect()
}

fn exit_of(cell: &str) -> i32 {
    if cell == "SIGFPE" {
        136
    } else {
        cell.parse().unwrap()
    }
}

fn spelled(message: &str) -> String {
    if message.is_empty() {
        "-".to_owned()
    } else {
        message.replace('\n', "|")
    }
}

struct Compared(Vec<String>);

impl Compared {
    fn check(&mut self, what: &str, theirs: &str, ours: impl ToString) {
        let ours = ours.to_string();
        if theirs != ours {
            self.0.push(format!("{what}: {theirs}, ours {ours}"));
        }
    }
}

fn check_info(row: &Row, input: &Input<'_>, out: &mut Compared) {
    match info_named(input) {
        Ok(info) => {
            out.check("exit", &row["exit"], 0);
            out.check("stderr", &row["stderr"], spelled(&info.message));
            out.check("format", &row["format_reported"], &info.format);
            out.check("size", &row["virtual_size_reported"], info.virtual_size);
            let mut facts = Vec::new();
            if info.cluster_size != 0 {
                facts.push(format!("cluster_size={}", info.cluster_size));
            }
            facts.extend(info.backing.map(|_| "backing".to_owned()));
            facts.extend((info.snapshots > 0).then(|| "snapshots".to_owned()));
            let facts = if facts.is_empty() {
                "-".to_owned()
            } else {
                facts.join(";")
            };
            out.check("facts", &row["facts"], facts);
        }
        Err(error) => {
            out.check("exit", &row["exit"], error.exit);
            out.check("stderr", &row["stderr"], spelled(&error.message));
        }
    }
}

fn check_output(row: &Row, format: Format, made: &Converted, hashes: &Hashes, out: &mut Compared) {
    out.check("exit", &exit_of(&row["exit"]).to_string(), made.exit);
    out.check("stderr", &row["stderr"], spelled(&made.message));
    out.check("file size", &row["output_file_size"], made.file.len());
    let declared = if format == Format::Raw {
        Some("raw")
    } else {
        None
    };
    match info(&made.file, declared) {
        Ok(info) => {
            out.check("format", &row["format_reported"], info.format);
            out.check("size", &row["virtual_size_reported"], info.virtual_size);
        }
        Err(error) => out.check("readable by itself", &row["format_reported"], error),
    }
    let (size, hash) = content(hashes, format, &made.file, row);
    out.check("content size", &row["output_content_size"], size);
    out.check("content", &row["output_content_sha256"], hash);
    let facts = match format {
        Format::Raw => BTreeMap::new(),
        Format::Vpc => vpc_facts(&made.file),
        Format::Vmdk => vmdk_facts(&made.file),
        Format::Qcow2 => qcow2_facts(&made.file),
    };
    out.0.extend(wrong_facts(&row["facts"], &facts));
}

fn check_row(row: &Row, path: &Path, file: &Arc<dyn ReadAt>, hashes: &Hashes) -> Vec<String> {
    let (operation, declared) = match row["operation"].split_once("-f-") {
        Some((operation, declared)) => (operation, Some(declared)),
        None => (row["operation"].as_str(), None),
    };
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let beside = Beside(path.parent().unwrap().to_path_buf());
    let input = Input {
        name: &name,
        file: Some(file),
        declared,
        resolver: &beside,
    };
    let mut out = Compared(Vec::new());
    let format = match operation {
        "info" => {
            check_info(row, &input, &mut out);
            return out.0;
        }
        "convert-raw" => Format::Raw,
        "convert-vmdk" => Format::Vmdk,
        "convert-vpc" => Format::Vpc,
        "convert-qcow2" => Format::Qcow2,
        other => panic!("unknown operation {other}"),
    };
    match convert_named(&input, "out", format) {
        Ok(made) => check_output(row, format, &made, hashes, &mut out),
        Err(error) => {
            out.check("exit", &exit_of(&row["exit"]).to_string(), error.exit);
            out.check("stderr", &row["stderr"], spelled(&error.message));
            out.check("file size", &row["output_file_size"], "none");
        }
    }
    out.0
}

/// Prints the figures and fails when a row disagrees that is not listed, or a listed one agrees.
fn verdict(
    table: &str,
    total: usize,
    disagreeing: &BTreeMap<String, Vec<String>>,
    listed: &[(&str, &str)],
) {
    let is_listed = |id: &str| listed.iter().any(|(start, _)| id.starts_with(start));
    let unlisted: Vec<_> = disagreeing
        .iter()
        .filter(|(id, _)| !is_listed(id))
        .collect();
    let known = disagreeing.len() - unlisted.len();
    println!(
        "{table}: agree {} of {total}, listed {known}",
        total - disagreeing.len()
    );
    for (id, why) in &unlisted {
        println!("{id}: {}", why.join("; "));
    }
    assert!(unlisted.is_empty(), "{} rows disagree", unlisted.len());
    for (start, why) in listed {
        assert!(
            disagreeing.keys().any(|id| id.starts_with(start)),
            "{start} agrees although listed: {why}"
        );
    }
}

#[test]
fn the_model_of_qemu_img_0_12_does_what_the_program_did() {
    let Some((rows, folder)) = oracle("qemu-img-0.12.tsv", "qemu-img") else {
        return;
    };
    let mut by_input: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        by_input.entry(&row["input_id"]).or_default().push(row);
    }
    let hashes = Hashes::default();
    let queue = Mutex::new(by_input.into_iter().collect::<Vec<_>>());
    let disagreeing = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((id, rows)) = queue.lock().unwrap().pop() else {
                        break;
                    };
                    let path = input_of(&folder.join(id), id);
                    let file = load(&path);
                    for row in rows {
                        let wrong = check_row(row, &path, &file, &hashes);
                        if !wrong.is_empty() {
                            disagreeing
                                .lock()
                                .unwrap()
                                .insert(row["row_id"].clone(), wrong);
                        }
                    }
                }
            });
        }
    });
    verdict(
        "qemu-img-0.12",
        rows.len(),
        &disagreeing.lock().unwrap(),
        LISTED,
    );
}

#[test]
fn an_empty_vhd_gets_the_geometry_that_the_program_gave_it() {
    let Some((rows, _)) = oracle("qemu-img-0.12-create-vpc.tsv", "") else {
        return;
    };
    let mut disagreeing = BTreeMap::new();
    for row in &rows {
        let asked: u64 = row["size_asked"].parse().unwrap();
        let mut out = Compared(Vec::new());
        match create_vpc(asked) {
            Ok(made) => {
                out.check("exit", &row["exit"], made.exit);
                out.check("file size", &row["file_size"], made.file.len());
                let size = info(&made.file, None).unwrap().virtual_size;
                out.check("size", &row["virtual_size_by_0.12"], size);
                out.check(
                    "difference",
                    &row["difference"],
                    i128::from(size) - i128::from(asked),
                );
                out.0
                    .extend(wrong_facts(&row["facts"], &vpc_facts(&made.file)));
            }
            Err(error) => {
                out.check("exit", &row["exit"], error.exit);
                out.check("stderr", &row["stderr"], spelled(&error.message));
            }
        }
        if !out.0.is_empty() {
            disagreeing.insert(row["row_id"].clone(), out.0);
        }
    }
    verdict("qemu-img-0.12-create-vpc", rows.len(), &disagreeing, &[]);
}

#[test]
fn a_vhd_of_130_gib_ends_at_the_largest_geometry_and_the_cut_is_noticed() {
    let disk = drylab_block::SparseBytes::new(130 << 30);
    drylab_block::WriteAt::write_at(&disk, 0, b"first").unwrap();
    drylab_block::WriteAt::write_at(&disk, (129 << 30) + 7, b"beyond").unwrap();
    for creator in [
        drylab_image::vhd::Creator::WINDOWS,
        drylab_image::vhd::Creator::XEN_SERVER,
    ] {
        let file = drylab_block::SparseBytes::default();
        let target = drylab_image::Target::VhdDynamic(drylab_image::VhdOptions {
            creator,
            ..drylab_image::VhdOptions::default()
        });
        drylab_image::write(&disk, &target, &file).unwrap();
        let file: Arc<dyn ReadAt> = Arc::new(file);
        let old = drylab_converter::qemu_img_0_12::convert(&file, None, Format::Raw).unwrap();
        assert_eq!((old.exit, old.file.len()), (0, 136_899_993_600));
        assert!(old.notes.contains(&drylab_catalog::Witness::quirk("GQ113")));
        let new = drylab_converter::qemu_img_10::convert(
            &file,
            None,
            drylab_converter::qemu_img_10::Format::Raw,
        );
        assert_eq!(new.unwrap().file.len(), 130 << 30);
    }
}
