//! Descriptors that nobody of this house made: every one gets a verdict, and what an independent reader (libxml2, Python's
//! tarfile) saw in it, ours sees too.

use crate::support::samples::exported;
use crate::support::strategies::{damage, damaged};
use crate::support::{Row, foreign, run};
use drylab_appliance::manifest::Manifest;
use drylab_appliance::ova::{Ova, write_ova};
use drylab_appliance::ovf::{Dialect, Envelope, resource};
use drylab_appliance::{Limits, Severity, fuzz, libvirt, ovf, vmx};
use drylab_block::{ReadAt, SparseBytes, read_vec};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Files whose parts are counted differently there: file name, part, and why ours is right.
const COUNTED: [(&str, &str, &str); 14] = [
    ("ganeti__ovfdata_ganeti.ovf", "networks", VBOX),
    ("ganeti__ovfdata_gzip_disk.ovf", "networks", VBOX),
    ("board_pc_ova_home-assistant.ovf", "networks", VBOX),
    ("CorruptedCert_Nostalgia.ovf", "systems", CONTENT),
    ("CorruptedCert_NostalgiaCert.ovf", "systems", CONTENT),
    ("ExpiredCert_NostalgiaInvalidCert.ovf", "systems", CONTENT),
    (
        "unsupported-ovfs_unsupportedSection.ovf",
        "systems",
        CONTENT,
    ),
    ("resources_vmOvfData.xml", "systems", CONTENT),
    ("resources_vmOvfData2.xml", "systems", CONTENT),
    ("test-v2v-o-rhv.ovf.expected", "systems", CONTENT),
    ("test-o-ovirt.ovf.expected", "systems", CONTENT),
    (
        "Envelope_1_0_Neg_invalid_version.ovf",
        "files",
        "its root is of namespace 1 and its children of namespace 2",
    ),
    (
        "NetworkSection_1_0_Neg_net_sec_elsewhr.ovf",
        "networks",
        ELSEWHERE,
    ),
    (
        "NetworkSection_Neg_net_sec_elsewhr.ovf",
        "networks",
        ELSEWHERE,
    ),
];

const VBOX: &str = "VirtualBox's own Machine block has elements of that name too";
const CONTENT: &str = "the system is a Content with xsi:type";
const ELSEWHERE: &str =
    "a negative case: the section stands inside a virtual system, where it declares nothing";

/// The tool's lists are cut: this many processors or memories, adapters of an OVF, adapters of a domain.
const CUT_MEMORY: usize = 6;
const CUT_NICS: usize = 12;
const CUT_DOMAIN_NICS: usize = 8;

/// Whether a list of ours is the one the tool saw, as far as it kept it.
fn same_list(ours: &[String], theirs: &[String], cut: usize) -> bool {
    if theirs.len() < cut {
        ours == theirs
    } else {
        ours.starts_with(theirs)
    }
}

fn count(oracle: &Value, what: &str) -> usize {
    oracle[what]
        .as_u64()
        .map_or(0, |count| usize::try_from(count).unwrap())
}

fn strings(oracle: &Value) -> Vec<String> {
    let list = oracle.as_array().cloned().unwrap_or_default();
    list.iter()
        .filter_map(|text| text.as_str().map(|text| text.trim().to_owned()))
        .collect()
}

/// Compares an envelope with what libxml2 saw; returns the parts that differ, and how.
fn differences(envelope: &Envelope, oracle: &Value) -> Vec<(&'static str, String)> {
    let items: Vec<_> = envelope
        .systems
        .iter()
        .flat_map(|system| &system.hardware)
        .flat_map(|hardware| &hardware.items)
        .collect();
    let mut counts = vec![
        ("files", envelope.references.len(), count(oracle, "File")),
        ("disks", envelope.disks.len(), count(oracle, "Disk")),
        (
            "networks",
            envelope.networks.len(),
            count(oracle, "Network"),
        ),
    ];
    if envelope.dialect == Dialect::V1 {
        counts.push((
            "systems",
            envelope.systems.len(),
            count(oracle, "VirtualSystem"),
        ));
    }
    let differ = counts
        .into_iter()
        .filter(|(_, ours, theirs)| ours != theirs);
    let mut found: Vec<_> = differ
        .map(|(part, ours, theirs)| (part, format!("ours {ours}, theirs {theirs}")))
        .collect();

    let nics = items
        .iter()
        .filter(|item| item.resource_type == resource::ETHERNET);
    let nics: Vec<String> = nics
        .map(|item| item.sub_type.clone().unwrap_or_default())
        .collect();
    let theirs = strings(&oracle["nics"]);
    if !same_list(&nics, &theirs, CUT_NICS) {
        found.push(("adapters", format!("ours {nics:?}, theirs {theirs:?}")));
    }
    let memory = items
        .iter()
        .filter(|item| item.resource_type == resource::MEMORY);
    let memory: Vec<String> = memory
        .map(|item| {
            let quantity = item
                .virtual_quantity
                .map(|quantity| quantity.to_string())
                .unwrap_or_default();
            format!(
                "{quantity} {}",
                item.allocation_units.as_deref().unwrap_or("")
            )
            .trim()
            .to_owned()
        })
        .collect();
    // A quantity that is no number is kept as text there and is a finding here.
    let theirs = strings(&oracle["mem"]);
    let numeric = theirs
        .iter()
        .all(|text| text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit()));
    if numeric && !same_list(&memory, &theirs, CUT_MEMORY) {
        found.push(("memory", format!("ours {memory:?}, theirs {theirs:?}")));
    }
    found
}

#[test]
fn every_foreign_ovf_gets_a_verdict_and_the_well_formed_ones_are_read_as_libxml2_reads_them() {
    let Some((root, rows)) = foreign(&["ovf"]) else {
        return;
    };
    let (mut read, mut refused, mut compared, mut wrong) = (0, 0, 0, Vec::new());
    let mut unused: Vec<_> = COUNTED.iter().collect();
    for Row {
        file,
        oracle,
        wellformed,
        ..
    } in &rows
    {
        let bytes = std::fs::read(root.join(file)).unwrap();
        fuzz::ovf(&bytes);
        let is_envelope = oracle["xml"] == "ok" && oracle["root"] == "Envelope";
        match ovf::parse(&bytes, &Limits::DEFAULT) {
            Ok(envelope) => {
                read += 1;
                assert!(envelope.systems.iter().all(
                    |system| system.line > 0 && system.items().iter().all(|item| item.line > 0)
                ));
                // One file is no XML for libxml2 and is read here: XenCenter's wrong label (quirk HQ01).
                if !is_envelope {
                    assert!(!envelope.encoding.label_is_true(), "{file}");
                    continue;
                }
                compared += 1;
                for (part, how) in differences(&envelope, oracle) {
                    let exception =
                        |row: &&(&str, &str, &str)| file.ends_with(row.0) && part == row.1;
                    if COUNTED.iter().any(|row| exception(&row)) {
                        unused.retain(|row| !exception(row));
                    } else {
                        wrong.push(format!("{file}: {part}: {how}"));
                    }
                }
            }
            Err(error) => {
                refused += 1;
                if is_envelope && (oracle["ns"] == "1.x" || oracle["ns"] == "0.9") {
                    wrong.push(format!("{file} ({wellformed}) is refused: {error}"));
                }
            }
        }
    }
    eprintln!(
        "{} files: {read} read, {refused} refused, {compared} compared with libxml2",
        rows.len()
    );
    assert!(
        rows.len() > 500 && compared > 480,
        "{} files, {compared} compared",
        rows.len()
    );
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        unused.is_empty(),
        "exceptions that no longer hold: {unused:?}"
    );
}

#[test]
fn foreign_domains_are_read_and_other_documents_are_typed_errors() {
    let Some((root, rows)) = foreign(&["libvirt"]) else {
        return;
    };
    let (mut read, mut refused) = (0, 0);
    for row in &rows {
        let bytes = std::fs::read(root.join(&row.file)).unwrap();
        fuzz::libvirt(&bytes);
        let is_domain = row.oracle["root"] == "domain" && row.oracle["xml"] == "ok";
        match libvirt::parse(&bytes, &Limits::DEFAULT) {
            Ok(domain) => {
                read += 1;
                if !is_domain {
                    // Templates with another ending: the tool did not look into them.
                    assert!(row.oracle["root"].is_null(), "{}", row.file);
                    continue;
                }
                assert_eq!(
                    domain.disks.len(),
                    count(&row.oracle, "disks"),
                    "{}",
                    row.file
                );
                let models: Vec<String> = domain
                    .interfaces
                    .iter()
                    .map(|nic| nic.model.clone().unwrap_or_default())
                    .collect();
                let theirs = strings(&row.oracle["nics"]);
                assert!(
                    same_list(&models, &theirs, CUT_DOMAIN_NICS),
                    "{}: ours {models:?}, theirs {theirs:?}",
                    row.file
                );
            }
            Err(error) => {
                refused += 1;
                assert!(!is_domain, "{} is refused: {error}", row.file);
            }
        }
    }
    eprintln!(
        "{} files: {read} domains read, {refused} refused",
        rows.len()
    );
    assert!(
        rows.len() > 300 && read > 190,
        "{} files, {read} read",
        rows.len()
    );
}

#[test]
fn foreign_vmx_files_are_read_with_as_many_keys_as_libvirts_tests_hold() {
    let Some((root, rows)) = foreign(&["vmx"]) else {
        return;
    };
    let mut read = 0;
    for row in rows.iter().filter(|row| row.subformat == "vmx") {
        let bytes = std::fs::read(root.join(&row.file)).unwrap();
        fuzz::vmx(&bytes);
        let found = vmx::Vmx::parse(&bytes, &Limits::DEFAULT)
            .unwrap_or_else(|error| panic!("{}: {error}", row.file));
        // The tool counted keys of letters, digits, dots, colons and underscores only.
        let plain = |key: &str| !key.contains('-');
        let keys: BTreeSet<String> = found
            .entries
            .iter()
            .map(|entry| entry.key.to_ascii_lowercase())
            .filter(|key| plain(key))
            .collect();
        assert_eq!(keys.len(), count(&row.oracle, "keys"), "{}", row.file);
        read += 1;
    }
    eprintln!("{read} files read");
    assert!(read >= 90, "{read} files");
}

#[test]
fn foreign_archives_have_the_members_that_tarfile_lists_and_their_manifests_hold() {
    let Some((root, rows)) = foreign(&["ova"]) else {
        return;
    };
    let (mut read, mut sized) = (0, 0u32);
    for row in &rows {
        let bytes = std::fs::read(root.join(&row.file)).unwrap();
        fuzz::ova(&bytes);
        let archive = match Ova::open(Arc::new(bytes), &Limits::DEFAULT) {
            Ok(archive) => archive,
            Err(error) => {
                assert_eq!(row.wellformed, "no", "{}: {error}", row.file);
                continue;
            }
        };
        read += 1;
        let ours: Value = archive
            .members
            .iter()
            .map(|member| serde_json::json!([member.name, member.size]))
            .collect();
        assert_eq!(ours, row.oracle["members"], "{}", row.file);
        let envelope = archive.descriptor().and_then(|member| {
            ovf::parse(
                &archive.text(&member.name, &Limits::DEFAULT)?,
                &Limits::DEFAULT,
            )
        });
        sized += u32::from(
            envelope.is_ok_and(|envelope| archive.check_references(&envelope).is_empty()),
        );
        let Some(manifest) = archive.manifest() else {
            assert!(row.oracle["mf"].is_null(), "{}", row.file);
            continue;
        };
        let manifest = Manifest::parse(
            &archive.text(&manifest.name, &Limits::DEFAULT).unwrap(),
            &Limits::DEFAULT,
        )
        .unwrap();
        assert_eq!(manifest.findings, [], "{}", row.file);
        assert_eq!(
            manifest.entries.len(),
            row.oracle["mf"].as_object().unwrap().len(),
            "{}",
            row.file
        );
        let found = archive.check_manifest(&Limits::DEFAULT).unwrap().unwrap();
        assert!(
            found
                .iter()
                .all(|finding| finding.severity == Severity::Note),
            "{}: {found:?}",
            row.file
        );
    }
    eprintln!(
        "{} files: {read} archives read, sizes of References hold in {sized}",
        rows.len()
    );
    assert!(sized >= 9, "{sized}");
    assert!(read >= 13, "{read} archives");
}

#[test]
fn damaged_foreign_files_get_a_verdict_and_never_a_panic() {
    let Some((root, rows)) = foreign(&["ovf", "ova", "libvirt", "vmx"]) else {
        return;
    };
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(512)
    });
    let choice = (0..rows.len(), damage());
    let result = runner.run(&choice, |(which, damages)| {
        let row = &rows[which];
        let bytes = damaged(&std::fs::read(root.join(&row.file)).unwrap(), &damages);
        match row.kind.as_str() {
            "ovf" => fuzz::ovf(&bytes),
            "ova" => fuzz::ova(&bytes),
            "libvirt" => fuzz::libvirt(&bytes),
            _ => fuzz::vmx(&bytes),
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn an_exported_machine_is_valid_against_the_schema_of_the_dmtf() {
    let Some((root, rows)) = foreign(&["xsd"]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let prefix = "xsd/xen-orchestra__packages_xo-vmdk-to-vhd_src_ova-schema_";
    for row in &rows {
        if let Some(name) = row.file.strip_prefix(prefix) {
            std::fs::copy(root.join(&row.file), folder.path().join(name)).unwrap();
        }
    }
    // The extensions of VMware have no schema here: what is judged is the DMTF's part.
    let mut machine = exported();
    machine.build = None;
    let file = folder.path().join("machine.ovf");
    std::fs::write(&file, ovf::write(&machine).unwrap()).unwrap();
    let schema = folder.path().join("dsp8023_1.1.1.xsd");
    let Some(output) = run(Command::new("xmllint")
        .args(["--nonet", "--noout", "--schema"])
        .arg(&schema)
        .arg(&file))
    else {
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn tar(arguments: &[&str], folder: &Path) -> Option<std::process::Output> {
    run(Command::new("tar").args(arguments).current_dir(folder))
}

#[test]
fn gnu_tar_lists_our_archives_and_we_index_those_it_makes() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{}.vmdk", "long-name-".repeat(15));
    let (descriptor, disk) = (ovf::write(&exported()).unwrap(), vec![9u8; 70_001]);
    let members: [(String, &dyn ReadAt); 3] = [
        ("vm.ovf".to_owned(), &descriptor),
        (long.clone(), &disk),
        ("é.txt".to_owned(), &disk),
    ];
    let sink = SparseBytes::new(0);
    let written = write_ova(&members, &sink).unwrap();
    let bytes = read_vec(&sink, "archive", 0, sink.len(), &Limits::DEFAULT).unwrap();
    std::fs::write(folder.path().join("ours.ova"), bytes).unwrap();
    let Some(output) = tar(&["-xf", "ours.ova"], folder.path()) else {
        return;
    };
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for (name, source) in &members {
        let bytes = std::fs::read(folder.path().join(name)).unwrap();
        assert_eq!(
            bytes,
            read_vec(source, name, 0, source.len(), &Limits::DEFAULT).unwrap()
        );
    }
    for format in ["gnu", "pax", "ustar", "posix", "oldgnu"] {
        let archive = format!("{format}.ova");
        let flag = format!("--format={format}");
        let names: &[&str] = if format == "ustar" {
            &["vm.ovf", "é.txt"]
        } else {
            &["vm.ovf", &long, "é.txt"]
        };
        let arguments: Vec<&str> = [&["-cf", &archive, &flag][..], names].concat();
        let Some(output) = tar(&arguments, folder.path()) else {
            return;
        };
        assert!(
            output.status.success(),
            "{format}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let theirs = std::fs::read(folder.path().join(&archive)).unwrap();
        let theirs = Ova::open(Arc::new(theirs), &Limits::DEFAULT).unwrap();
        let wanted: Vec<(&str, u64)> = written
            .iter()
            .map(|member| (member.name.as_str(), member.size))
            .filter(|(name, _)| names.contains(name))
            .collect();
        let found: Vec<(&str, u64)> = theirs
            .members
            .iter()
            .map(|member| (member.name.as_str(), member.size))
            .collect();
        assert_eq!(found, wanted, "{format}");
        assert_eq!(
            theirs.text("é.txt", &Limits::DEFAULT).unwrap(),
            disk,
            "{format}"
        );
        assert_eq!(theirs.findings, [], "{format}");
    }
}
