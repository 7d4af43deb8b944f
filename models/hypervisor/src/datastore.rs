//! Tools on a host's own datastore.

use drylab_appliance::Package;
use drylab_block::{Error, Limits, Result};
use drylab_image::{Adapter, Format, open};
use std::sync::Arc;

/// `vmkfstools -i disk.vmdk clone.vmdk` on an ESXi host: a hosted disk becomes a descriptor with a flat extent. The
/// adapter type of the descriptor is taken over.
///
/// # Errors
/// [`Error::Unsupported`] when a disk is no VMDK; what opening finds.
pub fn vmkfstools_clone(package: &Package) -> Result<Package> {
    let mut cloned = Package::default();
    for disk in &package.disks {
        let image = open(package.file(disk)?.clone(), &Limits::DEFAULT)?;
        if image.format() != Format::Vmdk {
            return Err(Error::unsupported(format_args!(
                "{disk} is {}, not a VMDK",
                image.format().name()
            )));
        }
        let stem = format!("{}-clone", disk.trim_end_matches(".vmdk"));
        let adapter = image
            .info()
            .detail("ddb.adapterType")
            .and_then(|name| Adapter::named(name.trim_matches('"')))
            .unwrap_or_default();
        let text = crate::exporter::vmfs_descriptor(&stem, adapter, &image)?;
        cloned.put(format!("{stem}.vmdk"), Arc::new(text.into_bytes()));
        cloned.put(format!("{stem}-flat.vmdk"), Arc::new(image));
        cloned.disks.push(format!("{stem}.vmdk"));
    }
    Ok(cloned)
}
