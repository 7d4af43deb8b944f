//! What every format is to the door: one trait, and how second files are opened.

use crate::edit::Plan;
use crate::finding::Findings;
use crate::image::Image;
use drylab_block::{Error, Extent, Limits, ReadAt, Reference, Resolver, Result};
use std::sync::Arc;

/// Where bytes of a disk stand in a file as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The file: empty for the one that was opened, else the name by which the resolver knows it.
    pub file: String,
    /// Offset of the first of them.
    pub offset: u64,
}

/// An open image of one format.
pub(crate) trait Container: ReadAt {
    /// The kind within the format, in its own words.
    fn subformat(&self) -> String;

    /// Header fields and descriptor lines in the format's own words, in file order.
    fn details(&self) -> Vec<(String, String)>;

    /// What was noticed on opening.
    fn noticed(&self) -> &Findings;

    /// Looks at the whole structure, [`noticed`](Self::noticed) left out.
    fn check(&self, found: &mut Findings) -> Result<()> {
        let _ = found;
        Ok(())
    }

    /// [`check`](Self::check) without what only unpacking the data tells.
    fn check_structure(&self, found: &mut Findings) -> Result<()> {
        self.check(found)
    }

    /// What would have to be written to mend what [`check`](Self::check) finds.
    fn repair(&self) -> Result<Plan> {
        Err(Error::unsupported("this kind of image is not repaired"))
    }

    /// What would have to be written to give the disk `size` bytes.
    fn resize(&self, size: u64) -> Result<Plan> {
        Err(Error::unsupported(format_args!(
            "this kind of image is not resized (to {size} bytes); convert it"
        )))
    }

    /// The backing file, which may be of another format, and the name by which the resolver knows it.
    fn backing(&self) -> Option<(&str, &Image)> {
        None
    }

    /// The extent at an offset, and where its bytes stand when a file holds them as they are.
    fn piece_at(&self, offset: u64) -> (Extent, Option<Stored>) {
        (self.extent_at(offset), None)
    }
}

/// What opening does with a file that breaks its format's rules and can still be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// It is opened, and the findings say what is wrong.
    #[default]
    Note,
    /// Findings of severity [`Error`](drylab_block::Severity::Error) are an error.
    Refuse,
}

/// Longest way of parents, backing files and extents within extents, whatever [`Limits::chain_max`] allows: each image on
/// it is read from within the one before.
const DEPTH_MAX: usize = 256;

/// Opens second files for an image, within bounds.
#[derive(Clone)]
pub(crate) struct Opener<'a> {
    pub(crate) limits: &'a Limits,
    resolver: &'a dyn Resolver,
    /// Keys of the files that led here, the opened one left out.
    way: Vec<String>,
    /// Parents and backing files among them.
    links: u32,
}

/// A second file.
pub(crate) struct Second<'a> {
    pub(crate) bytes: Arc<dyn ReadAt>,
    /// The name by which the resolver knows it.
    pub(crate) key: String,
    /// What opens the files that it names in turn.
    pub(crate) opener: Opener<'a>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(resolver: &'a dyn Resolver, limits: &'a Limits) -> Self {
        Self {
            limits,
            resolver,
            way: Vec::new(),
            links: 0,
        }
    }

    /// The image below the one at hand, which names it: a `kind` called `name`. It is one more link of the chain.
    pub(crate) fn below(&self, kind: &'static str, name: &str) -> Result<Second<'a>> {
        let most = self.limits.chain_max;
        if self.links >= most {
            return Err(Error::unsupported(format_args!(
                "chain of more than {most} parents, the next is the {kind} {name:?}: raise the limit chain"
            )));
        }
        let mut second = self.second(kind, name)?;
        second.opener.links = self.links.saturating_add(1);
        Ok(second)
    }

    /// A file of the image at hand, which names it: a `kind` called `name`.
    pub(crate) fn second(&self, kind: &'static str, name: &str) -> Result<Second<'a>> {
        let reference = Reference {
            kind,
            name: name.to_owned(),
            by: self.way.last().cloned().unwrap_or_default(),
        };
        if self.way.len() >= DEPTH_MAX {
            return Err(Error::unsupported(format_args!(
                "chain of more than {DEPTH_MAX} files, the next is the {kind} {name:?}"
            )));
        }
        let key = self.resolver.key(&reference);
        if self.way.contains(&key) {
            return Err(Error::corrupt(format_args!(
                "chain of files that comes back to {key:?}"
            )));
        }
        let bytes = self.resolver.resolve(&reference)?;
        let mut opener = self.clone();
        opener.way.push(key.clone());
        Ok(Second { bytes, key, opener })
    }
}
