//! Resolves the paths that a daemon wants followed, which are a COPY's sources: to what they name and to every
//! symlink on the way there (tonistiigi/fsutil followlinks.go).

use super::error::SyncError;
use super::lexical::{clean, glob, join, split};
use super::tree::Tree;
use rustix::fs::FileType;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

/// Returns the patterns to include so that all of `paths` can be read on the other side, `None` if one of them
/// is the root, which means everything. Paths that don't exist stay as they are.
///
/// # Errors
/// A directory or link on the way that is there and can't be read.
pub(super) fn resolve(tree: &Tree, paths: &[Vec<u8>]) -> Result<Option<Vec<Vec<u8>>>, SyncError> {
    let mut resolver = Resolver { tree, resolved: BTreeSet::new() };
    for path in paths {
        resolver.follow(path)?;
    }
    let resolved: Vec<Vec<u8>> = resolver.resolved.into_iter().collect();
    Ok(without_nested(&resolved))
}

/// Drops each path that lies in the one kept before it; `None` if the root is among them.
pub(super) fn without_nested(paths: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for path in paths {
        if path == b"." {
            return None;
        }
        // With nothing kept yet, what starts with a slash is dropped; upstream does so too.
        let last = kept.last().map_or(&[][..], Vec::as_slice);
        let nested = path.strip_prefix(last).is_some_and(|rest| rest.starts_with(b"/"));
        if !nested {
            kept.push(path.clone());
        }
    }
    Some(kept)
}

struct Resolver<'a> {
    tree: &'a Tree,
    resolved: BTreeSet<Vec<u8>>,
}

impl Resolver<'_> {
    /// Walks down one path. Links found restart the walk at their targets, so this keeps a list of what is to be
    /// followed rather than recursing: a chain of links may be long.
    fn follow(&mut self, path: &[u8]) -> Result<(), SyncError> {
        let mut pending = vec![join(&[b".", path])];
        while let Some(path) = pending.pop() {
            let mut current = b".".to_vec();
            let mut rest = path.as_slice();
            loop {
                let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
                current = join(&[&current, &rest[..end]]);
                rest = rest.get(end + 1..).unwrap_or_default();
                let targets = self.targets(&current)?;
                if targets.is_empty() && !rest.is_empty() {
                    continue;
                }
                // A link or an end that was met before has been followed: so loops of links end.
                if self.resolved.insert(current) {
                    pending.extend(targets.iter().map(|target| join(&[b".", target, rest])));
                }
                break;
            }
        }
        Ok(())
    }

    /// Returns where a path leads if it is a symlink, or where the links lead that its last element's wildcards
    /// match. Targets are absolute, the tree's root being `/`.
    fn targets(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, SyncError> {
        let (directory, name) = split(path);
        // Above the root is nothing of ours.
        if path == b"." || path == b".." || path.starts_with(b"../") {
            return Ok(Vec::new());
        }
        if !has_wildcards(name) {
            return Ok(self.target(path)?.into_iter().collect());
        }
        let opened = match self.tree.directory(directory) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            Err(errno) => return Err(self.tree.error("open", directory, errno)),
        };
        let mut links = Vec::new();
        let listed = Tree::list(opened.as_fd(), |entry| {
            let may_be_link = matches!(entry.kind, FileType::Symlink | FileType::Unknown);
            if may_be_link && glob(name, entry.name) == Ok(true) {
                links.push(join(&[directory, entry.name]));
            }
        });
        listed.map_err(|errno| self.tree.error("list", directory, errno))?;
        links.sort();
        let targets = links.iter().map(|link| self.target(link));
        Ok(targets.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    fn target(&self, link: &[u8]) -> Result<Option<Vec<u8>>, SyncError> {
        match self.tree.link(link) {
            Ok(None) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Ok(Some(target)) if target.starts_with(b"/") => Ok(Some(clean(&target))),
            Ok(Some(target)) => Ok(Some(join(&[b"/", split(link).0, &target]))),
            Err(errno) => Err(self.tree.error("read the link", link, errno)),
        }
    }
}

fn has_wildcards(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path();
        fs::create_dir_all(path.join("dir/sub")).expect("directories");
        fs::write(path.join("dir/sub/file"), "x").expect("a file");
        fs::write(path.join("plain"), "x").expect("a file");
        for (target, link) in [
            ("dir", "to-dir"),
            ("/dir/sub", "absolute"),
            ("../../../plain", "dir/up"),
            ("loop-b", "loop-a"),
            ("loop-a", "loop-b"),
            ("missing/x", "dangling"),
            ("to-dir", "twice"),
            (".", "self"),
            ("plain", "wild-1"),
            ("dir/sub", "wild-2"),
        ] {
            symlink(target, path.join(link)).expect("a link");
        }
        let tree = Tree::open(path).expect("a tree");
        (root, tree)
    }

    #[rstest]
    #[case(&["plain"], Some(&["plain"][..]))]
    #[case(&["/plain"], Some(&["plain"][..]))]
    #[case(&["nowhere/x"], Some(&["nowhere/x"][..]))]
    #[case(&["to-dir/sub/file"], Some(&["dir/sub/file", "to-dir"][..]))]
    #[case(&["twice/sub"], Some(&["dir/sub", "to-dir", "twice"][..]))]
    #[case(&["absolute/file"], Some(&["absolute", "dir/sub/file"][..]))]
    // `..` stops at the root.
    #[case(&["dir/up"], Some(&["dir/up", "plain"][..]))]
    #[case(&["loop-a/x"], Some(&["loop-a", "loop-b"][..]))]
    #[case(&["dangling"], Some(&["dangling", "missing/x"][..]))]
    #[case(&["wild-*"], Some(&["dir/sub", "plain", "wild-*"][..]))]
    #[case(&["wild-*/file"], Some(&["dir/sub/file", "plain/file", "wild-*"][..]))]
    // After a wildcard that hits no link, elements are taken as they are written.
    #[case(&["di*/up"], Some(&["di*/up"][..]))]
    #[case(&["dir", "dir/sub"], Some(&["dir"][..]))]
    #[case(&["."], None)]
    #[case(&["/"], None)]
    #[case(&["plain", "self"], None)]
    #[case(&["../plain"], Some(&["../plain"][..]))]
    fn resolves(#[case] paths: &[&str], #[case] expected: Option<&[&str]>) {
        let (_root, tree) = tree();
        let paths: Vec<Vec<u8>> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
        let resolved = resolve(&tree, &paths).expect("all can be read");
        let expected = expected.map(|list| list.iter().map(|path| path.as_bytes().to_vec()).collect());
        assert_eq!(resolved, expected);
    }
}
