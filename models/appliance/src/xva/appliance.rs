//! `ova.xml`: the records of a machine and what they refer to.

use super::value::Value;
use crate::findings::{At, Findings, quote};
use crate::xml::{self, Xml};
use drylab_block::{Error, Finding, Limits, Result};
use std::collections::BTreeSet;

/// A whole `ova.xml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appliance {
    /// Who exported: `product_version`, `build_number`, `export_vsn` and so on.
    pub version: Value,
    /// Records in document order.
    pub objects: Vec<Object>,
    /// What the file does against the form, or what had to be assumed.
    pub findings: Vec<Finding>,
}

/// A record of xapi's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// `VM`, `VBD`, `VIF`, `network`, `VDI`, `SR` and rarer ones.
    pub class: String,
    /// Its name in this file: `Ref:0`.
    pub id: String,
    /// Its fields; those that refer to other records hold their `id`, or `OpaqueRef:NULL`.
    pub snapshot: Value,
}

impl Object {
    fn place(&self) -> String {
        format!("{} {}", quote(&self.class), quote(&self.id))
    }

    /// A scalar field; empty when it is missing.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.snapshot
            .get(field)
            .and_then(Value::scalar)
            .unwrap_or("")
    }

    /// Whether a field says yes: `1` or `true`.
    #[must_use]
    pub fn flag(&self, field: &str) -> bool {
        matches!(self.text(field), "1" | "true")
    }

    /// A field that holds a number.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is missing or no number of its range.
    pub fn number<N: std::str::FromStr>(&self, field: &str) -> Result<N> {
        let text = self.text(field);
        text.parse().map_err(|_| {
            let (place, text) = (self.place(), quote(text));
            Error::corrupt(format_args!(
                "{place}: {field} is {text}, not a number of its range"
            ))
        })
    }

    /// A field that holds a map of texts; empty when it is missing.
    #[must_use]
    pub fn pairs(&self, field: &str) -> Vec<(String, String)> {
        let Some(Value::Struct(members)) = self.snapshot.get(field) else {
            return Vec::new();
        };
        let pairs = members
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.scalar()?.to_owned())));
        pairs.collect()
    }
}

/// Root element of the older form.
const VERSION_1_ROOT: &str = "appliance";

impl Appliance {
    /// Reads an `ova.xml`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is no XML-RPC value with `version` and `objects`; [`Error::Unsupported`] for the older
    /// form `appliance version="0.1"` (XVA version 1: a folder with gzipped chunks, quirk GQ141), for document type
    /// declarations and past a bound of [`crate::xml`] or `limits`.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let mut findings = Findings::default();
        let text = xml::decode(bytes, limits, &mut findings)?;
        let xml = Xml::parse(&text.text)?;
        let root = xml.document.root_element();
        match root.tag_name().name() {
            "value" => {}
            VERSION_1_ROOT => {
                let version = quote(root.attribute("version").unwrap_or(""));
                return Err(Error::unsupported(format_args!(
                    "ova.xml of appliance version {version} (XVA version 1) is not read"
                )));
            }
            other => {
                let (line, name) = (xml.at(root).line, quote(other));
                return Err(Error::corrupt(format_args!(
                    "line {line}: the root element is {name}, not the value of an XVA"
                )));
            }
        }
        let Value::Struct(members) = Value::read(&xml, root, &mut findings)? else {
            return Err(Error::corrupt("ova.xml is no struct"));
        };
        let mut version = Value::Struct(Vec::new());
        let mut objects = None;
        for (name, value) in members {
            match name.as_str() {
                "version" => version = value,
                "objects" if objects.is_none() => objects = Some(read_objects(value)?),
                _ => findings.note(
                    "XVA-MEMBER",
                    At::default(),
                    format_args!("{} is not kept", quote(&name)),
                ),
            }
        }
        let objects = objects.ok_or_else(|| Error::corrupt("ova.xml has no objects"))?;
        check(&version, &objects, &mut findings);
        Ok(Self {
            version,
            objects,
            findings: findings.into_list(),
        })
    }

    /// Whether these are records of XVA version 1 (quirk GQ141), by their root element.
    #[must_use]
    pub fn is_version_1(bytes: &[u8], limits: &Limits) -> bool {
        let text = xml::decode(bytes, limits, &mut Findings::default());
        text.is_ok_and(|text| {
            Xml::parse(&text.text)
                .is_ok_and(|xml| xml.document.root_element().has_tag_name(VERSION_1_ROOT))
        })
    }

    /// The text as xapi lays it out: no declaration, no blanks between elements. Reading it gives the same records.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when a text has a character that XML cannot spell.
    pub fn print(&self) -> Result<Vec<u8>> {
        let objects = self.objects.iter().map(|object| {
            Value::record(vec![
                ("class", Value::text(&object.class)),
                ("id", Value::text(&object.id)),
                ("snapshot", object.snapshot.clone()),
            ])
        });
        let root = Value::record(vec![
            ("version", self.version.clone()),
            ("objects", Value::Array(objects.collect())),
        ]);
        let mut text = String::new();
        root.print(&mut text)?;
        Ok(text.into_bytes())
    }

    /// The record with this id.
    #[must_use]
    pub fn object(&self, id: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.id == id)
    }

    /// Records of a class, in order.
    pub fn of_class<'a>(&'a self, class: &'a str) -> impl Iterator<Item = &'a Object> {
        self.objects
            .iter()
            .filter(move |object| object.class == class)
    }
}

fn read_objects(value: Value) -> Result<Vec<Object>> {
    let Value::Array(values) = value else {
        return Err(Error::corrupt("objects of ova.xml is no array"));
    };
    let objects = values.into_iter().enumerate().map(|(number, value)| {
        let field = |name: &str| {
            let text = value
                .get(name)
                .and_then(Value::scalar)
                .map(ToOwned::to_owned);
            text.ok_or_else(|| {
                Error::corrupt(format_args!("object {number} of ova.xml has no {name}"))
            })
        };
        let (class, id) = (field("class")?, field("id")?);
        let Some(snapshot @ Value::Struct(_)) = value.get("snapshot") else {
            return Err(Error::corrupt(format_args!(
                "object {} has no snapshot",
                quote(&id)
            )));
        };
        let snapshot = snapshot.clone();
        Ok(Object {
            class,
            id,
            snapshot,
        })
    });
    objects.collect()
}

/// Fields that name another record, by class.
const REFERENCES: [(&str, &[&str]); 4] = [
    ("VBD", &["VM", "VDI"]),
    ("VIF", &["VM", "network"]),
    ("VDI", &["SR"]),
    ("VM", &[]),
];

fn check(version: &Value, objects: &[Object], findings: &mut Findings) {
    let at = At::default();
    let export = version.get("export_vsn").and_then(Value::scalar);
    if export != Some("2") {
        let export = quote(export.unwrap_or(""));
        findings.warning(
            "XVA-VERSION",
            at,
            format_args!("export_vsn is {export}, not 2"),
        );
    }
    let mut ids = BTreeSet::new();
    for object in objects {
        if !ids.insert(object.id.as_str()) {
            let place = object.place();
            findings.error(
                "XVA-ID",
                at,
                format_args!("{place} has an id that is used before"),
            );
        }
    }
    for object in objects {
        let fields = REFERENCES.iter().find(|(class, _)| *class == object.class);
        for field in fields.map_or(&[][..], |(_, fields)| *fields) {
            let target = object.text(field);
            if !target.is_empty() && target != super::NULL && !ids.contains(target) {
                let (place, target) = (object.place(), quote(target));
                let message = format!("{place}: {field} names {target}, which is not there");
                findings.error("XVA-REFERENCE", at, message);
            }
        }
    }
}
