//! Text to [`Envelope`].

use super::{
    Dialect, Encoding, Envelope, NAMESPACE_1, NAMESPACE_2, NAMESPACE_09, Section, VirtualSystem,
    check,
};
use crate::findings::{At, Findings, quote};
use crate::xml::{self, Xml, elements};
use drylab_block::{Error, Limits, Result};
use roxmltree::{Attribute, Node};
use std::sync::Arc;

const NAMESPACE_XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// Deepest nesting of collections; two levels are the most seen.
const COLLECTIONS_MAX: usize = 16;

/// Sections that DSP0243 1.1 defines and the model does not hold.
const STANDARD: [&str; 8] = [
    "DeploymentOptionSection",
    "EulaSection",
    "InstallSection",
    "ProductSection",
    "ResourceAllocationSection",
    "StartupSection",
    "Strings",
    "AnnotationSection",
];

/// Reads an OVF descriptor.
///
/// # Errors
/// [`Error::Corrupt`] when the text is no XML or its root is no OVF envelope; [`Error::Unsupported`] for OVF 2.x, for
/// unknown envelope namespaces, for document type declarations and for inputs past a bound of [`crate::xml`] or `limits`.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Envelope> {
    let mut findings = Findings::default();
    let text = xml::decode(bytes, limits, &mut findings)?;
    let xml = Xml::parse(&text.text)?;
    let root = xml.document.root_element();
    let (dialect, namespace) = dialect(&xml, root, &mut findings)?;
    let mut reader = Reader {
        xml: &xml,
        namespace,
        findings,
    };
    let mut envelope = reader.envelope(root, dialect, text.encoding)?;
    check::check(&envelope, &mut reader.findings);
    envelope.findings = reader.findings.into_list();
    Ok(envelope)
}

/// Which grammar the root declares.
fn dialect<'a>(
    xml: &Xml<'_>,
    root: Node<'a, '_>,
    findings: &mut Findings,
) -> Result<(Dialect, &'a str)> {
    let at = xml.at(root);
    let name = root.tag_name();
    if name.name() != "Envelope" {
        let (line, name) = (at.line, quote(name.name()));
        return Err(Error::corrupt(format_args!(
            "line {line}: the root element is {name}, not an OVF Envelope"
        )));
    }
    let namespace = name.namespace().unwrap_or("");
    let trimmed = namespace.trim_end_matches('/');
    let dialect = match trimmed {
        NAMESPACE_1 => Dialect::V1,
        NAMESPACE_09 => Dialect::V09,
        NAMESPACE_2 => {
            return Err(Error::unsupported(format_args!(
                "line {}: OVF 2.x ({namespace}) is not read, only 0.9, 1.0 and 1.1; its StorageItem and \
                 EthernetPortItem are unknown to importers of vSphere and XenServer too",
                at.line
            )));
        }
        _ => {
            let namespace = quote(namespace);
            return Err(Error::unsupported(format_args!(
                "line {}: envelope namespace {namespace} is not known",
                at.line
            )));
        }
    };
    if trimmed.len() != namespace.len() {
        findings.warning(
            "OVF-NAMESPACE-SLASH",
            at,
            format_args!(
                "envelope namespace {} ends in a slash: strict readers find nothing",
                quote(namespace)
            ),
        );
    }
    if dialect == Dialect::V09 {
        findings.note(
            "OVF-0.9",
            at,
            "the draft 0.9 of VMware is read as far as it maps to 1.0",
        );
    }
    Ok((dialect, namespace))
}

/// Walks the document; the parts of a virtual system are in `section.rs`.
pub(super) struct Reader<'x, 't> {
    pub(super) xml: &'x Xml<'t>,
    pub(super) namespace: &'x str,
    pub(super) findings: Findings,
}

impl Reader<'_, '_> {
    fn envelope(
        &mut self,
        root: Node<'_, '_>,
        dialect: Dialect,
        encoding: Encoding,
    ) -> Result<Envelope> {
        let before = root.prev_siblings().filter(Node::is_comment).last();
        let mut envelope = Envelope {
            dialect,
            namespace: self.namespace.to_owned(),
            version: self.attribute(root, "version"),
            build: self.vmw_attribute(root, "buildId"),
            generator: before
                .and_then(|comment| comment.text())
                .map(|text| text.trim().to_owned()),
            encoding,
            references: Vec::new(),
            disks: Vec::new(),
            networks: Vec::new(),
            systems: Vec::new(),
            is_collection: false,
            sections: Vec::new(),
            findings: Vec::new(),
        };
        for node in elements(root) {
            match self.kind(node).as_str() {
                "Info" => {}
                "References" => self.references(node, &mut envelope.references),
                "DiskSection" => self.disks(node, &mut envelope.disks),
                "NetworkSection" => self.networks(node, &mut envelope.networks),
                "VirtualSystem" => self.system(node, &[], &mut envelope),
                "VirtualSystemCollection" => self.collection(node, &[], &mut envelope)?,
                kind => envelope.sections.push(self.section(node, kind)),
            }
        }
        Ok(envelope)
    }

    /// A collection: its systems, its collections, and sections that belong to the group.
    fn collection(
        &mut self,
        node: Node<'_, '_>,
        around: &[Arc<str>],
        envelope: &mut Envelope,
    ) -> Result<()> {
        envelope.is_collection = true;
        if around.len() >= COLLECTIONS_MAX {
            let line = self.xml.at(node).line;
            return Err(Error::unsupported(format_args!(
                "line {line}: more than {COLLECTIONS_MAX} collections inside each other"
            )));
        }
        let mut path = around.to_vec();
        path.push(Arc::from(self.attribute(node, "id").unwrap_or_default()));
        for child in elements(node) {
            match self.kind(child).as_str() {
                "Info" | "Name" => {}
                "VirtualSystem" => self.system(child, &path, envelope),
                "VirtualSystemCollection" => self.collection(child, &path, envelope)?,
                kind => envelope.sections.push(self.section(child, kind)),
            }
        }
        Ok(())
    }

    fn system(&mut self, node: Node<'_, '_>, path: &[Arc<str>], envelope: &mut Envelope) {
        let id = self.required_attribute(node, "id", "OVF-SYSTEM-ID");
        let mut system = VirtualSystem {
            id,
            name: None,
            os: None,
            hardware: Vec::new(),
            annotation: None,
            sections: Vec::new(),
            collections: path.to_vec(),
            line: self.xml.at(node).line,
        };
        for child in elements(node) {
            match self.kind(child).as_str() {
                "Info" => {}
                "Name" => system.name = Some(xml::text_of(child)),
                "OperatingSystemSection" if system.os.is_none() => {
                    system.os = Some(self.operating_system(child))
                }
                "VirtualHardwareSection" => {
                    let hardware = self.hardware(child);
                    system.hardware.push(hardware);
                }
                "AnnotationSection" if system.annotation.is_none() => {
                    let text = elements(child).find(|node| node.tag_name().name() == "Annotation");
                    system.annotation = text.map(xml::text_of);
                }
                kind => {
                    let section = self.section(child, kind);
                    system.sections.push(section);
                }
            }
        }
        envelope.systems.push(system);
    }

    fn section(&mut self, node: Node<'_, '_>, kind: &str) -> Section {
        let name = if kind.is_empty() {
            node.tag_name().name()
        } else {
            kind
        };
        Section {
            name: name.to_owned(),
            namespace: node.tag_name().namespace().unwrap_or("").to_owned(),
            required: self.required(node),
            standard: STANDARD.contains(&kind),
            line: self.xml.at(node).line,
        }
    }

    /// What an element of the envelope is: its name, or the type of a `Section` or `Content` (0.9 and oVirt); empty for
    /// elements of other namespaces.
    pub(super) fn kind(&mut self, node: Node<'_, '_>) -> String {
        if !self.is_ovf(node) {
            return String::new();
        }
        let name = node.tag_name().name();
        if !matches!(name, "Section" | "Content") {
            return name.to_owned();
        }
        let Some(kind) = node.attribute((NAMESPACE_XSI, "type")) else {
            let at = self.xml.at(node);
            self.findings.error(
                super::UNTYPED_SECTION,
                at,
                format_args!("<{name}> has no xsi:type: importers stop here"),
            );
            return String::new();
        };
        let local = kind.rsplit_once(':').map_or(kind, |(_, local)| local);
        local.strip_suffix("_Type").unwrap_or(local).to_owned()
    }

    /// Whether an element is of the envelope's namespace. oVirt leaves its children without any.
    pub(super) fn is_ovf(&self, node: Node<'_, '_>) -> bool {
        node.tag_name()
            .namespace()
            .is_none_or(|namespace| namespace == self.namespace)
    }

    /// An attribute in the envelope's namespace, or (said so) without one.
    pub(super) fn attribute(&mut self, node: Node<'_, '_>, name: &str) -> Option<String> {
        if let Some(value) = node.attribute((self.namespace, name)) {
            return Some(value.to_owned());
        }
        // `xenovf:version` is not a version without a namespace: the document asks for its own.
        let bare = |attribute: &Attribute<'_, '_>| {
            attribute.namespace().is_none() && attribute.name() == name
        };
        let value = node.attributes().find(bare)?.value();
        let at = self.xml.at(node);
        self.findings.note(
            "OVF-ATTRIBUTE-UNQUALIFIED",
            at,
            format_args!("attribute {name} has no namespace; read as ovf:{name}"),
        );
        Some(value.to_owned())
    }

    /// The same, with a finding and an empty string when it is missing.
    pub(super) fn required_attribute(
        &mut self,
        node: Node<'_, '_>,
        name: &str,
        code: &'static str,
    ) -> String {
        self.attribute(node, name).unwrap_or_else(|| {
            let at = self.xml.at(node);
            let element = node.tag_name().name();
            self.findings.error(
                code,
                at,
                format_args!(
                    "<{}> has no ovf:{name}",
                    element.chars().take(80).collect::<String>()
                ),
            );
            String::new()
        })
    }

    pub(super) fn vmw_attribute(&self, node: Node<'_, '_>, name: &str) -> Option<String> {
        node.attribute((super::NAMESPACE_VMW, name))
            .map(ToOwned::to_owned)
    }

    /// `ovf:required`: true unless it says otherwise.
    pub(super) fn required(&mut self, node: Node<'_, '_>) -> bool {
        let Some(text) = self.attribute(node, "required") else {
            return true;
        };
        let at = self.xml.at(node);
        self.boolean(&text, "ovf:required", at).unwrap_or(true)
    }

    /// `xs:boolean`; letter case is forgiven and said so.
    pub(super) fn boolean(&mut self, text: &str, what: &str, at: At) -> Option<bool> {
        match text.trim() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            other => {
                let value = match other.to_ascii_lowercase().as_str() {
                    "true" => Some(true),
                    "false" => Some(false),
                    _ => None,
                };
                self.findings.warning(
                    "OVF-BOOLEAN",
                    at,
                    format_args!("{what} is {}, neither true nor false", quote(other)),
                );
                value
            }
        }
    }

    /// An unsigned number; blanks around it are allowed.
    pub(super) fn number<N: std::str::FromStr>(
        &mut self,
        text: &str,
        what: &str,
        at: At,
    ) -> Option<N> {
        let value = text.trim().parse().ok();
        if value.is_none() {
            self.findings.error(
                "OVF-NUMBER",
                at,
                format_args!("{what} is {}, not a number of its range", quote(text)),
            );
        }
        value
    }
}
