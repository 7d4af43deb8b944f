//! Setup information files of network adapters: which hardware ids they offer a driver for.
//!
//! Windows driver documentation, "Summary of INF Sections".
//!
//! ```text
//! [Version]            Class = Net
//! [Manufacturer]       %Intel% = Intel, NTamd64.6.1
//! [Intel.NTamd64.6.1]  %E100F.Desc% = E1000.ndi, PCI\VEN_8086&DEV_100F
//! [E1000.ndi.Services] AddService = E1G60, 2, E1000.Service
//! [E1000.Service]      ServiceBinary = %12%\E1G6032E.sys
//! ```

use std::collections::BTreeMap;

/// A model an INF offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// Hardware id in upper case.
    pub(crate) hardware_id: String,
    /// Service it installs.
    pub(crate) service: String,
    /// Binary of that service, as written: `%12%\E1G6032E.sys`.
    pub(crate) binary: String,
    /// Line that names the hardware id, from 1.
    pub(crate) line: u32,
    /// Catalogue of the package, which carries its signature.
    pub(crate) catalogue: Option<String>,
}

/// Most models taken of one file.
const MODELS_MAX: usize = 4096;

/// A line `key = field, field`.
struct Line {
    /// In lower case.
    key: String,
    fields: Vec<String>,
    /// From 1.
    number: u32,
}

type Sections = BTreeMap<String, Vec<Line>>;

/// Models of a network INF (UTF-16 or ASCII); none when its class is another.
pub(crate) fn network_models(bytes: &[u8]) -> Vec<Model> {
    let sections = sections(&text(bytes));
    let class = values(&sections, "version", "class")
        .next()
        .and_then(|values| values.first());
    if !class.is_some_and(|class| class.eq_ignore_ascii_case("net")) {
        return Vec::new();
    }
    let catalogue = ["catalogfile", "catalogfile.nt", "catalogfile.ntamd64"];
    let catalogue = catalogue.iter().find_map(|key| {
        let fields = values(&sections, "version", key).next()?;
        fields.first().filter(|name| !name.is_empty()).cloned()
    });
    let mut models = Vec::new();
    for fields in sections
        .get("manufacturer")
        .into_iter()
        .flatten()
        .map(|line| &line.fields)
    {
        let Some(base) = fields.first() else { continue };
        // The plain section is for 32-bit systems where decorated ones stand beside it; all are offered here,
        // as the image itself is one architecture and carries the binaries of that one.
        let decorated = fields
            .iter()
            .skip(1)
            .map(|target| format!("{base}.{target}"));
        for section in std::iter::once(base.clone()).chain(decorated) {
            for line in sections.get(&section.to_lowercase()).into_iter().flatten() {
                let Some(install) = line.fields.first() else {
                    continue;
                };
                let Some((service, binary)) = service(&sections, install) else {
                    continue;
                };
                for hardware_id in line.fields.iter().skip(1).filter(|id| !id.is_empty()) {
                    if models.len() >= MODELS_MAX {
                        return models;
                    }
                    let hardware_id = hardware_id.to_uppercase();
                    models.push(Model {
                        hardware_id,
                        service: service.clone(),
                        binary: binary.clone(),
                        line: line.number,
                        catalogue: catalogue.clone(),
                    });
                }
            }
        }
    }
    models
}

/// Service and binary an install section adds.
fn service(sections: &Sections, install: &str) -> Option<(String, String)> {
    let suffixes = ["", ".nt", ".ntamd64", ".ntx86"];
    let added = suffixes.iter().find_map(|suffix| {
        let name = format!("{install}{suffix}.services").to_lowercase();
        values(sections, &name, "addservice")
            .find(|fields| fields.first().is_some_and(|name| !name.is_empty()))
    })?;
    let name = added.first()?.clone();
    let section = added.get(2)?.to_lowercase();
    let binary = values(sections, &section, "servicebinary")
        .next()?
        .first()?
        .clone();
    Some((name, binary))
}

/// Fields of every line `key = …` of a section.
fn values<'a>(
    sections: &'a Sections,
    section: &str,
    key: &'a str,
) -> impl Iterator<Item = &'a Vec<String>> {
    let lines = sections.get(section).into_iter().flatten();
    lines
        .filter(move |line| line.key == key)
        .map(|line| &line.fields)
}

/// Sections by name in lower case: keys in lower case and comma-separated fields.
fn sections(text: &str) -> Sections {
    let mut sections = Sections::new();
    let mut current = String::new();
    for (line, number) in text.lines().zip(1_u32..) {
        let line = line.split(';').next().unwrap_or_default().trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            current = name.trim().to_lowercase();
        } else if let Some((key, value)) = line.split_once('=') {
            let fields = value
                .split(',')
                .map(|field| field.trim().trim_matches('"').to_owned())
                .collect();
            sections.entry(current.clone()).or_default().push(Line {
                key: key.trim().to_lowercase(),
                fields,
                number,
            });
        }
    }
    sections
}

/// Text of the file: UTF-16 with a byte order mark, else bytes.
fn text(bytes: &[u8]) -> String {
    match bytes.strip_prefix(b"\xff\xfe") {
        Some(rest) => {
            let units = rest
                .chunks_exact(2)
                .filter_map(|pair| drylab_block::le_u16(pair, 0));
            char::decode_utf16(units)
                .map(|unit| unit.unwrap_or('\u{fffd}'))
                .collect()
        }
        None => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::network_models;

    #[test]
    fn a_network_inf_offers_its_hardware_ids_with_service_and_binary() {
        let text = "; comment\r\n[Version]\r\nClass = Net\r\n[Manufacturer]\r\n%Intel% = Intel, NTamd64.6.1\r\n\
            [Intel.NTamd64.6.1]\r\n%E100F% = E1000.ndi, PCI\\VEN_8086&DEV_100f\r\n[E1000.ndi.Services]\r\n\
            AddService = E1G60, 2, E1000.Service\r\n[E1000.Service]\r\nServiceBinary = %12%\\E1G6032E.sys\r\n";
        let utf16: Vec<u8> = [0xff, 0xfe]
            .into_iter()
            .chain(text.encode_utf16().flat_map(u16::to_le_bytes))
            .collect();
        for bytes in [text.as_bytes(), &utf16] {
            let models = network_models(bytes);
            assert_eq!(models.len(), 1);
            assert_eq!(models[0].hardware_id, "PCI\\VEN_8086&DEV_100F");
            assert_eq!(
                (models[0].service.as_str(), models[0].binary.as_str()),
                ("E1G60", "%12%\\E1G6032E.sys")
            );
            assert_eq!(models[0].line, 7, "where the hardware id stands");
        }
        assert!(
            network_models(text.replace("Class = Net", "Class = Display").as_bytes()).is_empty()
        );
    }
}
