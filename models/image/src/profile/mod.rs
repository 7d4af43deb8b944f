//! What products want of the images they are given, as data: which kinds they take, and what of a file's fields they look
//! at. Every line names the source it is from; ids such as HQ31 are rows of `corpora/knowledge/rows.md`.
//!
//! ```
//! use drylab_image::profile::Profile;
//! use drylab_image::{Format, Target, VhdOptions};
//!
//! let azure = Profile::named("azure").expect("it is known");
//! assert!(azure.kind(Format::Vhd, Some("dynamic")).is_none());
//! let kind = azure.default_kind();
//! assert_eq!((kind.format, kind.subformat), (Format::Vhd, "fixed"));
//! let target = azure.adjust(Target::VhdFixed(VhdOptions::default()));
//! assert_eq!(target, Target::VhdFixed(VhdOptions::azure()));
//! ```
//!
//! What a product does with a file that breaks a rule is data, too: [`Reaction`]s, each with its [`Evidence`]. The importers
//! of `drylab-hypervisor` and `drylab image check --for` read them. Files that it does not take whatever is in them, by
//! format, kind and size, are [`Refusal`]s and [`Sizes`]; [`Profile::misfits`] judges a file by them.
//!
//! What it does not do: convert a guest's drivers, choose a controller of the machine, or say that an image boots.

mod misfits;
mod reactions;

pub use misfits::{Misfit, Refusal, Sizes};
pub use reactions::{Does, Evidence, Only, Reaction};

use crate::detect::Format;
use crate::vhd::{VhdOptions, VhdSize};
use crate::vmdk::{Adapter, VmdkOptions};
use crate::write::Target;

/// A kind of image that a product takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The format.
    pub format: Format,
    /// Kind within the format, in its own words; empty for raw.
    pub subformat: &'static str,
    /// What the product does with it.
    pub why: &'static str,
    /// Where that is from.
    pub source: &'static str,
}

/// A field of the file that is set for a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The kind that has it; all without.
    pub only: Option<&'static str>,
    /// The field in the format's own words.
    pub field: &'static str,
    /// What it is set to.
    pub value: &'static str,
    /// What comes of another value.
    pub why: &'static str,
    /// Where that is from.
    pub source: &'static str,
}

/// What one product wants.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// The name users type.
    pub name: &'static str,
    /// The product.
    pub title: &'static str,
    /// What it takes; the first is the default.
    pub kinds: &'static [Kind],
    /// Fields that [`adjust`](Self::adjust) sets. Of each format only its own appear in a file.
    pub wants: &'static [Want],
    /// What it does with files that break rules; what is not there it does not mind, or nobody knows.
    pub reactions: &'static [Reaction],
    /// Kinds of files that it does not take whatever is in them; of one that is not there, nor among the
    /// [`kinds`](Self::kinds), nobody knows.
    pub refusals: &'static [Refusal],
    /// Sizes of disks that it takes, where they are known.
    pub sizes: Option<Sizes>,
    /// Which of a VHD's two sizes it takes for the disk's.
    pub vhd_size: VhdSize,
    vmdk: fn(VmdkOptions) -> VmdkOptions,
    vhd: fn() -> VhdOptions,
}

/// VMware ESXi 5.0 and later.
pub const ESXI: Profile = Profile {
    name: "esxi",
    title: "VMware ESXi 5.0 and later",
    kinds: &[
        Kind {
            format: Format::Vmdk,
            subformat: "streamOptimized",
            why: "the disk of an OVF, as vSphere Client and ovftool import it",
            source: "Virtual Disk Format 5.0, Stream-Optimized Compressed Sparse Extents",
        },
        Kind {
            format: Format::Vmdk,
            subformat: "vmfs",
            why: "a descriptor and a flat file for a datastore",
            source: "HQ31: hosted sparse disks on a datastore are refused at power-on (disk type 7)",
        },
    ],
    wants: &[
        Want {
            only: None,
            field: "ddb.adapterType",
            value: "lsilogic",
            why: "with ide, which qemu-img writes, the disk is attached to IDE, and a SCSI controller refuses it",
            source: "HQ128; home-assistant/operating-system issue 1695",
        },
        Want {
            only: None,
            field: "ddb.virtualHWVersion",
            value: "8",
            why: "hardware version of ESXi 5.0; later ones know it, too",
            source: "OVF files of vSphere 5.0: VirtualSystemType vmx-08",
        },
        Want {
            only: None,
            field: "ddb.geometry",
            value: "255 heads, 63 sectors",
            why: "what SCSI disks have; IDE has 16 heads",
            source: "Virtual Disk Format 5.0, The Disk Database",
        },
    ],
    reactions: reactions::ESXI,
    refusals: misfits::ESXI,
    sizes: misfits::ESXI_SIZES,
    vhd_size: VhdSize::ByCreator,
    vmdk: |options| VmdkOptions {
        adapter: Adapter::LsiLogic,
        hardware_version: 8,
        ..options
    },
    vhd: VhdOptions::default,
};

/// Citrix XenServer 6.0 and later.
pub const XEN_SERVER: Profile = Profile {
    name: "xenserver",
    title: "Citrix XenServer 6.0 and later, XCP-ng",
    kinds: &[Kind {
        format: Format::Vhd,
        subformat: "dynamic",
        why: "what storage repositories hold and XenCenter imports; fixed ones are not usable",
        source: "HQ102 (documentation of XCP-ng); XenCenter 6.0.2, ImportSourcePage.cs",
    }],
    wants: &[
        Want {
            only: None,
            field: "creator application",
            value: "tap 1.3",
            why: "blktap and newer readers take the current size of its disks and not the geometry's",
            source: "block/vpc.c of QEMU, table of creators; blktap2 vhd-util",
        },
        Want {
            only: None,
            field: "creator host OS",
            value: "0",
            why: "blktap leaves it empty",
            source: "blktap2 vhd-util",
        },
        Want {
            only: None,
            field: "current size",
            value: "the disk's own",
            why: "images that qemu-img rounds up to a geometry need vhd-util repair before they are attached",
            source: "HQ103; documentation of XCP-ng, migration from KVM",
        },
    ],
    reactions: reactions::XEN_SERVER,
    refusals: misfits::XEN_SERVER,
    sizes: None,
    vhd_size: VhdSize::Current,
    vmdk: |options| options,
    vhd: VhdOptions::xen_server,
};

/// Hyper-V on Windows Server 2008 R2.
pub const HYPER_V_2008_R2: Profile = Profile {
    name: "hyperv-2008r2",
    title: "Microsoft Hyper-V on Windows Server 2008 R2",
    kinds: &[
        Kind {
            format: Format::Vhd,
            subformat: "dynamic",
            why: "attached to a machine made by hand, on IDE 0:0 to boot from; VHDX is known from 2012 on",
            source: "HQ70; HQ80",
        },
        Kind {
            format: Format::Vhd,
            subformat: "fixed",
            why: "the same, all of it allocated",
            source: "VHD specification 1.0, Fixed Hard Disk Image",
        },
    ],
    wants: &[
        Want {
            only: None,
            field: "creator application",
            value: "win 6.1",
            why: "readers take the current size of its disks and not the geometry's",
            source: "block/vpc.c of QEMU, table of creators",
        },
        Want {
            only: Some("dynamic"),
            field: "dynamic header, data offset",
            value: "all ones",
            why: "Microsoft's programs expect 64 set bits there; qemu-img before 6.4 wrote 32",
            source: "VHD specification 1.0, Dynamic Disk Header Format; GQ107",
        },
    ],
    reactions: reactions::HYPER_V_2008_R2,
    refusals: misfits::HYPER_V_2008_R2,
    sizes: None,
    vhd_size: VhdSize::Current,
    vmdk: |options| options,
    vhd: VhdOptions::hyper_v_2008_r2,
};

/// Microsoft Azure.
pub const AZURE: Profile = Profile {
    name: "azure",
    title: "Microsoft Azure, uploaded disks",
    kinds: &[Kind {
        format: Format::Vhd,
        subformat: "fixed",
        why: "dynamic VHD and every other format are refused",
        source: "Microsoft, About VHDs in Azure (dn790344), Virtual hard disks and files",
    }],
    wants: &[
        Want {
            only: None,
            field: "current size",
            value: "whole MiB, rounded up",
            why: "a disk of another size is refused",
            source: "Azure/azure-linux-image-tools PR 364; zavedil.com, programming a VHD disk for Azure",
        },
        Want {
            only: None,
            field: "creator application",
            value: "win 6.1",
            why: "readers take the current size of its disks and not the geometry's",
            source: "block/vpc.c of QEMU, table of creators",
        },
    ],
    reactions: reactions::AZURE,
    refusals: misfits::AZURE,
    sizes: misfits::AZURE_SIZES,
    vhd_size: VhdSize::Current,
    vmdk: |options| options,
    vhd: VhdOptions::azure,
};

/// libvirt with KVM.
pub const LIBVIRT: Profile = Profile {
    name: "libvirt",
    title: "libvirt with QEMU and KVM",
    kinds: &[
        Kind {
            format: Format::Qcow2,
            subformat: "v3",
            why: "what QEMU from 1.7 on makes by default",
            source: "qcow2 specification, Header: version",
        },
        Kind {
            format: Format::Qcow2,
            subformat: "v2",
            why: "the only one that QEMU 0.12 of CentOS 6 opens (compat=0.10)",
            source: "measured with QEMU 0.12.1 of CentOS 6.3: \"Could not open\" of version 3",
        },
        Kind {
            format: Format::Raw,
            subformat: "",
            why: "the fastest, without snapshots; its domain must say <driver type='raw'/>",
            source: "libvirt, Domain XML format: Hard drives",
        },
    ],
    wants: &[],
    reactions: reactions::LIBVIRT,
    refusals: misfits::LIBVIRT,
    sizes: None,
    vhd_size: VhdSize::ByCreator,
    vmdk: |options| options,
    vhd: VhdOptions::default,
};

/// libvirt with the KVM of CentOS 6: [`LIBVIRT`] with another program behind it, and no name of its own.
pub const LIBVIRT_CENTOS_6: Profile = Profile {
    title: "libvirt with QEMU 0.12 of CentOS 6",
    reactions: reactions::LIBVIRT_CENTOS_6,
    refusals: misfits::LIBVIRT_CENTOS_6,
    vhd_size: VhdSize::Geometry,
    ..LIBVIRT
};

/// All that are known, by name.
pub const ALL: &[Profile] = &[AZURE, ESXI, HYPER_V_2008_R2, LIBVIRT, XEN_SERVER];

impl Profile {
    /// The profile of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|profile| profile.name == name)
    }

    /// What the product takes when nothing else is said.
    #[must_use]
    pub fn default_kind(&self) -> Kind {
        const NONE: Kind = Kind {
            format: Format::Raw,
            subformat: "",
            why: "",
            source: "",
        };
        self.kinds.first().copied().unwrap_or(NONE)
    }

    /// The kind that the product takes of a format: that one, or the first when none is said; `None` when it does not.
    #[must_use]
    pub fn kind(&self, format: Format, subformat: Option<&str>) -> Option<Kind> {
        let fits = |kind: &&Kind| {
            kind.format == format
                && subformat.is_none_or(|asked| kind.subformat.eq_ignore_ascii_case(asked))
        };
        self.kinds.iter().find(fits).copied()
    }

    /// The target with the fields that the product looks at; what it has no wishes for stays.
    #[must_use]
    pub fn adjust(&self, target: Target) -> Target {
        match target {
            Target::VmdkSparse(options) => Target::VmdkSparse(self.vmdk(options)),
            Target::VmdkStream(options) => Target::VmdkStream(self.vmdk(options)),
            Target::VhdFixed(options) => Target::VhdFixed(self.vhd(&options)),
            Target::VhdDynamic(options) => Target::VhdDynamic(self.vhd(&options)),
            other => other,
        }
    }

    /// [`adjust`](Self::adjust) for the options of a VMDK alone.
    #[must_use]
    pub fn vmdk(&self, options: VmdkOptions) -> VmdkOptions {
        (self.vmdk)(options)
    }

    /// Ids, times and blocks stay as they were chosen.
    fn vhd(&self, options: &VhdOptions) -> VhdOptions {
        VhdOptions {
            timestamp: options.timestamp,
            unique_id: options.unique_id,
            block_bytes: options.block_bytes,
            ..(self.vhd)()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Qcow2Options, open, write};
    use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt};
    use std::sync::Arc;

    fn made(profile: &Profile, target: Target, size: u64) -> crate::Image {
        let disk = SparseBytes::new(size);
        disk.write_at(1000, b"guest").unwrap();
        let file = SparseBytes::default();
        write(&disk, &profile.adjust(target), &file).unwrap();
        open(Arc::new(file), &Limits::DEFAULT).unwrap()
    }

    #[test]
    fn names_are_sorted_and_every_product_takes_something_for_a_reason() {
        assert!(ALL.is_sorted_by(|one, two| one.name < two.name));
        for profile in ALL {
            let found = Profile::named(profile.name).unwrap();
            assert_eq!(found.title, profile.title);
            assert!(!profile.kinds.is_empty());
            let reasons = profile.kinds.iter().map(|kind| (kind.why, kind.source));
            let wants = profile.wants.iter().map(|want| (want.why, want.source));
            for (why, source) in reasons.chain(wants) {
                assert!(!why.is_empty() && !source.is_empty(), "{}", profile.name);
            }
        }
        assert!(Profile::named("amiga").is_none());
    }

    #[test]
    fn every_reaction_is_to_a_rule_that_is_there_once_and_has_a_source() {
        let rules = crate::rules();
        for profile in ALL.iter().chain([&LIBVIRT_CENTOS_6]) {
            let mut seen = std::collections::BTreeSet::new();
            for reaction in profile.reactions {
                let known = rules.iter().any(|rule| rule.code == reaction.code);
                assert!(known, "{}: no rule {}", profile.name, reaction.code);
                assert!(
                    !reaction.how.is_empty() && !reaction.evidence.source().is_empty(),
                    "{}: {}",
                    profile.name,
                    reaction.code
                );
                assert!(
                    seen.insert((reaction.code, reaction.only)),
                    "{}: {} twice",
                    profile.name,
                    reaction.code
                );
            }
        }
    }

    #[test]
    fn a_product_reacts_to_its_own_rules_at_its_own_places_and_to_no_others() {
        let rule = |code: &str| {
            let rules = crate::rules();
            *rules.iter().find(|rule| rule.code == code).unwrap()
        };
        let mut found = crate::Findings::default();
        found.add(rule("VHDX-REGION-TABLE"), (0x40000, 4), "the copy", 1, 2);
        found.add(rule("VHDX-REGION-TABLE"), (0x30000, 4), "the first", 1, 2);
        found.add(rule("VMDK-GRAIN-RANGE"), (512, 4), "entry", 1, 2);
        found.add(rule("VHD-TWO-SIZES"), (48, 8), "size", 1, 2);
        let reactions = LIBVIRT.reactions("dynamic", &found);
        let paths: Vec<&str> = reactions.iter().map(|(one, _)| one.path.as_str()).collect();
        assert_eq!(paths, ["the first"]);
        assert_eq!(reactions.first().unwrap().1.does, Does::Refuses);
        for (kind, does) in [
            ("monolithicSparse", Some(Does::Misreads)),
            ("streamOptimized", Some(Does::Refuses)),
            ("vmfsSparse", None),
        ] {
            let mut does_so = LIBVIRT.reactions(kind, &found).into_iter();
            let of_grain = does_so.find(|(one, _)| one.rule.code == "VMDK-GRAIN-RANGE");
            assert_eq!(of_grain.map(|(_, reaction)| reaction.does), does, "{kind}");
        }
        let of_old = |found: &crate::Findings| {
            let rows = LIBVIRT_CENTOS_6.reactions("monolithicSparse", found);
            rows.iter().any(|(_, row)| row.code == "VMDK-GRAIN-RANGE")
        };
        assert!(of_old(&found));
        found.add(rule("VMDK-GT-DIFFERS"), (512, 4), "entry", 1, 2);
        assert!(!of_old(&found), "its table is the other one");
        assert!(XEN_SERVER.reactions("dynamic", &found).is_empty());
        assert!(LIBVIRT.minds(Format::Vhdx) && !LIBVIRT.minds(Format::Raw));
        assert!(!ESXI.minds(Format::Vhd));
    }

    #[test]
    fn azure_gets_whole_mebibytes_in_a_fixed_vhd_and_nothing_else() {
        let azure = Profile::named("azure").unwrap();
        let image = made(azure, Target::VhdFixed(VhdOptions::default()), 5_000_192);
        assert_eq!((image.subformat(), image.len()), ("fixed", 5 << 20));
        for (format, kind) in [
            (Format::Vhd, Some("dynamic")),
            (Format::Vmdk, None),
            (Format::Vhdx, None),
        ] {
            assert_eq!(azure.kind(format, kind), None);
        }
        assert!(azure.kind(Format::Vhd, Some("Fixed")).is_some());
    }

    #[test]
    fn esxi_gets_a_scsi_disk_of_its_hardware_version_whatever_was_said_before() {
        let esxi = Profile::named("esxi").unwrap();
        let wrong = VmdkOptions {
            adapter: Adapter::Ide,
            hardware_version: 4,
            ..VmdkOptions::default()
        };
        let info = made(esxi, Target::VmdkStream(wrong), 1 << 20).info();
        assert_eq!(info.subformat, "streamOptimized");
        for (key, value) in [
            ("ddb.adapterType", "lsilogic"),
            ("ddb.virtualHWVersion", "8"),
            ("ddb.geometry.heads", "255"),
            ("ddb.geometry.sectors", "63"),
        ] {
            assert_eq!(info.detail(key), Some(value), "{key}");
        }
    }

    #[test]
    fn xenserver_and_hyper_v_get_footers_as_their_own_programs_write_them() {
        let id = Some([7; 16]);
        let mine = VhdOptions {
            unique_id: id,
            ..VhdOptions::qemu(false)
        };
        let xen = Profile::named("xenserver").unwrap();
        let Target::VhdDynamic(options) = xen.adjust(Target::VhdDynamic(mine.clone())) else {
            panic!("the kind stays");
        };
        assert_eq!(&options.creator.0, b"tap\0");
        assert_eq!((options.creator_os, options.unique_id), ([0; 4], id));
        let hyper_v = Profile::named("hyperv-2008r2").unwrap();
        let Target::VhdFixed(options) = hyper_v.adjust(Target::VhdFixed(mine)) else {
            panic!("the kind stays");
        };
        assert_eq!(&options.creator.0, b"win ");
        assert_eq!(hyper_v.kind(Format::Vhdx, None), None);
    }

    #[test]
    fn libvirt_takes_qcow2_as_it_is() {
        let libvirt = Profile::named("libvirt").unwrap();
        let target = Target::Qcow2(Qcow2Options::default());
        assert_eq!(libvirt.adjust(target.clone()), target);
        assert_eq!(libvirt.default_kind().subformat, "v3");
        assert!(libvirt.kind(Format::Raw, Some("")).is_some());
    }
}
