//! Readers against hostile and strange input.

use crate::support::{CENTOS, Golden, LIMITS, WINDOWS, cpio, gzip};
use drylab_block::ReadAt;
use drylab_guest::fuzz;
use drylab_guest::inspect::{CpioMember, cpio_walk, modinfo};
use proptest::prelude::*;
use std::sync::OnceLock;

fn names(bytes: &[u8]) -> (Vec<CpioMember>, Vec<String>) {
    let mut names = Vec::new();
    let members =
        cpio_walk(bytes, &LIMITS, &mut |entry| names.push(entry.name)).expect("it is read");
    (members, names)
}

#[test]
fn several_archives_with_an_early_microcode_one_are_read_as_one() {
    let early = cpio(&[(
        "kernel/x86/microcode/GenuineIntel.bin".to_owned(),
        0o100_644,
        vec![7; 300],
    )]);
    let late = cpio(&[("./init".to_owned(), 0o100_755, b"#!/bin/sh\n".to_vec())]);
    for padding in [0usize, 4, 512, 4096] {
        let mut bytes = early.clone();
        bytes.resize(bytes.len() + padding, 0);
        bytes.extend(gzip(&late));
        bytes.extend(vec![0; 8]);
        bytes.extend(gzip(&early));
        let (members, names) = names(&bytes);
        assert_eq!(
            members,
            [CpioMember::Plain, CpioMember::Gzip, CpioMember::Gzip]
        );
        assert_eq!(
            names,
            [
                "kernel/x86/microcode/GenuineIntel.bin",
                "init",
                "kernel/x86/microcode/GenuineIntel.bin"
            ]
        );
    }
}

#[test]
fn an_archive_that_breaks_off_or_claims_too_much_is_an_error_with_its_place() {
    let whole = cpio(&[("a".to_owned(), 0o100_644, vec![1; 100])]);
    let walk =
        |bytes: &[u8]| cpio_walk(bytes, &LIMITS, &mut |_| ()).map_err(|error| error.to_string());
    assert!(walk(&whole).is_ok());
    for cut in 1..whole.len() - 8 {
        assert!(walk(&whole[..cut]).is_err(), "cut at {cut}");
    }
    let mut huge = whole.clone();
    huge[54..62].copy_from_slice(b"FFFFFFFF");
    assert!(walk(&huge).is_err_and(|error| error.contains("offset 0 ends past")));
    let mut small = LIMITS;
    small.file_bytes_max = 1000;
    let bomb = gzip(&vec![0u8; 1 << 20]);
    assert!(
        cpio_walk(&bomb, &small, &mut |_| ())
            .is_err_and(|error| error.to_string().contains("more than 1000 bytes"))
    );
    assert!(walk(b"not an archive").is_err_and(|error| error.contains("offset 0")));
}

/// A fuzz entry point and a valid input of it.
type Seed = (fn(&[u8]), Vec<u8>);

/// Valid inputs of each reader, taken from the golden guests.
fn seeds() -> &'static Vec<Seed> {
    static SEEDS: OnceLock<Vec<Seed>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let centos = Golden::new(CENTOS, "esxi-5.0.0");
        let windows = Golden::new(WINDOWS, "esxi-5.0.0");
        let initramfs = centos.read("p1", "/initramfs-2.6.32-279.el6.x86_64.img");
        let mut plain = Vec::new();
        let mut module = Vec::new();
        let mut entries = Vec::new();
        cpio_walk(&initramfs, &LIMITS, &mut |entry| {
            if entry.name.ends_with("mptspi.ko") {
                module = entry.data.to_vec();
            }
            if entries.len() < 12 {
                entries.push((entry.name, entry.mode, entry.data.to_vec()));
            }
        })
        .expect("it is read");
        plain.extend(cpio(&entries));
        // The front of a disk: table, boot code and the head of the first filesystem.
        let mut front = vec![0u8; (1 << 20) + 65_536];
        centos
            .disk
            .bytes
            .read_at(0, &mut front)
            .expect("it is longer");
        vec![
            (fuzz::disk as fn(&[u8]), front),
            (fuzz::initramfs, plain),
            (fuzz::elf, module),
            (
                fuzz::grub_cfg,
                Golden::new(crate::support::UBUNTU, "esxi-5.0.0").read("p1", "/boot/grub/grub.cfg"),
            ),
            (fuzz::grub_cfg, centos.read("p1", "/grub/grub.conf")),
            (fuzz::fstab, centos.read("vg_centos/lv_root", "/etc/fstab")),
            (fuzz::bcd, windows.read("p1", "/Boot/BCD")),
            (fuzz::inf, windows.read("p2", "/Windows/inf/nete1g3e.inf")),
        ]
    })
}

#[test]
fn a_module_of_the_golden_initramfs_tells_its_aliases() {
    let (_, module) = &seeds()[2];
    let module = modinfo(module).expect("it is a module");
    assert!(
        module
            .aliases
            .iter()
            .any(|alias| alias.starts_with("pci:v00001000d00000030"))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_reader_panics_on_mutated_input(
        which in 0usize..8,
        writes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (reader, seed) = &seeds()[which];
        let mut bytes = seed.clone();
        for (at, byte) in writes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        reader(&bytes);
    }

    #[test]
    fn no_reader_panics_on_noise(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for (reader, _) in seeds() {
            reader(&bytes);
        }
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.extend(&bytes);
        fuzz::elf(&elf);
    }
}
