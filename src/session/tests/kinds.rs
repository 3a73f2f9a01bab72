//! Every kind of file arrives as it is.

use super::daemon::Opened;
use super::receiver::receive;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use std::ffi::OsStr;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_directories() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path();
    fs::create_dir_all(path.join("dir/empty")).expect("directories");
    fs::write(path.join("dir/file"), "contents").expect("a file");
    fs::write(path.join("nothing"), "").expect("an empty file");
    fs::write(path.join("tool"), "#!").expect("a tool");
    chmod(&path.join("tool"), 0o4755);
    chmod(&path.join("dir/empty"), 0o1777);
    chmod(&path.join("dir/file"), 0o640);
    let old = UNIX_EPOCH - Duration::new(5, 250);
    let time = fs::FileTimes::new().set_modified(old);
    fs::File::open(path.join("nothing")).expect("a file").set_times(time).expect("a time before 1970");

    let opened = Opened::with(path).await;
    let received = receive(&opened.inner, &[]).await.expect("a transfer");
    assert_eq!(received.paths(), ["dir", "dir/empty", "dir/file", "nothing", "tool"]);
    assert_eq!(received.stat(b"tool").mode, 0x0080_01ED);
    assert_eq!(received.stat(b"dir/empty").mode, 0x8010_01FF);
    assert_eq!(received.stat(b"dir").size, 0);
    let file = received.stat(b"dir/file");
    assert_eq!((file.mode, file.size), (0o640, 8));
    let expected = fs::metadata(path.join("dir/file")).expect("metadata").modified().expect("a time");
    let since = expected.duration_since(UNIX_EPOCH).expect("after 1970");
    assert_eq!(file.mod_time, since.as_nanos() as i64);
    assert_eq!(received.stat(b"nothing").mod_time, -5_000_000_250);
    assert_eq!(received.files[&b"dir/file"[..]], b"contents");
    assert_eq!(received.files[&b"nothing"[..]], b"");
    assert!(opened.report.take().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn symlinks_are_sent_as_written() {
    let root = tempfile::tempdir().expect("a directory");
    for (target, name) in
        [("/etc/passwd", "absolute"), ("no/where", "dangling"), (".", "self"), ("../..", "up")]
    {
        symlink(target, root.path().join(name)).expect("a link");
    }
    let opened = Opened::with(root.path()).await;
    let received = receive(&opened.inner, &[]).await.expect("a transfer");
    assert_eq!(received.paths(), ["absolute", "dangling", "self", "up"]);
    let absolute = received.stat(b"absolute");
    assert_eq!(
        (absolute.mode, absolute.size, &absolute.linkname[..]),
        (0x0800_01FF, 11, &b"/etc/passwd"[..])
    );
    assert_eq!(received.stat(b"up").linkname, "../..");
    assert!(received.files.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_links_point_to_the_first_name_that_is_sent() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path();
    fs::create_dir_all(path.join("z")).expect("a directory");
    fs::write(path.join("a"), "same").expect("a file");
    for name in ["b", "c", "z/d"] {
        fs::hard_link(path.join("a"), path.join(name)).expect("a link");
    }
    symlink("x", path.join("l1")).expect("a link");
    rustix::fs::linkat(CWD, path.join("l1"), CWD, path.join("l2"), rustix::fs::AtFlags::empty())
        .expect("a hard link to a symlink");
    let opened = Opened::with(path).await;

    let all = receive(&opened.inner, &[]).await.expect("a transfer");
    let link = |name: &[u8]| all.stat(name).linkname.to_vec();
    assert_eq!([link(b"a"), link(b"b"), link(b"z/d")], [&b""[..], b"a", b"a"]);
    assert_eq!([link(b"l1"), link(b"l2")], [b"x", b"x"]);
    assert_eq!((all.stat(b"b").size, all.stat(b"b").mode & 0o777), (4, all.stat(b"a").mode & 0o777));
    assert_eq!(all.files.keys().collect::<Vec<_>>(), [b"a"]);

    let some = receive(&opened.inner, &[("exclude-patterns", "a")]).await.expect("a transfer");
    assert_eq!(some.stat(b"b").linkname, "");
    assert_eq!(some.stat(b"c").linkname, "b");
    assert_eq!(some.files[&b"b"[..]], b"same");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipes_and_sockets_are_never_opened() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path();
    rustix::fs::mknodat(CWD, path.join("pipe"), FileType::Fifo, Mode::from(0o644), 0).expect("a FIFO");
    chmod(&path.join("pipe"), 0o644);
    let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).expect("a socket");
    chmod(&path.join("socket"), 0o755);
    let opened = Opened::with(path).await;
    let received = receive(&opened.inner, &[]).await.expect("a transfer");
    assert_eq!(received.stat(b"pipe").mode, 0x0200_01A4);
    // The protocol has no sockets: as from every client, an empty file arrives.
    assert_eq!(received.stat(b"socket").mode, 0x1ED);
    assert_eq!(received.files[&b"socket"[..]], b"");
    assert_eq!(received.files.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_carry_their_numbers() {
    // /dev itself, since only root makes devices.
    let opened = Opened::with(Path::new("/dev")).await;
    let received = receive(&opened.inner, &[("include-patterns", "null")]).await.expect("a transfer");
    let null = received.stat(b"null");
    assert_eq!((null.mode & !0o777, null.devmajor, null.devminor), (0x0420_0000, 1, 3));
    assert!(received.files.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn big_sparse_files() {
    let root = tempfile::tempdir().expect("a directory");
    let mut file = fs::File::create(root.path().join("sparse")).expect("a file");
    file.write_all(b"head").expect("to write");
    file.seek(SeekFrom::Start((64 << 20) + 123)).expect("to seek");
    file.write_all(b"tail").expect("to write");
    let huge = fs::File::create(root.path().join("huge")).expect("a file");
    huge.set_len(5 << 30).expect("a size beyond 32 bits");
    let opened = Opened::with(root.path()).await;
    let received = receive(&opened.inner, &[("exclude-patterns", "huge")]).await.expect("a transfer");
    let contents = &received.files[&b"sparse"[..]];
    assert_eq!(contents.len(), (64 << 20) + 127);
    assert!(contents.starts_with(b"head\0") && contents.ends_with(b"\0tail"));
    assert!(contents[4..contents.len() - 4].iter().all(|byte| *byte == 0));

    let mut receiver = super::receiver::Receiver::open(&opened.inner, &[]).await.expect("a stream");
    let stats = receiver.stats().await.expect("a walk");
    assert_eq!(stats[0].size, 5 << 30);
    receiver.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_text() {
    let root = tempfile::tempdir().expect("a directory");
    let names = [&b"a\nb"[..], b"a\\b", b"caf\xe9", b"\xff\xfe"];
    for name in names {
        fs::write(root.path().join(OsStr::from_bytes(name)), name).expect("a file");
    }
    symlink(OsStr::from_bytes(b"caf\xe9"), root.path().join("link")).expect("a link");
    let opened = Opened::with(root.path()).await;
    let received = receive(&opened.inner, &[]).await.expect("a transfer");
    for name in names {
        assert_eq!(received.files[name], name);
    }
    assert_eq!(received.stat(b"link").linkname, &b"caf\xe9"[..]);
    // Patterns for such names come escaped.
    let metadata = [("include-patterns", "caf%E9"), ("include-patterns-encoded", "1")];
    let one = receive(&opened.inner, &metadata).await.expect("a transfer");
    assert_eq!(one.stats.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_attributes() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path();
    fs::write(path.join("file"), "").expect("a file");
    fs::create_dir(path.join("dir")).expect("a directory");
    fs::write(path.join("plain"), "").expect("a file");
    let long = vec![b'x'; 2000];
    let flags = XattrFlags::empty();
    rustix::fs::setxattr(path.join("file"), "user.one", b"1\0\xff", flags)
        .expect("a file system with xattrs");
    rustix::fs::setxattr(path.join("file"), "user.empty", b"", flags).expect("an xattr");
    rustix::fs::setxattr(path.join("file"), "user.long", &long, flags).expect("an xattr");
    rustix::fs::setxattr(path.join("file"), "com.apple.quarantine", b"", flags)
        .expect_err("Linux knows no such namespace, so this is the daemon's to skip");
    rustix::fs::setxattr(path.join("dir"), "user.dir", b"d", flags).expect("an xattr");
    for number in 0..40 {
        let name = format!("user.a-name-that-fills-the-first-buffer-{number}");
        rustix::fs::setxattr(path.join("dir"), name, b"", flags).expect("an xattr");
    }
    let opened = Opened::with(path).await;
    let received = receive(&opened.inner, &[]).await.expect("a transfer");
    let xattrs = |name: &[u8]| -> std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
        let entries = received.stat(name).xattrs.iter();
        entries
            .map(|entry| (entry.key.to_vec(), entry.value.to_vec()))
            .filter(|(key, _)| key.starts_with(b"user."))
            .collect()
    };
    let file = xattrs(b"file");
    assert_eq!(file[&b"user.one"[..]], b"1\0\xff");
    assert_eq!(file[&b"user.empty"[..]], b"");
    assert_eq!(file[&b"user.long"[..]], long);
    assert_eq!(xattrs(b"dir").len(), 41);
    assert!(xattrs(b"plain").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files() {
    let root = tempfile::tempdir().expect("a directory");
    for directory in 0..40 {
        let directory = root.path().join(format!("d{directory}"));
        fs::create_dir(&directory).expect("a directory");
        for file in 0..50 {
            let name = format!("f{file}");
            fs::write(directory.join(&name), name.repeat(file * 20)).expect("a file");
        }
    }
    let opened = Opened::with(root.path()).await;
    let received = receive(&opened.inner, &[]).await.expect("a transfer");
    assert_eq!(received.files.len(), 2000);
    for (path, contents) in &received.files {
        let path = Path::new(OsStr::from_bytes(path));
        assert_eq!(contents, &fs::read(root.path().join(path)).expect("the same file"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_a_symlink() {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("real")).expect("a directory");
    fs::write(root.path().join("real/file"), "x").expect("a file");
    symlink("real", root.path().join("link")).expect("a link");
    let opened = Opened::with(&root.path().join("link")).await;
    assert_eq!(receive(&opened.inner, &[]).await.expect("a transfer").paths(), ["file"]);
}
