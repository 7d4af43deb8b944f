//! Importers react to what is found in a disk, each as its product does, and repair takes the reaction away.

use drylab_appliance::Package;
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt, copy_data};
use drylab_catalog::{Mark, Place, Witness};
use drylab_hypervisor::importer::{self, Operator, OvfOptions, ReadError, Reading, Verdict};
use drylab_hypervisor::{LabFile, Product, console, exporter, products};
use drylab_image::{Image, Qcow2Options, Target, VhdOptions, VmdkOptions, open, write};
use std::sync::Arc;

const ESXI: &str = "esxi-5.0.0";
const KVM: &str = "kvm-centos-6.3";
const XEN: &str = "xenserver-6.0.2";
const HYPERV: &str = "hyperv-2008r2";
const SIZE: u64 = 8 << 20;

type Read = Result<Reading, ReadError>;

fn product(id: &str) -> Product {
    products().remove(&id.into()).expect("a known product")
}

fn operator() -> Operator {
    Operator {
        name: "vm".to_owned(),
        guest: "centos-6.3".to_owned(),
        vcpus: 2,
        memory_mib: 1026,
    }
}

/// Random bytes at two places: a grain, block or cluster of them is no zeros and packs into one marker each.
fn disk() -> Arc<dyn ReadAt> {
    let disk = SparseBytes::new(SIZE);
    for (at, seed) in [(0u64, 1u32), (5 << 20, 7)] {
        let mut state = seed;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0] | 1
        })
        .take(70_000)
        .collect();
        disk.write_at(at, &bytes).expect("memory");
    }
    Arc::new(disk)
}

fn convert(disk: &Arc<dyn ReadAt>, target: &Target) -> drylab_block::Result<Arc<dyn ReadAt>> {
    let sink = SparseBytes::default();
    write(disk, target, &sink)?;
    Ok(Arc::new(sink))
}

fn made(target: &Target) -> Vec<u8> {
    bytes(&convert(&disk(), target).expect("an image"))
}

fn bytes(file: &Arc<dyn ReadAt>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len()).expect("small")];
    file.read_at(0, &mut bytes).expect("memory");
    bytes
}

fn opened(file: &Arc<dyn ReadAt>) -> Image {
    open(file.clone(), &Limits::DEFAULT).expect("an image")
}

/// The file as `drylab image repair` leaves it.
fn repaired(file: &Arc<dyn ReadAt>) -> Arc<dyn ReadAt> {
    let plan = opened(file).repair().expect("a plan");
    assert!(!plan.is_empty(), "there is something to mend");
    let copy = SparseBytes::new(file.len());
    copy_data(file, &copy).expect("memory");
    plan.apply(&copy).expect("memory");
    Arc::new(copy)
}

/// A bare disk.
fn bare(name: &str, file: &Arc<dyn ReadAt>) -> Package {
    let mut package = Package::default();
    package.put(name, file.clone());
    package.disks.push(name.to_owned());
    package
}

/// The package with its only disk in another state; no manifest knows of it.
fn holding(package: &Package, file: &Arc<dyn ReadAt>) -> Package {
    let mut other = package.clone();
    other.put(package.disks[0].clone(), file.clone());
    other.files.retain(|name, _| !name.ends_with(".mf"));
    other
}

fn exported(id: &str, export: impl Fn(&Product, &exporter::Exported<'_>) -> Package) -> Package {
    let product = product(id);
    let lab = LabFile::of_the_report();
    let host = lab.host_of(&product.id).expect("a host");
    let request = console::Request::plain("vm", "centos-6.3", (2, 1026), &[SIZE]);
    let draws = console::Draws { mac: 99, uuid: 5 };
    let made = console::create(&product.facts(), host, &request, draws).expect("all facts");
    let disks = [disk()];
    let from = exporter::Exported {
        machine: &made.machine,
        guest: "centos-6.3",
        disks: &disks,
        mac_seed: None,
        snapshots: &[],
    };
    export(&product, &from)
}

/// The witness that names a code, and the one behind it that says what the product does.
fn chain<'w>(witness: &'w [Witness], code: &str) -> Option<(&'w Witness, &'w Witness)> {
    let named = format!("{code}: ");
    let at = witness
        .iter()
        .position(|link| link.says.starts_with(&named))?;
    Some((&witness[at], &witness[at + 1]))
}

fn is_disk_place(link: &Witness, file: &str) -> bool {
    matches!(&link.place, Place::Disk(place) if place.contains(file) && place.contains("byte "))
}

/// The import is refused for that code; the mark of what the product does.
#[track_caller]
fn refused(read: &Read, file: &str, code: &str, profile: &str) -> Mark {
    let Err(ReadError::Refused(why)) = read else {
        panic!("not refused: {read:?}");
    };
    let (place, does) = chain(why, code).unwrap_or_else(|| panic!("{code} is not in {why:?}"));
    assert!(is_disk_place(place, file), "{place}");
    assert_eq!(does.place, Place::Fact(format!("{profile}/{code}")));
    assert!(does.says.contains(" refuses: "), "{does}");
    does.mark
}

/// The import goes on with that loss remarked and no other; the mark of what the product does.
#[track_caller]
fn remarked(read: &Read, file: &str, code: &str, profile: &str) -> Mark {
    let reading = read.as_ref().expect("it goes on");
    let [remark] = reading.remarks.as_slice() else {
        panic!("{:?}", reading.remarks);
    };
    assert_eq!(remark.verdict, Verdict::Warned);
    let (place, does) = chain(&remark.witness, code).expect("the code");
    assert!(is_disk_place(place, file), "{place}");
    assert_eq!(does.place, Place::Fact(format!("{profile}/{code}")));
    assert!(does.says.contains(" misreads: "), "{does}");
    does.mark
}

#[track_caller]
fn clean(read: &Read) {
    assert_eq!(read.as_ref().expect("it goes on").remarks, []);
}

fn hyperv(file: &Arc<dyn ReadAt>) -> Read {
    let package = bare("disk.vhd", file);
    importer::hyperv_new_machine(&product(HYPERV).facts(), &package, &operator())
}

fn xenserver(name: &str, file: &Arc<dyn ReadAt>) -> Read {
    importer::xencenter_import_disk(&product(XEN).facts(), &bare(name, file), &operator())
}

fn kvm(name: &str, file: &Arc<dyn ReadAt>) -> Read {
    importer::virt_manager_import(&product(KVM).facts(), &bare(name, file), &operator())
}

/// A dynamic VHD whose dynamic header, 1024 bytes at 512, has a wrong checksum.
fn wrong_header() -> Arc<dyn ReadAt> {
    let mut bytes = made(&Target::VhdDynamic(VhdOptions::default()));
    assert_eq!(&bytes[512..520], b"cxsparse");
    bytes[512 + 0x24] ^= 1;
    Arc::new(bytes)
}

#[test]
fn hyper_v_refuses_a_vhd_whose_header_has_a_wrong_checksum_until_it_is_repaired() {
    const CODE: &str = "VHD-HEADER-CHECKSUM";
    let file = wrong_header();
    let mark = refused(&hyperv(&file), "disk.vhd", CODE, "hyperv-2008r2");
    assert_eq!(mark, Mark::Document);
    clean(&hyperv(&repaired(&file)));
}

#[test]
fn hyper_v_looks_at_the_disks_of_its_own_folders_too() {
    let package = exported(HYPERV, |_, from| {
        exporter::hyperv_export(from, &convert).expect("an export")
    });
    let lab = LabFile::of_the_report();
    let host = lab.host_of(&HYPERV.into()).expect("a host");
    let import = |package: &Package| {
        importer::hyperv_import(&product(HYPERV).facts(), host, package, &operator())
    };
    clean(&import(&package));
    let file = wrong_header();
    let name = package.disks[0].as_str();
    let read = import(&holding(&package, &file));
    refused(&read, name, "VHD-HEADER-CHECKSUM", "hyperv-2008r2");
    clean(&import(&holding(&package, &repaired(&file))));
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"))
}

/// A sparse VMDK the last grain of which stands beyond the end of the file, in both of its tables.
fn lost_grain() -> Arc<dyn ReadAt> {
    let mut bytes = made(&Target::VmdkSparse(VmdkOptions::default()));
    let beyond = u32::try_from(bytes.len() / 512 + 1000).expect("small");
    for field in [48, 56] {
        let directory = usize::try_from(le_u32(&bytes, field)).expect("small") * 512;
        let table = usize::try_from(le_u32(&bytes, directory)).expect("small") * 512;
        let mut entries = (0..512usize).map(|entry| table + entry * 4);
        let last = entries.rfind(|at| le_u32(&bytes, *at) > 1);
        let at = last.expect("a grain");
        bytes[at..at + 4].copy_from_slice(&beyond.to_le_bytes());
    }
    Arc::new(bytes)
}

#[test]
fn kvm_takes_a_vmdk_with_a_grain_beyond_the_end_and_the_loss_is_remarked() {
    const CODE: &str = "VMDK-GRAIN-RANGE";
    let file = lost_grain();
    let mark = remarked(&kvm("disk.vmdk", &file), "disk.vmdk", CODE, "libvirt");
    assert_eq!(mark, Mark::Measured);
    clean(&kvm("disk.vmdk", &repaired(&file)));
}

#[test]
fn a_domain_that_says_raw_of_a_damaged_vmdk_is_not_asked_what_is_in_it() {
    let file = lost_grain();
    for (format, minds) in [("vmdk", true), ("raw", false)] {
        let mut package = bare("disk.vmdk", &file);
        let domain = format!(
            "<domain type='kvm'><name>vm</name><memory>1048576</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices>\
             <disk type='file' device='disk'><driver name='qemu' type='{format}'/><source file='disk.vmdk'/>\
             <target dev='hda' bus='ide'/></disk></devices></domain>"
        );
        package.descriptor = "vm.xml".to_owned();
        package.put("vm.xml", Arc::new(domain.into_bytes()));
        let read = importer::virsh_define(&product(KVM).facts(), &package, &operator());
        if minds {
            remarked(&read, "disk.vmdk", "VMDK-GRAIN-RANGE", "libvirt");
        } else {
            clean(&read);
        }
    }
}

/// A dynamic VHD with all bits of its first block clear, over data.
fn clear_bits() -> Arc<dyn ReadAt> {
    let mut bytes = made(&Target::VhdDynamic(VhdOptions::default()));
    let table = 1536;
    let sector = u32::from_be_bytes(bytes[table..table + 4].try_into().expect("four"));
    let at = usize::try_from(sector).expect("small") * 512;
    bytes[at..at + 512].fill(0);
    Arc::new(bytes)
}

#[test]
fn xenserver_loses_sectors_whose_bit_is_clear_and_kvm_and_hyper_v_do_not() {
    const CODE: &str = "VHD-BITMAP-CLEAR";
    let file = clear_bits();
    let read = xenserver("disk.vhd", &file);
    let mark = remarked(&read, "disk.vhd", CODE, "xenserver");
    assert_eq!(mark, Mark::Source);
    clean(&xenserver("disk.vhd", &repaired(&file)));
    clean(&kvm("disk.vhd", &file));
    clean(&hyperv(&file));
}

#[test]
fn xenserver_looks_at_the_disks_of_ovf_packages_too() {
    let package = exported(XEN, |_, from| {
        exporter::xencenter_export_ovf(from, &convert).expect("an export")
    });
    let import = |package: &Package| {
        let facts = product(XEN);
        let options = OvfOptions::default();
        importer::xencenter_import_ovf(&facts.facts(), package, &operator(), options)
    };
    clean(&import(&package));
    let name = package.disks[0].clone();
    let file = clear_bits();
    remarked(
        &import(&holding(&package, &file)),
        &name,
        "VHD-BITMAP-CLEAR",
        "xenserver",
    );
    clean(&import(&holding(&package, &repaired(&file))));
    refused(
        &import(&holding(&package, &wrong_header())),
        &name,
        "VHD-HEADER-CHECKSUM",
        "xenserver",
    );
}

#[test]
fn esxi_refuses_a_stream_without_end_until_it_is_repaired() {
    const CODE: &str = "VMDK-NO-END-OF-STREAM";
    let package = exported(ESXI, |product, from| {
        exporter::vsphere_export_ovf(&product.facts(), from, &convert).expect("an export")
    });
    let import = |package: &Package| {
        importer::vsphere_deploy_ovf(&product(ESXI).facts(), package, &operator())
    };
    clean(&import(&package));
    let name = package.disks[0].clone();
    let mut cut = bytes(&package.files[&name]);
    cut.truncate(cut.len() - 512);
    let file: Arc<dyn ReadAt> = Arc::new(cut);
    let mark = refused(&import(&holding(&package, &file)), &name, CODE, "esxi");
    assert_eq!(mark, Mark::Issue);
    clean(&import(&holding(&package, &repaired(&file))));
}

#[test]
fn sound_disks_of_every_format_make_no_importer_say_a_word() {
    let vhds = [
        Target::VhdDynamic(VhdOptions::default()),
        Target::VhdDynamic(VhdOptions::qemu(true)),
        Target::VhdFixed(VhdOptions::default()),
    ];
    for target in &vhds {
        let file: Arc<dyn ReadAt> = Arc::new(made(target));
        for read in [
            hyperv(&file),
            xenserver("disk.vhd", &file),
            kvm("disk.vhd", &file),
        ] {
            clean(&read);
        }
    }
    let others = [
        (Target::VmdkSparse(VmdkOptions::default()), "disk.vmdk"),
        (Target::VmdkStream(VmdkOptions::default()), "disk.vmdk"),
        (Target::Qcow2(Qcow2Options::default()), "disk.qcow2"),
        (Target::Raw, "disk.raw"),
    ];
    for (target, name) in &others {
        let file: Arc<dyn ReadAt> = Arc::new(made(target));
        clean(&kvm(name, &file));
        if name.ends_with(".vmdk") {
            clean(&xenserver(name, &file));
        }
    }
}
