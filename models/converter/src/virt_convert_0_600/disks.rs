//! What happens to the disks: copied or converted, under which name.

use super::machine::{Disk, Kind, Vm};
use super::{DiskFormat, Options};
use crate::ToolError;
use crate::qemu_img_0_12::{self, Format};
use drylab_appliance::Package;
use drylab_block::{DenyAll, ReadAt, SparseBytes};
use drylab_catalog::Witness;
use std::sync::Arc;

fn suffix(format: Format) -> &'static str {
    match format {
        Format::Raw => ".raw",
        Format::Vmdk => ".vmdk",
        Format::Vpc => ".vpc",
        Format::Qcow2 => ".qcow2",
    }
}

/// The name of the output: every occurrence of the old suffix replaced, blanks become underscores.
fn out_name(path: &str, from: Format, to: Format) -> String {
    let name = path.replace(suffix(from), suffix(to));
    name.chars()
        .map(|c| if c.is_whitespace() { '_' } else { c })
        .collect()
}

fn failed(message: impl std::fmt::Display) -> ToolError {
    ToolError::new(format!("ERROR    Couldn't convert disks: {message}"))
}

/// Brings every disk of `vm` into `output`, and gives it its new name and format.
pub(crate) fn convert(
    vm: &mut Vm,
    input: &Package,
    options: &Options,
    output: &mut Package,
    notes: &mut Vec<Witness>,
) -> Result<(), ToolError> {
    let wanted = options.disk_format();
    let mut named_otherwise = false;
    for disk in vm.disks.values_mut().filter(|disk| disk.kind == Kind::Disk) {
        named_otherwise |= disk
            .path
            .as_deref()
            .is_some_and(|path| !path.to_lowercase().ends_with(".vmdk"));
        one(disk, wanted, input, options, output, notes)?;
    }
    if named_otherwise {
        vm.cite("GQ95");
        vm.cite("HQ55");
    }
    if wanted == DiskFormat::To(Format::Raw) {
        vm.cite("GQ154");
    }
    Ok(())
}

fn one(
    disk: &mut Disk,
    wanted: DiskFormat,
    input: &Package,
    options: &Options,
    output: &mut Package,
    notes: &mut Vec<Witness>,
) -> Result<(), ToolError> {
    let Some(path) = disk.path.clone() else {
        return Ok(());
    };
    let target = match wanted {
        DiskFormat::To(format) if format != disk.format => format,
        _ => return copy(disk, &path, input, output),
    };
    if path.starts_with('/') {
        return Err(failed(format_args!(
            "Cannot convert disk with absolute path {path}"
        )));
    }
    let name = out_name(&path, disk.format, target);
    let file = input.files.get(&path);
    let source = qemu_img_0_12::Input {
        name: &path,
        file,
        declared: None,
        resolver: &DenyAll,
    };
    let made = qemu_img_0_12::convert_named(&source, &name, target).map_err(|error| {
        let status = error.exit;
        let mut mine = failed(format_args!(
            "Disk conversion failed with exit status {status}: {}",
            error.message
        ));
        mine.witness = error.witness;
        mine
    })?;
    if made.exit != 0 {
        // A child that a signal ended has the negative number of the signal as its status.
        let status = if made.exit > 128 {
            128i32.saturating_sub(made.exit)
        } else {
            made.exit
        };
        let mut error = failed(format_args!(
            "Disk conversion failed with exit status {status}: {}",
            made.message
        ));
        error.witness = made.notes;
        return Err(error);
    }
    notes.extend(made.notes);
    let own_input = options.same_folder && name == path;
    let bytes = if own_input {
        notes.push(Witness::quirk("GQ153"));
        // The output is emptied before the first byte of the input is read.
        let size = made.file.len();
        let emptied: Arc<dyn ReadAt> = Arc::new(SparseBytes::new(size));
        qemu_img_0_12::convert(&emptied, Some("raw"), target)?.file
    } else {
        made.file
    };
    keep(output, &name, bytes);
    (disk.path, disk.format) = (Some(name), target);
    Ok(())
}

/// Two entries of one path are one file.
fn keep(output: &mut Package, name: &str, bytes: Arc<dyn ReadAt>) {
    if !output.disks.iter().any(|known| known == name) {
        output.disks.push(name.to_owned());
    }
    output.put(name, bytes);
}

fn copy(
    disk: &mut Disk,
    path: &str,
    input: &Package,
    output: &mut Package,
) -> Result<(), ToolError> {
    if path.starts_with('/') {
        return Ok(());
    }
    let name = out_name(path, disk.format, disk.format);
    let bytes = input.files.get(path).ok_or_else(|| {
        failed(format_args!(
            "[Errno 2] No such file or directory: '{path}'"
        ))
    })?;
    keep(output, &name, bytes.clone());
    disk.path = Some(name);
    Ok(())
}
