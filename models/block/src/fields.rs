//! Fixed-width fields at literal offsets. `None` past the end, never a panic.

/// The `N` bytes at `offset`.
#[must_use]
pub fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    slice_at(bytes, offset, N)?.try_into().ok()
}

/// `length` bytes at `offset`.
#[must_use]
pub fn slice_at(bytes: &[u8], offset: usize, length: usize) -> Option<&[u8]> {
    bytes.get(offset..offset.checked_add(length)?)
}

macro_rules! field {
    ($name:ident, $type:ty, $from:ident, $doc:literal) => {
        #[doc = $doc]
        #[must_use]
        pub fn $name(bytes: &[u8], offset: usize) -> Option<$type> {
            array_at(bytes, offset).map(<$type>::$from)
        }
    };
}
field!(
    le_u16,
    u16,
    from_le_bytes,
    "Little-endian 16 bits at `offset`."
);
field!(
    le_u32,
    u32,
    from_le_bytes,
    "Little-endian 32 bits at `offset`."
);
field!(
    le_u64,
    u64,
    from_le_bytes,
    "Little-endian 64 bits at `offset`."
);
field!(
    be_u16,
    u16,
    from_be_bytes,
    "Big-endian 16 bits at `offset`."
);
field!(
    be_u32,
    u32,
    from_be_bytes,
    "Big-endian 32 bits at `offset`."
);
field!(
    be_u64,
    u64,
    from_be_bytes,
    "Big-endian 64 bits at `offset`."
);
