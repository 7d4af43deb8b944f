//! What a fuzzer calls: open the bytes, walk everything within bounds, keep the laws.
//!
//! A panic is a bug of ours; an error is an answer.

mod laws;
mod qed;
mod script;
mod written;

pub(crate) use script::change;
pub use written::{qcow2_written, vdi_written, vhd_written, vhdx_written, vmdk_written};

use crate::container::Opener;
use crate::qcow2::Qcow2;
use crate::qed::Qed;
use crate::vdi::Vdi;
use crate::vhd::{Vhd, VhdSize};
use crate::vhdx::{Vhdx, scripted};
use crate::vmdk::{Vmdk, walk_stream};
use crate::write::Target;
use drylab_block::{DenyAll, Limits, ReadAt, Reference, Resolver, Result, SparseBytes, WriteAt};
use laws::{Open, Trial, boxed, copy, mended, resized, seen, walk};
use std::sync::Arc;

fn limits() -> Limits {
    let mut limits = Limits::DEFAULT;
    limits.table_bytes_max = 4 << 20;
    limits.text_bytes_max = 1 << 20;
    limits
}

/// Opens `data` as a VMDK.
pub fn vmdk(data: &[u8]) {
    let source: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    let _ = walk_stream(&*source, &limits());
    let limits = limits();
    seen(Vmdk::open(source, &Opener::new(&DenyAll, &limits)));
}

/// Repairs `data` as a VMDK and checks it again.
pub fn vmdk_repair(data: &[u8]) {
    let limits = limits();
    mended(&Trial {
        file: &|| copy(data),
        open: &|file| boxed(Vmdk::open(file, &Opener::new(&DenyAll, &limits))),
        kept: &["VMDK-GT-OVERLAP"],
        roomless: &[
            "VMDK-NO-PARENT-CID",
            "VMDK-CREATE-TYPE",
            "VMDK-EXTENT-TYPE",
            "VMDK-EXTENT-OFFSET",
        ],
        drops: true,
    });
}

/// Opens `data` as the descriptor of a VMDK up to its first NUL, with the rest as every file that it names.
pub fn vmdk_split(data: &[u8]) {
    let end = data
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(data.len());
    let (text, rest) = data.split_at_checked(end).unwrap_or_default();
    let rest = rest.get(1..).unwrap_or_default();
    let beside = Beside(Arc::new(rest.to_vec()));
    let limits = limits();
    let text: Arc<dyn ReadAt> = Arc::new(text.to_vec());
    seen(Vmdk::open(text, &Opener::new(&beside, &limits)));
}

/// One file, whatever it is called.
struct Any(Arc<dyn ReadAt>);

impl Resolver for Any {
    fn resolve(&self, _: &Reference) -> Result<Arc<dyn ReadAt>> {
        Ok(self.0.clone())
    }
}

/// Opens `data` as a qcow2 with whatever other files it names, and as its first snapshot; reads and checks it.
pub fn qcow2(data: &[u8]) {
    let source: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    let (other, limits) = (Any(Arc::new(vec![0x5a; 100_000])), limits());
    for snapshot in [None, Some("1")] {
        let opener = Opener::new(&other, &limits);
        seen(Qcow2::open(source.clone(), snapshot, &opener));
    }
}

/// Opens `data` as a qcow2, repairs a copy and checks that. What was mended is then given other sizes.
pub fn qcow2_repair(data: &[u8]) {
    let (other, limits) = (Any(Arc::new(vec![0x5a; 100_000])), limits());
    let open: Open<'_> = &|file| boxed(Qcow2::open(file, None, &Opener::new(&other, &limits)));
    let Some(file) = mended(&Trial {
        file: &|| copy(data),
        open,
        kept: &[],
        roomless: &[],
        drops: true,
    }) else {
        return;
    };
    let Ok(image) = open(file.clone()) else {
        return;
    };
    let sectors = image.len() / 512;
    for sectors in [sectors / 2, sectors.saturating_add(137)] {
        resized(&*image, &file, sectors.saturating_mul(512), open);
    }
}

/// Opens `data` as a QED, or the file that it makes as a script of changes to a sound one, with whatever backing file it
/// names; reads and checks it.
pub fn qed(data: &[u8]) {
    let source: Arc<dyn ReadAt> = if data.starts_with(crate::qed::MAGIC) {
        Arc::new(data.to_vec())
    } else {
        match qed::scripted(data) {
            Ok(file) => Arc::new(file),
            Err(_) => return,
        }
    };
    let (other, limits) = (Any(Arc::new(vec![0x5a; 100_000])), limits());
    seen(Qed::open(source, &Opener::new(&other, &limits)));
}

/// The file that a script makes: what [`qed`](fn@qed) opens.
///
/// # Errors
/// None that is not a bug of ours.
pub fn qed_file(data: &[u8]) -> Result<SparseBytes> {
    qed::scripted(data)
}

/// Opens `data` as a VHD, as each kind of program sees it, after setting its checksums right: no change of a few bytes
/// would get past them. A damaged one is a matter of [`detect`]. Whatever parent it names is a small fixed disk.
pub fn vhd(data: &[u8]) {
    let mut bytes = data.to_vec();
    crate::vhd::mend(&mut bytes);
    let source: Arc<dyn ReadAt> = Arc::new(bytes);
    let beside = Beside(parent(&Target::VhdFixed(crate::VhdOptions::default())));
    for believes in [VhdSize::ByCreator, VhdSize::Current, VhdSize::Geometry] {
        let limits = limits();
        seen(Vhd::open(
            source.clone(),
            believes,
            &Opener::new(&beside, &limits),
        ));
    }
    let limits = limits();
    seen(Vhd::open_alone(
        source,
        VhdSize::Current,
        &Opener::new(&DenyAll, &limits),
    ));
}

/// Opens `data` as a VHDX, or the file that it makes as a script of changes to a sound one, and checks it.
pub fn vhdx(data: &[u8]) {
    let (file, base): (Arc<dyn ReadAt>, Arc<dyn ReadAt>) = if data.starts_with(crate::vhdx::MAGIC) {
        (Arc::new(data.to_vec()), Arc::new(Vec::new()))
    } else {
        match scripted(data) {
            Ok((file, base)) => (Arc::new(file), Arc::new(base)),
            Err(_) => return,
        }
    };
    let (limits, parents) = (limits(), Any(base));
    seen(Vhdx::open(file, &Opener::new(&parents, &limits)));
}

/// The file that a script makes, and the parent of a differencing one: what [`vhdx`] and [`vhdx_repair`] open.
///
/// # Errors
/// None that is not a bug of ours.
pub fn vhdx_file(data: &[u8]) -> Result<(drylab_block::SparseBytes, drylab_block::SparseBytes)> {
    scripted(data)
}

/// Repairs the VHDX that a script makes.
pub fn vhdx_repair(data: &[u8]) {
    let Ok((_, base)) = scripted(data) else {
        return;
    };
    let (base, limits) = (Any(Arc::new(base)), limits());
    mended(&Trial {
        file: &|| scripted(data).map(|(file, _)| file),
        open: &|file| boxed(Vhdx::open(file, &Opener::new(&base, &limits))),
        kept: &[],
        roomless: &[],
        drops: false,
    });
}

/// Files of one length beside a descriptor, whatever their names.
struct Beside(Arc<dyn ReadAt>);

impl Resolver for Beside {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        assert!(
            !reference.name.contains(['/', '\\', '\0']) && reference.name != "..",
            "{:?} leads out of the folder",
            reference.name
        );
        Ok(self.0.clone())
    }
}

/// Repairs `data` as a VHD, as it is and with its checksums set right.
pub fn vhd_repair(data: &[u8]) {
    let beside = Beside(parent(&Target::VhdFixed(crate::VhdOptions::default())));
    let limits = limits();
    let mut bytes = data.to_vec();
    crate::vhd::mend(&mut bytes);
    for data in [data, &bytes] {
        mended(&Trial {
            file: &|| copy(data),
            open: &|file| {
                let opener = Opener::new(&beside, &limits);
                boxed(Vhd::open(file, VhdSize::ByCreator, &opener))
            },
            kept: &[],
            roomless: &[],
            drops: false,
        });
    }
}

/// Opens `data` as a VDI. Whatever parent it names is a small fixed image.
pub fn vdi(data: &[u8]) {
    let beside = Beside(parent(&Target::VdiFixed(small_vdi())));
    let limits = limits();
    seen(Vdi::open(
        Arc::new(data.to_vec()),
        &Opener::new(&beside, &limits),
    ));
}

/// Repairs `data` as a VDI.
pub fn vdi_repair(data: &[u8]) {
    let beside = Beside(parent(&Target::VdiFixed(small_vdi())));
    let limits = limits();
    mended(&Trial {
        file: &|| copy(data),
        open: &|file| boxed(Vdi::open(file, &Opener::new(&beside, &limits))),
        // Where the data area begins inside the map there may be no room for all blocks.
        kept: &["VDI-DATA-IN-METADATA"],
        roomless: &[],
        drops: false,
    });
}

fn small_vdi() -> crate::VdiOptions {
    crate::VdiOptions {
        block_bytes: 4096,
        ..crate::VdiOptions::qemu()
    }
}

/// A small disk as a file of a format.
fn parent(target: &Target) -> Arc<dyn ReadAt> {
    let (disk, file) = (SparseBytes::new(1 << 16), SparseBytes::default());
    let made = disk
        .write_at(700, b"parent")
        .and_then(|()| crate::write(&disk, target, &file));
    assert!(made.is_ok(), "a small disk can be written");
    Arc::new(file)
}

/// Opens `data` as the descriptor of a flat VMDK whose extents are files of 1 MiB.
pub fn vmdk_flat(data: &[u8]) {
    let beside = Beside(Arc::new(drylab_block::SparseBytes::new(1 << 20)));
    let limits = limits();
    let text: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    seen(Vmdk::open(text, &Opener::new(&beside, &limits)));
}

/// Opens `data` as what it says it is.
pub fn detect(data: &[u8]) {
    let source: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    let found = crate::detect(&*source);
    if let Ok(image) = crate::open(source, &limits()) {
        let known = found.is_ok_and(|found| found.format == image.format());
        assert!(known, "what was opened must have been detected");
        drop(image.info());
        walk(&image);
    }
}
