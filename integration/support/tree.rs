//! A context that spares the transfer nothing.

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use std::ffi::OsStr;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

/// A tree with every kind of file that the protocol carries.
pub(crate) fn every_kind() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    let at = |path: &str| -> PathBuf { root.path().join(path) };
    let chmod = |path: &str, mode: u32| {
        fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).expect("chmod");
    };
    fs::create_dir_all(at("dir/deep/empty")).expect("directories");
    fs::write(at("Dockerfile"), "FROM scratch\nCOPY . /\n").expect("a Dockerfile");
    fs::write(at(".dockerignore"), "ignored\n!ignored/kept\n**/*.tmp\n").expect("a .dockerignore");
    fs::create_dir(at("ignored")).expect("a directory");
    for (path, contents) in [
        ("dir/file", "contents"),
        ("dir-file", "sorts between"),
        ("dir.txt", "and after"),
        ("ignored/kept", "kept"),
        ("ignored/dropped", "dropped"),
        ("dir/deep/x.tmp", "dropped too"),
        ("empty", ""),
        ("setuid", "#!"),
        ("a b+c%20\u{e4}", "spelling"),
    ] {
        fs::write(at(path), contents).expect("a file");
    }
    chmod("setuid", 0o6755);
    chmod("dir/deep/empty", 0o1777);
    chmod("dir/file", 0o600);
    for name in [&b"caf\xe9"[..], b"\xff\xfe", b"line\nfeed", b"back\\slash"] {
        fs::write(root.path().join(OsStr::from_bytes(name)), name).expect("a file");
    }
    symlink("/absolute/nowhere", at("dangling")).expect("a link");
    symlink("dir/deep", at("link")).expect("a link");
    for name in ["dir/hard-2", "z-hard-3"] {
        fs::hard_link(at("dir/file"), at(name)).expect("a hard link");
    }
    let mut sparse = fs::File::create(at("sparse")).expect("a file");
    sparse.seek(SeekFrom::Start(5 << 20)).expect("a hole");
    sparse.write_all(b"end").expect("data");
    let flags = XattrFlags::empty();
    rustix::fs::setxattr(at("dir/file"), "user.note", b"text\0\xff", flags).expect("an xattr");
    rustix::fs::setxattr(at("dir"), "user.dir", b"", flags).expect("an xattr");
    rustix::fs::mknodat(CWD, at("pipe"), FileType::Fifo, Mode::from(0o644), 0).expect("a FIFO");
    rustix::fs::mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::from(0o666), 0x103)
        .expect("a device");
    drop(std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket"));
    root
}
