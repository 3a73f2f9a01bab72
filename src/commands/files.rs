//! Result files: the old one is removed before the build, the new one appears whole or not at all. What is no file,
//! such as `/dev/null` or `/dev/stdout`, is only ever written to.

use crate::config::Misuse;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Removes an old result, so that nobody takes it for this build's, and checks that a new one can be made.
///
/// # Errors
/// A directory that isn't there or can't be written to, or a file that can't be removed.
pub(super) fn clear(name: &'static str, path: &Path) -> Result<(), Misuse> {
    let failed = |source| Misuse::Output { name, path: path.to_owned(), source };
    if path.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    if is_device(path) {
        return Ok(());
    }
    if !parent(path).is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::NotFound)));
    }
    let probe = temporary(path);
    fs::File::create(&probe).and_then(|_| fs::remove_file(&probe)).map_err(failed)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Writes a result by way of a temporary file beside it.
///
/// # Errors
/// The disk's.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if is_device(path) {
        // Behind `/dev/stdout` may be a file that holds something already.
        return fs::OpenOptions::new().append(true).open(path)?.write_all(content);
    }
    let temporary = temporary(path);
    let written = (|| {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // What failed is told; that its remains stay, too, would be no news.
        let _remains = fs::remove_file(&temporary);
    }
    written
}

/// Adds to what a file holds.
///
/// # Errors
/// The disk's.
pub(super) fn append(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new().append(true).create(true).open(path)?.write_all(content)
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Its owner alone.
    Owner,
    /// Everyone.
    Everyone,
}

/// Writes a file that appears whole, with its rights from the first byte on. Without `replace` one that is there
/// stays, whoever made it meanwhile.
///
/// # Errors
/// The disk's, and [`io::ErrorKind::AlreadyExists`].
pub(super) fn create(path: &Path, content: &[u8], access: Access, replace: bool) -> io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let mode = match access {
        Access::Owner => 0o600,
        Access::Everyone => 0o644,
    };
    let temporary = temporary(path);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        match replace {
            true => fs::rename(&temporary, path),
            // A link is made only where nothing is; a rename would replace.
            false => fs::hard_link(&temporary, path),
        }
    })();
    if written.is_err() || !replace {
        // What failed is told; that its remains stay, too, would be no news.
        let _remains = fs::remove_file(&temporary);
    }
    written
}

/// Whether a path stands for something else than a file of its own: a device, a pipe, or one of the links of `/dev` and
/// `/proc` to what is open.
fn is_device(path: &Path) -> bool {
    if fs::metadata(path).is_ok_and(|target| !target.is_file()) {
        return true;
    }
    let systems = |directory: PathBuf| directory.starts_with("/dev") || directory.starts_with("/proc");
    path.is_symlink() && parent(path).canonicalize().is_ok_and(systems)
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_appears_whole_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("iid");
        fs::write(&path, "stale").expect("a stale file");
        clear("--iidfile", &path).expect("it is removed");
        assert!(!path.exists());
        write(&path, b"sha256:1").expect("it is written");
        assert_eq!(fs::read(&path).expect("a file"), b"sha256:1");
        assert_eq!(fs::read_dir(directory.path()).expect("a listing").count(), 1);
        assert!(clear("--iidfile", &directory.path().join("no/such")).is_err());
        assert!(clear("--iidfile", directory.path()).is_err());
    }

    #[test]
    fn a_directory_that_takes_no_file_is_told_before_the_build() {
        assert!(clear("--iidfile", Path::new("/proc/iid")).is_err());
    }

    #[test]
    fn a_key_has_its_rights_and_replaces_nothing_unasked() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cosign.key");
        create(&path, b"one", Access::Owner, false).expect("it is new");
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        let refused = create(&path, b"two", Access::Owner, false).expect_err("it is there");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("a file"), b"one");
        create(&path, b"two", Access::Everyone, true).expect("it is replaced");
        assert_eq!((fs::read(&path).expect("a file"), mode(&path)), (b"two".to_vec(), 0o644));
        assert_eq!(fs::read_dir(directory.path()).expect("a listing").count(), 1);
    }

    #[test]
    fn devices_and_what_is_open_stay_what_they_are() {
        use std::os::fd::AsRawFd as _;
        let directory = tempfile::tempdir().expect("a directory");
        let (link, plain) = (directory.path().join("link"), directory.path().join("plain"));
        std::os::unix::fs::symlink("/dev/null", &link).expect("a link");
        let file = fs::File::create(&plain).expect("a file");
        let descriptor = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        fs::write(&plain, "before\n").expect("a line");
        for path in [&link, &descriptor] {
            clear("--iidfile", path).expect("nothing to clear");
            write(path, b"sha256:1").expect("it is written");
        }
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&plain).expect("a file"), "before\nsha256:1");
        assert_eq!(fs::read_dir(directory.path()).expect("a listing").count(), 2);
    }
}
