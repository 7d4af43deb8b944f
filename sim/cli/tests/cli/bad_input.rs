//! Inputs that are not what they claim: a documented exit code, a message with place and bound, no panic, little memory.

use crate::support::{Ran, golden, ran, text};
use drylab_block::SparseBytes;
use drylab_image::{Qcow2Options, Target, VmdkOptions, write};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Address space a refusal may take, in KiB.
const MEMORY_KIB: u32 = 768 << 10;

/// Runs a command in little memory.
fn bounded(command: &str, path: &Path) -> Ran {
    let typed = format!(
        "ulimit -v {MEMORY_KIB}; exec {} {command} {}",
        env!("CARGO_BIN_EXE_drylab"),
        text(path)
    );
    ran(Command::new("sh")
        .args(["-c", &typed])
        .output()
        .expect("it starts"))
}

/// Exit code 3, nothing claimed on standard output, and a message with the task and every fragment.
fn refused(commands: &[&str], path: &Path, fragments: &[&str]) {
    for command in commands {
        let ran = bounded(command, path);
        assert_eq!(ran.code, 3, "{command} {}: {}", path.display(), ran.err);
        assert!(ran.err.starts_with("drylab: failed to "), "{}", ran.err);
        assert!(
            !ran.err.contains("panicked") && !ran.err.contains("internal error"),
            "{}",
            ran.err
        );
        assert!(ran.err.contains(text(path)), "{}", ran.err);
        for fragment in fragments {
            assert!(
                ran.err.contains(fragment),
                "{command}: {fragment:?} is not in {}",
                ran.err
            );
        }
    }
}

const DISKS: [&str; 2] = ["check", "inspect"];
const SCENARIOS: [&str; 2] = ["run", "replay"];

fn in_file(bytes: &[u8], commands: &[&str], fragments: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("input");
    fs::write(&path, bytes).expect("it is written");
    refused(commands, &path, fragments);
}

/// Bytes without any pattern a reader could know, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn container(target: &Target) -> Vec<u8> {
    let sink = SparseBytes::default();
    write(golden("ubuntu-12.04", "esxi-5.0.0").as_ref(), target, &sink).expect("it is written");
    drylab_block::read_vec(
        &sink,
        "image",
        0,
        drylab_block::ReadAt::len(&sink),
        &drylab_block::Limits::DEFAULT,
    )
    .expect("it is small")
}

#[test]
fn things_that_are_no_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let all: Vec<&str> = DISKS.into_iter().chain(SCENARIOS).collect();
    refused(&all, folder.path(), &["it is a directory, not a file"]);
    refused(&all, &folder.path().join("missing"), &["No such file"]);
    refused(
        &all,
        Path::new("/dev/null"),
        &["neither a regular file nor a block device"],
    );
    refused(
        &all,
        Path::new("/dev/zero"),
        &["neither a regular file nor a block device"],
    );
    in_file(b"", &DISKS, &["it is empty (0 bytes)"]);
    in_file(b"", &SCENARIOS, &["format = 1 is missing"]);
}

#[test]
fn bytes_without_a_meaning_are_a_raw_disk_without_a_system() {
    for length in [1, 511, 512, 4096, 1 << 20] {
        in_file(
            &noise(length),
            &DISKS,
            &["no operating system found: none of "],
        );
        in_file(
            &vec![0; length],
            &DISKS,
            &["no operating system found: none of "],
        );
    }
}

#[test]
fn formats_known_and_not_read_are_refused_by_name() {
    for (magic, name) in [
        (&b"WithoutFreeSpace"[..], "Parallels"),
        (b"MSWIM\0\0\0", "WIM"),
        (b"\x1f\x8b\x08\0", "gzip, to be unpacked first"),
        (
            b"# Disk DescriptorFile\ncreateType=\"fullDevice\"\n",
            "fullDevice",
        ),
        (b"QFI\xfb\0\0\0\x01", "qcow (version 1"),
    ] {
        let mut bytes = magic.to_vec();
        bytes.resize(8192, 0);
        in_file(&bytes, &DISKS, &["unsupported: ", name]);
    }
}

#[test]
fn containers_cut_short_are_corrupt_at_a_place_past_a_bound() {
    for target in [
        Target::Qcow2(Qcow2Options::default()),
        Target::VmdkSparse(VmdkOptions::default()),
        Target::VmdkStream(VmdkOptions::default()),
    ] {
        let whole = container(&target);
        for tenths in 1..9 {
            let cut = whole.len() * tenths / 10;
            in_file(&whole[..cut], &DISKS, &["corrupt: "]);
        }
        for cut in [5, 16, 100, 511, 512, 1024] {
            in_file(&whole[..cut], &DISKS, &["corrupt: "]);
        }
    }
}

#[test]
fn headers_that_claim_10_gib_cost_no_memory() {
    let mut qcow2 = container(&Target::Qcow2(Qcow2Options::default()));
    // l1_size: a table of 10 GiB.
    qcow2[36..40].copy_from_slice(&(10u32 << 27).to_be_bytes());
    in_file(&qcow2, &DISKS, &["L1"]);
    let vmdk = container(&Target::VmdkSparse(VmdkOptions::default()));
    // descriptorSize: a descriptor of 10 GiB, in sectors.
    let mut descriptor = vmdk.clone();
    descriptor[36..44].copy_from_slice(&(10u64 << 21).to_le_bytes());
    in_file(&descriptor, &DISKS, &["descriptor"]);
    // numGTEsPerGT: grain tables of 10 GiB.
    let mut grains = vmdk;
    grains[44..48].copy_from_slice(&(10u32 << 28).to_le_bytes());
    in_file(&grains, &DISKS, &["corrupt: "]);
}

#[test]
fn a_partition_of_10_gib_on_a_small_disk_is_told() {
    let mut disk = vec![0u8; 1 << 20];
    disk[446..462].copy_from_slice(&entry(0x83, 64, 10 << 21));
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    in_file(&disk, &DISKS, &["no operating system found", "partition 1"]);
}

fn entry(kind: u8, start: u32, sectors: u32) -> [u8; 16] {
    let mut entry = [0u8; 16];
    entry[4] = kind;
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    entry
}

#[test]
fn extended_partitions_in_a_circle_end() {
    let mut disk = vec![0u8; 1 << 20];
    disk[446..462].copy_from_slice(&entry(5, 64, 1024));
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let ebr = 64 * 512;
    disk[ebr + 446..ebr + 462].copy_from_slice(&entry(0x83, 1, 8));
    // The next extended partition is this one: its place counts from the first.
    disk[ebr + 462..ebr + 478].copy_from_slice(&entry(5, 0, 1024));
    disk[ebr + 510..ebr + 512].copy_from_slice(&[0x55, 0xaa]);
    in_file(
        &disk,
        &DISKS,
        &["extended boot record at sector 64", "the chain is a circle"],
    );
}

#[test]
fn xml_bombs_are_refused_with_the_bound_they_pass() {
    let mut entities =
        String::from("<?xml version=\"1.0\"?><!DOCTYPE Envelope [<!ENTITY a0 \"aaaaaaaaaa\">");
    for level in 1..20 {
        let below = format!("&a{};", level - 1).repeat(10);
        entities.push_str(&format!("<!ENTITY a{level} \"{below}\">"));
    }
    entities.push_str("]><Envelope>&a19;</Envelope>");
    in_file(
        entities.as_bytes(),
        &DISKS,
        &["a document type declaration is refused"],
    );
    let many = format!("<Envelope>{}", "<a>".repeat(1 << 20));
    in_file(many.as_bytes(), &DISKS, &["more than 262144 tags"]);
    let nested = format!("<Envelope>{}", "<a>".repeat(5000));
    in_file(nested.as_bytes(), &DISKS, &["more than 128 levels"]);
    let external = "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><x>&e;</x>";
    in_file(
        external.as_bytes(),
        &DISKS,
        &["a document type declaration is refused"],
    );
    in_file(b"<html/>", &DISKS, &["html"]);
    let large = format!("<Envelope>{}</Envelope>", " ".repeat(17 << 20));
    in_file(large.as_bytes(), &DISKS, &["16777216"]);
}

#[test]
fn texts_that_are_no_scenario_are_refused_with_their_place() {
    let head = "format = 1\nguest = \"centos-6.3\"\nsource = \"esxi-5.0.0\"\ntarget = \"kvm-centos-6.3\"\nroute = \"esx-v2v\"\n";
    for (text, fragment) in [
        ("guest = ".to_owned(), "line 1"),
        (
            "format = 2\n".to_owned(),
            "scenario format 2 is not known here",
        ),
        (format!("{head}colour = 1\n"), "unknown field `colour`"),
        (
            format!("{head}[source_vm]\nvcpus = 0\n"),
            "source_vm.vcpus is 0, allowed is 1..=255",
        ),
        (
            head.replace("esx-v2v", "teleport"),
            "there is no route \"teleport\"",
        ),
        (
            head.replace("centos-6.3\"\nsource", "centos-5\"\nsource"),
            "there is no golden guest \"centos-5\"",
        ),
        (
            head.replace("target = \"kvm-centos-6.3\"", "target = \"esxi-5.0.0\""),
            "route esx-v2v goes from",
        ),
        (
            format!(
                "{head}[[edits]]\nop = \"remove-lines\"\npath = \"/etc/none\"\ncontaining = \"x\"\n"
            ),
            "/etc/none",
        ),
    ] {
        in_file(text.as_bytes(), &SCENARIOS, &[fragment]);
    }
    in_file(&noise(5000), &SCENARIOS, &["it is not UTF-8 at byte "]);
    in_file(
        &vec![b' '; (1 << 20) + 1],
        &SCENARIOS,
        &["it has 1048577 bytes, a scenario at most 1048576"],
    );
    for (token, fragment) in [
        ("drylab1-", "is cut short"),
        ("drylab1-zzzzzzzzzzzzzzzz", "checksum does not fit"),
        ("drylab1-\u{1b}[2J", "holds a character"),
    ] {
        in_file(token.as_bytes(), &["replay"], &[fragment]);
        let ran = crate::support::run(&["replay", token]);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""));
        assert!(
            ran.err.contains(fragment) && !ran.err.contains('\u{1b}'),
            "{}",
            ran.err
        );
    }
}

#[test]
fn a_lab_file_with_a_wrong_type_is_refused_with_key_value_and_what_is_expected() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lab.toml");
    let report = drylab_pipeline::LabFile::REPORT;
    for (from, to, fragments) in [
        (
            "memory_mib = 65536",
            "memory_mib = \"64 GB\"",
            &[
                "line 23: memory_mib",
                "\"64 GB\"",
                "a whole number",
                "memory_mib = 65536",
            ][..],
        ),
        ("format = 1", "format = 9", &["format 9", "only 1"]),
    ] {
        fs::write(&path, report.replacen(from, to, 1)).expect("it is written");
        let ran = crate::support::run(&["matrix", "--lab", text(&path)]);
        assert_eq!(ran.code, 3, "{}", ran.err);
        for fragment in fragments {
            assert!(ran.err.contains(fragment), "{fragment}: {}", ran.err);
        }
    }
}
