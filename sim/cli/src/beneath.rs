//! Files that an image names: opened only when they lie beneath a folder that the user gave, and no other way.
//!
//! Whoever made an image chose the names inside it. The kernel itself keeps what is opened beneath the folder
//! (openat2(2), `RESOLVE_BENEATH`): neither `..` nor an absolute name nor a symbolic link leads out of it, also not one
//! that is put there meanwhile, and links of `/proc` are not followed at all.

use crate::source::{FileSource, Identity};
use drylab_block::{Error, ReadAt, Reference, Resolver, Result};
use drylab_image::vdi;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::cell::RefCell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Most files of a folder that are looked at for the parent of a VDI, which is named by its UUID.
const LOOKED_AT: usize = 4096;

/// Opens second files of one image, or says what to type to have them opened.
pub(crate) struct Beneath {
    allowed: Option<Allowed>,
    /// The folder of the image, without links; names in it are relative to this.
    home: PathBuf,
    /// The same as it was typed, to be suggested.
    typed_home: PathBuf,
    /// The image itself.
    first: Identity,
    opened: RefCell<Vec<Second>>,
    /// What was not opened.
    denied: RefCell<Vec<Reference>>,
}

/// The folder beneath which files are opened.
struct Allowed {
    folder: OwnedFd,
    /// Without links.
    place: PathBuf,
    typed: PathBuf,
}

/// A file that was opened because an image names it.
#[derive(Clone)]
pub(crate) struct Second {
    /// What it is for the image that names it: `parent`, `extent`.
    pub(crate) kind: &'static str,
    /// Its name in that image.
    pub(crate) name: String,
    /// [`Second::key`] of that image; empty for the first one.
    pub(crate) by: String,
    /// Its path, the folder as it was typed: equal for one file, whatever names it has.
    pub(crate) key: String,
    pub(crate) source: Arc<FileSource>,
    identity: Identity,
    /// Its path from the folder.
    rest: PathBuf,
}

impl Beneath {
    /// For the names in the image `source` at `path`, with the folder the user gave, if any.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be opened.
    pub(crate) fn new(path: &Path, source: &FileSource, folder: Option<&Path>) -> Result<Self> {
        let typed_home = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let allowed = folder.map(Allowed::open).transpose()?;
        Ok(Self {
            allowed,
            home: typed_home.canonicalize().map_err(Error::io)?,
            typed_home,
            first: source.identity()?,
            opened: RefCell::default(),
            denied: RefCell::default(),
        })
    }

    /// What was not opened, each once; a parent has several names, and was not if it was by none of them.
    pub(crate) fn denied(&self) -> Vec<Reference> {
        let opened = self.opened.borrow();
        let is_there = |one: &&Reference| {
            let is_same = |second: &Second| second.kind == one.kind && second.by == one.by;
            one.kind != "parent" || !opened.iter().any(is_same)
        };
        let denied = self.denied.borrow();
        denied.iter().filter(is_there).cloned().collect()
    }

    /// What was opened, in its order, each file once.
    pub(crate) fn opened(&self) -> Vec<Second> {
        let mut files: Vec<Second> = Vec::new();
        for second in self.opened.borrow().iter() {
            if !files.iter().any(|known| known.key == second.key) {
                files.push(second.clone());
            }
        }
        files
    }

    /// The image itself and what was opened for it.
    pub(crate) fn read(&self) -> Vec<Identity> {
        let opened = self.opened.borrow();
        let seconds = opened.iter().map(|second| second.identity);
        std::iter::once(self.first).chain(seconds).collect()
    }

    /// Opens a file that was opened already for writing, too.
    ///
    /// # Errors
    /// [`Error::Io`] when it was not, or another file has its name by now, and with the system's reason.
    pub(crate) fn writable(&self, key: &str) -> Result<Arc<File>> {
        let opened = self.opened.borrow();
        let known = opened.iter().find(|known| known.key == key);
        let (Some(known), Some(allowed)) = (known, &self.allowed) else {
            return Err(Error::io(format_args!("{key:?} was not opened")));
        };
        let file = Arc::new(allowed.file(&known.rest, OFlags::RDWR)?);
        if FileSource::of_open(file.clone())?.identity()? != known.identity {
            return Err(Error::io(format_args!(
                "{key:?} is another file than a moment ago"
            )));
        }
        Ok(file)
    }

    fn find(&self, reference: &Reference) -> Result<Second> {
        let found = self.look(reference);
        let mut denied = self.denied.borrow_mut();
        if found.is_err() && !denied.contains(reference) {
            denied.push(reference.clone());
        }
        found
    }

    fn look(&self, reference: &Reference) -> Result<Second> {
        let asked = |known: &&Second| known.by == reference.by && known.name == reference.name;
        if let Some(known) = self.opened.borrow().iter().find(asked) {
            return Ok(known.clone());
        }
        let Some(allowed) = &self.allowed else {
            return Err(self.refusal(reference));
        };
        let within =
            |error: Error| error.within(format_args!("{} {:?}", reference.kind, reference.name));
        let folder = self.folder_of(&reference.by, allowed);
        let name = file_name(reference).map_err(within)?;
        let (rest, file) = match allowed.named(&folder, name) {
            Err(error) if reference.kind == "parent" => {
                let found = match is_uuid(&reference.name) {
                    true => allowed.by_uuid(&folder, &reference.name),
                    false => Err(error),
                };
                found.map_err(within)?
            }
            found => found.map_err(within)?,
        };
        let source = FileSource::of_open(Arc::new(file)).map_err(within)?;
        let identity = source.identity()?;
        if identity == self.first {
            return Err(Error::corrupt(format_args!(
                "chain of files that comes back to the first one by the name {:?}",
                reference.name
            )));
        }
        let mut opened = self.opened.borrow_mut();
        let same = opened.iter().find(|known| known.identity == identity);
        let (source, key, rest) = match same {
            Some(same) => (same.source.clone(), same.key.clone(), same.rest.clone()),
            None => (Arc::new(source), allowed.shown(&rest), rest),
        };
        let second = Second {
            kind: reference.kind,
            name: reference.name.clone(),
            by: reference.by.clone(),
            key,
            source,
            identity,
            rest,
        };
        opened.push(second.clone());
        Ok(second)
    }

    fn refusal(&self, reference: &Reference) -> Error {
        Error::unsupported(format_args!(
            "it names another file, the {} {:?}, and such files are opened only beneath a folder that is given for it; \
             if you trust the image, say {}",
            reference.kind,
            reference.name,
            self.suggestion(reference)
        ))
    }

    /// What to type. Of the name in the image nothing is in it: that would be pasted into a shell.
    fn suggestion(&self, reference: &Reference) -> String {
        let path = plainly(&self.home.join(file_name(reference).unwrap_or_default()));
        if path.starts_with(&self.home) {
            format!("for instance --allow-beneath {}", self.typed_home.display())
        } else {
            "--allow-beneath with a folder that has it".to_owned()
        }
    }

    /// The folder of the file with that key, without links in front of the allowed one.
    fn folder_of(&self, by: &str, allowed: &Allowed) -> PathBuf {
        let opened = self.opened.borrow();
        let known = opened.iter().find(|known| known.key == by);
        let folder = known.and_then(|known| known.rest.parent());
        folder.map_or_else(|| self.home.clone(), |rest| allowed.place.join(rest))
    }
}

impl Resolver for Beneath {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let found = self.find(reference)?;
        Ok(found.source)
    }

    fn key(&self, reference: &Reference) -> String {
        let found = self.find(reference);
        found.map_or_else(|_| reference.name.clone(), |known| known.key)
    }
}

/// The name without the `file:` that QEMU knows in front of one; another protocol is no file.
fn file_name(reference: &Reference) -> Result<&str> {
    let name = reference.name.as_str();
    if !matches!(reference.kind, "backing file" | "external data file") {
        return Ok(name);
    }
    match name.split_once(':') {
        Some(("file", rest)) => Ok(rest),
        Some((protocol, _)) if !protocol.contains('/') => Err(Error::unsupported(format_args!(
            "{protocol}: is a protocol of QEMU, and only files are opened"
        ))),
        _ => Ok(name),
    }
}

/// A path without `.` and `..`, without a look at the disk.
fn plainly(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Whether this is how a VDI names its parent.
fn is_uuid(name: &str) -> bool {
    name.len() == 38 && name.starts_with('{') && name.ends_with('}')
}

impl Allowed {
    fn open(typed: &Path) -> Result<Self> {
        let within = |error: std::io::Error| {
            Error::io(format_args!("--allow-beneath {}: {error}", typed.display()))
        };
        let place = typed.canonicalize().map_err(within)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&place, flags, Mode::empty());
        Ok(Self {
            folder: folder.map_err(|errno| within(errno.into()))?,
            place,
            typed: typed.to_path_buf(),
        })
    }

    /// The regular file at `rest`, which leads nowhere else. A pipe does not make us wait.
    fn file(&self, rest: &Path, access: OFlags) -> Result<File> {
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&self.folder, rest, flags, Mode::empty(), resolve);
        let file = File::from(file.map_err(|errno| self.why(errno))?);
        if !file.metadata().map_err(Error::io)?.is_file() {
            return Err(Error::unsupported("it is no regular file"));
        }
        Ok(file)
    }

    fn why(&self, errno: Errno) -> Error {
        match errno {
            Errno::XDEV | Errno::LOOP => Error::unsupported(format_args!(
                "it leads out of {}, beneath which files may be opened; if you trust the image, say --allow-beneath with a \
                 folder that has both",
                self.place.display()
            )),
            Errno::NOSYS | Errno::PERM => Error::unsupported(
                "this system cannot keep files beneath a folder (openat2 of Linux 5.6)",
            ),
            other => Error::io(std::io::Error::from(other)),
        }
    }

    /// The file that `name` is, seen from `folder`: both without a look at the disk, and then opened beneath this one.
    fn named(&self, folder: &Path, name: &str) -> Result<(PathBuf, File)> {
        let path = plainly(&folder.join(name));
        // An absolute name may go by the folder as it was typed, through a link.
        let typed = std::path::absolute(&self.typed).unwrap_or_default();
        let rest = path
            .strip_prefix(&self.place)
            .or_else(|_| path.strip_prefix(&typed));
        let Ok(rest) = rest.map(Path::to_path_buf) else {
            return Err(self.why(Errno::XDEV));
        };
        if rest.as_os_str().is_empty() {
            return Err(Error::unsupported("it is a folder"));
        }
        let file = self.file(&rest, OFlags::RDONLY)?;
        Ok((rest, file))
    }

    /// The VDI with that UUID in `folder` or the one above: VirtualBox keeps snapshots in a folder beside their base.
    fn by_uuid(&self, folder: &Path, uuid: &str) -> Result<(PathBuf, File)> {
        let folders = [Some(folder), folder.parent()];
        for folder in folders.into_iter().flatten() {
            let Ok(rest) = folder.strip_prefix(&self.place) else {
                continue;
            };
            let names = std::fs::read_dir(folder)
                .map_err(Error::io)?
                .take(LOOKED_AT);
            let mut names: Vec<_> = names.flatten().map(|entry| entry.file_name()).collect();
            names.sort_unstable();
            for name in names {
                let rest = rest.join(name);
                let Ok(file) = self.file(&rest, OFlags::RDONLY) else {
                    continue;
                };
                let Ok(source) = file
                    .try_clone()
                    .map_err(Error::io)
                    .and_then(|file| FileSource::of_open(Arc::new(file)))
                else {
                    continue;
                };
                if vdi::uuid_create(&source).is_some_and(|found| found == uuid) {
                    return Ok((rest, file));
                }
            }
        }
        Err(Error::unsupported(format_args!(
            "no VDI with this UUID is in {} or the folder above, as far as they are beneath {}",
            folder.display(),
            self.place.display()
        )))
    }

    /// A path in the words of the user.
    fn shown(&self, rest: &Path) -> String {
        let path = if self.typed == Path::new(".") {
            rest.to_path_buf()
        } else {
            self.typed.join(rest)
        };
        path.to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock;
    use crate::rewrite::Rewrite;
    use crate::sink::{FileSink, Present};
    use drylab_block::SparseBytes;
    use drylab_image::{Target, VdiOptions};
    use std::os::unix::fs::symlink;

    /// `outside/secret`, `inside/disk`, `inside/base`, `inside/deep/disk`, and a resolver for one of the disks.
    struct Yard {
        folder: tempfile::TempDir,
    }

    impl Yard {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let at = |name: &str| folder.path().join(name);
            for name in ["outside", "inside/deep"] {
                std::fs::create_dir_all(at(name)).expect("made");
            }
            for name in [
                "outside/secret",
                "inside/disk",
                "inside/base",
                "inside/deep/disk",
            ] {
                std::fs::write(at(name), name).expect("written");
            }
            Self { folder }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn beneath(&self, image: &str) -> Beneath {
            let path = self.at(image);
            let source = FileSource::open(&path).expect("there");
            Beneath::new(&path, &source, Some(&self.at("inside"))).expect("a folder")
        }
    }

    fn reference(name: impl Into<String>) -> Reference {
        Reference {
            kind: "backing file",
            name: name.into(),
            by: String::new(),
        }
    }

    fn refusal(beneath: &Beneath, name: impl Into<String>) -> String {
        let Err(error) = beneath.resolve(&reference(name)) else {
            panic!("it was opened");
        };
        error.to_string()
    }

    #[test]
    fn names_are_relative_to_the_file_that_names_them() {
        let yard = Yard::new();
        let beneath = yard.beneath("inside/deep/disk");
        // QEMU knows `file:` in front of a name.
        for name in ["../base", "./../base", "../../inside/base", "file:../base"] {
            let found = beneath.resolve(&reference(name)).expect("beneath");
            assert_eq!(found.len(), 11, "{name}");
        }
        let absolute = yard.at("inside/base").to_str().expect("UTF-8").to_owned();
        let key = beneath.key(&reference(absolute));
        assert_eq!(key, beneath.key(&reference("../base")));
        // The next one is named by `base`, which is in another folder.
        let next = Reference {
            by: key,
            ..reference("deep/../disk")
        };
        assert_eq!(beneath.resolve(&next).expect("beneath").len(), 11);
        assert_eq!(beneath.opened().len(), 2);
    }

    #[test]
    fn a_protocol_of_qemu_is_no_file_unless_the_name_says_that_it_is_one() {
        let yard = Yard::new();
        std::fs::write(yard.at("inside/a:b"), b"x").expect("written");
        let beneath = yard.beneath("inside/disk");
        for name in ["nbd://host/x", "json:{\"file\":{}}", "a:b"] {
            let says = refusal(&beneath, name);
            assert!(says.contains("protocol of QEMU"), "{name}: {says}");
        }
        assert!(beneath.resolve(&reference("./a:b")).is_ok());
        let extent = Reference {
            kind: "extent",
            ..reference("a:b")
        };
        assert!(beneath.resolve(&extent).is_ok());
        assert!(refusal(&beneath, "file:/etc/passwd").contains("leads out of"));
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        let yard = Yard::new();
        symlink("../outside/secret", yard.at("inside/link")).expect("linked");
        symlink("../outside", yard.at("inside/door")).expect("linked");
        symlink("/proc/self/cwd", yard.at("inside/magic")).expect("linked");
        symlink("link", yard.at("inside/chain")).expect("linked");
        let beneath = yard.beneath("inside/disk");
        let secret = yard
            .at("outside/secret")
            .to_str()
            .expect("UTF-8")
            .to_owned();
        for name in [
            "../outside/secret",
            "/etc/passwd",
            "link",
            "chain",
            "door/secret",
            "magic/secret",
            &secret,
            "../../../../../../../../etc/passwd",
            "/proc/self/fd/0",
        ] {
            let says = refusal(&beneath, name);
            assert!(says.contains("leads out of"), "{name}: {says}");
        }
        for name in ["", ".", "..", "deep", "gone", "base\0", "disk/base"] {
            refusal(&beneath, name);
        }
        assert!(beneath.opened().is_empty());
        // A link that stays inside is one more name.
        symlink("../base", yard.at("inside/deep/inner")).expect("linked");
        assert!(beneath.resolve(&reference("deep/inner")).is_ok());
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let yard = Yard::new();
        let pipe = yard.at("inside/pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("it starts").success());
        let beneath = yard.beneath("inside/disk");
        assert!(refusal(&beneath, "pipe").contains("no regular file"));
    }

    #[test]
    fn a_file_is_one_file_whatever_it_is_called() {
        let yard = Yard::new();
        std::fs::hard_link(yard.at("inside/base"), yard.at("inside/other")).expect("linked");
        std::fs::hard_link(yard.at("inside/disk"), yard.at("inside/self")).expect("linked");
        let beneath = yard.beneath("inside/disk");
        let [one, two] = ["base", "other"].map(|name| beneath.key(&reference(name)));
        assert_eq!(one, two);
        assert!(refusal(&beneath, "self").contains("comes back to the first"));
        assert!(beneath.writable(&one).is_ok());
        std::fs::rename(yard.at("inside/self"), yard.at("inside/base")).expect("renamed");
        assert!(beneath.writable(&one).is_err(), "it is another file now");
        assert!(beneath.writable("gone").is_err());
    }

    #[test]
    fn the_lock_on_a_child_outlives_the_look_for_its_parent_by_uuid() {
        let folder = tempfile::tempdir().expect("a folder");
        let [child, parent] = ["a.vdi", "b.vdi"].map(|name| folder.path().join(name));
        for (path, id) in [(&child, 1), (&parent, 2)] {
            let sink = FileSink::create(path, Present::Stays).expect("made");
            let options = VdiOptions {
                uuid_create: Some([id; 16]),
                ..VdiOptions::default()
            };
            let disk = SparseBytes::new(1 << 20);
            drylab_image::write(&disk, &Target::VdiDynamic(options), &sink).expect("written");
            sink.commit(false).expect("named");
        }
        let is_held = || lock::is_held(&File::open(&child).expect("there"));
        let held = Rewrite::open(&child).expect("nobody has it");
        assert!(is_held());
        let source = held.source().expect("open");
        let beneath = Beneath::new(&child, &source, Some(folder.path())).expect("a folder");
        let uuid = vdi::uuid_create(&FileSource::open(&parent).expect("there"));
        let asked = Reference {
            kind: "parent",
            ..reference(uuid.expect("a VDI"))
        };
        // The child sorts before it, and is opened, looked at and closed.
        beneath.resolve(&asked).expect("found by what is in it");
        assert_eq!(beneath.opened().len(), 1);
        assert!(is_held());
        drop((source, beneath, held));
        assert!(!is_held());
    }

    #[test]
    fn without_a_folder_nothing_is_opened_and_the_way_to_it_is_told() {
        let yard = Yard::new();
        let path = yard.at("inside/disk");
        let source = FileSource::open(&path).expect("there");
        let beneath = Beneath::new(&path, &source, None).expect("a folder");
        let says = refusal(&beneath, "base");
        let folder = yard.at("inside");
        assert!(
            says.ends_with(&format!("--allow-beneath {}", folder.display())),
            "{says}"
        );
        assert!(Beneath::new(&path, &source, Some(&yard.at("gone"))).is_err());
    }
}
