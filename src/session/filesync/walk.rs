//! Walks a tree in the order that the protocol demands: parents before children, names in a directory sorted by
//! their bytes. (That is not the order of whole paths: `a/b` comes before `a-b`.)

use super::error::SyncError;
use super::filter::Filter;
use super::prefetch::{Following, Page, Pool, push_name};
use super::tree::{Meta, Tree};
use rustix::io::Errno;
use std::sync::Arc;

/// What the walk feeds.
pub(super) trait Sink {
    /// Takes the next entry.
    fn entry(&mut self, path: &[u8], meta: &Meta) -> Result<(), Ended>;

    /// Makes use of a pause: the file system keeps the walk waiting.
    fn pause(&mut self) -> Result<(), Ended>;
}

/// Why a walk ended early.
#[derive(Debug)]
pub(super) enum Ended {
    /// It can't go on.
    Failed(SyncError),
    /// Nobody wants more of it.
    Unwanted,
}

impl From<SyncError> for Ended {
    fn from(error: SyncError) -> Self {
        Self::Failed(error)
    }
}

/// A directory that the walk is in.
struct Frame {
    page: Page,
    index: usize,
    following: Following,
    /// Length of its path.
    depth: usize,
    /// Its own entry was given to the sink. One that is not kept by itself is given just before the first kept
    /// entry in it, if any.
    announced: bool,
}

/// Gives every entry that the filter keeps to the sink, in order; the root itself is none.
///
/// What vanishes between its directory's listing and its examination is left out.
///
/// # Errors
/// What cannot be listed or examined though it is wanted, and whatever the sink says.
pub(super) fn walk(
    tree: &Arc<Tree>,
    filter: &Arc<Filter>,
    most_threads: usize,
    sink: &mut dyn Sink,
) -> Result<(), Ended> {
    let pool = Pool::open(Arc::clone(tree), Arc::clone(filter), most_threads);
    let frame =
        |page, depth, announced| Frame { page, index: 0, following: Following::default(), depth, announced };
    let mut path = Vec::new();
    let mut frames = vec![frame(pool.root(), 0, true)];
    while let Some(top) = frames.last_mut() {
        path.truncate(top.depth);
        if top.index == top.page.len() {
            if let Some(error) = top.page.failed.take() {
                return Err(error.into());
            }
            match pool.next(&top.page, &mut top.following, || sink.pause())? {
                Some(page) => (top.page, top.index) = (page, 0),
                None => drop(frames.pop()),
            }
            continue;
        }
        let index = top.index;
        top.index += 1;
        let (name, meta) = top.page.entry(index);
        push_name(&mut path, name);
        let kept = meta.is_some();
        if kept && !announce(tree, &mut frames, &path, sink)? {
            continue;
        }
        let Some(top) = frames.last_mut() else { break };
        if let (_, Some(meta)) = top.page.entry(index) {
            sink.entry(&path, meta)?;
        }
        if let Some(page) = pool.enter(&mut top.page, index, || sink.pause())? {
            frames.push(frame(page, path.len(), kept));
        }
    }
    Ok(())
}

/// Gives the sink those directories on the way that it has not had. `false` if one is gone by now: the walk is
/// then back in the last one that isn't.
fn announce(tree: &Tree, frames: &mut Vec<Frame>, path: &[u8], sink: &mut dyn Sink) -> Result<bool, Ended> {
    if frames.last().is_none_or(|top| top.announced) {
        return Ok(true);
    }
    for at in 0..frames.len() {
        if frames[at].announced {
            continue;
        }
        let directory = &path[..frames[at].depth];
        match tree.examine_path(directory) {
            Ok(meta) if meta.is_directory() => sink.entry(directory, &meta)?,
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {
                frames.truncate(at);
                return Ok(false);
            }
            Err(errno) => return Err(tree.error("examine", directory, errno).into()),
        }
        frames[at].announced = true;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[derive(Default)]
    struct Paths(Vec<Vec<u8>>);

    impl Sink for Paths {
        fn entry(&mut self, path: &[u8], meta: &Meta) -> Result<(), Ended> {
            let mut path = path.to_vec();
            if meta.is_directory() {
                path.push(b'/');
            }
            self.0.push(path);
            Ok(())
        }

        fn pause(&mut self) -> Result<(), Ended> {
            Ok(())
        }
    }

    fn paths(root: &std::path::Path, include: &[&str], exclude: &[&str], threads: usize) -> Vec<String> {
        raw_paths(root, include, exclude, threads)
            .into_iter()
            .map(|path| String::from_utf8(path).expect("UTF-8 here"))
            .collect()
    }

    fn raw_paths(root: &std::path::Path, include: &[&str], exclude: &[&str], threads: usize) -> Vec<Vec<u8>> {
        let owned = |list: &[&str]| -> Vec<Vec<u8>> { list.iter().map(|p| p.as_bytes().to_vec()).collect() };
        let filter = Filter::new(Some(&owned(include)), Some(&owned(exclude))).expect("good patterns");
        let tree = Arc::new(Tree::open(root).expect("a tree"));
        let mut sink = Paths::default();
        walk(&tree, &Arc::new(filter), threads, &mut sink).expect("a walk");
        sink.0
    }

    fn plant(root: &std::path::Path, paths: &[&str]) {
        for path in paths {
            let whole = root.join(path);
            if path.ends_with('/') {
                fs::create_dir_all(whole).expect("a directory");
            } else {
                fs::create_dir_all(whole.parent().expect("a parent")).expect("its directory");
                fs::write(whole, path).expect("a file");
            }
        }
    }

    #[test]
    fn the_order_is_by_directory() {
        let root = tempfile::tempdir().expect("a directory");
        plant(root.path(), &["a/b", "a-b", "a.txt", "a0", "B", "empty/"]);
        assert_eq!(paths(root.path(), &[], &[], 0), ["B", "a/", "a/b", "a-b", "a.txt", "a0", "empty/"]);
    }

    #[test]
    fn parents_come_with_the_first_child_that_is_kept() {
        let root = tempfile::tempdir().expect("a directory");
        plant(root.path(), &["docs/a", "docs/deep/er/keep.md", "docs/z", "none/x", "src/m.go", "src/m.rs"]);
        let root = root.path();
        assert_eq!(
            paths(root, &[], &["docs", "!docs/deep/er/keep.md", "src/*.rs", "none"], 0),
            ["docs/", "docs/deep/", "docs/deep/er/", "docs/deep/er/keep.md", "src/", "src/m.go"]
        );
        assert_eq!(paths(root, &["**/*.go"], &[], 0), ["src/", "src/m.go"]);
        assert_eq!(paths(root, &["docs/a"], &[], 0), ["docs/", "docs/a"]);
        assert_eq!(paths(root, &["missing"], &[], 0), [""; 0]);
    }

    #[test]
    fn names_are_bytes() {
        let root = tempfile::tempdir().expect("a directory");
        for name in [&b"\xff"[..], b"\xc3\xa4", b"z", b"a\nb", b"a\\b"] {
            fs::write(root.path().join(OsStr::from_bytes(name)), "").expect("a file");
        }
        let expected = [&b"a\nb"[..], b"a\\b", b"z", b"\xc3\xa4", b"\xff"];
        assert_eq!(raw_paths(root.path(), &[], &[], 0), expected);
    }

    #[tokio::test]
    async fn many_threads_give_the_same_order() {
        let root = tempfile::tempdir().expect("a directory");
        for outer in 0..30 {
            for inner in 0..12 {
                plant(root.path(), &[&format!("d{outer}/e{inner}/file"), &format!("d{outer}/f{inner}")]);
            }
        }
        for file in 0..3000 {
            fs::write(root.path().join(format!("d7/many{file}")), "").expect("a file");
        }
        let path = root.path().to_owned();
        let work = crate::task::spawn_blocking(move || {
            let alone = paths(&path, &[], &[], 0);
            for _ in 0..20 {
                assert_eq!(paths(&path, &[], &[], 6), alone);
            }
            assert_eq!(alone.len(), 30 + 30 * 12 * 3 + 3000);
        });
        work.join().await;
    }

    #[test]
    fn what_cannot_be_listed_fails_only_if_it_is_wanted() {
        let root = tempfile::tempdir().expect("a directory");
        plant(root.path(), &["shut/x", "open/x"]);
        let shut = root.path().join("shut");
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).expect("to shut it");
        let reads_all = fs::read_dir(&shut).is_ok();
        let filter =
            |exclude: &[u8]| Arc::new(Filter::new(None, Some(&[exclude.to_vec()])).expect("a pattern"));
        let tree = Arc::new(Tree::open(root.path()).expect("a tree"));
        // An exception with a wildcard makes the walk look into what is excluded.
        let tolerant = Filter::new(None, Some(&[b"shut".to_vec(), b"!**/q".to_vec()])).expect("patterns");
        walk(&tree, &Arc::new(tolerant), 0, &mut Paths::default()).expect("nothing wanted is shut");
        walk(&tree, &filter(b"shut"), 0, &mut Paths::default()).expect("not looked into");
        let failed = walk(&tree, &filter(b"unrelated"), 0, &mut Paths::default());
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o755)).expect("to open it");
        if reads_all {
            // Root reads everything; the send tests drop to a user who doesn't.
            assert!(failed.is_ok());
        } else {
            let Err(Ended::Failed(error)) = failed else { panic!("{failed:?}") };
            assert!(error.text().ends_with("shut: Permission denied (os error 13)"), "{}", error.text());
        }
    }

    fn tree_of_names() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let byte = prop::sample::select(&b"aAb0-._ \xc3\xff"[..]);
        let name =
            prop::collection::vec(byte, 1..4).prop_filter("not a dot", |name| name != b"." && name != b"..");
        prop::collection::vec(prop::collection::vec(name, 1..4), 1..25)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_order_is_that_of_paths_with_the_slash_lowest(files in tree_of_names()) {
            let root = tempfile::tempdir().expect("a directory");
            for parts in &files {
                let mut path = root.path().to_owned();
                path.extend(parts.iter().map(|part| OsStr::from_bytes(part)));
                // Some clash: a file stands where a directory is wanted. They are left out.
                if fs::create_dir_all(path.parent().expect("a parent")).is_ok() {
                    let _may_be_a_directory = fs::write(&path, "");
                }
            }
            let mut walked = raw_paths(root.path(), &[], &[], 0);
            for path in &mut walked {
                if path.ends_with(b"/") {
                    path.pop();
                }
            }
            let key = |path: &Vec<u8>| -> Vec<Vec<u8>> {
                path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect()
            };
            let mut sorted = walked.clone();
            sorted.sort_by_key(key);
            prop_assert_eq!(&walked, &sorted);
            let mut unique = sorted.clone();
            unique.dedup();
            prop_assert_eq!(unique.len(), walked.len());
        }
    }
}
