//! Entry points for fuzzing: each takes any bytes, walks everything they lead to, and must not panic.

use crate::qemu_img_0_12::{self, Format};
use crate::virt_convert_0_600::{self, Input, Options};
use drylab_appliance::Package;
use drylab_block::{ExtentKind, Extents, ReadAt};
use std::sync::Arc;

/// Largest disk whose bytes are converted: a header may claim any size.
const CONVERTED_MAX: u64 = 16 << 20;
/// Extents looked at of one disk.
const EXTENTS_MAX: usize = 4096;

/// Reads bytes as every format of qemu-img 0.12, and writes what was read as every format.
///
/// # Panics
/// When the extents of a disk do not follow one another.
pub fn qemu_img(data: &[u8]) {
    let file: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    let names = [
        "raw",
        "vmdk",
        "vpc",
        "qcow",
        "qcow2",
        "qed",
        "vdi",
        "parallels",
    ];
    for declared in std::iter::once(None).chain(names.map(Some)) {
        let info = qemu_img_0_12::info(&file, declared);
        let Ok(raw) = qemu_img_0_12::convert(&file, declared, Format::Raw) else {
            continue;
        };
        assert_eq!(
            info.map(|info| info.virtual_size),
            Ok(raw.file.len()),
            "info and convert see one disk"
        );
        let mut at = 0;
        let mut bytes = 0u64;
        for extent in Extents::new(&raw.file).take(EXTENTS_MAX) {
            assert_eq!(extent.offset, at, "extents follow one another");
            at = extent.offset.saturating_add(extent.length);
            if extent.kind == ExtentKind::Data {
                bytes = bytes.saturating_add(extent.length);
            }
        }
        if raw.file.len() > CONVERTED_MAX || bytes > CONVERTED_MAX {
            continue;
        }
        for format in [Format::Vmdk, Format::Vpc, Format::Qcow2] {
            if let Ok(made) = qemu_img_0_12::convert(&file, declared, format) {
                let back = qemu_img_0_12::info(&made.file, Some(format.name()));
                assert!(back.is_ok(), "what the tool writes it reads");
            }
        }
    }
}

/// Reads bytes as an OVF descriptor beside one disk.
pub fn virt_convert_ovf(data: &[u8]) {
    virt_convert(data, "guest.ovf", Input::Ovf);
}

/// Reads bytes as a VMX file beside one disk; the same bytes stand as its disk descriptor too.
pub fn virt_convert_vmx(data: &[u8]) {
    virt_convert(data, "guest.vmx", Input::Vmx);
}

fn virt_convert(data: &[u8], name: &str, input: Input) {
    let mut package = Package {
        descriptor: name.to_owned(),
        ..Package::default()
    };
    package.put(name, Arc::new(data.to_vec()));
    for disk in ["disk1.vmdk", "disk.vmdk"] {
        package.put(disk, Arc::new(data.to_vec()));
    }
    for input in [None, Some(input)] {
        for output in [
            virt_convert_0_600::Output::VirtImage,
            virt_convert_0_600::Output::Vmx,
        ] {
            let options = Options {
                input,
                output,
                ..Options::default()
            };
            if let Ok(made) = virt_convert_0_600::convert(&package, &options) {
                assert!(
                    made.package.file(&made.package.descriptor).is_ok(),
                    "the descriptor is among the files"
                );
            }
        }
    }
}
