//! Replays every fuzz input on the stable compiler, through the functions the fuzz targets call.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

type Reader = fn(&[u8]);

/// Every fuzz target with the function it calls.
const TARGETS: [(&str, Reader); 58] = [
    ("bcd", drylab_guest::fuzz::bcd),
    ("delta", drylab_block::fuzz::delta),
    ("detect", drylab_image::fuzz::detect),
    ("dhclient_files", drylab_guest::net::fuzz::dhclient_files),
    ("dhcp", drylab_network::fuzz::dhcp),
    ("door", drylab_filesystem::fuzz::door),
    ("elf", drylab_guest::fuzz::elf),
    ("ext", drylab_filesystem::fuzz::ext),
    ("fstab", drylab_guest::fuzz::fstab),
    ("grub_cfg", drylab_guest::fuzz::grub_cfg),
    ("hive", drylab_hive::fuzz::hive),
    ("hyperv_xml", drylab_appliance::fuzz::hyperv_xml),
    ("ifcfg", drylab_guest::fuzz::ifcfg),
    ("inf", drylab_guest::fuzz::inf),
    ("initramfs", drylab_guest::fuzz::initramfs),
    ("interfaces", drylab_guest::fuzz::interfaces),
    ("iptables", drylab_network::fuzz::iptables),
    ("libvirt", drylab_appliance::fuzz::libvirt),
    ("lvm", drylab_volume::fuzz::lvm),
    ("manifest", drylab_appliance::fuzz::manifest),
    ("mbr", drylab_volume::fuzz::mbr),
    ("modules_alias", drylab_guest::fuzz::modules_alias),
    ("ntfs", drylab_filesystem::ntfs::fuzz::ntfs),
    ("ova", drylab_appliance::fuzz::ova),
    ("ovf", drylab_appliance::fuzz::ovf),
    ("qcow2", drylab_image::fuzz::qcow2),
    ("qcow2_repair", drylab_image::fuzz::qcow2_repair),
    ("qed", drylab_image::fuzz::qed),
    ("qemu_img", drylab_converter::fuzz::qemu_img),
    ("scenario", drylab_scenario::fuzz::scenario),
    ("token", drylab_scenario::fuzz::token),
    ("udev_rules", drylab_guest::fuzz::udev_rules),
    ("units", drylab_appliance::fuzz::units),
    ("vdi", drylab_image::fuzz::vdi),
    ("vdi_repair", drylab_image::fuzz::vdi_repair),
    ("vhd", drylab_image::fuzz::vhd),
    ("vhdx", drylab_image::fuzz::vhdx),
    ("vhdx_repair", drylab_image::fuzz::vhdx_repair),
    ("vhd_repair", drylab_image::fuzz::vhd_repair),
    ("virt_convert_ovf", drylab_converter::fuzz::virt_convert_ovf),
    ("virt_convert_vmx", drylab_converter::fuzz::virt_convert_vmx),
    ("virt_image", drylab_appliance::fuzz::virt_image),
    ("vmdk", drylab_image::fuzz::vmdk),
    ("vmdk_flat", drylab_image::fuzz::vmdk_flat),
    ("vmdk_repair", drylab_image::fuzz::vmdk_repair),
    ("vmdk_split", drylab_image::fuzz::vmdk_split),
    ("qcow2_written", drylab_image::fuzz::qcow2_written),
    ("vdi_written", drylab_image::fuzz::vdi_written),
    ("vhd_written", drylab_image::fuzz::vhd_written),
    ("vhdx_written", drylab_image::fuzz::vhdx_written),
    ("vmdk_written", drylab_image::fuzz::vmdk_written),
    ("vmx", drylab_appliance::fuzz::vmx),
    ("xva", drylab_appliance::fuzz::xva),
    ("qcow2_structure", drylab_specimen::fuzz::qcow2_structure),
    ("vdi_structure", drylab_specimen::fuzz::vdi_structure),
    ("vhd_structure", drylab_specimen::fuzz::vhd_structure),
    ("vhdx_structure", drylab_specimen::fuzz::vhdx_structure),
    ("vmdk_structure", drylab_specimen::fuzz::vmdk_structure),
];

/// Inputs that broke a reader or cost it too much before it was mended: target, file of its corpus, what went wrong.
const FOUND: [(&str, &str, &str); 6] = [
    (
        "dhclient_files",
        "epoch-past-the-calendar",
        "a lease that expires behind the year 9999 was written with a date that is none",
    ),
    (
        "dhclient_files",
        "seconds-past-the-calendar",
        "555,555,555,555 seconds of a minute were added up, and the lease lost when written",
    ),
    (
        "ifcfg",
        "doubling",
        "each line doubles a value, and each of them was copied up to 64 KiB",
    ),
    (
        "qemu_img",
        "parallels-two-terabytes",
        "64 bytes claim 2 TiB in tracks of a sector, and each track was looked at",
    ),
    (
        "qemu_img",
        "qed-half-an-exabyte",
        "72 bytes claim 506 PB behind a table of 1,024 entries, and each span behind it was looked at",
    ),
    (
        "qemu_img",
        "vmdk-tables-behind-the-end",
        "8,500 bytes claim tables of four million grains, and each entry behind the end of the file was looked at",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Names in a folder of the repository, without their endings, hidden ones excepted.
fn names(folder: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join(folder)).expect("the folder is readable");
    let paths = entries.map(|entry| entry.expect("the folder is readable").path());
    let names = paths.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Files of a target's corpus that its reader does not survive.
fn broken(reader: Reader, folder: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a corpus is readable") {
        let path = entry.expect("a corpus is readable").path();
        let bytes = std::fs::read(&path).expect("an input is readable");
        if catch_unwind(AssertUnwindSafe(|| reader(&bytes))).is_err() {
            broken.push(path.display().to_string());
        }
    }
    broken
}

#[test]
fn every_reader_survives_its_corpus() {
    let broken: Vec<String> = TARGETS
        .iter()
        .flat_map(|(target, reader)| broken(*reader, &root().join("corpora/fuzz").join(target)))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_reader_that_breaks_is_noticed() {
    let reader: Reader = |bytes| assert!(bytes.len() < 10, "too long for this reader");
    let folder = root().join("corpora/fuzz/units");
    assert_eq!(
        broken(reader, &folder).len(),
        1,
        "one of its texts is longer"
    );
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let replayed: BTreeSet<String> = TARGETS
        .iter()
        .map(|(target, _)| (*target).to_owned())
        .collect();
    assert_eq!(names("fuzz/fuzz_targets"), replayed);
    assert_eq!(names("corpora/fuzz"), replayed);
    for target in &replayed {
        assert!(
            !names(&format!("corpora/fuzz/{target}")).is_empty(),
            "{target} has no input"
        );
    }
}

#[test]
fn every_target_is_built_and_calls_the_function_that_is_replayed_here() {
    let manifest = std::fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("it is readable");
    let manifest: toml::Table = manifest.parse().expect("it is TOML");
    let built = manifest["bin"].as_array().expect("targets are listed");
    let built: BTreeSet<&str> = built
        .iter()
        .filter_map(|bin| bin["name"].as_str())
        .collect();
    assert!(
        TARGETS.iter().all(|(target, _)| built.contains(target)) && built.len() == TARGETS.len()
    );
    let here =
        std::fs::read_to_string(root().join("properties/tests/corpus.rs")).expect("it is readable");
    for (target, _) in TARGETS {
        let file = root().join(format!("fuzz/fuzz_targets/{target}.rs"));
        let text = std::fs::read_to_string(file).expect("a target is readable");
        let call = text
            .split("|data: &[u8]| ")
            .nth(1)
            .and_then(|rest| rest.split('(').next());
        let call = call.unwrap_or_else(|| panic!("{target} calls one function"));
        assert!(
            here.contains(&format!("(\"{target}\", {call})")),
            "{target} calls {call}"
        );
    }
}

#[test]
fn what_once_broke_a_reader_stays_mended() {
    for (target, file, what) in FOUND {
        let (_, reader) = TARGETS
            .into_iter()
            .find(|(name, _)| *name == target)
            .expect("a target");
        let path = root().join("corpora/fuzz").join(target).join(file);
        let bytes =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            catch_unwind(|| reader(&bytes)).is_ok(),
            "{target}/{file}: {what}"
        );
    }
}

#[test]
fn inputs_are_small() {
    let mut total = 0;
    for (target, _) in TARGETS {
        for entry in
            std::fs::read_dir(root().join("corpora/fuzz").join(target)).expect("it is readable")
        {
            let size = entry
                .and_then(|entry| entry.metadata())
                .expect("it is readable")
                .len();
            assert!(size < 64 << 10, "an input of {target} has {size} bytes");
            total += size;
        }
    }
    assert!(total < 3 << 20, "all inputs have {total} bytes");
}
