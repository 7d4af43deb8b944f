//! Images that name other files, made by somebody who wants more than he may have.

use crate::support::{Ran, create_child, data, run, text};
use drylab_block::{SparseBytes, WriteAt};
use drylab_image::vhd::{self, ParentLink};
use drylab_image::{
    Qcow2Backing, Qcow2DataFile, Qcow2Layers, VhdOptions, Work, write_qcow2_layers,
};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// `yard/secret`, and `yard/inside` with what a test puts there.
struct Yard {
    folder: tempfile::TempDir,
}

impl Yard {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("inside")).expect("made");
        let secret = b"THE SECRET OF SOMEBODY ELSE     ".repeat(16);
        std::fs::write(folder.path().join("secret"), secret).expect("written");
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join("inside").join(name)
    }

    /// A VMDK of one sector that stands in the file with that name.
    fn vmdk(&self, name: &str, extent: &str) -> PathBuf {
        let path = self.at(name);
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
             createType=\"monolithicFlat\"\nRW 1 FLAT \"{extent}\" 0\n"
        );
        std::fs::write(&path, text).expect("written");
        path
    }

    /// Every command that opens an image, with the folder allowed.
    fn every_command(&self, image: &Path) -> Vec<Ran> {
        let out = self.at("out.raw");
        let inside = self.folder.path().join("inside");
        let image = text(image);
        let commands: [&[&str]; 7] = [
            &["info", image],
            &["map", image],
            &["check", image],
            &["repair", image],
            &["resize", image, "1M"],
            &["convert", image, text(&out), "--to", "raw"],
            &["compare", image, image],
        ];
        let all = commands.map(|command| {
            let beneath = ["--allow-beneath", text(&inside)];
            run(&[&["image"], command, &beneath].concat())
        });
        assert!(!out.exists());
        all.into()
    }

    fn refused(&self, image: &Path) {
        for (number, ran) in self.every_command(image).iter().enumerate() {
            // info says what the image says of itself, and what is not opened; of names that are refused as such, nothing.
            let own = number == 0 && ran.out.ends_with(" is not opened\n");
            assert!(ran.out.is_empty() || own, "{}", ran.out);
            assert_eq!(ran.code, 3, "{}", ran.err);
            assert!(!ran.err.contains("SECRET") && !ran.out.contains("SECRET"));
        }
        // A child would say something of its parent.
        let child = self.at("child.vhd");
        let inside = self.folder.path().join("inside");
        let ran = create_child(&child, "vhd", image, &["--allow-beneath", text(&inside)]);
        assert_eq!(ran.code, 3, "{}", ran.err);
        assert!(!child.exists());
    }
}

#[test]
fn no_name_in_a_descriptor_leads_out_of_the_folder() {
    let yard = Yard::new();
    let secret = yard.folder.path().join("secret");
    symlink(&secret, yard.at("link")).expect("linked");
    symlink("../secret", yard.at("relative")).expect("linked");
    symlink("..", yard.at("up")).expect("linked");
    for (number, name) in [
        "/etc/passwd",
        text(&secret),
        "../secret",
        "link",
        "relative",
        "up/secret",
        "../../../../../../etc/passwd",
        "/proc/self/fd/0",
        "inside/../../secret",
        ".",
        "..",
        "gone",
    ]
    .into_iter()
    .enumerate()
    {
        let vmdk = yard.vmdk(&format!("{number}.vmdk"), name);
        yard.refused(&vmdk);
    }
}

#[test]
fn a_pipe_and_a_device_are_no_extents_and_nobody_waits_for_them() {
    let yard = Yard::new();
    let pipe = yard.at("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("it starts").success());
    symlink("/dev/zero", yard.at("zero")).expect("linked");
    for name in ["pipe", "zero"] {
        let vmdk = yard.vmdk(&format!("{name}.vmdk"), name);
        yard.refused(&vmdk);
    }
}

#[test]
fn what_stands_beneath_the_folder_is_opened_also_through_a_link_that_stays_there() {
    let yard = Yard::new();
    std::fs::write(yard.at("bytes"), [7u8; 512]).expect("written");
    symlink("bytes", yard.at("link")).expect("linked");
    for name in ["bytes", "link"] {
        let vmdk = yard.vmdk(&format!("{name}.vmdk"), name);
        let inside = yard.folder.path().join("inside");
        let beneath = ["--allow-beneath", text(&inside)];
        let shown = data(&[&["image", "info", text(&vmdk)], &beneath[..]].concat());
        assert!(shown.contains("virtual size  512 bytes"), "{shown}");
        // Without the folder nothing is opened, and what to say is told.
        let ran = run(&["image", "info", text(&vmdk)]);
        assert_eq!(ran.code, 3);
        assert!(
            ran.err
                .contains(&format!("--allow-beneath {}", inside.display())),
            "{}",
            ran.err
        );
        // Beneath another folder it is not.
        let ran = run(&["image", "info", text(&vmdk), "--allow-beneath", "/etc"]);
        assert_eq!(ran.code, 3, "{}", ran.out);
        assert!(ran.err.contains("leads out of"), "{}", ran.err);
    }
}

#[test]
fn a_parent_is_not_looked_for_where_its_name_says() {
    let yard = Yard::new();
    let disk = SparseBytes::new(4 << 20);
    disk.write_at(0, b"guest").expect("inside");
    for (number, path) in [
        "..\\..\\etc\\passwd",
        "..\\secret",
        "\\\\server\\share\\base.vhd",
    ]
    .into_iter()
    .enumerate()
    {
        let link = ParentLink {
            unique_id: [1; 16],
            timestamp: 0,
            relative: path.to_owned(),
            absolute: Some("C:\\Windows\\win.ini".to_owned()),
            url: Some("file:///etc/passwd".to_owned()),
        };
        let file = SparseBytes::default();
        let options = VhdOptions::default();
        vhd::write_child(&disk, &SparseBytes::new(4 << 20), &link, &options, &file)
            .expect("written");
        let child = yard.at(&format!("{number}.vhd"));
        crate::support::write_raw(&file, &child);
        yard.refused(&child);
    }
}

/// Writes a qcow2 of 1 MiB that names a file, as its backing file or as the one with its data.
fn qcow2(path: &Path, name: &str, is_data: bool) {
    let disk = SparseBytes::new(1 << 20);
    let (file, data) = (SparseBytes::default(), SparseBytes::default());
    let mut layers = Qcow2Layers::default();
    if is_data {
        let sink = &data;
        layers.data_file = Some(Qcow2DataFile {
            sink,
            name,
            raw: false,
        });
    } else {
        layers.backing = Some(Qcow2Backing {
            disk: &disk,
            name,
            format: "raw",
        });
    }
    write_qcow2_layers(&disk, &layers, &file, &Work::ALONE).expect("written");
    crate::support::write_raw(&file, path);
}

#[test]
fn no_backing_file_and_no_data_file_lies_outside() {
    let yard = Yard::new();
    let secret = yard.folder.path().join("secret");
    symlink(&secret, yard.at("link")).expect("linked");
    symlink("..", yard.at("up")).expect("linked");
    std::fs::create_dir(yard.at("deep")).expect("made");
    let pipe = std::process::Command::new("mkfifo")
        .arg(yard.at("pipe"))
        .status();
    assert!(pipe.expect("it starts").success());
    let names = [
        "/etc/passwd",
        text(&secret),
        "../secret",
        "deep/../../secret",
        "link",
        "up/secret",
        "pipe",
        "/proc/self/cwd/secret",
        "json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}",
        "file:///etc/passwd",
        "nbd://localhost/disk",
    ];
    for (number, name) in names.into_iter().enumerate() {
        for is_data in [false, true] {
            let image = yard.at(&format!("{number}-{is_data}.qcow2"));
            qcow2(&image, name, is_data);
            yard.refused(&image);
        }
    }
    // The same names, in a folder that is allowed and of a file that is there.
    std::fs::write(yard.at("deep/base"), [7u8; 4096]).expect("written");
    let inside = yard.folder.path().join("inside");
    let absolute = yard.at("deep/base");
    for (number, name) in ["deep/base", "./deep/../deep/base", text(&absolute)]
        .into_iter()
        .enumerate()
    {
        let image = yard.at(&format!("good{number}.qcow2"));
        qcow2(&image, name, false);
        let map = ["image", "map", text(&image), "--format", "json"];
        let map = data(&[&map[..], &["--allow-beneath", text(&inside)]].concat());
        assert!(
            map.contains(&format!("\"file\":\"{}\",\"offset\":0", text(&absolute))),
            "{map}"
        );
    }
}

#[test]
fn a_chain_that_comes_back_to_itself_is_told() {
    let yard = Yard::new();
    let inside = yard.folder.path().join("inside");
    let beneath = ["--allow-beneath", text(&inside)];
    for format in ["vhd", "vhdx", "qcow2", "vmdk"] {
        let [base, one, two] =
            ["base", "one", "two"].map(|name| yard.at(&format!("{name}.{format}")));
        data(&["image", "create", text(&base), "10M", "--to", format]);
        for (child, parent) in [(&one, &base), (&two, &one)] {
            create_child(child, format, parent, &beneath).data();
        }
        // base becomes what two is: a child of one, which is a child of base.
        std::fs::rename(&two, &base).expect("renamed");
        for image in [&base, &one] {
            for ran in yard.every_command(image) {
                assert_eq!(ran.code, 3, "{}", ran.out);
                assert!(ran.err.contains("comes back to"), "{}", ran.err);
            }
        }
    }
}

#[test]
fn a_parent_of_a_vdi_is_found_by_its_uuid() {
    let yard = Yard::new();
    let snapshots = yard.at("Snapshots");
    std::fs::create_dir(&snapshots).expect("made");
    let base = yard.at("base.vdi");
    let disk = SparseBytes::new(4 << 20);
    disk.write_at(0, b"guest").expect("inside");
    let raw = yard.at("disk.raw");
    crate::support::write_raw(&disk, &raw);
    data(&["image", "convert", text(&raw), text(&base), "--to", "vdi"]);
    // The child is an empty image of the same size whose type and links are set.
    let child = snapshots.join("child.vdi");
    data(&["image", "create", text(&child), "4M", "--to", "vdi"]);
    let [create, modify] = [0x188, 0x198].map(|at| crate::support::read_at(&base, at, 16));
    let file = std::fs::File::options()
        .write(true)
        .open(&child)
        .expect("there");
    for (at, bytes) in [
        (0x4c, &[4u8, 0, 0, 0][..]),
        (0x1a8, &create),
        (0x1b8, &modify),
        (0x188, &[9; 16]),
    ] {
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, at).expect("written");
    }
    let inside = yard.folder.path().join("inside");
    let compare = ["image", "compare", text(&child), text(&raw), "--strict"];
    let ran = run(&[&compare[..], &["--allow-beneath", text(&inside)]].concat());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    // The base is not beneath the folder of the snapshots.
    let ran = run(&[&compare[..], &["--allow-beneath", text(&snapshots)]].concat());
    assert_eq!(ran.code, 3, "{}", ran.out);
    assert_eq!(run(&compare).code, 3);
}
