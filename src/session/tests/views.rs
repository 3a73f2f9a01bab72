//! What the daemon asks for is what it gets.

use super::daemon::Opened;
use super::receiver::{Receiver, receive};
use std::fs;
use std::os::unix::fs::symlink;

fn plant(root: &std::path::Path, paths: &[&str]) {
    for path in paths {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("its directory");
        fs::write(path, "x").expect("a file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_paths_through_links() {
    let root = tempfile::tempdir().expect("a directory");
    plant(root.path(), &["real/deep/file", "real/other", "unrelated"]);
    symlink("real/deep", root.path().join("link")).expect("a link");
    let opened = Opened::with(root.path()).await;
    let received = receive(&opened.inner, &[("followpaths", "/link/file")]).await.expect("a transfer");
    assert_eq!(received.paths(), ["link", "real", "real/deep", "real/deep/file"]);
    let metadata = [("followpaths", "real/other"), ("followpaths", "missing")];
    let received = receive(&opened.inner, &metadata).await.expect("a transfer");
    assert_eq!(received.paths(), ["real", "real/other"]);
    let metadata = [("followpaths", "."), ("exclude-patterns", "real")];
    let received = receive(&opened.inner, &metadata).await.expect("a transfer");
    assert_eq!(received.paths(), ["link", "unrelated"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn excludes_with_exceptions() {
    let root = tempfile::tempdir().expect("a directory");
    plant(root.path(), &["docs/keep.md", "docs/other", "src/main.go", "src/ä b", "top"]);
    let opened = Opened::with(root.path()).await;
    let metadata = [("exclude-patterns", "docs"), ("exclude-patterns", "!docs/keep.md")];
    let received = receive(&opened.inner, &metadata).await.expect("a transfer");
    assert_eq!(received.paths(), ["docs", "docs/keep.md", "src", "src/main.go", "src/ä b", "top"]);
    let metadata = [
        ("exclude-patterns", "src%2F%C3%A4+b"),
        ("exclude-patterns", "to%3F"),
        ("exclude-patterns-encoded", "1"),
    ];
    let received = receive(&opened.inner, &metadata).await.expect("a transfer");
    assert_eq!(received.paths(), ["docs", "docs/keep.md", "docs/other", "src", "src/main.go"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_dockerignore_fits_into_the_metadata() {
    let root = tempfile::tempdir().expect("a directory");
    plant(root.path(), &["kept", "dropped-4999"]);
    let opened = Opened::with(root.path()).await;
    let patterns: Vec<String> = (0..5000).map(|number| format!("dropped-{number}")).collect();
    let metadata: Vec<_> = patterns.iter().map(|pattern| ("exclude-patterns", pattern.as_str())).collect();
    assert_eq!(receive(&opened.inner, &metadata).await.expect("a transfer").paths(), ["kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_directories_are_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let opened = Opened::with(root.path()).await;
    let refused = Receiver::open(&opened.inner, &[("dir-name", "home")]).await.err().expect("a refusal");
    assert_eq!(refused.code(), tonic::Code::NotFound);
    assert_eq!(refused.message(), "no access allowed to dir \"home\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_patterns_are_named() {
    let root = tempfile::tempdir().expect("a directory");
    let opened = Opened::with(root.path()).await;
    let failed = receive(&opened.inner, &[("exclude-patterns", "a[")]).await.err().expect("a failure");
    assert_eq!(failed, "the daemon asks for a directory by a bad pattern: syntax error in pattern `a[`");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_views_at_once() {
    let root = tempfile::tempdir().expect("a directory");
    let paths: Vec<String> = (0..300).map(|number| format!("d{}/f{number}", number % 7)).collect();
    plant(root.path(), &paths.iter().map(String::as_str).collect::<Vec<_>>());
    let opened = Opened::with(root.path()).await;
    let one = receive(&opened.inner, &[]);
    let two = receive(&opened.inner, &[("include-patterns", "d3")]);
    let (one, two) = tokio::join!(one, two);
    assert_eq!(one.expect("a transfer").files.len(), 300);
    assert!(two.expect("a transfer").files.keys().all(|path| path.starts_with(b"d3/")));
}
