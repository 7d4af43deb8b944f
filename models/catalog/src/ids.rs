//! Ids: short strings with a type each.

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The id as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.to_owned())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

id! {
    /// One version of a hypervisor with its console: `esxi-5.0.0`, `kvm-centos-6.3`.
    ProductId
}
id! {
    /// A guest operating system: `centos-6.3`, `ubuntu-12.04`, `windows-2008r2`.
    GuestId
}
id! {
    /// One version of a converter: `virt-v2v-0.8`, `virt-convert-0.600`, `qemu-img-0.12`.
    ConverterId
}
