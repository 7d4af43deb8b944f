//! What an import or an export needs of its surroundings.

use crate::facts::{Facts, Missing};
use drylab_catalog::Witness;

/// Something that no package can show: whoever runs the step has to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A DHCP lease on the host's network, for a helper machine.
    Lease {
        /// Why.
        why: Vec<Witness>,
    },
    /// More free space than this on the store, at the moment when the file is copied.
    Room {
        /// The file.
        file: String,
        /// Bytes, of which one more has to be free.
        bytes: u64,
        /// Why.
        why: Vec<Witness>,
    },
}

impl Need {
    /// Whether it is met: somebody hands out leases, and `free` bytes are free.
    #[must_use]
    pub fn is_met(&self, has_leases: bool, free: u64) -> bool {
        match self {
            Self::Lease { .. } => has_leases,
            Self::Room { bytes, .. } => free > *bytes,
        }
    }

    /// Why it is a need.
    #[must_use]
    pub fn why(&self) -> &[Witness] {
        match self {
            Self::Lease { why } | Self::Room { why, .. } => why,
        }
    }
}

/// What XenCenter's Transfer VM needs, through which every disk of an OVF or of an image is copied.
///
/// # Errors
/// [`Missing`].
pub fn transfer_vm(facts: &Facts<'_>) -> Result<Vec<Need>, Missing> {
    let address = facts.text("transfer-vm.address")?;
    if address.value != "dhcp" {
        return Ok(Vec::new());
    }
    let mut why = address.chain();
    why.push(Witness::quirk("GQ140"));
    Ok(vec![Need::Lease { why }])
}
