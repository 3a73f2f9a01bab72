//! Result files: the old one is removed before the build, the new one appears whole or not at all.

use crate::config::Misuse;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Removes an old result, so that nobody takes it for this build's, and checks that its directory is there.
///
/// # Errors
/// A directory that isn't there, or a file that can't be removed.
pub(super) fn clear(name: &'static str, path: &Path) -> Result<(), Misuse> {
    let failed = |source| Misuse::Output { name, path: path.to_owned(), source };
    if path.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    let parent = parent(path);
    if !parent.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::NotFound)));
    }
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
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
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
}
