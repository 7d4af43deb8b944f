//! Raw images: the bytes are the disk.

use crate::common::{Kind, OnDisk, Piece, Plan, assert_same, have_qemu_img, packed, qemu_img};
use crate::pairs::WRITERS;
use crate::vhd_steps::{all, codes, plainly, resized, sparse};
use drylab_block::{Limits, ReadAt, SparseBytes, Window, WriteAt, copy_data};
use drylab_image::{Format, Target, open};
use std::path::Path;
use std::sync::Arc;

const GIB: u64 = 1 << 30;

fn disk(size: u64) -> SparseBytes {
    let piece = |offset: u64, seed| Piece {
        offset,
        length: 3000.min(size.saturating_sub(offset)) as usize,
        kind: Kind::Noise(seed),
    };
    let places = [(0, 1), (size / 2, 2), (size.saturating_sub(3000), 3)];
    let pieces = places.into_iter().filter(|(place, _)| *place < size);
    let pieces = pieces.map(|(place, seed)| piece(place, seed)).collect();
    Plan { size, pieces }.disk()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn qemu_img_and_we_read_each_others_raw_disks_at_every_size() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mib = 1u64 << 20;
    let sizes = [
        0,
        512,
        77 * 512,
        mib - 512,
        mib,
        mib + 512,
        4 * GIB + 512,
        2048 * GIB,
    ];
    for size in sizes {
        let disk = disk(size);
        let [ours, theirs] = ["ours.raw", "theirs.raw"].map(|name| folder.path().join(name));
        let written = drylab_image::write(&disk, &Target::Raw, &OnDisk::create(&ours)).unwrap();
        assert_eq!(written.file_bytes, size);
        let known = qemu_img(&["info", "-f", "raw", "--output=json", text(&ours)]);
        assert!(
            known.contains(&format!("\"virtual-size\": {size}")),
            "{known}"
        );
        let way = [
            "convert",
            "-f",
            "raw",
            "-O",
            "raw",
            text(&ours),
            text(&theirs),
        ];
        qemu_img(&way);
        let way = [
            "compare",
            "-f",
            "raw",
            "-F",
            "raw",
            text(&ours),
            text(&theirs),
        ];
        assert!(qemu_img(&way).contains("identical"), "{size}");
        if size <= 5 * GIB {
            let back = open(Arc::new(OnDisk::open(&theirs)), &Limits::DEFAULT).unwrap();
            assert_eq!((back.format(), back.len()), (Format::Raw, size));
            assert_same(&disk, &back);
        }
    }
}

#[test]
fn a_part_of_a_sector_at_the_end_is_found_and_filled() {
    let file = all(&disk(1000));
    let image = open(Arc::new(file.clone()), &Limits::DEFAULT).unwrap();
    assert_eq!(codes(image.check().unwrap().list()), ["RAW-PARTIAL-SECTOR"]);
    let mended = sparse(&file);
    image.repair().unwrap().apply(&mended).unwrap();
    let mended = all(&mended);
    assert!(mended[..1000] == file && mended[1000..] == [0; 24]);
    let whole = open(Arc::new(all(&disk(1024))), &Limits::DEFAULT).unwrap();
    assert!(whole.check().unwrap().is_empty() && whole.repair().unwrap().is_empty());
}

#[test]
fn a_raw_disk_grows_by_zeros_and_loses_what_is_cut_off() {
    let file = all(&disk(4096));
    assert_eq!(
        resized(&file, 8192, &plainly),
        [file.clone(), vec![0; 4096]].concat()
    );
    assert_eq!(resized(&file, 1024, &plainly), file[..1024]);
}

#[test]
fn a_raw_disk_larger_than_the_limit_is_refused_with_it() {
    let mut limits = Limits::DEFAULT;
    limits.disk_bytes_max = 4096;
    let error = open(Arc::new(SparseBytes::new(4097)), &limits).unwrap_err();
    assert!(
        error.to_string().contains("4097") && error.to_string().contains("4096"),
        "{error}"
    );
}

/// An image inside an OVA, a partition inside a disk: nothing is taken out to be read.
#[test]
fn an_image_of_any_format_opens_in_a_window_of_a_larger_file() {
    let disk = disk(3 << 20);
    for (_, write) in WRITERS {
        let files = write(&disk);
        let file = files.first().clone();
        let around = SparseBytes::default();
        around.write_at(0, &[0xee; 7 * 512]).unwrap();
        copy_data(&file, &Shifted(&around, 7 * 512)).unwrap();
        let length = file.len();
        around.write_at(7 * 512 + length, &[0xee; 9 * 512]).unwrap();
        let window = Window::new(Arc::new(around), 7 * 512, length).unwrap();
        let image = files.open_as_first(Arc::new(window));
        assert_same(&disk, &image);
    }
    // The window ends where the image does: a fixed VHD has its footer there.
    let file = packed(&disk, &Target::VhdFixed(Default::default()));
    let window = Window::new(file.clone(), 0, file.len() - 512).unwrap();
    let image = open(Arc::new(window), &Limits::DEFAULT).unwrap();
    assert_eq!(image.format(), Format::Raw);
}

/// A sink that stands further back in another one.
struct Shifted<'a>(&'a SparseBytes, u64);

impl ReadAt for Shifted<'_> {
    fn len(&self) -> u64 {
        self.0.len().saturating_sub(self.1)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> drylab_block::Result<()> {
        self.0.read_at(offset + self.1, buffer)
    }
}

impl WriteAt for Shifted<'_> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> drylab_block::Result<()> {
        self.0.write_at(offset + self.1, bytes)
    }
    fn set_len(&self, length: u64) -> drylab_block::Result<()> {
        self.0.set_len(length + self.1)
    }
}
