//! `drylab image create`

use super::convert::{WrittenDocument, name_of, present, refuse_own, write};
use super::document::{FORMAT, json};
use super::target::{Chosen, Shape, choose};
use super::{Opened, open};
use crate::args::Format;
use crate::exit::{Exit, Stop, While};
use crate::image_args::{CreateArgs, Sync};
use crate::sink::FileSink;
use crate::terminal;
use drylab_block::{Error, Extent, ExtentKind, ReadAt, Result, content_id};
use drylab_image::vhd::ParentLink;
use drylab_image::vhdx::Guid;
use drylab_image::{
    Format as Kind, Qcow2Backing, Qcow2Layers, Qcow2Options, Target, VhdOptions, VhdxOptions,
    VhdxParent, VmdkOptions, VmdkParent, Work, Written, vhd, write_qcow2_layers, write_vhdx_child,
    write_vmdk_child,
};
use serde::Serialize;
use std::path::Path;

/// A disk of zeros.
struct Zeros(u64);

impl ReadAt for Zeros {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        if offset.checked_add(length).is_none_or(|end| end > self.0) {
            return Err(Error::io(format_args!(
                "read of {length} bytes at offset {offset} ends past the end ({})",
                self.0
            )));
        }
        buffer.fill(0);
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Extent {
        Extent {
            offset,
            length: self.0.saturating_sub(offset),
            kind: ExtentKind::Hole,
        }
    }
}

#[derive(Serialize)]
struct Document {
    format: u32,
    made: WrittenDocument,
}

pub(super) fn run(args: &CreateArgs) -> Result<Exit, Stop> {
    let mut chosen = choose(&args.into)?;
    let (size, written) = match &args.backing {
        None => {
            let size = args.size.unwrap_or(0);
            chosen.refuse_misfits(size)?;
            let task = || format!("create {}", args.file.display());
            identify(
                &mut chosen.shape,
                identity(&[], size, &args.file).on(task())?,
            );
            let made = write(
                &Zeros(size),
                &chosen.shape,
                &args.file,
                (&args.into, &[]),
                &Work::ALONE,
            );
            (size, made.on(task())?)
        }
        Some(backing) => {
            let parent = open(backing, &args.reading)?;
            if refuse_own(&args.file, &parent.beneath.read()).is_err() {
                return Err(Stop::usage("an image cannot stand on itself"));
            }
            let size = args.size.unwrap_or(parent.image.virtual_size());
            if matches!(
                &chosen.shape,
                Shape::One(Target::VhdDynamic(_) | Target::VhdxDynamic(_))
            ) {
                chosen.subformat = "differencing";
            }
            chosen.refuse_misfits(size)?;
            let written = child(args, &chosen, size, &parent)?;
            (size, written)
        }
    };
    let document = Document {
        format: FORMAT,
        made: WrittenDocument::of(&args.file, &chosen, size, written.file_bytes),
    };
    terminal::print(&match args.format {
        Format::Json => json(&document)?,
        Format::Text => document.made.text(),
    })?;
    Ok(Exit::Done)
}

/// How images that stand on others are written.
enum ChildOptions<'a> {
    Vhd(&'a VhdOptions),
    Vhdx(&'a VhdxOptions),
    Vmdk(&'a VmdkOptions),
    Qcow2(&'a Qcow2Options),
}

impl<'a> ChildOptions<'a> {
    fn of(chosen: &'a Chosen) -> Result<Self, Stop> {
        match &chosen.shape {
            Shape::One(Target::VhdDynamic(options)) => Ok(Self::Vhd(options)),
            Shape::One(Target::VhdxDynamic(options)) => Ok(Self::Vhdx(options)),
            Shape::One(Target::VmdkSparse(options)) => Ok(Self::Vmdk(options)),
            Shape::One(Target::Qcow2(options)) => Ok(Self::Qcow2(options)),
            _ => Err(Stop::usage(format_args!(
                "images that stand on others are written as qcow2, vmdk (monolithicSparse), vhd or vhdx (dynamic), and not as {} {}",
                chosen.format, chosen.subformat
            ))),
        }
    }
}

/// An image that holds nothing and stands on another: both disks are taken to be zeros, so nothing differs.
struct Child<'a> {
    args: &'a CreateArgs,
    parent: &'a Opened,
    /// The parent's name, as it is written.
    name: String,
    size: u64,
}

fn child(args: &CreateArgs, chosen: &Chosen, size: u64, parent: &Opened) -> Result<Written, Stop> {
    let kind = ChildOptions::of(chosen)?;
    let backing = args.backing.as_deref().unwrap_or(Path::new(""));
    let is_qcow2 = matches!(kind, ChildOptions::Qcow2(_));
    let format = parent.image.format();
    if !is_qcow2 && format != chosen.format {
        return Err(Stop::usage(format_args!(
            "a {} stands on a {}, and {} is a {format}",
            chosen.format,
            chosen.format,
            backing.display()
        )));
    }
    let name = if is_qcow2 {
        reached(backing, &args.file)?
    } else {
        plain(beside(backing, &args.file)?, chosen.format)?
    };
    let child = Child {
        args,
        parent,
        name,
        size,
    };
    let written = match kind {
        ChildOptions::Vhd(options) => child.vhd(options),
        ChildOptions::Vhdx(options) => child.vhdx(options),
        ChildOptions::Vmdk(options) => child.vmdk(options),
        ChildOptions::Qcow2(options) => child.qcow2(options),
    };
    written.on(format!("create {}", args.file.display()))
}

impl Child<'_> {
    /// Makes the file, has it written, and gives it its name.
    fn made(&self, write: impl FnOnce(&FileSink) -> Result<Written>) -> Result<Written> {
        let read = self.parent.beneath.read();
        let sink = FileSink::create(&self.args.file, present(&self.args.into, &read))?;
        let written = write(&sink)?;
        sink.commit(self.args.into.sync == Sync::Always)?;
        Ok(written)
    }

    fn vhd(&self, options: &VhdOptions) -> Result<Written> {
        let link = ParentLink::beside(&*self.parent.source, &self.name)?;
        let id = identity(&link.unique_id, self.size, &self.args.file)?;
        let options = VhdOptions {
            unique_id: Some(id),
            ..options.clone()
        };
        let zeros = Zeros(self.size);
        self.made(|sink| vhd::write_child(&zeros, &zeros, &link, &options, sink))
    }

    fn vhdx(&self, options: &VhdxOptions) -> Result<Written> {
        let link = VhdxParent::of(&self.parent.image.info(), &format!(".\\{}", self.name));
        let link = link.ok_or_else(|| Error::corrupt("its parent has no DataWriteGuid"))?;
        let zeros = Zeros(self.size);
        self.made(|sink| write_vhdx_child(&zeros, &zeros, &link, options, sink))
    }

    fn vmdk(&self, options: &VmdkOptions) -> Result<Written> {
        let link = VmdkParent::of(&self.parent.image.info(), &self.name);
        let link = link.ok_or_else(|| Error::corrupt("its parent has no CID"))?;
        let parent = link.content_id.to_be_bytes();
        let [a, b, c, d, ..] = mixed(&parent, self.size, &self.args.file)?.to_be_bytes();
        let options = VmdkOptions {
            // ffffffff says that there is none.
            content_id: Some(u32::from_be_bytes([a & 0x7f, b, c, d])),
            file_name: name_of(&self.args.file)?,
            ..options.clone()
        };
        let zeros = Zeros(self.size);
        self.made(|sink| write_vmdk_child(&zeros, &zeros, &link, &options, sink))
    }

    fn qcow2(&self, options: &Qcow2Options) -> Result<Written> {
        let below = Zeros(self.parent.image.virtual_size());
        let format = match self.parent.image.format() {
            Kind::Vhd => "vpc",
            other => other.name(),
        };
        let layers = Qcow2Layers {
            version: options.version,
            cluster_bits: options.cluster_bits,
            backing: Some(Qcow2Backing {
                disk: &below,
                name: &self.name,
                format,
            }),
            ..Qcow2Layers::default()
        };
        let zeros = Zeros(self.size);
        self.made(|sink| write_qcow2_layers(&zeros, &layers, sink, &Work::ALONE))
    }
}

/// The name of the backing file of a qcow2: from the child's folder when it stands there, else from the root.
fn reached(parent: &Path, child: &Path) -> Result<String, Stop> {
    if let Ok(name) = beside(parent, child) {
        return Ok(not_a_protocol(name));
    }
    let path = parent.canonicalize().ok();
    let path = path.and_then(|path| path.to_str().map(str::to_owned));
    path.ok_or_else(|| Stop::usage("the path of the backing file is no text in UTF-8"))
}

/// The name of the parent, which stands in the child's folder: readers look for it there and nowhere else.
fn beside(parent: &Path, child: &Path) -> Result<String, Stop> {
    let folder = |path: &Path| match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.canonicalize().ok(),
        _ => Path::new(".").canonicalize().ok(),
    };
    let name = parent.file_name().and_then(|name| name.to_str());
    match name {
        Some(name) if folder(parent).is_some() && folder(parent) == folder(child) => {
            Ok(name.to_owned())
        }
        _ => Err(Stop::usage(format_args!(
            "the parent {} must stand in the same folder as its child {}, under a name in UTF-8: readers look for it there",
            parent.display(),
            child.display()
        ))),
    }
}

/// A name that readers of such a child find again: what is behind a drive or a folder of Windows they take for all of it,
/// and nothing of it where it has a control character. In a VMDK it stands in quotes.
fn plain(name: String, format: Kind) -> Result<String, Stop> {
    let strange =
        |c: char| c.is_control() || matches!(c, ':' | '\\') || (c == '"' && format == Kind::Vmdk);
    match name.chars().find(|c| strange(*c)) {
        Some(found) => Err(Stop::usage(format_args!(
            "the parent's name {name:?} has {found:?}, with which readers of the child would look for another file; give it \
             another name"
        ))),
        None => Ok(name),
    }
}

/// A name that QEMU does not take for a protocol and an address: `nbd:`, `json:`.
fn not_a_protocol(name: String) -> String {
    match name.contains(':') {
        true => format!("./{name}"),
        false => name,
    }
}

/// A number of its own for each child of a parent: made of both, so that equal commands make equal files.
fn mixed(parent: &[u8], size: u64, path: &Path) -> Result<u128> {
    let mut bytes = parent.to_vec();
    bytes.extend(size.to_be_bytes());
    bytes.extend(path.file_name().unwrap_or_default().as_encoded_bytes());
    Ok(content_id(&bytes)?.0)
}

/// [`mixed`], with the marks of a UUID of version 8 (RFC 9562).
fn identity(parent: &[u8], size: u64, path: &Path) -> Result<[u8; 16]> {
    let id = mixed(parent, size, path)?;
    let marked = (id & !(0xf << 76) & !(0x3 << 62)) | (0x8 << 76) | (0x2 << 62);
    Ok(marked.to_be_bytes())
}

/// Gives an empty disk an identity of its own: products that know disks by it take two of one for the same.
fn identify(shape: &mut Shape, id: [u8; 16]) {
    match shape {
        Shape::One(Target::VhdFixed(options) | Target::VhdDynamic(options)) => {
            options.unique_id = Some(id);
        }
        Shape::One(Target::VdiFixed(options) | Target::VdiDynamic(options)) => {
            options.uuid_create = Some(id);
        }
        Shape::One(Target::VhdxFixed(options) | Target::VhdxDynamic(options)) => {
            options.disk_id = Some(Guid::of_uuid(id));
            options.data_write_guid = Some(Guid::of_uuid(id));
        }
        Shape::One(_) | Shape::Flat(..) | Shape::Split(..) => {}
    }
}
