//! Routes: which export, conversions and import follow each other.

use drylab_catalog::ProductId;
use drylab_scenario::{RouteName, Vocabulary};
use serde::Deserialize;

/// One thing done on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hop {
    /// vSphere Client: File, Export, Export OVF Template.
    VsphereExportOvf,
    /// The machine's folder on the datastore, as the datastore browser (or libvirt's esx driver) reads it.
    DatastoreCopy,
    /// `virsh dumpxml` and the image file.
    VirshDumpxmlCopy,
    /// virt-v2v 0.8 from libvirt's esx driver to libvirt.
    #[serde(rename = "virt-v2v-0.8")]
    VirtV2v,
    /// virt-convert with its default options.
    #[serde(rename = "virt-convert-0.600")]
    VirtConvert,
    /// `qemu-img convert -O raw` of CentOS 6.3.
    #[serde(rename = "qemu-img-0.12-raw")]
    QemuImgRaw,
    /// `qemu-img convert -O vmdk` of CentOS 6.3.
    #[serde(rename = "qemu-img-0.12-vmdk")]
    QemuImgVmdk,
    /// `qemu-img convert -O vpc` of CentOS 6.3.
    #[serde(rename = "qemu-img-0.12-vpc")]
    QemuImgVpc,
    /// virt-v2v 2 from a machine's folder or an OVA to libvirt.
    #[serde(rename = "virt-v2v-2")]
    VirtV2v2,
    /// `qemu-img convert -O raw` of version 10.
    #[serde(rename = "qemu-img-10-raw")]
    QemuImg10Raw,
    /// `qemu-img convert -O vmdk` of version 10.
    #[serde(rename = "qemu-img-10-vmdk")]
    QemuImg10Vmdk,
    /// `qemu-img convert -O vmdk -o subformat=streamOptimized` of version 10.
    #[serde(rename = "qemu-img-10-vmdk-stream")]
    QemuImg10VmdkStream,
    /// `qemu-img convert -O vpc -o force_size=on` of version 10.
    #[serde(rename = "qemu-img-10-vpc")]
    QemuImg10Vpc,
    /// XenCenter: File, Export, OVF package through the Transfer VM.
    XencenterExportOvf,
    /// XenCenter: File, Export, XVA file.
    XvaExport,
    /// Hyper-V Manager: Export.
    HypervExport,
    /// XenConvert 2.3.1 inside the running machine, to a XenServer.
    #[serde(rename = "xenconvert-2.3-p2v")]
    XenconvertP2v,
    /// XenConvert 2.3.1 inside the running machine, to VHDs.
    #[serde(rename = "xenconvert-2.3-p2v-vhd")]
    XenconvertP2vVhd,
    /// XenConvert 2.3.1 on a package of VMware's, to a XenServer.
    #[serde(rename = "xenconvert-2.3-vmware")]
    XenconvertVmware,
    /// XenConvert 2.3.1 on a package of VMware's, to an OVF with VHDs.
    #[serde(rename = "xenconvert-2.3-vmware-ovf")]
    XenconvertVmwareOvf,
    /// XenConvert 2.3.1 on a VHD, to a XenServer.
    #[serde(rename = "xenconvert-2.3-vhd")]
    XenconvertVhd,
    /// vCenter Converter 5.0.0 of the running machine, to the ESXi host.
    #[serde(rename = "vcenter-converter-5.0-p2v")]
    ConverterP2v,
    /// vCenter Converter 5.0.0 of the machine switched off, to the ESXi host.
    #[serde(rename = "vcenter-converter-5.0")]
    ConverterOff,
    /// vCenter Converter 5.1 of the running machine, to the ESXi host.
    #[serde(rename = "vcenter-converter-5.1-p2v")]
    Converter51P2v,
    /// `vmkfstools -i` on the ESXi host.
    VmkfstoolsClone,
    /// vSphere Client: File, Deploy OVF Template.
    VsphereDeployOvf,
    /// Datastore browser: Add to Inventory, "I moved it".
    VsphereRegisterVmx,
    /// vSphere Client: New Virtual Machine, Custom, Use an existing virtual disk.
    VsphereExistingDisk,
    /// `virsh define`.
    VirshDefine,
    /// Virtual Machine Manager: New, Import existing disk image.
    VirtManagerImport,
    /// `virt-image` on what virt-convert wrote.
    VirtImage,
    /// XenCenter: File, Import, OVF package.
    XencenterImportOvf,
    /// XenCenter: File, Import, disk image.
    XencenterImportDisk,
    /// XenCenter: File, Import, XVA file.
    XencenterImportXva,
    /// Hyper-V Manager: Import Virtual Machine.
    HypervImport,
    /// Hyper-V Manager: New Virtual Machine, Use an existing virtual hard disk.
    HypervNewMachine,
}

impl Hop {
    /// What a person does, or types.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::VsphereExportOvf => "vSphere Client: File, Export, Export OVF Template",
            Self::DatastoreCopy => "copy the machine's folder from the datastore",
            Self::VirshDumpxmlCopy => "virsh dumpxml, and copy the image file",
            Self::VirtV2v => "virt-v2v 0.8, from libvirt's esx driver to libvirt",
            Self::VirtConvert => "virt-convert 0.600 with its default options",
            Self::QemuImgRaw => "qemu-img 0.12 convert -O raw",
            Self::QemuImgVmdk => "qemu-img 0.12 convert -O vmdk",
            Self::VmkfstoolsClone => "vmkfstools -i on the ESXi host",
            Self::VsphereDeployOvf => "vSphere Client: File, Deploy OVF Template",
            Self::VsphereRegisterVmx => "datastore browser: Add to Inventory, I moved it",
            Self::VsphereExistingDisk => {
                "vSphere Client: New Virtual Machine, Custom, Use an existing virtual disk"
            }
            Self::VirshDefine => "virsh define",
            Self::VirtManagerImport => "Virtual Machine Manager: New, Import existing disk image",
            Self::VirtImage => "virt-image on what virt-convert wrote",
            Self::QemuImgVpc => "qemu-img 0.12 convert -O vpc",
            Self::VirtV2v2 => "virt-v2v 2, from the machine's folder or an OVA to libvirt",
            Self::QemuImg10Raw => "qemu-img 10 convert -O raw",
            Self::QemuImg10Vmdk => "qemu-img 10 convert -O vmdk",
            Self::QemuImg10VmdkStream => "qemu-img 10 convert -O vmdk -o subformat=streamOptimized",
            Self::QemuImg10Vpc => "qemu-img 10 convert -O vpc -o force_size=on",
            Self::XencenterExportOvf => "XenCenter: File, Export, OVF package",
            Self::XvaExport => "XenCenter: File, Export, XVA file",
            Self::HypervExport => "Hyper-V Manager: Export",
            Self::XenconvertP2v => "XenConvert 2.3.1 in the running machine, to XenServer",
            Self::XenconvertP2vVhd => "XenConvert 2.3.1 in the running machine, to VHD",
            Self::XenconvertVmware => "XenConvert 2.3.1, from VMware's OVF to XenServer",
            Self::XenconvertVmwareOvf => "XenConvert 2.3.1, from VMware's OVF to OVF with VHD",
            Self::XenconvertVhd => "XenConvert 2.3.1, from VHD to XenServer",
            Self::ConverterP2v => "vCenter Converter 5.0.0, of the running machine, to ESXi",
            Self::ConverterOff => "vCenter Converter 5.0.0, of the machine switched off, to ESXi",
            Self::Converter51P2v => "vCenter Converter 5.1, of the running machine, to ESXi",
            Self::XencenterImportOvf => "XenCenter: File, Import, OVF package",
            Self::XencenterImportDisk => "XenCenter: File, Import, disk image",
            Self::XencenterImportXva => "XenCenter: File, Import, XVA file",
            Self::HypervImport => "Hyper-V Manager: Import Virtual Machine",
            Self::HypervNewMachine => {
                "Hyper-V Manager: New Virtual Machine, Use an existing virtual hard disk"
            }
        }
    }

    /// Whether it copies the machine while that runs: the source is then shut down after the copy.
    #[must_use]
    pub fn copies_running(self) -> bool {
        matches!(
            self,
            Self::XenconvertP2v
                | Self::XenconvertP2vVhd
                | Self::ConverterP2v
                | Self::Converter51P2v
        )
    }

    /// Whether an import is a console's, which works on its host through the network; libvirt's commands run on the host.
    #[must_use]
    pub fn is_by_console(self) -> bool {
        !matches!(self, Self::VirshDefine | Self::VirtImage)
    }

    /// The program, whichever of its commands or versions: `None` for a console's own export, copying and import.
    #[must_use]
    pub fn program(self) -> Option<&'static str> {
        match self {
            Self::VirtV2v | Self::VirtV2v2 => Some("virt-v2v"),
            Self::VirtConvert => Some("virt-convert"),
            Self::QemuImgRaw
            | Self::QemuImgVmdk
            | Self::QemuImgVpc
            | Self::QemuImg10Raw
            | Self::QemuImg10Vmdk
            | Self::QemuImg10VmdkStream
            | Self::QemuImg10Vpc => Some("qemu-img"),
            Self::XenconvertP2v
            | Self::XenconvertP2vVhd
            | Self::XenconvertVmware
            | Self::XenconvertVmwareOvf
            | Self::XenconvertVhd => Some("XenConvert"),
            Self::ConverterP2v | Self::Converter51P2v | Self::ConverterOff => {
                Some("vCenter Converter")
            }
            Self::VsphereExportOvf
            | Self::DatastoreCopy
            | Self::VirshDumpxmlCopy
            | Self::XencenterExportOvf
            | Self::XvaExport
            | Self::HypervExport
            | Self::VmkfstoolsClone
            | Self::VsphereDeployOvf
            | Self::VsphereRegisterVmx
            | Self::VsphereExistingDisk
            | Self::VirshDefine
            | Self::VirtManagerImport
            | Self::VirtImage
            | Self::XencenterImportOvf
            | Self::XencenterImportDisk
            | Self::XencenterImportXva
            | Self::HypervImport
            | Self::HypervNewMachine => None,
        }
    }

    /// Whether it hands a machine over as an OVF.
    #[must_use]
    pub fn exports_ovf(self) -> bool {
        matches!(self, Self::VsphereExportOvf | Self::XencenterExportOvf)
    }

    /// Whether it makes a machine of an OVF.
    #[must_use]
    pub fn imports_ovf(self) -> bool {
        matches!(self, Self::VsphereDeployOvf | Self::XencenterImportOvf)
    }

    /// Whether it is a tool between the products, as a console's own export, copying and import are not.
    #[must_use]
    pub fn is_converter(self) -> bool {
        self.program().is_some()
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Id.
    pub id: String,
    /// Where it starts.
    pub source: ProductId,
    /// Where it ends.
    pub target: ProductId,
    /// What is done; the last one makes the machine at the target.
    pub hops: Vec<Hop>,
    /// Whether it needs a converter newer than those of the report's lab.
    #[serde(default)]
    pub today: bool,
}

/// Which converters a person has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tools {
    /// Those of the report's lab, of 2013 and before.
    #[default]
    Of2013,
    /// The newer ones only.
    Today,
    /// All.
    All,
}

impl Tools {
    /// Whether a route can be gone with them. One without a converter always can.
    #[must_use]
    pub fn allow(self, route: &Route) -> bool {
        match self {
            Self::Of2013 => !route.today,
            Self::Today => route.today || !route.hops.iter().any(|hop| hop.is_converter()),
            Self::All => true,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteTable {
    #[serde(rename = "route")]
    routes: Vec<Route>,
}

/// The committed route table, in its order (which breaks ties).
///
/// # Panics
/// When the file that is part of the program does not parse.
#[must_use]
pub fn routes() -> Vec<Route> {
    let table: RouteTable = toml::from_str(include_str!("../routes.toml"))
        .expect("routes.toml is part of the program and parses");
    table.routes
}

impl Route {
    /// Hops before the import, and the import.
    #[must_use]
    pub fn split(&self) -> Option<(&[Hop], Hop)> {
        let (last, before) = self.hops.split_last()?;
        Some((before, *last))
    }
}

/// What the scenario generator may choose from.
#[must_use]
pub fn vocabulary(routes: &[Route], guests: Vec<drylab_catalog::GuestId>) -> Vocabulary {
    let routes = routes
        .iter()
        .map(|route| RouteName {
            id: route.id.clone(),
            source: route.source.clone(),
            target: route.target.clone(),
        })
        .collect();
    Vocabulary { guests, routes }
}
