//! The smallest hive: a root key and its security.

use crate::HiveEditor;
use crate::base::{NONE, SIZE};
use crate::cell::word;
use crate::key::{NAME_AT, ONE_BYTE_NAME};
use drylab_block::{Limits, Result};

/// Offset of the root key's cell.
const ROOT: u32 = 0x20;
/// Name of the root key, as `reg.exe` and hivex's own smallest hive have it.
const NAME: &[u8] = b"$$$PROTO.HIV";

impl HiveEditor {
    /// An empty hive of version 1.5: one bin, a root key that Administrators and SYSTEM may do everything with.
    ///
    /// # Errors
    /// When `limits` allow no 8 KiB.
    pub fn empty(limits: &Limits) -> Result<Self> {
        let root_cell = cell(
            &node_bytes(NAME, ONE_BYTE_NAME | 0x0C, NONE, 0, SECURITY),
            true,
        );
        let security_cell = cell(&security(), true);
        let taken = root_cell
            .len()
            .saturating_add(security_cell.len())
            .saturating_add(0x20);
        let mut bytes = base_block();
        bytes.extend_from_slice(b"hbin");
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&0x1000u32.to_le_bytes());
        bytes.resize(SIZE.saturating_add(0x20), 0);
        bytes.extend_from_slice(&root_cell);
        bytes.extend_from_slice(&security_cell);
        bytes.extend_from_slice(&word(SIZE.saturating_sub(taken)).to_le_bytes());
        bytes.resize(SIZE.saturating_mul(2), 0);
        let mut editor = Self::open(bytes, limits)?;
        // The base block above is not sealed yet.
        editor.edited = true;
        Ok(editor)
    }
}

/// Cell of the security descriptor: behind the root key's (4 + 0x4C + 12 bytes, rounded to 8).
const SECURITY: u32 = ROOT + 0x60;

/// Content of a new key cell without subkeys and values.
pub(crate) fn node_bytes(
    name: &[u8],
    flags: u16,
    parent: u32,
    timestamp: u64,
    security: u32,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(NAME_AT.saturating_add(name.len()));
    bytes.extend_from_slice(b"nk");
    bytes.extend_from_slice(&flags.to_le_bytes());
    bytes.extend_from_slice(&timestamp.to_le_bytes());
    let words = [
        0,
        if parent == NONE { 0 } else { parent },
        0,
        0,
        NONE,
        NONE,
        0,
        NONE,
        security,
        NONE,
    ];
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes.resize(0x48, 0);
    bytes.extend_from_slice(&u16::try_from(name.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(name);
    bytes
}

fn cell(content: &[u8], used: bool) -> Vec<u8> {
    let length = content.len().saturating_add(4).next_multiple_of(8);
    let signed = i32::try_from(length).unwrap_or(0);
    let signed = if used {
        signed.saturating_neg()
    } else {
        signed
    };
    let mut bytes = signed.to_le_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(length, 0);
    bytes
}

fn base_block() -> Vec<u8> {
    let mut bytes = b"regf".to_vec();
    // Sequence numbers 0 and 0; the editor makes them 1 and sets the checksum when it finishes.
    bytes.extend_from_slice(&[0; 16]);
    let words: [u32; 7] = [1, 5, 0, 1, ROOT, 0x1000, 1];
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes.resize(SIZE, 0);
    bytes
}

/// An sk cell with one user, linked to itself, that holds a self-relative security descriptor ([MS-DTYP] 2.4.6).
fn security() -> Vec<u8> {
    // S-1-5-32-544 (Administrators) and S-1-5-18 (SYSTEM).
    let administrators: [u8; 16] = [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
    let system: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
    let ace = |sid: &[u8]| {
        // ACCESS_ALLOWED, inherited by containers; KEY_ALL_ACCESS.
        let mut bytes = vec![0, 2];
        bytes.extend_from_slice(
            &u16::try_from(sid.len().saturating_add(8))
                .unwrap_or(0)
                .to_le_bytes(),
        );
        bytes.extend_from_slice(&0x000F_003Fu32.to_le_bytes());
        bytes.extend_from_slice(sid);
        bytes
    };
    let aces = [ace(&administrators), ace(&system)].concat();
    let acl_length = u16::try_from(aces.len().saturating_add(8)).unwrap_or(0);
    let mut descriptor = vec![1, 0, 4, 0x80];
    let owner = 20u32.saturating_add(u32::from(acl_length));
    descriptor.extend(
        [owner, owner.saturating_add(16), 0, 20]
            .iter()
            .flat_map(|word| word.to_le_bytes()),
    );
    descriptor.extend_from_slice(&[2, 0]);
    descriptor.extend_from_slice(&acl_length.to_le_bytes());
    descriptor.extend_from_slice(&[2, 0, 0, 0]);
    descriptor.extend_from_slice(&aces);
    descriptor.extend_from_slice(&administrators);
    descriptor.extend_from_slice(&system);
    let mut bytes = b"sk\0\0".to_vec();
    bytes.extend(
        [SECURITY, SECURITY, 1, word(descriptor.len())]
            .iter()
            .flat_map(|word| word.to_le_bytes()),
    );
    bytes.extend_from_slice(&descriptor);
    bytes
}
