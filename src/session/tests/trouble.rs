//! What can't be sent as it was announced fails by name, and nothing is left running.

use super::daemon::Opened;
use super::receiver::{Receiver, receive};
use crate::pb::fsutil::types::packet::Type;
use crate::session::filesync::SyncError;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::Duration;

/// Opens a transfer of a tree with one file, `file`, and runs `meddle` between its STAT and the request for it.
async fn meddled(contents: &[u8], meddle: impl FnOnce(&Path)) -> (Result<Vec<u8>, String>, Opened, String) {
    let root = tempfile::tempdir().expect("a directory");
    let file = root.path().join("file");
    fs::write(&file, contents).expect("a file");
    let past = std::time::SystemTime::now() - Duration::from_secs(100);
    let old = fs::FileTimes::new().set_modified(past);
    fs::File::open(&file).expect("the file").set_times(old).expect("an older time");
    let opened = Opened::with(root.path()).await;
    let mut receiver = Receiver::open(&opened.inner, &[]).await.expect("a stream");
    receiver.stats().await.expect("a walk");
    meddle(&file);
    receiver.request(0);
    let result = receiver.file(0).await;
    (result, opened, file.display().to_string())
}

async fn meddled_fails(contents: &[u8], meddle: impl FnOnce(&Path), expected: &str) {
    let (result, opened, file) = meddled(contents, meddle).await;
    let text = result.expect_err("a failure");
    assert_eq!(text, format!("{file} {expected}"));
    assert_eq!(opened.report.take().expect("kept for the caller").to_string(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_vanishes() {
    let remove = |file: &Path| fs::remove_file(file).expect("to remove");
    meddled_fails(b"x", remove, "vanished while it was being sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_shrinks() {
    let shrink = |file: &Path| fs::write(file, "").expect("to shrink");
    meddled_fails(b"long", shrink, "changed while it was being sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_to() {
    let write = |file: &Path| fs::write(file, "LONG").expect("to write");
    meddled_fails(b"long", write, "changed while it was being sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_by_a_longer_one() {
    let replace = |file: &Path| {
        let new = file.with_extension("new");
        fs::write(&new, "much longer").expect("a file");
        fs::rename(new, file).expect("to replace");
    };
    meddled_fails(b"long", replace, "changed while it was being sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_becomes_something_else() {
    let link = |file: &Path| {
        fs::remove_file(file).expect("to remove");
        symlink("/etc/passwd", file).expect("a link");
    };
    meddled_fails(b"x", link, "changed while it was being sent").await;
    let pipe = |file: &Path| {
        fs::remove_file(file).expect("to remove");
        rustix::fs::mknodat(rustix::fs::CWD, file, rustix::fs::FileType::Fifo, 0o644.into(), 0)
            .expect("a FIFO");
    };
    meddled_fails(b"x", pipe, "changed while it was being sent").await;
    let directory = |file: &Path| {
        fs::remove_file(file).expect("to remove");
        fs::create_dir(file).expect("a directory");
    };
    meddled_fails(b"x", directory, "changed while it was being sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_grows_is_sent_as_it_was_announced() {
    let append = |file: &Path| {
        let mut log = fs::OpenOptions::new().append(true).open(file).expect("the log");
        log.write_all(b"\nline two").expect("to append");
    };
    let (result, mut opened, file) = meddled(b"line one", append).await;
    assert_eq!(result.expect("no failure"), b"line one");
    assert!(opened.report.take().is_none());
    let expected = format!("{file} grew while it was being sent: only its first 8 bytes were");
    assert_eq!(opened.notes(), [expected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_half_way() {
    let root = tempfile::tempdir().expect("a directory");
    let file = root.path().join("big");
    fs::write(&file, vec![7; 64 << 20]).expect("a file");
    let opened = Opened::with(root.path()).await;
    let mut receiver = Receiver::open(&opened.inner, &[]).await.expect("a stream");
    receiver.stats().await.expect("a walk");
    receiver.request(0);
    // The pipes hold a few MiB at most, so that most of the file is unread when this comes.
    receiver.next().await.expect("data");
    fs::OpenOptions::new().write(true).open(&file).expect("the file").set_len(32 << 20).expect("to shrink");
    let text = receiver.file(0).await.expect_err("a failure");
    assert_eq!(text, format!("{} changed while it was being sent", file.display()));
}

/// sysfs has files that not even root may read.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_opened() {
    let opened = Opened::with(Path::new("/sys/bus/platform")).await;
    let failed = receive(&opened.inner, &[("include-patterns", "drivers_probe")]).await;
    let text = failed.err().expect("a failure");
    assert_eq!(text, "cannot open /sys/bus/platform/drivers_probe: Permission denied (os error 13)");
    let Some(SyncError::Io { act: "open", path, .. }) = opened.report.take() else { panic!("another error") };
    assert_eq!(path, Path::new("/sys/bus/platform/drivers_probe"));
}

/// Root may read everything: then this runs itself again as somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_may_not_read() {
    if !rustix::process::geteuid().is_root() {
        return unreadable_things().await;
    }
    let program = std::env::current_exe().expect("this program");
    let name = "session::tests::trouble::what_the_user_may_not_read";
    let home = tempfile::tempdir().expect("a directory");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).expect("to open it");
    let copy = home.path().join("tests");
    fs::copy(program, &copy).expect("a copy that others may run");
    let mut command = std::process::Command::new(copy);
    command.args(["--exact", name, "--nocapture"]).current_dir(home.path()).uid(65534).gid(65534);
    let output = command.env("TMPDIR", home.path()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

async fn unreadable_things() {
    let root = tempfile::tempdir().expect("a directory");
    let shut = |name: &str| {
        let path = root.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("to shut it");
        path
    };
    fs::create_dir(root.path().join("dir")).expect("a directory");
    fs::write(root.path().join("dir/inside"), "").expect("a file");
    fs::write(root.path().join("file"), "x").expect("a file");
    let (directory, file) = (shut("dir"), shut("file"));
    let opened = Opened::with(root.path()).await;

    let failed = receive(&opened.inner, &[]).await.err().expect("a failure");
    let denied = "Permission denied (os error 13)";
    let expected = [
        format!("cannot open {}: {denied}", directory.display()),
        format!("cannot open {}: {denied}", file.display()),
    ];
    // Whichever comes first: the walk and the requests go on at the same time.
    assert!(expected.contains(&failed), "{failed}");
    let failed = receive(&opened.inner, &[("exclude-patterns", "dir")]).await.err().expect("a failure");
    assert_eq!(failed, expected[1]);
    let failed = receive(&opened.inner, &[("exclude-patterns", "file")]).await.err().expect("a failure");
    assert_eq!(failed, expected[0]);
    // Excluded things may be as they like, also where the walk has to look into them.
    let metadata = [("exclude-patterns", "*"), ("exclude-patterns", "!**/inside")];
    assert_eq!(receive(&opened.inner, &metadata).await.expect("a transfer").paths(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_none() {
    let root = tempfile::tempdir().expect("a directory");
    fs::write(root.path().join("file"), "").expect("a file");
    for (name, expected) in [("file", "is not a directory"), ("missing", "No such file")] {
        let opened = Opened::with(&root.path().join(name)).await;
        let text = receive(&opened.inner, &[]).await.err().expect("a failure");
        assert!(text.contains(expected) && text.contains(name), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_fails() {
    let root = tempfile::tempdir().expect("a directory");
    let opened = Opened::with(root.path()).await;
    let mut receiver = Receiver::open(&opened.inner, &[]).await.expect("a stream");
    receiver.stats().await.expect("a walk");
    receiver.send(Type::Err, 0, b"no space left on device");
    let text = receiver.next().await.expect_err("the end");
    assert_eq!(text, "the daemon failed to receive `context`: no space left on device");
    assert!(matches!(opened.report.take(), Some(SyncError::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_breaks_the_protocol() {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("dir")).expect("a directory");
    fs::write(root.path().join("file"), "x").expect("a file");
    let broke = "the daemon broke the file transfer's protocol: ";
    for (ids, expected) in [
        (&[7][..], "it asks for a file that there is not"),
        (&[0], "it asks for a file that there is not"),
        (&[1, 1], "it asks for a file a second time"),
    ] {
        let opened = Opened::with(root.path()).await;
        let mut receiver = Receiver::open(&opened.inner, &[]).await.expect("a stream");
        receiver.stats().await.expect("a walk");
        ids.iter().for_each(|id| receiver.request(*id));
        let text = loop {
            match receiver.next().await {
                Ok(_) => {}
                Err(text) => break text,
            }
        };
        assert_eq!(text, format!("{broke}{expected}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_transfer_leaves_nothing_running() {
    let root = tempfile::tempdir().expect("a directory");
    for name in ["a", "b", "c", "d", "e"] {
        fs::write(root.path().join(name), vec![1; 16 << 20]).expect("a file");
    }
    let opened = Opened::with(root.path()).await;
    let handles = || opened.report.holders();
    let before = handles();
    let mut receiver = Receiver::open(&opened.inner, &[]).await.expect("a stream");
    receiver.stats().await.expect("a walk");
    (0..5).for_each(|id| receiver.request(id));
    receiver.next().await.expect("data");
    assert!(handles() > before, "readers are blocked on a full queue");
    drop(receiver);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while handles() > before {
        assert!(tokio::time::Instant::now() < deadline, "{} threads are left", handles() - before);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(opened.report.take().is_none(), "being abandoned is no failure of ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_vanish_during_the_walk_are_left_out() {
    let root = tempfile::tempdir().expect("a directory");
    for number in 0..3000 {
        fs::create_dir(root.path().join(format!("d{number:04}"))).expect("a directory");
        fs::write(root.path().join(format!("d{number:04}/f")), "").expect("a file");
    }
    let path = root.path().to_owned();
    let remover = crate::task::spawn_blocking(move || {
        for number in (0..3000).rev() {
            // From the far end, so that the walk meets what is half removed.
            fs::remove_dir_all(path.join(format!("d{number:04}"))).expect("to remove");
        }
    });
    let opened = Opened::with(root.path()).await;
    let mut receiver = Receiver::open(&opened.inner, &[]).await.expect("a stream");
    let stats = receiver.stats().await.expect("no failure");
    remover.join().await;
    assert!(stats.len() <= 6000);
    receiver.finish().await;
}
