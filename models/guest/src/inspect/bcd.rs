//! Boot configuration data: a hive whose objects tell the boot manager what to start, and from which partition.
//!
//! Layout of the elements as public descriptions of BCD and real stores show them.
//!
//! ```text
//! Objects\{9dea862c-…}\Elements\23000003   Element = "{guid}"       boot manager: default object
//! Objects\{guid}\Elements\11000001         Element = device          application device
//! Objects\{guid}\Elements\12000002         Element = "\Windows\system32\winload.exe"
//! Objects\{guid}\Elements\21000001         Element = device          system device
//! device: 0x00 options object (16)  0x10 type (u32)  0x18 length (u32)
//!         type 6 (partition): 0x20 byte offset (u64) or partition id (16)
//!                             0x34 table: 0 GPT, 1 MBR   0x38 disk signature (u32) or disk id (16)
//! ```

use super::model::{Bcd, BcdDevice, Sourced};
use super::registry::Registry;
use drylab_block::{array_at, le_u32, le_u64};

/// The boot manager's own object.
pub(crate) const BOOT_MANAGER: &str = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";

/// Device type: the device the boot manager came from.
const TYPE_BOOT: u32 = 5;
/// Device type: a partition.
const TYPE_PARTITION: u32 = 6;

/// Reads a device element; `None` when it is too short.
#[must_use]
pub fn device(element: &[u8]) -> Option<BcdDevice> {
    match le_u32(element, 0x10)? {
        TYPE_BOOT => Some(BcdDevice::Boot),
        TYPE_PARTITION => match le_u32(element, 0x34)? {
            1 => Some(BcdDevice::Mbr {
                signature: le_u32(element, 0x38)?,
                offset: le_u64(element, 0x20)?,
            }),
            _ => Some(BcdDevice::Gpt {
                partition: array_at(element, 0x20)?,
                disk: array_at(element, 0x38)?,
            }),
        },
        other => Some(BcdDevice::Other(other)),
    }
}

/// Reads what the boot manager starts by default.
pub(crate) fn read(store: &Registry, volume: usize, path: &str) -> Bcd {
    let elements = |object: &str, element: &str| format!("Objects\\{object}\\Elements\\{element}");
    let listed = || {
        let order = elements(BOOT_MANAGER, "24000001");
        let first = store.texts(&order, "Element").into_iter().next()?;
        let witness = store.witness(&order, "Element", &first);
        Some(Sourced::new(first, witness))
    };
    // Without a default the first object of the display order is started.
    let default = store
        .text(&elements(BOOT_MANAGER, "23000003"), "Element")
        .or_else(listed);
    let mut bcd = Bcd {
        volume,
        path: path.to_owned(),
        manager: false,
        default: default.clone(),
        device: None,
        os_device: None,
        loader: None,
        loader_present: false,
    };
    let Some(object) = default else { return bcd };
    let sourced = |element: &str| {
        let key = elements(&object.value, element);
        let found = device(&store.bytes(&key, "Element")?)?;
        let says = describe(&found);
        Some(Sourced::new(found, store.witness(&key, "Element", &says)))
    };
    bcd.device = sourced("11000001");
    bcd.os_device = sourced("21000001");
    bcd.loader = store.text(&elements(&object.value, "12000002"), "Element");
    bcd
}

/// A device in words.
fn describe(device: &BcdDevice) -> String {
    match device {
        BcdDevice::Boot => "the partition the boot manager is on".to_owned(),
        BcdDevice::Mbr { signature, offset } => {
            format!("disk signature {signature:08x}, partition at byte {offset}")
        }
        BcdDevice::Gpt { .. } => "a partition of a GPT disk".to_owned(),
        BcdDevice::Other(number) => format!("device of type {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{BcdDevice, device};

    #[test]
    fn a_partition_device_names_disk_signature_and_offset() {
        let mut element = [0u8; 0x58];
        element[0x10] = 6;
        element[0x18] = 0x48;
        element[0x20..0x28].copy_from_slice(&105_906_176u64.to_le_bytes());
        element[0x34] = 1;
        element[0x38..0x3c].copy_from_slice(&0x9d2f_a341u32.to_le_bytes());
        assert_eq!(
            device(&element),
            Some(BcdDevice::Mbr {
                signature: 0x9d2f_a341,
                offset: 105_906_176
            })
        );
        element[0x10] = 5;
        assert_eq!(device(&element), Some(BcdDevice::Boot));
        assert_eq!(device(&element[..0x12]), None);
    }
}
