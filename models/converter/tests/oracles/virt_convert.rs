//! Every row of what virt-convert did, done again by the model on the same files.

use crate::common::{Row, load, oracle, sha256};
use drylab_appliance::{Package, virt_image, vmx::Vmx};
use drylab_block::Limits;
use drylab_converter::qemu_img_0_12::Format;
use drylab_converter::virt_convert_0_600::{
    Converted, DiskFormat, Input, Options, Output, convert,
};
use std::collections::BTreeMap;
use std::path::Path;

/// Rows that do not agree, and why.
const LISTED: &[(&str, &str)] = &[];

fn package(folder: &Path, descriptor: &str) -> Package {
    let mut package = Package {
        descriptor: descriptor.to_owned(),
        ..Package::default()
    };
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        package.put(entry.file_name().to_string_lossy(), load(&entry.path()));
    }
    package
}

fn options(row: &Row) -> Options {
    let same_folder = row["output_folder"] == "same";
    let mut options = Options {
        same_folder,
        folder: "../curout".to_owned(),
        ..Options::default()
    };
    let words: Vec<&str> = row["options"].split(' ').collect();
    for pair in words.windows(2) {
        match pair {
            ["-i", "ovf"] => options.input = Some(Input::Ovf),
            ["-i", "vmx"] => options.input = Some(Input::Vmx),
            ["-o", "vmx"] => options.output = Output::Vmx,
            ["-a", arch] => options.arch = Some((*arch).to_owned()),
            ["-D", "none"] => options.disks = Some(DiskFormat::Keep),
            ["-D", "raw"] => options.disks = Some(DiskFormat::To(Format::Raw)),
            ["-D", "qcow2"] => options.disks = Some(DiskFormat::To(Format::Qcow2)),
            ["-D", "vmdk"] => options.disks = Some(DiskFormat::To(Format::Vmdk)),
            _ => {}
        }
    }
    options.paravirt = words.contains(&"-p");
    options
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

/// The columns that tell what was written.
fn written(made: &Converted) -> BTreeMap<&'static str, String> {
    let package = &made.package;
    let text = package.text(&package.descriptor, &Limits::DEFAULT).unwrap();
    let mut columns = BTreeMap::from([("config_written", package.descriptor.clone())]);
    if package.descriptor.ends_with(".vmx") {
        let vmx = Vmx::parse(&text, &Limits::DEFAULT).unwrap();
        let get = |key: &str| vmx.get(key).unwrap_or("-").to_owned();
        let drives = (0..4).map(|n| format!("ide{}:{}", n / 2, n % 2));
        let drives = drives.filter(|place| vmx.is_true(&format!("{place}.present")));
        let drives: Vec<String> = drives
            .map(|place| format!("{place}={}", get(&format!("{place}.fileName"))))
            .collect();
        let nics: Vec<String> = (0..8)
            .filter(|n| vmx.is_true(&format!("ethernet{n}.present")))
            .map(|n| get(&format!("ethernet{n}.connectionType")))
            .collect();
        columns.extend([
            ("name", get("displayName")),
            ("memory", format!("memsize={}", get("memsize"))),
            ("vcpus", get("numvcpus")),
            ("arch", "-".to_owned()),
            (
                "boot",
                format!("hw{}/{}", get("virtualHW.version"), get("guestOS")),
            ),
            ("drives", or_dash(drives.join(","))),
            ("storage", "-".to_owned()),
            (
                "interfaces",
                format!(
                    "{};{}",
                    nics.len(),
                    nics.first().cloned().unwrap_or_default()
                ),
            ),
        ]);
        return columns;
    }
    // A negative size is what the tool writes for a negative one, and no reader takes it.
    let spelled = String::from_utf8(text).unwrap();
    let negative = spelled.contains("<memory>-");
    let image = virt_image::parse(
        spelled.replace("<memory>-", "<memory>").as_bytes(),
        &Limits::DEFAULT,
    )
    .unwrap();
    let words = spelled
        .split(|c: char| !c.is_alphanumeric())
        .any(|word| word == "None");
    let pairs = |pairs: &[(String, String)], join: &str, swap: bool| {
        let pairs = pairs.iter().map(|(a, b)| {
            if swap {
                format!("{b}{join}{a}")
            } else {
                format!("{a}{join}{b}")
            }
        });
        or_dash(pairs.collect::<Vec<_>>().join(","))
    };
    columns.extend([
        ("name", image.name.clone()),
        (
            "memory",
            format!("{}{}", if negative { "-" } else { "" }, image.memory_kib),
        ),
        ("vcpus", image.vcpus.to_string()),
        ("arch", image.arch.clone()),
        ("boot", image.boot.clone()),
        ("drives", pairs(&image.drives, "=", true)),
        ("storage", pairs(&image.disks, ":", false)),
        (
            "interfaces",
            if words {
                "word None".to_owned()
            } else {
                image.interfaces.to_string()
            },
        ),
    ]);
    columns
}

/// Names, sizes and hashes of the disks; the table has no hashes for some formats.
fn disk_files(made: &Converted, wanted: &str) -> String {
    let mut names = made.package.disks.clone();
    names.sort();
    let files = names.iter().map(|name| {
        let file = &made.package.files[name];
        let start = format!("{name}:{}", file.len());
        let hashed = wanted
            .split(';')
            .any(|cell| cell.starts_with(&format!("{start}:")));
        if hashed {
            format!("{start}:{}", &sha256(&**file)[..16])
        } else {
            start
        }
    });
    or_dash(files.collect::<Vec<_>>().join(";"))
}

fn check(row: &Row, folder: &Path) -> Vec<String> {
    let input = package(folder, &row["input_file"]);
    let before: Vec<(String, u64)> = input
        .files
        .iter()
        .map(|(name, file)| (name.clone(), file.len()))
        .collect();
    let mut ours: BTreeMap<&str, String> = BTreeMap::new();
    match convert(&input, &options(row)) {
        Ok(made) => {
            ours = written(&made);
            ours.insert("exit", "0".to_owned());
            ours.insert("messages", or_dash(made.message.replace('\n', " | ")));
            let disks = disk_files(&made, &row["disk_files_written(name:size:sha256/64bit)"]);
            ours.insert("disk_files_written(name:size:sha256/64bit)", disks);
            if row["output_folder"] == "same" {
                let kept = before.iter().all(|(name, size)| {
                    made.package
                        .files
                        .get(name)
                        .is_some_and(|file| file.len() == *size)
                });
                ours.insert(
                    "input_files_changed",
                    if kept { "-" } else { "changed" }.to_owned(),
                );
            }
        }
        Err(error) => {
            ours.insert("exit", error.exit.to_string());
            ours.insert("messages", error.message.replace('\n', " | "));
        }
    }
    let spelled = |text: &str| text.replace(" [and a Python traceback]", "");
    let differing = ours
        .iter()
        .filter(|(column, value)| spelled(&row[**column]) != **value);
    differing
        .map(|(column, value)| format!("{column}: {}, ours {value}", row[*column]))
        .collect()
}

#[test]
fn the_model_of_virt_convert_does_what_the_program_did() {
    let Some((rows, folder)) = oracle("virt-convert.tsv", "virt-convert") else {
        return;
    };
    let mut disagreeing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in &rows {
        let wrong = check(row, &folder.join(&row["row_id"]));
        if !wrong.is_empty() {
            disagreeing.insert(row["row_id"].clone(), wrong);
        }
    }
    let listed = |id: &String| LISTED.iter().any(|(known, _)| known == id);
    let known = disagreeing.keys().filter(|id| listed(id)).count();
    println!(
        "virt-convert: agree {} of {}, listed {known}",
        rows.len() - disagreeing.len(),
        rows.len()
    );
    for (id, why) in &disagreeing {
        println!("{id}: {}", why.join("; "));
    }
    assert_eq!(
        disagreeing.len(),
        known,
        "rows disagree that are not listed"
    );
    assert_eq!(LISTED.len(), known, "a listed row agrees");
}
