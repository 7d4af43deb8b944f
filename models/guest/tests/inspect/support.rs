//! Golden guests, machines to boot them on and ways to change one thing.

use drylab_block::{Delta, Limits, Overlay, ReadAt};
use drylab_catalog::{
    Clock, Controller, Cpu, Disk, Firmware, Machine, Memory, PciAddress, Smbios, device,
};
use drylab_filesystem::Kind;
use drylab_guest::inspect::{CpioEntry, Guest, GuestDisk, cpio_walk, inspect};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) const CENTOS: &str = "centos-6.3";
pub(crate) const UBUNTU: &str = "ubuntu-12.04";
pub(crate) const WINDOWS: &str = "windows-2008r2";
pub(crate) const XEN: &str = "xenserver-6.0.2";
pub(crate) const HYPERV: &str = "hyperv-2008r2";
pub(crate) const SOURCES: [&str; 4] = ["esxi-5.0.0", "kvm-centos-6.3", XEN, HYPERV];
pub(crate) const LIMITS: Limits = Limits::DEFAULT;

/// Controllers a guest may meet.
pub(crate) const MODELS: [&str; 8] = [
    "piix3-ide",
    "piix4-ide",
    "piix3-ide-xen",
    "piix4-ide-hyperv",
    "lsilogic",
    "lsisas1068",
    "pvscsi",
    "virtio-blk",
];

fn file(path: &str) -> Vec<u8> {
    let path =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../corpora/guests")).join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Disk of a golden guest as installed on `source`.
pub(crate) fn disk(guest: &str, source: &str) -> Arc<dyn ReadAt> {
    let base: Arc<dyn ReadAt> = Arc::new(file(&format!("{guest}/base.qcow2")));
    let base = Arc::new(drylab_image::open(base, &LIMITS).expect("the golden image opens"));
    let delta = file(&format!("{guest}/{source}.delta"));
    let delta = Delta::parse(&delta, base.len()).expect("the golden delta parses");
    Arc::new(Overlay::with_delta(base, &delta))
}

/// A golden guest with files beside its disk.
pub(crate) struct Golden {
    pub(crate) disk: GuestDisk,
}

impl Golden {
    pub(crate) fn new(guest: &str, source: &str) -> Self {
        Self {
            disk: GuestDisk::new(disk(guest, source)),
        }
    }

    pub(crate) fn inspect(&self) -> Guest {
        inspect(std::slice::from_ref(&self.disk), &LIMITS).expect("the golden guest is inspected")
    }

    /// Bytes of a file on a volume, as the guest reads them.
    pub(crate) fn read(&self, volume: &str, path: &str) -> Vec<u8> {
        if let Some(Some(content)) = self.disk.files.get(None, volume, path) {
            return content.to_vec();
        }
        let layout =
            drylab_volume::scan(self.disk.bytes.clone(), &LIMITS).expect("the disk is scanned");
        let volume = layout.volume(volume).expect("the volume is there");
        let opened = drylab_filesystem::open(volume.source.clone(), &LIMITS)
            .expect("it opens")
            .expect("it is known");
        opened
            .read(path, &LIMITS)
            .expect("it reads")
            .unwrap_or_else(|| panic!("{path} is there"))
    }

    /// The same guest with a file replaced (or removed).
    pub(crate) fn with(mut self, volume: &str, path: &str, content: Option<&[u8]>) -> Self {
        self.disk
            .files
            .insert(None::<Kind>, volume, path, content.map(Arc::from));
        self
    }

    /// The same guest with a text changed in a file; it must be there.
    pub(crate) fn replacing(self, volume: &str, path: &str, from: &str, to: &str) -> Self {
        let text = String::from_utf8(self.read(volume, path)).expect("it is text");
        assert!(text.contains(from), "{path} has {from:?}");
        self.with(volume, path, Some(text.replace(from, to).as_bytes()))
    }

    /// The same guest with bytes of the disk written.
    pub(crate) fn patched(mut self, offset: u64, bytes: &[u8]) -> Self {
        use drylab_block::WriteAt;
        let changed = Overlay::new(self.disk.bytes.clone());
        changed
            .write_at(offset, bytes)
            .expect("the overlay takes it");
        self.disk.bytes = Arc::new(changed);
        self
    }
}

/// Position of the controller models on the buses, as the products place them.
fn slot(index: usize) -> Option<PciAddress> {
    Some(PciAddress {
        bus: 0,
        device: u8::try_from(index).expect("few") + 4,
        function: 0,
    })
}

/// A machine with a disk on each of these controllers.
pub(crate) fn machine_with(models: &[&str], bytes: u64) -> Machine {
    for model in models {
        assert!(device::device(model).is_some(), "{model} is in the table");
    }
    let controllers: Vec<Controller> = models
        .iter()
        .enumerate()
        .map(|(index, model)| Controller {
            model: (*model).to_owned(),
            slot: slot(index),
        })
        .collect();
    let disks = (0..models.len())
        .map(|index| Disk {
            controller: u32::try_from(index).expect("few"),
            unit: 0,
            bytes,
        })
        .collect();
    Machine {
        product: "test".into(),
        name: "vm".to_owned(),
        uuid: "564d0000-0000-0000-0000-000000000001".to_owned(),
        firmware: Firmware::Bios,
        xen_platform: false,
        chipset: "440BX".to_owned(),
        smbios: Smbios::default(),
        cpu: Cpu {
            brand: "Intel(R) Xeon(R) CPU E5620 @ 2.40GHz".to_owned(),
            vendor: "GenuineIntel".to_owned(),
            khz: 2_400_000,
            vcpus: 1,
            features: Vec::new(),
            hypervisor: "VMwareVMware".to_owned(),
        },
        memory: Memory {
            mib: 1024,
            reserved_kib: 0,
        },
        controllers,
        disks,
        cdroms: Vec::new(),
        nics: Vec::new(),
        clock: Clock::Localtime,
    }
}

/// A machine with one disk on this controller.
pub(crate) fn machine(model: &str) -> Machine {
    machine_with(&[model], 8 << 30)
}

/// An initramfs without the files `drop` names.
pub(crate) fn without(packed: &[u8], drop: &dyn Fn(&str) -> bool) -> Vec<u8> {
    let mut entries: Vec<(String, u32, Vec<u8>)> = Vec::new();
    let mut keep = |entry: CpioEntry<'_>| {
        if !drop(&entry.name) {
            entries.push((entry.name.clone(), entry.mode, entry.data.to_vec()));
        }
    };
    cpio_walk(packed, &LIMITS, &mut keep).expect("the golden initramfs is read");
    gzip(&cpio(&entries))
}

/// A newc archive.
pub(crate) fn cpio(entries: &[(String, u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let trailer = [("TRAILER!!!".to_owned(), 0, Vec::new())];
    for (number, (name, mode, data)) in entries.iter().chain(&trailer).enumerate() {
        let fields = [
            number,
            *mode as usize,
            0,
            0,
            1,
            0,
            data.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        out.extend_from_slice(b"070701");
        for field in fields {
            out.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// One gzip member.
pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(data).expect("memory takes it");
    packer.finish().expect("memory takes it")
}
