//! Laws that hold for any change of the kind named.

use crate::support::{CENTOS, Golden, LIMITS, MODELS, UBUNTU, WINDOWS, machine, without};
use drylab_block::{Extent, Extents};
use drylab_guest::boot::boot;
use drylab_guest::inspect::{System, cpio_walk};
use drylab_hive::HiveEditor;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// The golden initramfs and the names of its modules.
fn modules(guest: &str, volume: &str, path: &str) -> (Vec<u8>, Vec<String>) {
    let packed = Golden::new(guest, "esxi-5.0.0").read(volume, path);
    let mut names = Vec::new();
    cpio_walk(&packed, &LIMITS, &mut |entry| {
        if entry.name.ends_with(".ko") {
            names.push(entry.name);
        }
    })
    .expect("it is read");
    (packed, names)
}

/// Whether a guest with these modules taken from its initramfs boots, by controller.
fn boots(guest: &str, path: &str, packed: &[u8], gone: &BTreeSet<&String>) -> Vec<bool> {
    let cut = without(packed, &|name| gone.iter().any(|gone| *gone == name));
    let found = Golden::new(guest, "esxi-5.0.0")
        .with("p1", path, Some(&cut))
        .inspect();
    MODELS
        .iter()
        .map(|model| boot(&found, &machine(model)).reached)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Invariant 41 for the boot of Linux.
    #[test]
    fn removing_a_driver_from_the_initramfs_never_makes_a_boot(
        ubuntu in any::<bool>(),
        first in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        more in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let (guest, path) = if ubuntu {
            (UBUNTU, "/boot/initrd.img-3.2.0-23-generic")
        } else {
            (CENTOS, "/initramfs-2.6.32-279.el6.x86_64.img")
        };
        let (packed, names) = modules(guest, "p1", path);
        let fewer: BTreeSet<&String> = first.iter().map(|index| index.get(&names)).collect();
        let most: BTreeSet<&String> = fewer.iter().copied().chain(more.iter().map(|index| index.get(&names))).collect();
        let with = boots(guest, path, &packed, &fewer);
        let without = boots(guest, path, &packed, &most);
        for (model, (with, without)) in MODELS.iter().zip(with.into_iter().zip(without)) {
            prop_assert!(with || !without, "{model} boots only without {more:?}");
        }
    }

    /// Invariant 41 for the boot of Windows: a driver switched on never hurts, one switched off never helps.
    #[test]
    fn switching_a_storage_driver_off_never_makes_windows_boot(
        off in prop::collection::btree_set(0usize..7, 0..4),
        more in prop::collection::btree_set(0usize..7, 1..4),
        kvm in any::<bool>(),
    ) {
        const DRIVERS: [&str; 7] = ["intelide", "pciide", "atapi", "LSI_SAS", "LSI_SCSI", "Disk", "volmgr"];
        let source = if kvm { "kvm-centos-6.3" } else { "esxi-5.0.0" };
        let boots = |off: &BTreeSet<usize>| -> Vec<bool> {
            let golden = Golden::new(WINDOWS, source);
            let path = "/Windows/System32/config/SYSTEM";
            let mut editor = HiveEditor::open(golden.read("p2", path), &LIMITS).expect("it opens");
            for (index, name) in DRIVERS.iter().enumerate() {
                let start = if off.contains(&index) { 3 } else { 0 };
                editor.set_u32(&format!("ControlSet001\\services\\{name}"), "Start", start).expect("it is there");
            }
            let bytes = editor.finish().expect("it is written");
            let guest = golden.with("p2", path, Some(&bytes)).inspect();
            MODELS.iter().map(|model| boot(&guest, &machine(model)).reached).collect()
        };
        let with = boots(&off);
        let without = boots(&off.union(&more).copied().collect());
        for (model, (with, without)) in MODELS.iter().zip(with.into_iter().zip(without)) {
            prop_assert!(with || !without, "{model}");
        }
    }

    /// A report says why, whatever was changed on the disk.
    #[test]
    fn a_boot_that_fails_has_a_cause_and_one_that_is_reached_has_none(
        guest in prop::sample::select(vec![CENTOS, UBUNTU, WINDOWS]),
        writes in prop::collection::vec(
            (any::<prop::sample::Index>(), 0u64..4096, prop::collection::vec(any::<u8>(), 1..40)),
            1..6,
        ),
        front in any::<bool>(),
        model in prop::sample::select(MODELS.to_vec()),
    ) {
        let mut golden = Golden::new(guest, "esxi-5.0.0");
        let extents: Vec<Extent> =
            Extents::new(golden.disk.bytes.as_ref()).filter(|extent| extent.kind.has_bytes()).collect();
        for (which, within, bytes) in writes {
            // The first kilobyte has the partition table, the rest of what is written anywhere is structures and files.
            let extent = which.get(&extents);
            let at = if front { within % 1024 } else { extent.offset + within % extent.length };
            golden = golden.patched(at, &bytes);
        }
        if let Ok(found) = drylab_guest::inspect::inspect(&[golden.disk], &LIMITS) {
            let report = boot(&found, &machine(model));
            prop_assert_eq!(report.reached, report.cause.is_empty(), "{:#?}", report);
            prop_assert_eq!(report.reached, report.stages.iter().all(|stage| stage.ok));
            prop_assert!(report.stages.iter().all(|stage| !stage.witnesses.is_empty()));
            if report.reached && report.unassessed.is_empty() {
                prop_assert!(report.root_device.is_some());
            }
        }
    }
}

#[test]
fn inspection_gives_the_same_value_twice() {
    for guest in [CENTOS, UBUNTU, WINDOWS] {
        let golden = Golden::new(guest, "kvm-centos-6.3");
        let (first, second) = (golden.inspect(), golden.inspect());
        assert!(first == second, "{guest}");
        assert!(matches!(first.system, System::Linux(_)) || guest == WINDOWS);
    }
}

#[test]
fn a_boot_is_cheap_once_inspected() {
    let guests: Vec<_> = [CENTOS, UBUNTU, WINDOWS]
        .map(|guest| Golden::new(guest, "esxi-5.0.0").inspect())
        .into();
    let machine = machine("lsilogic");
    #[expect(
        clippy::disallowed_methods,
        reason = "a test of speed needs the wall clock"
    )]
    let start = std::time::Instant::now();
    for guest in &guests {
        for _ in 0..100 {
            assert!(!boot(guest, &machine).stages.is_empty());
        }
    }
    let took = start.elapsed().as_micros() / 300;
    println!("{took} microseconds a boot");
    assert!(
        took < if cfg!(debug_assertions) {
            20_000
        } else {
            2_000
        },
        "{took} microseconds a boot"
    );
}
