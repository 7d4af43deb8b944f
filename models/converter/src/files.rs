//! Disk images of a package as guests see them.

use drylab_appliance::Package;
use drylab_block::{Limits, ReadAt, Reference, Resolver, Result};
use std::sync::Arc;

/// Names inside an image are files of its package.
pub(crate) struct Beside<'a>(pub(crate) &'a Package);

impl Resolver for Beside<'_> {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        self.0.file(&reference.name).cloned()
    }
}

/// The disk in a file of any format that is known.
pub(crate) fn open_disk(file: Arc<dyn ReadAt>, resolver: &dyn Resolver) -> Result<Arc<dyn ReadAt>> {
    let image = drylab_image::open_with(file, resolver, &Limits::DEFAULT)?;
    Ok(Arc::new(image))
}
