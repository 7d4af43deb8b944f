//! What qemu-img and we say of damaged structures, side by side, and what repair makes of them: `docs/damage.md`.

use crate::common::{
    Kind, OnDisk, Piece, Plan, assert_same, have_qemu_img, packed, qemu_img, try_qemu_img,
};
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt, copy_data};
use drylab_image::{Image, Target, VdiOptions, VhdOptions, VhdxOptions, VmdkOptions, open};
use std::path::Path;
use std::sync::Arc;

/// What is damaged, and what both say.
struct Row {
    damage: &'static str,
    target: Target,
    /// The name that qemu-img has for the format.
    format: &'static str,
    spoil: fn(&mut File),
    /// What `qemu-img check` ends with: 0 it finds nothing, 1 it cannot read the file, 2 it finds damage, 63 it does not
    /// check the format.
    qemu: i32,
    /// The rule that is broken.
    code: &'static str,
    mended: Mended,
}

/// What repair can make of it.
#[derive(Clone, Copy, PartialEq)]
enum Mended {
    /// The file, with every byte that could be read before.
    Whole,
    /// The file, without the bytes that were nowhere.
    WithoutTheLost,
}

/// A file in memory with its numbers.
struct File(Vec<u8>);

impl File {
    fn le32(&self, at: usize) -> usize {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap()) as usize
    }
    fn le64(&self, at: usize) -> usize {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap()) as usize
    }
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
    /// Where the first grain table of a VMDK stands, and its redundant copy.
    fn grain_tables(&self) -> (usize, usize) {
        let table = |directory: usize| self.le32(self.le64(directory) * 512) * 512;
        (table(56), table(48))
    }
    /// Sets an entry in both grain tables.
    fn grain(&mut self, entry: usize, sector: usize) {
        let (table, redundant) = self.grain_tables();
        for table in [table, redundant] {
            self.put(table + 4 * entry, &(sector as u32).to_le_bytes());
        }
    }
    fn vdi_block(&mut self, entry: usize, number: u32) {
        let map = self.le32(0x154);
        self.put(map + 4 * entry, &number.to_le_bytes());
    }
    fn vhdx_block(&mut self, entry: usize, mebibyte: u64) {
        self.put((3 << 20) + 8 * entry, &((mebibyte << 20) | 6).to_le_bytes());
    }
    fn vhd_block(&mut self, entry: usize, sector: u32) {
        self.put(1536 + 4 * entry, &sector.to_be_bytes());
    }
}

/// Data in the first, third and sixth MiB of eight.
fn disk() -> SparseBytes {
    let piece = |offset: u64, seed| Piece {
        offset,
        length: 70_000,
        kind: Kind::Noise(seed),
    };
    Plan {
        size: 8 << 20,
        pieces: vec![piece(0, 1), piece((2 << 20) + 512, 2), piece(5 << 20, 3)],
    }
    .disk()
}

fn rows() -> Vec<Row> {
    let vmdk = || Target::VmdkSparse(VmdkOptions::default());
    let vdi = || Target::VdiDynamic(VdiOptions::default());
    let vhdx = || Target::VhdxDynamic(VhdxOptions::default());
    let vhd = || {
        Target::VhdDynamic(VhdOptions {
            block_bytes: 512 << 10,
            ..VhdOptions::default()
        })
    };
    let row = |damage, (target, format), spoil, qemu, code, mended| Row {
        damage,
        target,
        format,
        spoil,
        qemu,
        code,
        mended,
    };
    use Mended::{Whole, WithoutTheLost};
    vec![
        row(
            "VMDK two grains at one sector",
            (vmdk(), "vmdk"),
            |file| {
                let (table, _) = file.grain_tables();
                let first = file.le32(table);
                file.grain(1, first);
            },
            0,
            "VMDK-GRAIN-ALIAS",
            Whole,
        ),
        row(
            "VMDK grain beyond the end of the file",
            (vmdk(), "vmdk"),
            |file| file.grain(1, 1 << 20),
            1,
            "VMDK-GRAIN-RANGE",
            WithoutTheLost,
        ),
        row(
            "VMDK redundant grain table differs",
            (vmdk(), "vmdk"),
            |file| {
                let (_, redundant) = file.grain_tables();
                file.put(redundant, &[0; 4]);
            },
            0,
            "VMDK-GT-DIFFERS",
            Whole,
        ),
        row(
            "VMDK grain points into metadata",
            (vmdk(), "vmdk"),
            |file| file.grain(1, 1),
            0,
            "VMDK-GRAIN-IN-METADATA",
            WithoutTheLost,
        ),
        row(
            "VMDK uncleanShutdown = 1",
            (vmdk(), "vmdk"),
            |file| file.put(72, &[1]),
            0,
            "VMDK-UNCLEAN",
            Whole,
        ),
        row(
            "VDI duplicate block",
            (vdi(), "vdi"),
            |file| file.vdi_block(2, 0),
            2,
            "VDI-BLOCKS-OVERLAP",
            Whole,
        ),
        row(
            "VDI block beyond the end of the file",
            (vdi(), "vdi"),
            |file| file.vdi_block(2, 77),
            2,
            "VDI-BLOCK-LOST",
            WithoutTheLost,
        ),
        row(
            "VHDX two BAT entries share a block",
            (vhdx(), "vhdx"),
            |file| file.vhdx_block(2, 4),
            0,
            "VHDX-BLOCK-SHARED",
            Whole,
        ),
        row(
            "VHDX block beyond the end of the file",
            (vhdx(), "vhdx"),
            |file| file.vhdx_block(2, 77),
            2,
            "VHDX-BLOCK-LOST",
            WithoutTheLost,
        ),
        row(
            "VHDX block overlaps the log",
            (vhdx(), "vhdx"),
            |file| file.vhdx_block(2, 1),
            2,
            "VHDX-BLOCK-IN-STRUCTURE",
            WithoutTheLost,
        ),
        row(
            "VHDX both headers' checksums wrong",
            (vhdx(), "vhdx"),
            |file| {
                file.put((64 << 10) + 100, &[1]);
                file.put((128 << 10) + 100, &[1]);
            },
            1,
            "VHDX-NO-HEADER",
            Whole,
        ),
        row(
            "VHDX region table 1 wrong, copy 2 good",
            (vhdx(), "vhdx"),
            |file| file.put((192 << 10) + 4, &[1]),
            1,
            "VHDX-REGION-TABLE",
            Whole,
        ),
        row(
            "VHD footer's checksum wrong, copy good",
            (vhd(), "vpc"),
            |file| {
                let footer = file.0.len() - 512;
                file.put(footer + 0x40, &[1]);
            },
            63,
            "VHD-FOOTER",
            Whole,
        ),
        row(
            "VHD two BAT entries share a block",
            (vhd(), "vpc"),
            |file| {
                let first = u32::from_be_bytes(file.0[1536..1540].try_into().unwrap());
                file.vhd_block(4, first);
            },
            63,
            "VHD-BLOCKS-OVERLAP",
            Whole,
        ),
        row(
            "VHD block beyond the end of the file",
            (vhd(), "vpc"),
            |file| file.vhd_block(4, 1 << 20),
            1,
            "VHD-BLOCK-LOST",
            WithoutTheLost,
        ),
    ]
}

fn store(file: &dyn ReadAt, path: &Path) {
    copy_data(file, &OnDisk::create(path)).unwrap();
}

/// What `qemu-img check` ends with.
fn checked(format: &str, path: &Path) -> i32 {
    let done = try_qemu_img(&["check", "-f", format, path.to_str().unwrap()]);
    done.status.code().unwrap()
}

/// Every piece of 512 bytes that can be read.
fn sectors(image: &Image) -> Vec<Option<[u8; 512]>> {
    let mut all = Vec::new();
    for at in (0..image.len()).step_by(512) {
        let mut sector = [0; 512];
        all.push(image.read_at(at, &mut sector).ok().map(|()| sector));
    }
    all
}

/// Mends the file in a place of its own and looks at what came out of it.
fn mended(row: &Row, file: &[u8], folder: &Path) -> SparseBytes {
    let damage = row.damage;
    let before = open(Arc::new(file.to_vec()), &Limits::DEFAULT).unwrap();
    let plan = before.repair().unwrap();
    let done = SparseBytes::default();
    done.write_at(0, file).unwrap();
    plan.apply(&done).unwrap();
    let bytes = {
        let mut bytes = vec![0; done.len() as usize];
        done.read_at(0, &mut bytes).unwrap();
        bytes
    };
    let after = open(Arc::new(bytes), &Limits::DEFAULT).unwrap();
    let left = after.check().unwrap();
    let left: Vec<_> = left
        .list()
        .iter()
        .map(|finding| finding.rule.code)
        .collect();
    // A size that is no geometry is how the file was made.
    assert!(
        left.iter().all(|code| *code == "VHD-TWO-SIZES"),
        "{damage}: {left:?}"
    );
    let (old, new) = (sectors(&before), sectors(&after));
    let kept = old
        .iter()
        .zip(&new)
        .all(|(old, new)| old.is_none() || old == new);
    let whole = old.iter().all(Option::is_some);
    assert!(kept && new.iter().all(Option::is_some), "{damage}");
    assert_eq!(whole, row.mended == Mended::Whole, "{damage}");
    let path = folder.join("mended");
    store(&done, &path);
    let expected = if row.format == "vpc" { 63 } else { 0 };
    assert_eq!(checked(row.format, &path), expected, "{damage}");
    let raw = folder.join("mended.raw");
    let [from, to] = [&path, &raw].map(|path| path.to_str().unwrap());
    qemu_img(&["convert", "-f", row.format, "-O", "raw", from, to]);
    assert_same(&OnDisk::open(&raw), &after);
    done
}

/// One line of the table, after all of it was shown.
fn line(row: &Row, folder: &Path) -> String {
    let file = packed(&disk(), &row.target);
    let mut bytes = vec![0; file.len() as usize];
    file.read_at(0, &mut bytes).unwrap();
    let mut file = File(bytes);
    (row.spoil)(&mut file);
    let path = folder.join("damaged");
    store(&file.0, &path);
    assert_eq!(checked(row.format, &path), row.qemu, "{}", row.damage);
    let raw = folder.join("damaged.raw");
    let [from, to] = [&path, &raw].map(|path| path.to_str().unwrap());
    let converted = try_qemu_img(&["convert", "-f", row.format, "-O", "raw", from, to]);
    let theirs = match row.qemu {
        0 => "0, finds nothing",
        1 => "1, an error",
        2 => "2, finds it",
        _ => "63, no check of the format",
    };
    let convert = if converted.status.success() {
        "0"
    } else {
        "refuses"
    };
    let found = open(Arc::new(file.0.clone()), &Limits::DEFAULT).unwrap();
    let found = found.check().unwrap();
    let codes: Vec<_> = found
        .list()
        .iter()
        .map(|finding| finding.rule.code)
        .collect();
    assert!(codes.contains(&row.code), "{}: {codes:?}", row.damage);
    mended(row, &file.0, folder);
    let repair = match row.mended {
        Mended::Whole => "yes, every byte kept",
        Mended::WithoutTheLost => "yes, without the lost bytes",
    };
    let ours = row.code;
    format!(
        "| {} | {theirs} | {convert} | `{ours}` | {repair} |\n",
        row.damage
    )
}

#[test]
fn every_damage_of_the_table_is_found_by_its_code_and_mended_to_a_file_that_qemu_img_passes() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut table = String::from(
        "| damage | `qemu-img check` 10 | `qemu-img convert` | `drylab image check` | `drylab image repair` |\n|---|---|---|---|---|\n",
    );
    for row in rows() {
        table += &line(&row, folder.path());
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/damage.md");
    if std::env::var_os("DRYLAB_BLESS").is_some() {
        std::fs::write(&page, &table).unwrap();
    }
    let kept = std::fs::read_to_string(&page).unwrap_or_default();
    assert_eq!(kept, table, "docs/damage.md is not what was found");
}
