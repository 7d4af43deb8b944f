//! From the metadata text to maps of logical volumes.

use super::PhysicalVolume;
use super::text::{Node, Section};
use crate::map::{Map, Segment, Spot};
use crate::mbr::SECTOR;
use crate::scan::{Logical, VolumeName};
use drylab_block::{Error, Finding, Limits, Result, Severity};
use std::collections::BTreeMap;

/// A volume group as one metadata text describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: String,
    /// UUID, dashed.
    pub uuid: String,
    /// Counts the changes: the highest among the copies is the truth.
    pub seqno: u64,
    /// Bytes of an extent.
    pub extent_bytes: u64,
    /// Physical volumes by the name the segments use.
    pub physical: BTreeMap<String, Place>,
    /// Logical volumes by name, hidden ones included.
    pub logical: BTreeMap<String, LogicalVolume>,
}

/// A physical volume as the group knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// UUID, dashed.
    pub uuid: String,
    /// Byte of the first extent.
    pub first_extent_byte: u64,
    /// Number of extents.
    pub extents: u64,
}

/// Whether a logical volume is there for users or for others of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Shown.
    Visible,
    /// Leg of a mirror, metadata, pool.
    Hidden,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalVolume {
    /// UUID, dashed.
    pub uuid: String,
    /// Visible or not.
    pub role: Role,
    /// Segments in order of their start.
    pub(crate) segments: Vec<RawSegment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawSegment {
    start: u64,
    extents: u64,
    kind: String,
    stripe_bytes: u64,
    /// Name of a physical or logical volume, and the first extent there.
    legs: Vec<(String, u64)>,
}

fn wanted<T>(found: Option<T>, place: &str, name: &str) -> Result<T> {
    found.ok_or_else(|| Error::corrupt(format_args!("metadata text: {place} has no {name}")))
}

impl Group {
    /// Reads the one group a text describes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a field that everything rests on is missing.
    pub fn from_text(text: &Section) -> Result<Self> {
        let (name, vg) = wanted(
            text.sections()
                .find(|(_, section)| section.0.contains_key("extent_size")),
            "it",
            "group",
        )?;
        let extent_bytes =
            wanted(vg.number("extent_size"), name, "extent_size")?.checked_mul(SECTOR);
        let extent_bytes = wanted(
            extent_bytes.filter(|bytes| *bytes > 0),
            name,
            "usable extent_size",
        )?;
        let mut group = Self {
            name: name.to_owned(),
            uuid: wanted(vg.text("id"), name, "id")?.to_owned(),
            seqno: vg.number("seqno").unwrap_or(0),
            extent_bytes,
            physical: BTreeMap::new(),
            logical: BTreeMap::new(),
        };
        for (name, pv) in vg
            .section("physical_volumes")
            .into_iter()
            .flat_map(Section::sections)
        {
            let start = wanted(pv.number("pe_start"), name, "pe_start")?.checked_mul(SECTOR);
            let place = Place {
                uuid: wanted(pv.text("id"), name, "id")?.to_owned(),
                first_extent_byte: wanted(start, name, "usable pe_start")?,
                extents: wanted(pv.number("pe_count"), name, "pe_count")?,
            };
            group.physical.insert(name.to_owned(), place);
        }
        for (name, lv) in vg
            .section("logical_volumes")
            .into_iter()
            .flat_map(Section::sections)
        {
            group
                .logical
                .insert(name.to_owned(), LogicalVolume::from_text(name, lv)?);
        }
        Ok(group)
    }
}

impl LogicalVolume {
    fn from_text(name: &str, lv: &Section) -> Result<Self> {
        let visible = lv.list("status").contains(&Node::Text("VISIBLE".into()));
        let mut segments = Vec::new();
        for (key, segment) in lv.sections().filter(|(key, _)| key.starts_with("segment")) {
            let place = format!("{name}/{key}");
            let kind = wanted(segment.text("type"), &place, "type")?.to_owned();
            let list = match kind.as_str() {
                "raid1" => segment.list("raids"),
                "mirror" => segment.list("mirrors"),
                _ => segment.list("stripes"),
            };
            segments.push(RawSegment {
                start: wanted(segment.number("start_extent"), &place, "start_extent")?,
                extents: wanted(segment.number("extent_count"), &place, "extent_count")?,
                stripe_bytes: segment
                    .number("stripe_size")
                    .unwrap_or(0)
                    .saturating_mul(SECTOR),
                legs: legs(&kind, list),
                kind,
            });
        }
        segments.sort_by_key(|segment| segment.start);
        let role = if visible { Role::Visible } else { Role::Hidden };
        Ok(Self {
            uuid: wanted(lv.text("id"), name, "id")?.to_owned(),
            role,
            segments,
        })
    }
}

/// `["pv0", 0, "pv1", 5]`; raid1 lists its metadata and data volumes by turns, without extents.
fn legs(kind: &str, list: &[Node]) -> Vec<(String, u64)> {
    list.chunks(2)
        .filter_map(|pair| match (kind, pair) {
            ("raid1", [_, Node::Text(image)]) => Some((image.clone(), 0)),
            (_, [Node::Text(name), Node::Number(extent)]) => {
                Some((name.clone(), u64::try_from(*extent).ok()?))
            }
            _ => None,
        })
        .collect()
}

/// Chooses the newest text of each group, and maps its visible volumes to the disks.
///
/// # Errors
/// [`Error::Corrupt`] when logical volumes refer to each other in a circle or past `limits.chain_max`.
pub(crate) fn logical_volumes(
    found: Vec<(PhysicalVolume, Option<Group>)>,
    limits: &Limits,
    findings: &mut Vec<Finding>,
) -> Result<Vec<(VolumeName, Logical, Map)>> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut physical: BTreeMap<String, PhysicalVolume> = BTreeMap::new();
    for (pv, group) in found {
        if let Some(group) = group {
            let known = groups.get(&group.uuid).map(|known| known.seqno);
            if known.is_none_or(|seqno| seqno < group.seqno) {
                groups.insert(group.uuid.clone(), group);
            }
        }
        // Two volumes of one UUID (a disk and its copy): the first is taken, as lvm2 does, and it is said.
        if let Some(first) = physical.get(&pv.uuid) {
            let message = format!(
                "physical volume {} is on disk {} and again on disk {}",
                pv.uuid, first.at.disk, pv.at.disk
            );
            findings.push(Finding {
                code: "LVM-DUPLICATE-PV",
                severity: Severity::Error,
                offset: pv.at.offset,
                message,
            });
            continue;
        }
        physical.insert(pv.uuid.clone(), pv);
    }
    let mut volumes = Vec::new();
    for group in groups.values() {
        let resolver = Resolver {
            group,
            physical: &physical,
            limits,
        };
        for (name, lv) in group
            .logical
            .iter()
            .filter(|(_, lv)| lv.role == Role::Visible)
        {
            match resolver.map(name, lv, &mut Vec::new()) {
                Ok(map) => volumes.push((
                    VolumeName::Logical {
                        vg: group.name.clone(),
                        lv: name.clone(),
                    },
                    Logical {
                        vg_uuid: group.uuid.clone(),
                        lv_uuid: lv.uuid.clone(),
                    },
                    map,
                )),
                Err(Stop::Skip(why)) => findings.push(Finding {
                    code: "LVM-VOLUME-NOT-READ",
                    severity: Severity::Error,
                    offset: 0,
                    message: format!("logical volume {}/{name}: {why}", group.name),
                }),
                Err(Stop::Circle(why)) => {
                    return Err(Error::corrupt(format_args!(
                        "volume group {}: {why}",
                        group.name
                    )));
                }
            }
        }
    }
    volumes.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(volumes)
}

/// Why a volume has no map.
enum Stop {
    /// This volume cannot be read; others can.
    Skip(String),
    /// The metadata is circular.
    Circle(String),
}

struct Resolver<'a> {
    group: &'a Group,
    physical: &'a BTreeMap<String, PhysicalVolume>,
    limits: &'a Limits,
}

impl Resolver<'_> {
    fn map(&self, name: &str, lv: &LogicalVolume, path: &mut Vec<String>) -> Result<Map, Stop> {
        if path.iter().any(|on_the_way| on_the_way == name) {
            path.push(name.to_owned());
            return Err(Stop::Circle(format!(
                "logical volumes refer to each other in a circle: {}",
                path.join(" → ")
            )));
        }
        if path.len() >= 8
            || u32::try_from(lv.segments.len()).unwrap_or(u32::MAX) > self.limits.chain_max
        {
            return Err(Stop::Circle(format!(
                "{name} has more than {} segments or 8 levels",
                self.limits.chain_max
            )));
        }
        path.push(name.to_owned());
        let mut map = Map::default();
        for segment in &lv.segments {
            let start = segment.start.checked_mul(self.group.extent_bytes);
            let length = segment.extents.checked_mul(self.group.extent_bytes);
            let (Some(start), Some(length)) = (start, length) else {
                return Err(Stop::Skip(format!(
                    "segment of {} extents at {} is past 2^64 bytes",
                    segment.extents, segment.start
                )));
            };
            if start != map.length() {
                return Err(Stop::Skip(format!(
                    "segment begins at byte {start}, the one before ends at {}",
                    map.length()
                )));
            }
            self.segment(segment, length, &mut map, path)?;
        }
        path.pop();
        Ok(map)
    }

    fn segment(
        &self,
        segment: &RawSegment,
        length: u64,
        map: &mut Map,
        path: &mut Vec<String>,
    ) -> Result<(), Stop> {
        let skip = |error: Error| Stop::Skip(error.to_string());
        match segment.kind.as_str() {
            "striped" | "linear" => {
                let mut placed = Segment {
                    length,
                    stripe: segment.stripe_bytes,
                    legs: Vec::new(),
                };
                // One leg may stand on another logical volume; stripes over such are not made by lvm2's commands.
                if let [(name, 0)] = segment.legs.as_slice()
                    && let Some(lv) = self.group.logical.get(name)
                {
                    return self.append(name, lv, length, map, path);
                }
                for (name, extent) in &segment.legs {
                    placed.legs.push(self.spot(name, *extent)?);
                }
                let each = Map::leg_length(&placed);
                for (leg, (name, extent)) in placed.legs.iter().zip(&segment.legs) {
                    self.check_fits(name, *extent, each, *leg)?;
                }
                map.push(placed).map_err(skip)
            }
            "raid1" | "mirror" => {
                // Every leg holds the same bytes; the first that is there is read.
                let mut why = Stop::Skip(format!("its {} has no legs", segment.kind));
                for (name, _) in &segment.legs {
                    let Some(lv) = self.group.logical.get(name) else {
                        continue;
                    };
                    let depth = path.len();
                    match self.append(name, lv, length, map, path) {
                        Err(Stop::Skip(what)) => why = Stop::Skip(what),
                        done => return done,
                    }
                    path.truncate(depth);
                }
                Err(why)
            }
            other => Err(Stop::Skip(format!(
                "segment type {other} is not read (known: linear, striped, raid1, mirror)"
            ))),
        }
    }

    fn append(
        &self,
        name: &str,
        lv: &LogicalVolume,
        length: u64,
        map: &mut Map,
        path: &mut Vec<String>,
    ) -> Result<(), Stop> {
        let inner = self.map(name, lv, path)?;
        if inner.length() < length {
            return Err(Stop::Skip(format!(
                "{name} has {} bytes, {length} are wanted of it",
                inner.length()
            )));
        }
        let mut left = length;
        for (_, segment) in inner.segments() {
            let take = segment.length.min(left);
            left = left.saturating_sub(take);
            map.push(Segment {
                length: take,
                ..segment.clone()
            })
            .map_err(|error| Stop::Skip(error.to_string()))?;
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Result<(&Place, &PhysicalVolume), Stop> {
        let Some(place) = self.group.physical.get(name) else {
            return Err(Stop::Skip(format!(
                "it stands on {name}, which the group does not list"
            )));
        };
        let Some(pv) = self.physical.get(&place.uuid) else {
            return Err(Stop::Skip(format!(
                "physical volume {} ({name}) is on none of the disks",
                place.uuid
            )));
        };
        Ok((place, pv))
    }

    fn spot(&self, name: &str, extent: u64) -> Result<Spot, Stop> {
        let (place, pv) = self.place(name)?;
        let within = extent
            .checked_mul(self.group.extent_bytes)
            .and_then(|at| at.checked_add(place.first_extent_byte));
        let offset = within.and_then(|within| within.checked_add(pv.at.offset));
        let offset = offset
            .ok_or_else(|| Stop::Skip(format!("extent {extent} of {name} is past 2^64 bytes")))?;
        Ok(Spot {
            disk: pv.at.disk,
            offset,
        })
    }

    fn check_fits(&self, name: &str, extent: u64, length: u64, leg: Spot) -> Result<(), Stop> {
        let (place, pv) = self.place(name)?;
        let extents = length.div_ceil(self.group.extent_bytes);
        if extent
            .checked_add(extents)
            .is_none_or(|end| end > place.extents)
        {
            return Err(Stop::Skip(format!(
                "{extents} extents at {extent} of {name} end past its {} extents",
                place.extents
            )));
        }
        let end = leg
            .offset
            .saturating_sub(pv.at.offset)
            .saturating_add(length);
        if end > pv.length {
            return Err(Stop::Skip(format!(
                "it ends at byte {end} of {name}, whose device has {} bytes",
                pv.length
            )));
        }
        Ok(())
    }
}
