//! Which files products do not take whatever is in them, as data: by format, by kind within it, by the size of the disk.
//!
//! [`Profile::kinds`] are those that are written for a product; of a kind that is in neither list nothing is known.

use super::reactions::Evidence;
use super::{Does, Profile};
use crate::Format::{self, Qcow2, Qed, Raw, Vdi, Vhd, Vhdx, Vmdk};

/// Files that a product does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Their formats.
    pub formats: &'static [Format],
    /// Kind within them, in their own words; all of them without.
    pub subformat: Option<&'static str>,
    /// What comes of it.
    pub does: Does,
    /// The same in words, and what to do.
    pub how: &'static str,
    /// Why that is so.
    pub evidence: Evidence,
}

/// Sizes of disks that a product takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Whole numbers of so many bytes.
    pub multiple: u64,
    /// What comes of another size, and what to do.
    pub multiple_how: &'static str,
    /// Bytes at most.
    pub most: u64,
    /// Who takes no more, and what to do.
    pub most_how: &'static str,
    /// Why that is so.
    pub evidence: Evidence,
}

/// What a product does not take of a file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// `FORMAT`, `SUBFORMAT` or `SIZE`.
    pub code: &'static str,
    /// What comes of it.
    pub does: Does,
    /// What the file has, what comes of it, and what to do.
    pub how: String,
    /// Why that is so.
    pub evidence: Evidence,
}

impl Profile {
    /// What keeps the product from taking an image of this kind with a disk of `bytes`, whatever is in it. Of a VHD they
    /// are the size that the product [believes](Self::vhd_size).
    #[must_use]
    pub fn misfits(&self, format: Format, subformat: &str, bytes: u64) -> Vec<Misfit> {
        let misfit = |code, how, evidence| Misfit {
            code,
            does: Does::Refuses,
            how,
            evidence,
        };
        let mut all = Vec::new();
        if bytes == 0 {
            let how = "a disk of no bytes: say a size".to_owned();
            let evidence =
                Evidence::Belief("a disk without a sector boots nothing and holds nothing");
            all.push(misfit("SIZE", how, evidence));
        }
        let same = |kind: &str| kind.eq_ignore_ascii_case(subformat);
        let mut refusals = self.refusals.iter();
        let refusal =
            refusals.find(|row| row.formats.contains(&format) && row.subformat.is_none_or(same));
        if let Some(row) = refusal {
            let code = match row.subformat {
                Some(_) => "SUBFORMAT",
                None => "FORMAT",
            };
            let name = format!("{format} {}", row.subformat.unwrap_or_default());
            let how = format!("{}: {}", name.trim_end(), row.how);
            all.push(Misfit {
                does: row.does,
                ..misfit(code, how, row.evidence)
            });
        }
        if let Some(row) = self.sizes {
            if crate::math::rem(bytes, row.multiple) != 0 {
                let (unit, how) = (row.multiple, row.multiple_how);
                let how = format!("a disk of {bytes} bytes, no multiple of {unit}: {how}");
                all.push(misfit("SIZE", how, row.evidence));
            }
            if bytes > row.most {
                let (most, how) = (row.most, row.most_how);
                let how = format!("a disk of {bytes} bytes, more than {most}: {how}");
                all.push(misfit("SIZE", how, row.evidence));
            }
        }
        all
    }
}

const fn all(formats: &'static [Format], how: &'static str, evidence: Evidence) -> Refusal {
    Refusal {
        formats,
        subformat: None,
        does: Does::Refuses,
        how,
        evidence,
    }
}

const fn one(
    formats: &'static [Format],
    subformat: &'static str,
    how: &'static str,
    evidence: Evidence,
) -> Refusal {
    Refusal {
        subformat: Some(subformat),
        ..all(formats, how, evidence)
    }
}

const MSDN: Evidence = Evidence::Document(
    "MSDN, About VHDs in Azure (dn790344): \"Azure supports VHD format, fixed disks\"",
);
const NO_VHD: Evidence = Evidence::Issue(
    "Azure/azure-cli issue 6179: az disk create answers \"Only blobs formatted as VHDs can be imported.\"",
);
const AZURE_HOW: &str = "only a fixed VHD is taken; convert it for azure";
const DYNAMIC: &str = "only a fixed VHD is taken, though some upload tools make one of it on the way; convert it for \
                       azure";

/// Microsoft Azure.
pub(super) const AZURE: &[Refusal] = &[
    one(&[Vhd], "dynamic", DYNAMIC, MSDN),
    one(&[Vhd], "differencing", DYNAMIC, MSDN),
    all(&[Vhdx], AZURE_HOW, MSDN),
    all(&[Raw, Vmdk, Qcow2, Qed, Vdi], AZURE_HOW, NO_VHD),
];

/// Microsoft Azure.
pub(super) const AZURE_SIZES: Option<Sizes> = Some(Sizes {
    multiple: 1 << 20,
    multiple_how: "only whole MiB are taken; convert it for azure, which rounds it up",
    most: u64::MAX,
    most_how: "",
    evidence: Evidence::Issue(
        "MicrosoftDocs/azure-docs issue 48403: New-AzDisk answers that the size without the footer \"must be a multiple \
         of MiB\"",
    ),
});

const HOSTED: Evidence = Evidence::Issue(
    "HQ31: hosted sparse disks on a datastore are refused at power-on (disk type 7)",
);
const HOSTED_HOW: &str = "a hosted disk is refused at power-on; convert it for esxi";
const VMDK_ONLY: Evidence = Evidence::Belief(
    "a machine's configuration names VMDK descriptors, and an OVF of VMware's its disks by VMware's own format",
);
const VMDK_HOW: &str = "only VMDK is taken; convert it for esxi";

/// VMware ESXi.
pub(super) const ESXI: &[Refusal] = &[
    one(&[Vmdk], "monolithicSparse", HOSTED_HOW, HOSTED),
    one(&[Vmdk], "twoGbMaxExtentSparse", HOSTED_HOW, HOSTED),
    all(&[Raw, Vhd, Vhdx, Qcow2, Qed, Vdi], VMDK_HOW, VMDK_ONLY),
];

/// VMware ESXi.
pub(super) const ESXI_SIZES: Option<Sizes> = Some(Sizes {
    multiple: 512,
    multiple_how: "only whole sectors are taken",
    most: (2 << 40) - 512,
    most_how: "ESXi 5.0 and 5.1 take 2 TiB less 512 bytes; 5.5 and later take up to 62 TiB, but what is for 5.0 and later \
               has to fit them all",
    evidence: Evidence::Document(
        "VMware, Configuration Maximums of vSphere 4.1, the same in 5.0: Virtual Machine Storage Maximums; KB 2058287: larger disks from 5.5 on",
    ),
});

const FROM_2012: Evidence = Evidence::Document("HQ70: VHDX is known from Windows Server 2012 on");
const VHD_ONLY: Evidence = Evidence::Belief("its wizards ask for files called .vhd");
const VHD_HOW: &str = "only VHD is taken; convert it for this product";

/// Hyper-V on Windows Server 2008 R2.
pub(super) const HYPER_V_2008_R2: &[Refusal] = &[
    all(&[Vhdx], VHD_HOW, FROM_2012),
    all(&[Raw, Vmdk, Qcow2, Qed, Vdi], VHD_HOW, VHD_ONLY),
];

const XEN_CENTER: Evidence =
    Evidence::Source("XenCenter, ImportSourcePage.cs: images are files called .vhd and .vmdk");
const XEN_HOW: &str = "no such image is imported; convert it for xenserver";

/// Citrix XenServer.
pub(super) const XEN_SERVER: &[Refusal] = &[
    one(
        &[Vhd],
        "fixed",
        "only a dynamic one is usable; convert it for xenserver",
        Evidence::Document("HQ102 (documentation of XCP-ng)"),
    ),
    all(&[Raw, Vhdx, Qcow2, Qed, Vdi], XEN_HOW, XEN_CENTER),
];

/// libvirt with the QEMU 0.12 of CentOS 6.
pub(super) const LIBVIRT_CENTOS_6: &[Refusal] = &[one(
    &[Qcow2],
    "v3",
    "the file is not opened; convert it to version 2",
    Evidence::Measured("QEMU 0.12.1 of CentOS 6.3: \"Could not open\" of version 3"),
)];

const PARENTS: &str = "such a child is not opened; convert it, which writes what the chain shows";

/// libvirt with QEMU and KVM.
pub(super) const LIBVIRT: &[Refusal] = &[
    Refusal {
        does: Does::Misreads,
        ..one(
            &[Vhd],
            "differencing",
            "what the parent has shows as zeros; convert it, which writes what the chain shows",
            Evidence::Measured(
                "qemu-img convert 10.0.2 of a child of a VHD: zeros, without a word",
            ),
        )
    },
    one(
        &[Vhdx],
        "differencing",
        PARENTS,
        Evidence::Measured(
            "qemu-img info 10.0.2 of a child of a VHDX: \"Operation not supported\"",
        ),
    ),
    one(&[Vdi], "differencing", PARENTS, VDI_LINK),
    one(&[Vdi], "undo", PARENTS, VDI_LINK),
];

const VDI_LINK: Evidence =
    Evidence::Measured("qemu-img info 10.0.2 of a child of a VDI: \"non-NULL link UUID\"");

#[cfg(test)]
mod tests {
    use super::super::{ALL, LIBVIRT_CENTOS_6};
    use super::*;

    fn codes(name: &str, format: Format, kind: &str, bytes: u64) -> Vec<&'static str> {
        let misfits = Profile::named(name).unwrap().misfits(format, kind, bytes);
        misfits.iter().map(|misfit| misfit.code).collect()
    }

    #[test]
    fn azure_refuses_every_file_but_a_fixed_vhd_of_whole_mebibytes() {
        let none = [""; 0];
        assert_eq!(codes("azure", Format::Vhd, "fixed", 4 << 20), none);
        assert_eq!(codes("azure", Format::Vhd, "fixed", 5_000_192), ["SIZE"]);
        for kind in ["dynamic", "differencing"] {
            assert_eq!(codes("azure", Format::Vhd, kind, 4 << 20), ["SUBFORMAT"]);
        }
        for (format, kind) in [
            (Format::Raw, ""),
            (Format::Qcow2, "v3"),
            (Format::Vmdk, "streamOptimized"),
            (Format::Vhdx, "dynamic"),
            (Format::Vdi, "fixed"),
            (Format::Qed, ""),
        ] {
            assert_eq!(codes("azure", format, kind, 512), ["FORMAT", "SIZE"]);
        }
    }

    #[test]
    fn a_size_is_refused_for_what_is_wrong_with_it() {
        let says = |name: &str, bytes| {
            let all = Profile::named(name).unwrap();
            let all = all.misfits(
                all.default_kind().format,
                all.default_kind().subformat,
                bytes,
            );
            all.into_iter().map(|misfit| misfit.how).collect::<Vec<_>>()
        };
        let odd = says("azure", (4 << 20) + 512);
        assert!(odd.len() == 1 && odd[0].contains("no multiple of 1048576: only whole MiB"));
        let large = says("esxi", 3 << 40);
        assert!(large.len() == 1 && large[0].contains("more than 2199023255040: ESXi 5.0 and 5.1"));
        assert!(!large[0].contains("multiple"));
        assert_eq!(says("esxi", (3 << 40) + 1).len(), 2);
    }

    #[test]
    fn no_product_takes_a_disk_of_no_bytes() {
        for profile in ALL {
            let kind = profile.default_kind();
            let found = codes(profile.name, kind.format, kind.subformat, 0);
            assert_eq!(found, ["SIZE"], "{}", profile.name);
        }
    }

    #[test]
    fn nothing_that_is_written_for_a_product_is_refused_by_it() {
        for profile in ALL {
            for kind in profile.kinds {
                let found = profile.misfits(kind.format, kind.subformat, 10 << 30);
                assert_eq!(found, [], "{} {}", profile.name, kind.subformat);
            }
        }
        let found = LIBVIRT_CENTOS_6.misfits(Format::Qcow2, "v3", 1 << 30);
        assert!(matches!(
            found.first().map(|one| one.evidence),
            Some(Evidence::Measured(_))
        ));
    }

    #[test]
    fn each_product_knows_a_kind_once_and_why() {
        for profile in ALL.iter().chain([&LIBVIRT_CENTOS_6]) {
            let mut seen = Vec::new();
            for row in profile.refusals {
                assert!(!row.how.is_empty() && !row.evidence.source().is_empty());
                for format in row.formats {
                    let kind = (format, row.subformat);
                    assert!(!seen.contains(&kind), "{} {kind:?}", profile.name);
                    seen.push(kind);
                }
            }
        }
        let esxi = |kind| codes("esxi", Format::Vmdk, kind, 1 << 30);
        assert_eq!(esxi("monolithicSparse"), ["SUBFORMAT"]);
        assert_eq!(codes("esxi", Format::Vmdk, "vmfs", 3 << 40), ["SIZE"]);
        let most = (2 << 40) - 512;
        assert_eq!(codes("esxi", Format::Vmdk, "vmfs", most), [""; 0]);
        let xen = |kind| codes("xenserver", Format::Vhd, kind, 1 << 30);
        assert_eq!((xen("fixed"), xen("dynamic")), (vec!["SUBFORMAT"], vec![]));
        let vdi = |kind| codes("libvirt", Format::Vdi, kind, 1 << 30);
        assert_eq!(vdi("dynamic"), [""; 0]);
        for kind in ["differencing", "undo"] {
            assert_eq!(vdi(kind), ["SUBFORMAT"]);
        }
    }
}
