//! Putting a file together: bytes at their places, and a field for each of them that means something.

use crate::content::put;
use crate::field::{Class, Endian, Field, Seal, Sum, encoded};
use drylab_block::{ReadAt, SparseBytes, WriteAt};
use std::sync::Arc;

/// A file that is being made. `R` is what a field is to its format.
pub(crate) struct Maker<R> {
    bytes: SparseBytes,
    file: usize,
    endian: Endian,
    fields: Vec<Field>,
    roles: Vec<R>,
    seals: Vec<Seal>,
}

/// A file that was made.
pub(crate) struct Made<R> {
    pub(crate) bytes: Arc<SparseBytes>,
    pub(crate) fields: Vec<Field>,
    pub(crate) roles: Vec<R>,
    pub(crate) seals: Vec<Seal>,
}

impl<R: Clone> Maker<R> {
    /// A file by its place among the files of the specimen.
    pub(crate) fn new(file: usize, endian: Endian) -> Self {
        Self {
            bytes: SparseBytes::default(),
            file,
            endian,
            fields: Vec::new(),
            roles: Vec::new(),
            seals: Vec::new(),
        }
    }

    /// A number.
    pub(crate) fn number(
        &mut self,
        name: impl Into<String>,
        (offset, width): (u64, usize),
        value: u64,
        class: Class,
        role: R,
    ) {
        put(&self.bytes, offset, &encoded(self.endian, width, value));
        self.note(name, (offset, width), self.endian, class, role);
    }

    /// Bytes that are no number.
    pub(crate) fn text(
        &mut self,
        name: impl Into<String>,
        offset: u64,
        bytes: &[u8],
        class: Class,
        role: R,
    ) {
        put(&self.bytes, offset, bytes);
        self.note(name, (offset, bytes.len()), Endian::Bytes, class, role);
    }

    /// A field over bytes that are there already, or are zeros.
    pub(crate) fn note(
        &mut self,
        name: impl Into<String>,
        (offset, width): (u64, usize),
        endian: Endian,
        class: Class,
        role: R,
    ) {
        self.fields.push(Field {
            file: self.file,
            name: name.into(),
            offset,
            width,
            endian,
            class,
        });
        self.roles.push(role);
    }

    /// Bytes without a name.
    pub(crate) fn put(&self, offset: u64, bytes: &[u8]) {
        put(&self.bytes, offset, bytes);
    }

    /// Bytes that were put.
    pub(crate) fn get(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = self.bytes.read_at(offset, &mut bytes);
        read.expect("only what was put is asked for");
        bytes
    }

    /// Bytes of the file so far.
    pub(crate) fn end(&self) -> u64 {
        self.bytes.len()
    }

    /// Lengthens or cuts the file.
    pub(crate) fn set_len(&self, length: u64) {
        self.bytes.set_len(length).expect("memory has any length");
    }

    /// A checksum over a range that is all there; it becomes a field.
    pub(crate) fn seal(
        &mut self,
        name: impl Into<String>,
        range: (u64, u64),
        at: u64,
        sum: Sum,
        role: R,
    ) {
        self.seal_over(name, vec![range], at, sum, role);
    }

    /// A checksum over several ranges, with its place in the first.
    pub(crate) fn seal_over(
        &mut self,
        name: impl Into<String>,
        ranges: Vec<(u64, u64)>,
        at: u64,
        sum: Sum,
        role: R,
    ) {
        let part = |(start, length): &(u64, u64)| self.get(*start, crate::choices::index(*length));
        let bytes = ranges.iter().flat_map(part).collect();
        let seal = Seal {
            file: self.file,
            ranges,
            at,
            sum,
        };
        put(&self.bytes, at, &seal.of(bytes));
        self.seals.push(seal);
        self.note(name, (at, 4), self.endian, Class::Checksum, role);
    }

    /// Ends the making.
    pub(crate) fn made(self) -> Made<R> {
        Made {
            bytes: Arc::new(self.bytes),
            fields: self.fields,
            roles: self.roles,
            seals: self.seals,
        }
    }
}
