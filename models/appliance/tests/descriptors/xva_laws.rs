//! XVA: what holds for machines and disks of any content, and for damage to them.

use crate::support::strategies::{damage, damaged};
use crate::xva::{archive, bytes_of, open, packed, paravirtual};
use drylab_appliance::xva::{Appliance, BLOCK, Drive, Machine, NULL, Nic, Pairs, VirtualDisk};
use drylab_appliance::{Limits, fuzz, hyperv};
use drylab_block::{ReadAt, SparseBytes, WriteAt, read_vec};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    "[ -~é\n\t\r]{0,10}|\\PC{0,6}"
}

fn some_pairs() -> impl Strategy<Value = Pairs> {
    btree_map("[a-zA-Z_-]{1,8}", text(), 0..4).prop_map(|map| map.into_iter().collect())
}

prop_compose! {
    fn drive()(
        (userdevice, bootable, read_only, is_cd) in ("[0-9]{1,2}", any::<bool>(), any::<bool>(), any::<bool>()),
        disk in of((text(), text(), any::<u64>(), "[a-c]")),
    ) -> Drive {
        let disk = disk.map(|(uuid, name, size, storage)| VirtualDisk { id: String::new(), uuid, name, size, storage });
        Drive { userdevice, bootable, read_only, is_cd, disk }
    }
}

prop_compose! {
    fn nic()(
        (device, mac, is_generated, mtu) in (any::<u32>(), text(), any::<bool>(), any::<u32>()),
        (network, other_config) in ("[a-c]", some_pairs()),
    ) -> Nic {
        Nic { device, mac, is_generated, mtu, network, other_config }
    }
}

prop_compose! {
    fn machine()(
        (uuid, name, description) in (text(), text(), text()),
        memory in any::<[u64; 4]>(),
        vcpus in any::<[u32; 2]>(),
        texts in [text(), text(), text(), text(), text(), text()],
        maps in (some_pairs(), some_pairs(), some_pairs()),
        drives in vec(drive(), 0..4),
        nics in vec(nic(), 0..4),
    ) -> Machine {
        let [memory_static_max, memory_dynamic_max, memory_dynamic_min, memory_static_min] = memory;
        let [vcpus_max, vcpus_at_startup] = vcpus;
        let [hvm_boot_policy, pv_bootloader, pv_bootloader_args, pv_kernel, pv_ramdisk, pv_args] = texts;
        let (hvm_boot_params, platform, other_config) = maps;
        Machine {
            uuid, name, description,
            memory_static_max, memory_dynamic_max, memory_dynamic_min, memory_static_min,
            vcpus_max, vcpus_at_startup,
            hvm_boot_policy, hvm_boot_params, pv_bootloader, pv_bootloader_args, pv_kernel, pv_ramdisk, pv_args,
            platform, other_config, drives, nics,
        }
    }
}

/// Ids are given out when the records are made.
fn without_ids(mut machine: Machine) -> Machine {
    for disk in machine
        .drives
        .iter_mut()
        .filter_map(|drive| drive.disk.as_mut())
    {
        disk.id.clear();
    }
    machine
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_machine_of_any_content_comes_back_from_its_records(machine in machine()) {
        let made = machine.appliance();
        match made.print() {
            Ok(printed) => {
                let read = Appliance::parse(&printed, &Limits::DEFAULT).unwrap();
                prop_assert_eq!(&read.objects, &made.objects);
                prop_assert_eq!(read.print().unwrap(), printed);
                prop_assert_eq!(without_ids(read.machine().unwrap()), machine);
                prop_assert!(read.objects.iter().all(|object| object.text("VDI") != NULL || object.flag("empty")));
            }
            Err(wrong) => prop_assert!(wrong.to_string().contains("cannot be written as XML"), "{}", wrong),
        }
    }

    #[test]
    fn a_disk_with_data_anywhere_comes_back_whole(
        size in 1u64..(9 << 20),
        pieces in vec((any::<u64>(), any::<u8>(), 1usize..5000), 0..6)
    ) {
        let disk = SparseBytes::new(size);
        for (at, byte, length) in pieces {
            let at = at % size;
            let length = length.min(usize::try_from(size - at).unwrap());
            disk.write_at(at, &vec![byte; length]).unwrap();
        }
        let read = open(packed(&paravirtual(size), &disk)).unwrap();
        let out = read.disk("Ref:4").unwrap();
        prop_assert_eq!(&read.findings, &[]);
        prop_assert!(bytes_of(out) == bytes_of(&disk));
        let full = out.len().div_ceil(BLOCK);
        let zeros = (0..full).filter(|number| {
            let length = (size - number * BLOCK).min(BLOCK);
            let block = read_vec(&disk, "block", number * BLOCK, length, &Limits::DEFAULT).unwrap();
            *number > 0 && number + 1 < full && block.iter().all(|byte| *byte == 0)
        });
        prop_assert_eq!(out.blocks(), full - u64::try_from(zeros.count()).unwrap());
        // Any two reads agree with one read of both.
        let middle = size / 3;
        let mut parts = vec![0u8; usize::try_from(size).unwrap()];
        let (left, right) = parts.split_at_mut(usize::try_from(middle).unwrap());
        out.read_at(0, left).unwrap();
        out.read_at(middle, right).unwrap();
        prop_assert!(parts == bytes_of(&disk));
    }

    #[test]
    fn numbers_gaps_and_keep_alives_follow_the_running_sum(steps in vec((0u64..4, prop_oneof![Just(0usize), Just(64)]), 1..20)) {
        // The first block has 64 bytes; every step leaves out some numbers and sends 64 bytes or none.
        let mut wanted = vec![9u8; 64];
        let mut members = vec![("Ref:4/00000000".to_owned(), vec![9u8; 64])];
        let mut number = 0;
        for (step, (gap, length)) in (1u8..).zip(&steps) {
            number += gap + 1;
            wanted.resize(wanted.len() + 64 * usize::try_from(*gap).unwrap(), 0);
            wanted.extend(vec![step; *length]);
            members.push((format!("Ref:4/{number:08}"), vec![step; *length]));
        }
        let records = paravirtual(u64::try_from(wanted.len()).unwrap()).appliance().print().unwrap();
        let mut list: Vec<(&str, &[u8])> = vec![("ova.xml", &records)];
        list.extend(members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
        let read = open(archive(&list)).unwrap();
        prop_assert_eq!(bytes_of(read.disk("Ref:4").unwrap()), wanted);
    }

    #[test]
    fn a_changed_byte_of_a_block_is_noticed(at in 0u64..(2 << 20), change in 1u8..=255) {
        let size = 2 << 20;
        let bytes = packed(&paravirtual(size), &vec![5u8; 2 << 20]);
        // Behind the records come header and bytes of block 0, header and digits of its checksum, header and bytes of block 1.
        let records = paravirtual(size).appliance().print().unwrap().len().next_multiple_of(512);
        let place = 512 + records + 512 + usize::try_from(at).unwrap() + if at >= BLOCK { 1024 + 512 } else { 0 };
        let mut bytes = bytes;
        bytes[place] ^= change;
        let read = open(bytes).unwrap();
        prop_assert_eq!(read.verify().unwrap().len(), 1);
    }

    #[test]
    fn damage_to_an_archive_is_a_verdict_and_never_a_panic(damages in damage()) {
        let bytes = packed(&paravirtual(9000), &vec![7u8; 9000]);
        fuzz::xva(&damaged(&bytes, &damages));
        let records = paravirtual(9000).appliance().print().unwrap();
        fuzz::xva(&damaged(&records, &damages));
    }
}

/// A seed of the fuzz target, or of another.
fn seed(target: &str, name: &str) -> Vec<u8> {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../corpora/fuzz");
    std::fs::read(format!("{corpus}/{target}/{name}")).expect("the seed is committed")
}

#[test]
fn the_fuzzers_seeds_get_past_the_headers() {
    let small = open(seed("xva", "small-blocks")).unwrap();
    // 500 bytes, two numbers left out, nothing, 500, one left out, 500.
    let blocks: Vec<u64> = small.disks.iter().map(|disk| disk.blocks()).collect();
    assert_eq!(blocks, [3]);
    assert_eq!(open(seed("xva", "plain")).unwrap().verify().unwrap(), []);
    for name in ["exp", "exp-utf16"] {
        let (machine, _) = hyperv::exp::parse(&seed("hyperv_xml", name), &Limits::DEFAULT).unwrap();
        assert_eq!((machine.drives.len(), machine.nics.len()), (3, 2));
    }
}
