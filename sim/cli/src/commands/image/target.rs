//! What is to be written, from what was typed: format, kind within it, and the wishes of a product.

use crate::exit::Stop;
use crate::image_args::{For, Output, To};
use crate::nearest;
use drylab_image::profile::Profile;
use drylab_image::{
    FlatKind, Format, Qcow2Options, Qcow2Version, SplitKind, Target, VdiOptions, VhdOptions,
    VhdxOptions, VmdkOptions,
};

/// What is to be written.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// One file.
    One(Target),
    /// A descriptor, and a file with the bytes.
    Flat(FlatKind, VmdkOptions),
    /// A descriptor, and files of 2047 MiB.
    Split(SplitKind, VmdkOptions),
}

impl Shape {
    /// Bytes of the disk in the container, of a disk of `bytes`: whole sectors, and more for some readers of VHD.
    pub(super) fn virtual_bytes(&self, bytes: u64) -> u64 {
        match self {
            Self::One(Target::Raw) => bytes,
            Self::One(Target::VhdFixed(options) | Target::VhdDynamic(options)) => {
                options.fit.fitted(bytes).0
            }
            _ => bytes.div_ceil(512).saturating_mul(512),
        }
    }
}

/// [`Shape`], and who it is for.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) shape: Shape,
    pub(super) format: Format,
    pub(super) subformat: &'static str,
    pub(super) profile: Option<&'static Profile>,
}

impl Chosen {
    /// Refuses what `check --for` would refuse of the file: its kind, and the size that a disk of `bytes` has in it.
    pub(super) fn refuse_misfits(&self, bytes: u64) -> Result<(), Stop> {
        let Some(profile) = self.profile else {
            return Ok(());
        };
        let bytes = self.shape.virtual_bytes(bytes);
        let misfits = profile.misfits(self.format, self.subformat, bytes);
        let says = misfits.iter().map(|misfit| {
            let (how, evidence) = (&misfit.how, misfit.evidence);
            format!("{how} ({}: {})", evidence.mark(), evidence.source())
        });
        let says: Vec<String> = says.collect();
        if says.is_empty() {
            return Ok(());
        }
        Err(Stop::usage(format_args!(
            "{} does not take {}",
            profile.title,
            says.join(", nor ")
        )))
    }
}

fn format(to: To) -> Format {
    match to {
        To::Raw => Format::Raw,
        To::Vmdk => Format::Vmdk,
        To::Vhd => Format::Vhd,
        To::Vhdx => Format::Vhdx,
        To::Qcow2 => Format::Qcow2,
        To::Vdi => Format::Vdi,
    }
}

/// Kinds within each format, the default first.
fn subformats(format: Format) -> &'static [&'static str] {
    match format {
        Format::Vmdk => &[
            "monolithicSparse",
            "streamOptimized",
            "monolithicFlat",
            "twoGbMaxExtentSparse",
            "twoGbMaxExtentFlat",
            "vmfs",
        ],
        Format::Vhd | Format::Vhdx | Format::Vdi => &["dynamic", "fixed"],
        Format::Qcow2 => &["v3", "v2"],
        _ => &[],
    }
}

/// The kind asked for, spelled as the format spells it; the default without.
fn subformat(format: Format, asked: Option<&str>) -> Result<&'static str, Stop> {
    let known = subformats(format);
    let Some(asked) = asked else {
        return Ok(known.first().copied().unwrap_or_default());
    };
    let same = |name: &&&str| name.eq_ignore_ascii_case(asked);
    known.iter().find(same).copied().ok_or_else(|| {
        let hint = nearest::hint(asked, known.iter().copied());
        let list = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        Stop::usage(format_args!(
            "there is no subformat {asked:?} of {format}{hint} (known: {list})"
        ))
    })
}

/// What is known of a product.
pub(super) fn profile(product: For) -> Option<&'static Profile> {
    Profile::named(match product {
        For::Azure => "azure",
        For::Esxi => "esxi",
        For::HyperV2008R2 => "hyperv-2008r2",
        For::Libvirt => "libvirt",
        For::Xenserver => "xenserver",
    })
}

/// Decides what is written.
pub(super) fn choose(into: &Output) -> Result<Chosen, Stop> {
    let asked = into.subformat.as_deref();
    let profile = into.product.and_then(profile);
    let (format, subformat) = match (into.to, profile) {
        (Some(to), None) => (format(to), subformat(format(to), asked)?),
        (to, Some(profile)) => {
            let to = to.map_or_else(|| profile.default_kind().format, format);
            // A kind that there is not is told before one that the product does not take.
            let named = asked.map(|_| subformat(to, asked)).transpose()?;
            let kind = profile
                .kind(to, named)
                .ok_or_else(|| refused(profile, to, named))?;
            (to, kind.subformat)
        }
        (None, None) => return Err(Stop::usage("say --to FORMAT or --for PRODUCT")),
    };
    Ok(Chosen {
        shape: shape(format, subformat, profile),
        format,
        subformat,
        profile,
    })
}

fn refused(profile: &Profile, format: Format, subformat: Option<&str>) -> Stop {
    let kinds = profile.kinds.iter();
    let takes: Vec<String> = kinds
        .map(|kind| {
            let name = format!("{} {}", kind.format, kind.subformat);
            format!("{} ({}; {})", name.trim_end(), kind.why, kind.source)
        })
        .collect();
    let (title, kind) = (profile.title, subformat.unwrap_or_default());
    let asked = format!("{format} {kind}");
    let (asked, takes) = (asked.trim_end(), takes.join(", or "));
    // Of other kinds it is not known, or they are read and are not the best.
    let refuses = profile
        .refusals
        .iter()
        .any(|row| row.formats.contains(&format) && row.subformat.is_none_or(|one| one == kind));
    Stop::usage(match refuses {
        true => format!("{title} does not take {asked}; it takes {takes}"),
        false => format!(
            "no {asked} is written for {title}, but {takes}; without --for it is written as it is"
        ),
    })
}

fn shape(format: Format, subformat: &str, profile: Option<&'static Profile>) -> Shape {
    let vmdk = VmdkOptions::default();
    let vmdk = profile.map_or(vmdk.clone(), |profile| profile.vmdk(vmdk));
    let target = match (format, subformat) {
        (Format::Vmdk, "monolithicFlat") => return Shape::Flat(FlatKind::Monolithic, vmdk),
        (Format::Vmdk, "vmfs") => return Shape::Flat(FlatKind::Vmfs, vmdk),
        (Format::Vmdk, "twoGbMaxExtentSparse") => {
            return Shape::Split(SplitKind::Sparse, vmdk);
        }
        (Format::Vmdk, "twoGbMaxExtentFlat") => {
            return Shape::Split(SplitKind::Flat, vmdk);
        }
        (Format::Vmdk, "streamOptimized") => Target::VmdkStream(vmdk),
        (Format::Vmdk, _) => Target::VmdkSparse(vmdk),
        (Format::Vhd, "fixed") => Target::VhdFixed(VhdOptions::default()),
        (Format::Vhd, _) => Target::VhdDynamic(VhdOptions::default()),
        (Format::Vhdx, "fixed") => Target::VhdxFixed(VhdxOptions::default()),
        (Format::Vhdx, _) => Target::VhdxDynamic(VhdxOptions::default()),
        (Format::Vdi, "fixed") => Target::VdiFixed(VdiOptions::default()),
        (Format::Vdi, _) => Target::VdiDynamic(VdiOptions::default()),
        (Format::Qcow2, name) => Target::Qcow2(Qcow2Options {
            version: if name == "v2" {
                Qcow2Version::V2
            } else {
                Qcow2Version::V3
            },
            ..Qcow2Options::default()
        }),
        _ => Target::Raw,
    };
    Shape::One(profile.map_or(target.clone(), |profile| profile.adjust(target)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_args::Sync;

    fn output(to: Option<To>, subformat: Option<&str>, product: Option<For>) -> Output {
        Output {
            to,
            subformat: subformat.map(str::to_owned),
            product,
            sync: Sync::Never,
            force: false,
        }
    }

    #[test]
    fn every_product_has_a_profile_and_every_kind_it_takes_can_be_written() {
        use clap::ValueEnum;
        let named: Vec<&str> = For::value_variants()
            .iter()
            .map(|product| profile(*product).expect("it is known").name)
            .collect();
        let all: Vec<&str> = drylab_image::profile::ALL
            .iter()
            .map(|profile| profile.name)
            .collect();
        assert_eq!(named, all);
        for product in For::value_variants() {
            let typed = product.to_possible_value().expect("not hidden");
            let profile = profile(*product).expect("it is known");
            assert_eq!(typed.get_name(), profile.name);
            for kind in profile.kinds {
                let known = subformats(kind.format);
                assert!(known.contains(&kind.subformat) || kind.subformat.is_empty());
            }
            let chosen = choose(&output(None, None, Some(*product))).expect("the default");
            assert_eq!(chosen.format, profile.default_kind().format);
        }
    }

    #[test]
    fn what_a_product_does_not_take_is_refused_with_what_it_takes() {
        for (to, subformat, product, says) in [
            (Some(To::Vmdk), None, For::Azure, "it takes vhd fixed"),
            (
                Some(To::Vhd),
                Some("dynamic"),
                For::Azure,
                "does not take vhd dynamic",
            ),
            (
                None,
                Some("monolithicSparse"),
                For::Esxi,
                "does not take vmdk monolithicSparse; it takes vmdk streamOptimized",
            ),
            (
                Some(To::Vmdk),
                None,
                For::Libvirt,
                "no vmdk is written for libvirt with QEMU and KVM, but qcow2 v3",
            ),
            (
                Some(To::Vhdx),
                None,
                For::HyperV2008R2,
                "VHDX is known from 2012 on",
            ),
            (
                None,
                Some("vmfs"),
                For::Libvirt,
                "no subformat \"vmfs\" of qcow2",
            ),
        ] {
            let stop = choose(&output(to, subformat, Some(product))).unwrap_err();
            assert!(stop.says.contains(says), "{}", stop.says);
        }
        let chosen = choose(&output(Some(To::Vhd), None, Some(For::Azure))).expect("it takes it");
        assert_eq!(chosen.subformat, "fixed");
    }
}
