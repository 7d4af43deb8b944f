//! Entry points for fuzzing: each takes any bytes, walks everything they lead to, and must not panic.

use crate::qemu_img_0_12::{self, Format};
use crate::qemu_img_10;
use crate::virt_convert_0_600::{self, Input, Options};
use crate::{virt_v2v_2, xenconvert_2_3};
use drylab_appliance::Package;
use drylab_block::{ExtentKind, Extents, Limits, ReadAt};
use std::sync::Arc;

/// Largest disk whose bytes are converted: a header may claim any size.
const CONVERTED_MAX: u64 = 16 << 20;
/// Extents looked at of one disk.
const EXTENTS_MAX: usize = 4096;

/// Reads bytes as every format of qemu-img 0.12, and writes what was read as every format; then opens them as qemu-img 10.
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
        if let (Ok(info), Ok(raw)) = (
            qemu_img_10::info(&file, declared),
            qemu_img_10::convert(&file, declared, qemu_img_10::Format::Raw),
        ) {
            assert_eq!(
                info.virtual_size,
                raw.file.len(),
                "info and convert of version 10 see one disk"
            );
        }
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

/// Reads bytes as an OVF descriptor beside one disk: virt-convert, and the two later tools that read OVF.
pub fn virt_convert_ovf(data: &[u8]) {
    let package = virt_convert(data, "guest.ovf", Input::Ovf);
    later(&package);
}

/// Reads bytes as a VMX file beside one disk; the same bytes stand as its disk descriptor too.
pub fn virt_convert_vmx(data: &[u8]) {
    let package = virt_convert(data, "guest.vmx", Input::Vmx);
    later(&package);
}

/// virt-v2v 2 and XenConvert: none of these disks has a guest, so that the first must refuse.
fn later(package: &Package) {
    let options = virt_v2v_2::Options {
        bridge: "br0".to_owned(),
        virtio_win: false,
    };
    assert!(
        virt_v2v_2::convert(package, &options).is_err(),
        "there is no guest to convert"
    );
    let options = xenconvert_2_3::Options {
        output: xenconvert_2_3::Output::Ovf,
        network: "Network 0".to_owned(),
    };
    let disk = package.files.get("disk.vmdk").cloned();
    let image = disk.and_then(|disk| drylab_image::open(disk, &Limits::DEFAULT).ok());
    if image.is_none_or(|image| image.virtual_size() > CONVERTED_MAX) {
        return;
    }
    let input = xenconvert_2_3::Input::Vmware(package);
    if let Ok(made) = xenconvert_2_3::convert(&input, &options) {
        assert!(
            made.edits.is_empty(),
            "a disk without a guest stays as it is"
        );
    }
}

fn virt_convert(data: &[u8], name: &str, input: Input) -> Package {
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
    package
}
