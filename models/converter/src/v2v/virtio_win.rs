//! The folder of virtio-win that fits the guest: what virt-v2v finds on the host and copies into Windows.
//!
//! The INFs are in our own words and as short as Windows takes them; binary and catalogue are placeholders, of which
//! only that they are there matters. What an INF is made of: Microsoft, "Summary of INF Sections".
//!
//! ```text
//! [Version]       Class, CatalogFile = netkvm.cat
//! [Manufacturer]  %Maker% = Models, NTamd64, NTx86
//! [Models.NT…]    %netkvm.Desc% = netkvm_Inst, PCI\VEN_1AF4&DEV_1000
//! [netkvm_Inst.NT.Services]  AddService = netkvm, 2, netkvm_Service
//! ```

use crate::boot_drivers::SCSI_CLASS;
use drylab_catalog::device::device;

/// Class of network adapters.
const NET_CLASS: &str = "{4D36E972-E325-11CE-BFC1-08002BE10318}";

/// One driver of the folder.
pub(crate) struct DriverPackage {
    /// Name of the service and, with an ending, of its files.
    name: &'static str,
    /// Class of its devices: name and id.
    class: (&'static str, &'static str),
    /// Model of the device it drives.
    model: &'static str,
    /// `StartType` of the service.
    start: u32,
}

/// The drivers of disk and adapter.
pub(crate) fn virtio_win() -> [DriverPackage; 2] {
    [
        DriverPackage {
            name: "viostor",
            class: ("SCSIAdapter", SCSI_CLASS),
            model: "virtio-blk",
            start: 0,
        },
        DriverPackage {
            name: "netkvm",
            class: ("Net", NET_CLASS),
            model: "virtio-net",
            start: 3,
        },
    ]
}

impl DriverPackage {
    /// Its files: INF, binary, catalogue.
    pub(crate) fn files(&self, origin: &str) -> Vec<(String, Vec<u8>)> {
        let name = self.name;
        let stands = |ending: &str| format!("MZ {name}.{ending} of {origin}").into_bytes();
        vec![
            (format!("{name}.inf"), self.inf().into_bytes()),
            (format!("{name}.sys"), stands("sys")),
            (format!("{name}.cat"), stands("cat")),
        ]
    }

    fn inf(&self) -> String {
        let (name, (class, guid), start) = (self.name, self.class, self.start);
        let id = device(self.model).map(|found| {
            let (vendor, device) = (found.vendor, found.device);
            format!("PCI\\VEN_{vendor:04X}&DEV_{device:04X}")
        });
        let id = id.unwrap_or_default();
        let model = format!("%{name}.Desc%={name}_Inst,{id}");
        let lines = [
            "; A driver package of the model, in its own words.",
            "[Version]",
            "Signature=\"$WINDOWS NT$\"",
            &format!("Class={class}"),
            &format!("ClassGUID={guid}"),
            "Provider=%Maker%",
            &format!("CatalogFile={name}.cat"),
            "DriverVer=01/01/2012,6.1.0.0",
            "",
            "[Manufacturer]",
            "%Maker%=Models,NTamd64,NTx86",
            "",
            "[Models.NTamd64]",
            &model,
            "",
            "[Models.NTx86]",
            &model,
            "",
            &format!("[{name}_Inst.NT]"),
            &format!("CopyFiles={name}_Files"),
            "",
            &format!("[{name}_Inst.NT.Services]"),
            &format!("AddService={name},0x00000002,{name}_Service"),
            "",
            &format!("[{name}_Service]"),
            "ServiceType=1",
            &format!("StartType={start}"),
            "ErrorControl=1",
            &format!("ServiceBinary=%12%\\{name}.sys"),
            "",
            &format!("[{name}_Files]"),
            &format!("{name}.sys"),
            "",
            "[DestinationDirs]",
            &format!("{name}_Files=12"),
            "",
            "[SourceDisksNames]",
            "1=%Maker%",
            "",
            "[SourceDisksFiles]",
            &format!("{name}.sys=1"),
            "",
            "[Strings]",
            "Maker=\"virtio\"",
            &format!("{name}.Desc=\"virtio {class}\""),
        ];
        lines.map(|line| format!("{line}\r\n")).concat()
    }
}
