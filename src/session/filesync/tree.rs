//! The one place that asks the file system: everything is opened below the root's descriptor and no symlink is
//! followed on the way, so a tree that is changed meanwhile can't lead outside of itself.

use super::error::SyncError;
use super::packet::{Stat, mode};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A directory tree that is being sent. Relative paths are `/`-separated bytes; `.` is the root.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
    /// One more than the device that last said it has no extended attributes, so that it isn't asked per file.
    without_xattrs: AtomicU64,
    /// `openat2` is missing or forbidden here.
    plain_open: AtomicBool,
}

/// What lstat and its like know of an entry.
#[derive(Debug, Default)]
pub(super) struct Meta {
    /// Go's mode.
    pub(super) mode: u32,
    pub(super) socket: bool,
    /// Other names for the same file may come.
    pub(super) linked: bool,
    pub(super) size: i64,
    /// Nanoseconds since 1970.
    pub(super) modified: i64,
    pub(super) device: u64,
    pub(super) inode: u64,
    /// What few entries have.
    pub(super) rare: Option<Box<Rare>>,
}

/// An extended attribute's name and value.
pub(super) type Xattr = (Vec<u8>, Vec<u8>);

/// What few entries have.
#[derive(Debug, Default)]
pub(super) struct Rare {
    link: Vec<u8>,
    device_major: i64,
    device_minor: i64,
    xattrs: Vec<Xattr>,
}

impl Meta {
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the fields' types differ by system"
    )]
    fn of(stat: &rustix::fs::Stat) -> Self {
        let unix = u32::from(stat.st_mode);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let rdev = stat.st_rdev as u64;
        let is_device = matches!(kind, FileType::BlockDevice | FileType::CharacterDevice);
        let rare = is_device.then(|| Rare {
            device_major: (rdev >> 8 & 0xfff) as i64,
            device_minor: (rdev & 0xff | rdev >> 12 & 0xf_ff00) as i64,
            ..Rare::default()
        });
        Self {
            mode: mode::from_unix(unix),
            socket: kind == FileType::Socket,
            linked: stat.st_nlink > 1 && !matches!(kind, FileType::Directory | FileType::Symlink),
            // A directory's size means nothing elsewhere.
            size: if kind == FileType::Directory { 0 } else { stat.st_size as i64 },
            modified: (stat.st_mtime as i64)
                .wrapping_mul(1_000_000_000)
                .wrapping_add(stat.st_mtime_nsec as i64),
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            rare: rare.map(Box::new),
        }
    }

    /// Whether the receiver may ask for contents.
    pub(super) fn is_requestable(&self) -> bool {
        self.mode & mode::TYPES == 0
    }

    pub(super) fn is_directory(&self) -> bool {
        self.mode & mode::DIRECTORY != 0
    }

    /// A number that differs when the file is another one (its upper half, see [`same_file`](Self::same_file)) or
    /// was written to. A change that it misses by chance (one in 65,536) is one that upstream never looks for.
    pub(super) fn fingerprint(&self) -> u32 {
        let mix = |hash: u64, part: u64| (hash ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        let which = mix(mix(mix(1, self.inode), self.device), u64::from(self.mode));
        let when = mix(2, self.modified.cast_unsigned());
        (which >> 48 << 16) as u32 | (when >> 48) as u32
    }

    /// Whether two fingerprints are of one file, at different times perhaps.
    pub(super) fn same_file(one: u32, other: u32) -> bool {
        one >> 16 == other >> 16
    }

    /// The STAT of this entry at `path`.
    pub(super) fn stat<'a>(&'a self, path: &'a [u8]) -> Stat<'a> {
        let mut stat =
            Stat { path, mode: self.mode, size: self.size, modified: self.modified, ..Stat::default() };
        if let Some(rare) = &self.rare {
            stat.link = &rare.link;
            (stat.device_major, stat.device_minor) = (rare.device_major, rare.device_minor);
            stat.xattrs = &rare.xattrs;
        }
        stat
    }
}

/// A name in a directory, with its type as far as the listing tells.
pub(super) struct Name<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: FileType,
}

impl Tree {
    /// Opens the root, following symlinks to it.
    pub(super) fn open(path: &Path) -> Result<Self, SyncError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOTDIR => SyncError::NotADirectory(path.to_owned()),
            errno => SyncError::Io { act: "open", path: path.to_owned(), source: errno.into() },
        })?;
        let path = path.to_owned();
        Ok(Self { root, path, without_xattrs: AtomicU64::new(0), plain_open: AtomicBool::new(false) })
    }

    /// Returns the path of an entry as a person knows it.
    pub(super) fn absolute(&self, relative: &[u8]) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(relative))
    }

    /// Returns the error of an act on an entry.
    pub(super) fn error(&self, act: &'static str, relative: &[u8], errno: Errno) -> SyncError {
        SyncError::Io { act, path: self.absolute(relative), source: io::Error::from(errno) }
    }

    /// Opens a directory.
    pub(super) fn directory(&self, relative: &[u8]) -> Result<OwnedFd, Errno> {
        self.beneath(relative, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens a file for reading. `NONBLOCK` keeps a FIFO that took the file's place from blocking us.
    pub(super) fn file(&self, relative: &[u8]) -> Result<OwnedFd, Errno> {
        self.beneath(relative, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    #[cfg(target_os = "linux")]
    fn beneath(&self, relative: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        use rustix::fs::ResolveFlags;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        if self.plain_open.load(Ordering::Relaxed) {
            return self.beneath_by_steps(relative, flags);
        }
        match rustix::fs::openat2(&self.root, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::NOSYS | Errno::PERM) => {
                // Kernels before 5.6, and seccomp profiles that don't know the call.
                self.plain_open.store(true, Ordering::Relaxed);
                self.beneath_by_steps(relative, flags)
            }
            result => result,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn beneath(&self, relative: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        self.beneath_by_steps(relative, flags)
    }

    fn beneath_by_steps(&self, relative: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let always = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut opened: Option<OwnedFd> = None;
        let mut rest = relative;
        loop {
            let (name, last) = match rest.iter().position(|byte| *byte == b'/') {
                Some(slash) => (&rest[..slash], false),
                None => (rest, true),
            };
            let flags = if last { flags } else { OFlags::RDONLY | OFlags::DIRECTORY };
            let parent = opened.as_ref().map_or(self.root.as_fd(), |fd| fd.as_fd());
            let next = rustix::fs::openat(parent, name, flags | always, Mode::empty())?;
            if last {
                return Ok(next);
            }
            opened = Some(next);
            rest = &rest[name.len() + 1..];
        }
    }

    /// Calls `each` with every name in a directory, in no order.
    pub(super) fn list(directory: BorrowedFd<'_>, mut each: impl FnMut(Name<'_>)) -> Result<(), Errno> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                each(Name { name, kind: entry.file_type() });
            }
        }
        Ok(())
    }

    /// Returns the type of an entry, unfollowed.
    pub(super) fn kind(directory: BorrowedFd<'_>, name: &[u8]) -> Result<FileType, Errno> {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    /// Returns the target of a symlink as it is written, `None` if the entry is something else.
    pub(super) fn link(&self, relative: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        match rustix::fs::readlinkat(&self.root, relative, Vec::new()) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Reads what an open file's STAT would say.
    pub(super) fn examine_open(file: BorrowedFd<'_>) -> Result<Meta, Errno> {
        Ok(Meta::of(&rustix::fs::fstat(file)?))
    }

    /// Reads everything that a STAT says of an entry; `relative` is its path, `name` its last element.
    pub(super) fn examine(
        &self,
        directory: BorrowedFd<'_>,
        relative: &[u8],
        name: &[u8],
    ) -> Result<Meta, Errno> {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mut meta = Meta::of(&stat);
        if meta.mode & mode::SYMLINK != 0 {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
            meta.rare.get_or_insert_default().link = target.into_bytes();
        }
        let xattrs = self.xattrs(relative, meta.device)?;
        if !xattrs.is_empty() {
            meta.rare.get_or_insert_default().xattrs = xattrs;
        }
        Ok(meta)
    }

    /// The same by the whole path, for an entry whose directory is not open.
    pub(super) fn examine_path(&self, relative: &[u8]) -> Result<Meta, Errno> {
        self.examine(self.root.as_fd(), relative, relative)
    }

    /// Reads the extended attributes, all but `com.apple.*` (fsutil stat_unix.go). There is no call relative to
    /// a directory, so this goes by the whole path.
    fn xattrs(&self, relative: &[u8], device: u64) -> Result<Vec<Xattr>, Errno> {
        if self.without_xattrs.load(Ordering::Relaxed) == device.wrapping_add(1) {
            return Ok(Vec::new());
        }
        let root = self.path.as_os_str().as_bytes();
        let mut path = Vec::with_capacity(root.len() + relative.len() + 2);
        path.extend_from_slice(root);
        path.push(b'/');
        path.extend_from_slice(relative);
        path.push(0);
        let path = std::ffi::CStr::from_bytes_with_nul(&path).map_err(|_| Errno::INVAL)?;

        let mut few = [0_u8; 256];
        let mut many = Vec::new();
        let names = match rustix::fs::llistxattr(path, &mut few) {
            Ok(length) => &few[..length],
            Err(Errno::NOTSUP) => {
                self.without_xattrs.store(device.wrapping_add(1), Ordering::Relaxed);
                return Ok(Vec::new());
            }
            Err(Errno::RANGE) => {
                // The kernel's limit on a list, so it need not be asked twice.
                many.resize(64 * 1024, 0);
                let length = rustix::fs::llistxattr(path, &mut many[..])?;
                &many[..length]
            }
            Err(errno) => return Err(errno),
        };
        let mut xattrs = Vec::new();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            // As upstream: what can't be read is left out.
            if !name.starts_with(b"com.apple.")
                && let Ok(value) = xattr(path, name)
            {
                xattrs.push((name.to_vec(), value));
            }
        }
        Ok(xattrs)
    }
}

fn xattr(path: &std::ffi::CStr, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 512];
    let length = match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Err(Errno::RANGE) => {
            value.resize(64 * 1024, 0);
            rustix::fs::lgetxattr(path, name, &mut value[..])?
        }
        result => result?,
    };
    value.truncate(length);
    Ok(value)
}
