//! The man page `drylab-image(1)`, made of what can be typed and of the words below, and held against the committed one.

use crate::args::Cli;
use crate::exit;
use clap::{Arg, Command, CommandFactory};
use std::fmt::Write;

/// What users of qemu-img type, what they type here, and what is different.
const TABLE: &[(&str, &str, &str)] = &[
    (
        "qemu-img info disk.vmdk",
        "drylab image info disk.vmdk",
        "fixed VHD is known without -f; no second file is opened",
    ),
    (
        "qemu-img info --backing-chain child.vhdx",
        "drylab image info child.vhdx --allow-beneath .",
        "lists every file of the chain; qemu-img refuses children of VHDX and VDI, and shows zeros for what the parent of a VHD has",
    ),
    (
        "qemu-img info child.qcow2",
        "drylab image info child.qcow2",
        "without --allow-beneath it shows what the image says of itself and what it stands on, and ends with 3",
    ),
    (
        "qemu-img info -U running.qcow2",
        "drylab image info running.qcow2",
        "what is locked for writing is read all the same, and a line on standard error says that it is in use; so with map, \
         check, convert and compare",
    ),
    (
        "qemu-img info --output=json disk.vdi",
        "drylab image info disk.vdi --format json",
        "fields see JSON",
    ),
    (
        "qemu-img map disk.vmdk",
        "drylab image map disk.vmdk",
        "lists holes and zeros, too",
    ),
    (
        "qemu-img map --output=json disk.vhd",
        "drylab image map disk.vhd --format json",
        "an object with ranges, one a line",
    ),
    (
        "qemu-img check disk.vhd",
        "drylab image check disk.vhd",
        "every format is checked; exit code 5 is damage, leaks are warnings; findings have codes and clauses",
    ),
    (
        "qemu-img check -r all disk.vhdx",
        "drylab image repair disk.vhdx",
        "see first what it would write with --dry-run",
    ),
    (
        "qemu-img resize disk.vhdx 40G",
        "drylab image resize disk.vhdx 40G",
        "VHD, VHDX and VDI, too",
    ),
    (
        "qemu-img resize --shrink disk.raw -- -1G",
        "drylab image resize disk.raw -1G --shrink",
        "",
    ),
    (
        "qemu-img convert -O qcow2 disk.vmdk disk.qcow2",
        "drylab image convert disk.vmdk disk.qcow2 --to qcow2",
        "the source's format is not given; the destination is complete or absent, and --force replaces one, unless another \
         program holds a lock on it (of bytes, as QEMU does); internal snapshots stay behind, and that is said",
    ),
    (
        "qemu-img convert -f vpc -O raw disk.vhd disk.raw",
        "drylab image convert disk.vhd disk.raw --to raw",
        "",
    ),
    (
        "qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2",
        "drylab image convert disk.raw disk.qcow2 --to qcow2 --raw",
        "needed only where the guest may have written the header of another format into its disk",
    ),
    (
        "qemu-img convert -c -O qcow2 disk.raw disk.qcow2",
        "drylab image convert disk.raw disk.qcow2 --to qcow2 --compress zlib",
        "",
    ),
    (
        "qemu-img convert -c -O qcow2 -o compression_type=zstd disk.raw disk.qcow2",
        "drylab image convert disk.raw disk.qcow2 --to qcow2 --compress zstd",
        "",
    ),
    (
        "qemu-img convert -O qcow2 -o compat=0.10 disk.raw disk.qcow2",
        "drylab image convert disk.raw disk.qcow2 --to qcow2 --subformat v2",
        "",
    ),
    (
        "qemu-img convert -O vmdk -o subformat=streamOptimized disk.raw disk.vmdk",
        "drylab image convert disk.raw disk.vmdk --to vmdk --subformat streamOptimized",
        "a true stream with footer and markers",
    ),
    (
        "qemu-img convert -O vmdk -o subformat=streamOptimized,adapter_type=lsilogic,hwversion=8 disk.raw disk.vmdk",
        "drylab image convert disk.raw disk.vmdk --for esxi",
        "what the product wants is chosen, and why is said",
    ),
    (
        "qemu-img convert -O vpc -o subformat=fixed,force_size=on disk.raw disk.vhd",
        "drylab image convert disk.raw disk.vhd --for azure",
        "rounded up to whole MiB",
    ),
    (
        "qemu-img convert -O vpc disk.raw disk.vhd",
        "drylab image convert disk.raw disk.vhd --to vhd",
        "the size is kept, and not rounded up to a geometry",
    ),
    (
        "qemu-img convert -m 4 -W -O raw disk.vmdk disk.raw",
        "drylab image convert disk.vmdk disk.raw --to raw --jobs 4",
        "",
    ),
    (
        "qemu-img compare a.vmdk b.vhd",
        "drylab image compare a.vmdk b.vhd",
        "exit code 6 is a difference",
    ),
    (
        "qemu-img compare -s a.raw b.raw",
        "drylab image compare a.raw b.raw --strict",
        "other sizes are a difference; what is allocated is not compared",
    ),
    (
        "qemu-img create -f qcow2 disk.qcow2 40G",
        "drylab image create disk.qcow2 40G --to qcow2",
        "a file that is there is not replaced",
    ),
    (
        "qemu-img create -f vhdx -o subformat=fixed disk.vhdx 40G",
        "drylab image create disk.vhdx 40G --to vhdx --subformat fixed",
        "",
    ),
    (
        "qemu-img create -f qcow2 -b base.vmdk -F vmdk child.qcow2",
        "drylab image create child.qcow2 --to qcow2 --backing base.vmdk",
        "the format of the backing file is told by its content, and written",
    ),
    (
        "qemu-img create -f vpc -b base.vhd child.vhd",
        "drylab image create child.vhd --to vhd --backing base.vhd",
        "qemu-img cannot: it makes no children of VHD and VHDX",
    ),
    (
        "qemu-img create -f qcow2 -b ../base.qcow2 -F qcow2 snap/child.qcow2",
        "drylab image create snap/child.qcow2 --to qcow2 --backing base.qcow2",
        "the path is seen from here and not from the child, which gets an absolute one where it is in another folder",
    ),
];

const ABSENT: &str = "\
There is nothing for qemu-img snapshot, commit, rebase, amend and bitmap: no snapshot is made, merged, moved or removed in
place, and convert writes what a chain shows as one file. Internal snapshots are checked and kept, and their disks are not
read. There is nothing for measure, dd and bench. Sizes of clusters and blocks and preallocation cannot be chosen, and only
files are opened: no URL, no json: name, no standard input or output.";

const SECOND_FILES: &str = "\
An image may name other files: extents, parents, backing files. Whoever made the image chose the names, and an image from
a stranger may name any file that you can read. So no second file is opened unless --allow-beneath DIR says beneath which
folder: names are seen from the file that has them, an absolute name must begin with DIR, and neither .. nor symbolic links
nor /proc lead out of DIR, which the kernel itself sees to (openat2(2) with RESOLVE_BENEATH). Only regular files are
opened, a chain that comes back to itself is refused, and equal files are known by device and inode. For a VMDK whose
extents lie beside it, --allow-beneath . in its folder is enough. The parent of a VDI, which has no name, is looked for by
its UUID in the folder of its child and the one above. The extents that drylab writes beside NAME.vmdk are called
NAME-flat.vmdk (monolithicFlat, vmfs), NAME-s001.vmdk and so on (twoGbMaxExtentSparse), NAME-f001.vmdk and so on
(twoGbMaxExtentFlat).";

const CHANGES: &str = "\
repair and resize plan every change first, as (offset, old bytes, new bytes), and try the plan in memory. The file is opened
and locked before that; a virtual machine of QEMU that runs on it is noticed by its lock. Locks, also those on what would be
replaced, are those of ranges of bytes (fcntl(2)), which QEMU takes; what flock(2) locks is not looked at. Every step looks
at the old bytes again before it writes, and steps are ordered, with flushes between, so that after a crash at any point the
image opens and its disk holds what it held. With --dry-run nothing is opened for writing. resize looks at the structure
alone: whether compressed clusters of a qcow2 unpack, for which all of them would be read, only check and repair tell.";

const JSON: &str = "\
With --format json each command prints one document. Its format is 1; fields may be added, and none changes its meaning
without another number. All numbers are integers, sizes and offsets count bytes. info, check, repair and resize have image
(file, format, subformat, virtual_bytes, file_bytes, allocated_bytes); info has details, pairs of strings as the image says
them, files (kind, name, named_by, file, format, file_bytes, allocated_bytes), those that were opened, and findings; check
has damaged and findings, and with --for what the product does; repair and resize have dry_run, old_virtual_bytes,
new_virtual_bytes, notes, steps and left, the findings afterwards; create has made (file, format, subformat, virtual_bytes,
file_bytes, and for), convert the same as destination, and source and findings; compare has one, two, equal, difference and
offset; map has virtual_bytes and ranges. findings have worst (a severity or null), counts and list. What ends with 1 or 3
prints no document, only its reason on standard error; but info of an image whose files are not opened (3) prints what the
image says of itself, and those files as not_opened (kind, name, named_by). Of a damaged image that is not resized (5) there is a
document, with its findings and no steps, and the reason, too. rules has rules (code, severity, clause, effect, repairable). The for of
create and convert has name, title, kind and wants (field, value, why, source), that of check name, title, reactions (code,
does, how, evidence, source) and others. A finding has code, severity (note, warning, error), file,
offset, length, path (the structure), expected, found, clause (of the specification), effect and repairable (no, lossless,
lossy); counts holds how often each code was found, also where the list, which has at most 64 of each, ends. A range of map
has start, length, kind (data, compressed, zero, hole), and file and offset where a file holds its bytes as they are, else
null. A step of repair and resize has file and step: write (offset, length, changes_at, and up to 16 bytes of old and new
from there, hexadecimal, with … behind them where there are more; old is empty behind the end of the file), copy (from,
offset, length), length (old, new: bytes of the file, as text) or flush.";

/// Text with what has a meaning in roff escaped.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with(['.', '\'']) {
            out.push_str("\\&");
        }
        for letter in line.chars() {
            match letter {
                '\\' => out.push_str("\\e"),
                '-' => out.push_str("\\-"),
                '…' => out.push_str("..."),
                other => out.push(other),
            }
        }
        out.push('\n');
    }
    out
}

/// Lines that stay lines.
fn verbatim(page: &mut String, text: &str) {
    page.push_str(".nf\n");
    page.push_str(&escaped(text));
    page.push_str(".fi\n");
}

fn option(page: &mut String, arg: &Arg) {
    let names = arg.get_value_names().unwrap_or_default();
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let takes = arg.get_action().takes_values();
    let mut head = match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => String::new(),
    };
    if takes {
        let _ = write!(head, " {}", names.join(" "));
    }
    let _ = write!(page, ".TP\n.B {}", escaped(head.trim()));
    page.push_str(&escaped(
        &arg.get_help().map(ToString::to_string).unwrap_or_default(),
    ));
    if !takes {
        return;
    }
    for value in arg.get_possible_values() {
        let help = value
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let _ = write!(
            page,
            ".br\n{}",
            escaped(&format!("{}: {help}", value.get_name()))
        );
    }
    let defaults = arg.get_default_values().iter();
    let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() {
        let _ = write!(
            page,
            ".br\n{}",
            escaped(&format!("Default: {}", defaults.join(" ")))
        );
    }
}

fn command(page: &mut String, command: &mut Command) {
    let name = command.get_name().to_owned();
    let usage = command.render_usage().to_string();
    let _ = write!(
        page,
        ".SS {name}\n.B {}.PP\n",
        escaped(usage.trim_start_matches("Usage: ").trim())
    );
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    page.push_str(&escaped(&format!("{about}.")));
    for arg in command.get_arguments().filter(|arg| arg.get_id() != "help") {
        option(page, arg);
    }
    let more = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let (notes, examples) = more.split_once("Examples:\n").unwrap_or((&more, ""));
    if !notes.trim().is_empty() {
        page.push_str(".PP\n");
        page.push_str(&escaped(notes.trim()));
    }
    page.push_str(".PP\nExamples:\n.PP\n");
    verbatim(page, examples);
}

/// The whole page.
fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let image = root.find_subcommand_mut("image").expect("it is there");
    let mut page = String::from(
        ".\\\" Made by the tests of drylab-cli from what can be typed; DRYLAB_BLESS=1 writes it anew.\n\
         .TH DRYLAB\\-IMAGE 1 \"\" drylab \"disk images\"\n\
         .SH NAME\ndrylab\\-image \\- look at, check, repair, resize, convert, compare and create disk images\n\
         .SH SYNOPSIS\n",
    );
    let names: Vec<String> = image
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in names.iter().filter(|name| *name != "help") {
        let sub = image.find_subcommand_mut(name).expect("it was listed");
        let usage = sub.render_usage().to_string();
        let (_, words) = usage.split_once(name.as_str()).expect("its name");
        let _ = writeln!(page, ".B drylab image {name}\n{}.br", escaped(words.trim()));
    }
    page.push_str(".SH DESCRIPTION\n");
    let notes = image
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let (notes, _) = notes.split_once("A man page").unwrap_or((&notes, ""));
    page.push_str(&escaped(notes.trim()));
    page.push_str(".SH COMMANDS\n");
    for name in names.iter().filter(|name| *name != "help") {
        let sub = image.find_subcommand_mut(name).expect("it was listed");
        command(&mut page, sub);
    }
    for (title, text) in [
        ("FILES THAT AN IMAGE NAMES", SECOND_FILES),
        ("CHANGES IN PLACE", CHANGES),
        ("JSON", JSON),
    ] {
        let _ = writeln!(page, ".SH {title}");
        page.push_str(&escaped(text));
    }
    page.push_str(".SH FOR USERS OF QEMU\\-IMG\n");
    for (theirs, ours, note) in TABLE {
        let _ = write!(page, ".TP\n{}.B {}", escaped(theirs), escaped(ours));
        if !note.is_empty() {
            let _ = write!(page, ".br\n{}", escaped(note));
        }
    }
    let _ = write!(page, ".PP\n{}", escaped(ABSENT));
    page.push_str(".SH EXIT STATUS\n");
    let (_, codes) = exit::HELP.split_once('\n').expect("a title");
    verbatim(&mut page, codes);
    page.push_str(".SH SEE ALSO\n.BR qemu\\-img (1),\n.BR openat2 (2)\n");
    page
}

#[test]
#[expect(clippy::disallowed_methods, reason = "tests read DRYLAB_BLESS")]
fn the_committed_man_page_is_the_one_that_is_made() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("man/drylab-image.1");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let made = page();
    if committed == made {
        return;
    }
    assert!(
        std::env::var("DRYLAB_BLESS").is_ok_and(|value| value == "1"),
        "man/drylab-image.1 is not what is made now; DRYLAB_BLESS=1 writes it anew"
    );
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(&path, made).expect("written");
}

#[test]
fn every_line_of_the_table_can_be_typed_and_every_command_is_in_it() {
    use clap::Parser;
    let root = Cli::command();
    let image = root.find_subcommand("image").expect("it is there");
    for (theirs, ours, _) in TABLE {
        assert!(theirs.starts_with("qemu-img "), "{theirs}");
        if let Err(error) = Cli::try_parse_from(ours.split_whitespace()) {
            panic!("{ours}: {error}");
        }
    }
    // What qemu-img has no word for stands in the list of commands only.
    for name in image
        .get_subcommands()
        .map(Command::get_name)
        .filter(|name| *name != "rules")
    {
        let start = format!("drylab image {name} ");
        assert!(
            TABLE.iter().any(|(_, ours, _)| ours.starts_with(&start)),
            "{name}"
        );
    }
}

#[test]
fn nothing_in_a_text_is_a_request_of_roff() {
    assert_eq!(escaped(".TH -a\n'x \\n"), "\\&.TH \\-a\n\\&'x \\en\n");
}
