//! A real disk or appliance: told by its content, opened read-only, never written.
//!
//! A file that the input names is opened only when it is a plain file in the descriptor's own folder.

use crate::exit::{Stop, While};
use crate::source::FileSource;
use drylab_appliance::manifest::Manifest;
use drylab_appliance::ova::Ova;
use drylab_appliance::ovf::{self, Envelope, FileRef, HostResource};
use drylab_appliance::xva::{self, Xva};
use drylab_appliance::{Package, safe_href};
use drylab_block::{
    DenyAll, Error, Finding, Limits, ReadAt, Reference, Resolver, Result, array_at, read_vec,
};
use drylab_guest::inspect::GuestDisk;
use drylab_image::Format;
use drylab_report::{Container, Noticed};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bounds for everything read here.
pub(crate) const LIMITS: Limits = Limits::DEFAULT;

/// An opened input.
pub(crate) struct Input {
    /// Containers of the disks, in the order of the disks; for an appliance with what its descriptor says first.
    pub(crate) containers: Vec<Container>,
    /// Disks, boot disk first.
    pub(crate) disks: Vec<GuestDisk>,
    /// Descriptor, manifest and disk files as an importer gets them.
    pub(crate) package: Package,
    /// What was noticed in descriptor, archive and manifest.
    pub(crate) noticed: Vec<Noticed>,
    /// Virtual systems of the descriptor beyond the first, which are not looked at.
    pub(crate) further_systems: Vec<String>,
}

/// What the first bytes say.
enum Kind {
    Disk,
    Descriptor,
    Archive,
}

impl Input {
    /// Opens whatever `path` is.
    pub(crate) fn open(path: &Path) -> std::result::Result<Self, Stop> {
        let task = || format!("open {}", path.display());
        let source: Arc<dyn ReadAt> = Arc::new(FileSource::open(path).on(task())?);
        if source.len() == 0 {
            return Err(Stop::input(task(), "it is empty (0 bytes)"));
        }
        let opened = kind(path, source.as_ref()).and_then(|kind| match kind {
            Kind::Disk => Self::disk(path, source),
            Kind::Descriptor => Self::descriptor(path, source),
            Kind::Archive => Self::archive(path, source),
        });
        opened.on(task())
    }

    fn disk(path: &Path, source: Arc<dyn ReadAt>) -> Result<Self> {
        let mut input = Self::empty();
        let name = path.file_name().unwrap_or(path.as_os_str());
        input.add(&name.to_string_lossy(), source, &Beside::of(path))?;
        Ok(input)
    }

    /// XenServer's own archive: its records, and the disks of its machine, the one that boots first.
    fn xva(path: &Path, source: Arc<dyn ReadAt>) -> Result<Self> {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let hint = |error: Error| {
            match xva::is_version_1(&source, &LIMITS) {
            true => error.within(
                "this is an XVA of the first version; import it into a XenServer and export it again",
            ),
            false => error.within("this is an XVA of XenServer"),
        }
        };
        let archive = Xva::open(source.clone(), &LIMITS).map_err(hint)?;
        let machine = archive.appliance.machine()?;
        let mut input = Self::empty();
        input.package.descriptor.clone_from(&name);
        input.package.put(&name, source.clone());
        input.notice(&name, archive.findings.clone());
        input.notice(xva::DESCRIPTOR, archive.appliance.findings.clone());
        input.notice(&name, archive.verify()?);
        for drive in machine.boot_order() {
            if let Some(disk) = &drive.disk {
                input.add(
                    &disk.id,
                    Arc::new(archive.disk(&disk.id)?.clone()),
                    &DenyAll,
                )?;
            }
        }
        if input.disks.is_empty() {
            return Err(Error::unsupported(
                "this is an XVA of XenServer, and its machine has no disk",
            ));
        }
        Ok(input)
    }

    fn archive(path: &Path, source: Arc<dyn ReadAt>) -> Result<Self> {
        if xva::is_xva(&source).unwrap_or(false) {
            return Self::xva(path, source);
        }
        let ova = Ova::open(source, &LIMITS)?;
        let name = ova.descriptor()?.name.clone();
        let envelope =
            ovf::parse(&ova.text(&name, &LIMITS)?, &LIMITS).map_err(|wrong| wrong.within(&name))?;
        let mut input = Self::empty();
        input.package.descriptor.clone_from(&name);
        input.package.put(&name, Arc::new(ova.member(&name)?));
        input.notice("archive", ova.findings.clone());
        input.notice(&name, envelope.findings.clone());
        input.notice(&name, ova.check_references(&envelope));
        if let Some(manifest) = ova.manifest() {
            let found = ova.check_manifest(&LIMITS)?.unwrap_or_default();
            let bytes = ova.member(&manifest.name)?;
            input.package.put(&manifest.name, Arc::new(bytes));
            input.notice(&manifest.name, found);
        }
        let member = |href: &str| -> Result<Arc<dyn ReadAt>> {
            Ok(Arc::new(ova.member(&safe_href(href)?)?))
        };
        input.systems(&name, &envelope, member, &DenyAll)?;
        Ok(input)
    }

    fn descriptor(path: &Path, source: Arc<dyn ReadAt>) -> Result<Self> {
        let text = text(source.as_ref(), "descriptor")?;
        let envelope = ovf::parse(&text, &LIMITS)?;
        let name = path.file_name().unwrap_or(path.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let beside = Beside::of(path);
        let mut input = Self::empty();
        input.package.descriptor.clone_from(&name);
        input.package.put(&name, source);
        input.notice(&name, envelope.findings.clone());
        if let Some(manifest) = beside.manifest(path, &name, &envelope)? {
            input.package.put(&manifest.name, manifest.bytes);
            input.notice(&manifest.name, manifest.found);
        }
        let file = |href: &str| -> Result<Arc<dyn ReadAt>> { Ok(Arc::new(beside.open(href)?)) };
        input.systems(&name, &envelope, file, &beside)?;
        Ok(input)
    }

    fn empty() -> Self {
        Self {
            containers: Vec::new(),
            disks: Vec::new(),
            package: Package::default(),
            noticed: Vec::new(),
            further_systems: Vec::new(),
        }
    }

    fn notice(&mut self, place: &str, findings: Vec<Finding>) {
        let noticed = findings.into_iter().map(|finding| Noticed {
            place: place.to_owned(),
            finding,
        });
        self.noticed.extend(noticed);
    }

    /// Adds a disk; the extents of a flat VMDK are looked for by `resolver` and travel with it.
    fn add(&mut self, name: &str, source: Arc<dyn ReadAt>, resolver: &dyn Resolver) -> Result<()> {
        let mut file_bytes = source.len();
        self.package.put(name, source.clone());
        let extents = Noted::by(resolver);
        let image = drylab_image::open_with(source, &extents, &LIMITS)?;
        for (extent, bytes) in extents.opened.into_inner() {
            file_bytes = file_bytes.saturating_add(bytes.len());
            self.package.put(extent, bytes);
        }
        let info = image.info();
        self.package.disks.push(name.to_owned());
        let findings = info.findings.list().iter();
        self.notice(name, findings.map(drylab_image::Finding::brief).collect());
        self.containers.push(Container {
            name: name.to_owned(),
            file_bytes,
            info,
        });
        self.disks.push(GuestDisk::new(Arc::new(image)));
        Ok(())
    }

    /// The disks of the first virtual system.
    fn systems(
        &mut self,
        name: &str,
        envelope: &Envelope,
        open: impl Fn(&str) -> Result<Arc<dyn ReadAt>>,
        resolver: &dyn Resolver,
    ) -> Result<()> {
        let further = envelope.systems.iter().skip(1);
        self.further_systems = further.map(|system| system.id.clone()).collect();
        for file in disk_files(envelope)? {
            let within = |error: Error| error.within(format_args!("{name}: line {}", file.line));
            refuse_packed(file).map_err(within)?;
            let source = open(&file.href)
                .map_err(|error| within(error.within(format_args!("{:?}", file.href))))?;
            let member = safe_href(&file.href).map_err(within)?;
            self.add(&member, source, resolver)
                .map_err(|error| error.within(&member))?;
        }
        if self.disks.is_empty() {
            return Err(Error::unsupported(format_args!(
                "{name}: the first virtual system has no disk with a file"
            )));
        }
        Ok(())
    }
}

/// Tells descriptors and archives from disks by their first bytes; an extension decides only for a tar without magic.
fn kind(path: &Path, source: &dyn ReadAt) -> Result<Kind> {
    // First, since a VDI begins with a text in angle brackets.
    if drylab_image::detect(source).is_ok_and(|found| found.format != Format::Raw) {
        return Ok(Kind::Disk);
    }
    let head = read_vec(source, "head", 0, source.len().min(4096), &LIMITS)?;
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&head);
    let utf16 = [
        b"\xff\xfe<\0".as_slice(),
        b"\xfe\xff\0<",
        b"<\0?\0",
        b"\0<\0?",
    ];
    if text.trim_ascii_start().starts_with(b"<") || utf16.iter().any(|mark| head.starts_with(mark))
    {
        return Ok(Kind::Descriptor);
    }
    let extension = path.extension().map(|found| found.to_ascii_lowercase());
    // A boot sector may hold any text: only the mark at its end tells that it is one.
    let is_tar = array_at::<5>(&head, 257) == Some(*b"ustar")
        && array_at::<2>(&head, 510) != Some([0x55, 0xaa]);
    Ok(match extension {
        Some(found) if found == "ovf" => Kind::Descriptor,
        Some(found) if found == "ova" => Kind::Archive,
        _ if is_tar => Kind::Archive,
        _ => Kind::Disk,
    })
}

fn text(source: &dyn ReadAt, what: &str) -> Result<Vec<u8>> {
    let (length, bound) = (source.len(), LIMITS.text_bytes_max);
    if length > bound {
        return Err(Error::unsupported(format_args!(
            "{what} of {length} bytes is larger than the {bound} allowed"
        )));
    }
    read_vec(source, what, 0, length, &LIMITS)
}

/// Files of the first system's disks in the order of its hardware; of all disks when it lists none.
fn disk_files(envelope: &Envelope) -> Result<Vec<&FileRef>> {
    let drives = [ovf::resource::DISK, ovf::resource::STORAGE_EXTENT];
    let items = envelope
        .systems
        .first()
        .map_or(&[][..], |system| system.items());
    let named: Vec<&str> = items
        .iter()
        .filter(|item| drives.contains(&item.resource_type))
        .filter_map(|item| match item.backing()? {
            HostResource::Disk(id) | HostResource::Other(id) => Some(id),
            HostResource::File(_) => None,
        })
        .collect();
    let all = || {
        envelope
            .disks
            .iter()
            .map(|disk| disk.disk_id.as_str())
            .collect()
    };
    let ids: Vec<&str> = if named.is_empty() { all() } else { named };
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for id in ids.into_iter().filter(|id| seen.insert(*id)) {
        let disk = envelope.disk(id).ok_or_else(|| {
            Error::corrupt(format_args!(
                "the hardware names disk {id:?}, which no DiskSection has"
            ))
        })?;
        // A disk without a file is an empty one.
        let Some(reference) = disk.file_ref.as_deref() else {
            continue;
        };
        files.push(envelope.file(reference).ok_or_else(|| {
            let line = disk.line;
            Error::corrupt(format_args!(
                "line {line}: disk {id:?} names file {reference:?}, which References has not"
            ))
        })?);
    }
    Ok(files)
}

fn refuse_packed(file: &FileRef) -> Result<()> {
    if let Some(packed) = file
        .compression
        .as_deref()
        .filter(|packed| *packed != "identity")
    {
        return Err(Error::unsupported(format_args!(
            "{:?} is stored with compression {packed:?}; unpack it first",
            file.href
        )));
    }
    if file.chunk_size.is_some_and(|size| size > 0) {
        return Err(Error::unsupported(format_args!(
            "{:?} is stored in chunks; join them first",
            file.href
        )));
    }
    Ok(())
}

/// A manifest, held against the files.
struct Checked {
    name: String,
    bytes: Arc<dyn ReadAt>,
    found: Vec<Finding>,
}

/// What another resolver opened, with the names it was asked for.
struct Noted<'a> {
    resolver: &'a dyn Resolver,
    opened: RefCell<Vec<(String, Arc<dyn ReadAt>)>>,
}

impl<'a> Noted<'a> {
    fn by(resolver: &'a dyn Resolver) -> Self {
        Self {
            resolver,
            opened: RefCell::default(),
        }
    }
}

impl Resolver for Noted<'_> {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let found = self.resolver.resolve(reference)?;
        let noted = (reference.name.clone(), found.clone());
        self.opened.borrow_mut().push(noted);
        Ok(found)
    }
}

/// The folder of a descriptor.
pub(crate) struct Beside {
    folder: PathBuf,
}

impl Resolver for Beside {
    /// Opens an extent in this very folder. Its name is one of a file already, and no link is followed.
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let name = Path::new(&reference.name);
        if name.file_name() != Some(name.as_os_str()) {
            return DenyAll.resolve(reference);
        }
        let found = FileSource::open_named_inside(&self.folder.join(name));
        Ok(Arc::new(found.map_err(|error| {
            error.within(format_args!("{:?}", reference.name))
        })?))
    }
}

impl Beside {
    /// The folder of the file at `path`.
    pub(crate) fn of(path: &Path) -> Self {
        Self {
            folder: path.parent().map(Path::to_path_buf).unwrap_or_default(),
        }
    }

    /// The file that `href` names, when it lies in this very folder.
    fn open(&self, href: &str) -> Result<FileSource> {
        let name = safe_href(href)?;
        if name.contains('/') {
            return Err(Error::unsupported(
                "it is in another folder than the descriptor, and only its own is looked at",
            ));
        }
        FileSource::open_named_inside(&self.folder.join(name))
    }

    /// The manifest named as the descriptor, held against the files beside it.
    fn manifest(
        &self,
        path: &Path,
        descriptor: &str,
        envelope: &Envelope,
    ) -> Result<Option<Checked>> {
        let manifest = path.with_extension("mf");
        let Some(name) = manifest
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
        else {
            return Ok(None);
        };
        if std::fs::symlink_metadata(&manifest).is_err() {
            return Ok(None);
        }
        let within = |error: Error| error.within(&name);
        let source = FileSource::open_named_inside(&manifest).map_err(within)?;
        let parsed = text(&source, "manifest").and_then(|text| Manifest::parse(&text, &LIMITS));
        let parsed = parsed.map_err(within)?;
        let files = envelope.references.iter();
        let mut members: Vec<String> = files
            .filter_map(|file| safe_href(&file.href).ok())
            .collect();
        members.push(descriptor.to_owned());
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        let mut found = parsed.findings.clone();
        found.extend(parsed.verify(&members, |listed| match self.open(listed) {
            Ok(source) => Ok(Some(source)),
            Err(Error::Io(_)) => Ok(None),
            Err(refused) => Err(Error::corrupt(refused)),
        })?);
        Ok(Some(Checked {
            name,
            bytes: Arc::new(source),
            found,
        }))
    }
}
