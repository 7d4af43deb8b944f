//! virt-image descriptors: what virt-convert writes and `virt-image` makes a domain of.
//!
//! Source: python-virtinst, `man virt-image` and virt-image(5).
//!
//! ```text
//! image
//!   name
//!   domain/boot[@type]/(os/(arch, loader), drive[@disk @target]*)
//!   domain/devices/(vcpu, memory in KiB, interface*, graphics)
//!   storage/disk[@file @use @format]*
//! ```

use crate::findings::{Findings, quote};
use crate::xml::{self, Printer, Xml, elements, text_of};
use drylab_block::{Error, Limits, Result};

/// A descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtImage {
    /// `name`.
    pub name: String,
    /// `boot/@type`: `hvm` or `xen`.
    pub boot: String,
    /// `os/arch`.
    pub arch: String,
    /// `drive`: disk file and target such as `hda`.
    pub drives: Vec<(String, String)>,
    /// `vcpu`.
    pub vcpus: u32,
    /// `memory` in KiB.
    pub memory_kib: u64,
    /// Number of `interface` elements. With none, virt-convert leaves the word `None` in their place.
    pub interfaces: u32,
    /// `storage/disk`: file and format.
    pub disks: Vec<(String, String)>,
}

/// Reads a descriptor.
///
/// # Errors
/// [`Error::Corrupt`] when it is no XML with an `image` root, or a number is missing.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<VirtImage> {
    let text = xml::decode(bytes, limits, &mut Findings::default())?;
    let xml = Xml::parse(&text.text)?;
    let root = xml.document.root_element();
    if root.tag_name().name() != "image" {
        let (line, name) = (xml.at(root).line, quote(root.tag_name().name()));
        return Err(Error::corrupt(format_args!(
            "line {line}: the root element is {name}, not an image"
        )));
    }
    let first = |name: &str| root.descendants().find(|node| node.has_tag_name(name));
    let word = |name: &str| first(name).map(text_of).unwrap_or_default();
    let number = |name: &str| {
        let node = first(name).ok_or_else(|| Error::corrupt(format_args!("no element {name}")))?;
        let line = xml.at(node).line;
        let wrong = || Error::corrupt(format_args!("line {line}: {name} is no number"));
        text_of(node).parse::<u64>().map_err(|_| wrong())
    };
    let pairs = |parent: &str, child: &str, one: &str, two: &str| {
        let parent = first(parent);
        let children = parent
            .into_iter()
            .flat_map(elements)
            .filter(|node| node.has_tag_name(child));
        let pair = |node: roxmltree::Node<'_, '_>| {
            Some((
                node.attribute(one)?.to_owned(),
                node.attribute(two)?.to_owned(),
            ))
        };
        children.filter_map(pair).collect()
    };
    let interfaces = root
        .descendants()
        .filter(|node| node.has_tag_name("interface"))
        .count();
    Ok(VirtImage {
        name: word("name"),
        boot: first("boot")
            .and_then(|node| node.attribute("type"))
            .unwrap_or_default()
            .to_owned(),
        arch: word("arch"),
        drives: pairs("boot", "drive", "disk", "target"),
        vcpus: u32::try_from(number("vcpu")?).unwrap_or(u32::MAX),
        memory_kib: number("memory")?,
        interfaces: u32::try_from(interfaces).unwrap_or(u32::MAX),
        disks: pairs("storage", "disk", "file", "format"),
    })
}

/// Writes a descriptor the way virt-convert does.
///
/// # Errors
/// [`Error::Unsupported`] when a text has a character that XML cannot spell.
pub fn print(image: &VirtImage) -> Result<Vec<u8>> {
    let mut printer = Printer::new();
    printer.open("image", &[]);
    printer.leaf("name", &[], &image.name);
    printer.open("domain", &[]);
    printer.open("boot", &[("type", &image.boot)]);
    printer.open("os", &[]);
    printer.leaf("arch", &[], &image.arch);
    printer.close("os");
    for (disk, target) in &image.drives {
        printer.empty("drive", &[("disk", disk), ("target", target)]);
    }
    printer.close("boot");
    printer.open("devices", &[]);
    printer.leaf("vcpu", &[], &image.vcpus.to_string());
    printer.leaf("memory", &[], &image.memory_kib.to_string());
    for _ in 0..image.interfaces {
        printer.empty("interface", &[]);
    }
    if image.interfaces == 0 {
        printer.text("None");
    }
    printer.empty("graphics", &[]);
    printer.close("devices");
    printer.close("domain");
    printer.open("storage", &[]);
    for (file, format) in &image.disks {
        printer.empty(
            "disk",
            &[("file", file), ("use", "system"), ("format", format)],
        );
    }
    printer.close("storage");
    printer.close("image");
    printer.finish()
}

#[cfg(test)]
mod tests {
    use super::{VirtImage, parse, print};
    use drylab_block::Limits;

    #[test]
    fn what_is_printed_is_read_back() {
        let image = VirtImage {
            name: "guest".to_owned(),
            boot: "hvm".to_owned(),
            arch: "x86_64".to_owned(),
            drives: vec![("a & b.raw".to_owned(), "hda".to_owned())],
            vcpus: 2,
            memory_kib: 524_288,
            interfaces: 1,
            disks: vec![("a & b.raw".to_owned(), "raw".to_owned())],
        };
        assert_eq!(parse(&print(&image).unwrap(), &Limits::DEFAULT), Ok(image));
        assert!(parse(b"<domain/>", &Limits::DEFAULT).is_err());
        assert!(parse(b"<image><vcpu>two</vcpu></image>", &Limits::DEFAULT).is_err());
    }
}
