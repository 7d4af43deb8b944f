//! Limits that a caller lowers: chains of parents, and entries with names.

use crate::{qcow2_layers, qcow2_rules, qed, vdi_chain, vhd_chain, vhdx_children, vmdk_chain};
use drylab_block::{Limits, ReadAt, Resolver, SparseBytes, WriteAt};
use drylab_image::Image;
use std::sync::Arc;

fn opened(file: &Arc<dyn ReadAt>, files: &dyn Resolver, chain: u32) -> drylab_block::Result<Image> {
    let mut limits = Limits::DEFAULT;
    limits.chain_max = chain;
    drylab_image::open_with(file.clone(), files, &limits)
}

/// The child opens with a chain of `parents`, and with no shorter one.
fn needs(name: &str, parents: u32, file: Arc<dyn ReadAt>, files: &dyn Resolver) {
    assert!(opened(&file, files, parents).is_ok(), "{name}");
    for less in 0..parents {
        let error = opened(&file, files, less).map(drop).unwrap_err();
        let says = format!("chain of more than {less} parents");
        assert!(error.to_string().contains(&says), "{name}: {error}");
    }
}

#[test]
fn a_chain_is_followed_as_far_as_the_limit_says_whatever_the_format() {
    let base: Arc<dyn ReadAt> = Arc::new(vec![0x33; 3 * 4096]);
    let files = qcow2_layers::Files([("base", base)].into());
    needs("QED", 1, Arc::new(qed::tiny(5, "base")), &files);
    let child = qcow2_layers::child_of("base", "raw", 1 << 20);
    needs("qcow2", 1, child, &files);
    let (_, child, files) = vhd_chain::pair();
    needs("VHD", 1, child, &files);
    let (files, _) = vhdx_children::family();
    needs("VHDX", 1, files.files["child.avhdx"].clone(), &files);
    let (child, files) = vdi_chain::chain(4);
    needs("VDI", 1, Arc::new(child), &files);
    let (files, _) = vmdk_chain::chain();
    needs("VMDK", 2, files.0["top.vmdk"].clone(), &files);
}

#[test]
fn an_image_alone_opens_where_no_chain_is_followed() {
    let none = qcow2_layers::Files::default();
    let file: Arc<dyn ReadAt> = Arc::new(qed::tiny(0, ""));
    assert!(opened(&file, &none, 0).is_ok());
    let file: Arc<dyn ReadAt> = Arc::new(qcow2_rules::made(qcow2_rules::Made::V3));
    assert!(opened(&file, &none, 0).is_ok());
}

#[test]
fn more_snapshots_than_entries_are_listed_are_refused_with_the_limit() {
    let file = qcow2_rules::made(qcow2_rules::Made::V3);
    let first = qcow2_rules::add_snapshot(&file);
    // The entry a second time, behind the first.
    let mut entry = vec![0; 64];
    file.read_at(first, &mut entry).unwrap();
    file.write_at(first + 64, &entry).unwrap();
    qcow2_rules::put32(&file, 60, 2);
    let file: Arc<SparseBytes> = Arc::new(file);
    for (most, opens) in [(0, false), (1, false), (2, true)] {
        let mut limits = Limits::DEFAULT;
        limits.entries_max = most;
        let image = drylab_image::open(file.clone(), &limits).map(drop);
        let says = image.map_err(|error| error.to_string());
        match opens {
            true => assert_eq!(says, Ok(())),
            false => {
                let says = says.unwrap_err();
                let bound = format!("2 snapshots, more than {most}");
                assert!(says.contains(&bound), "{says}");
            }
        }
    }
}
