//! Every reader of what others wrote, as targets that take any bytes: `make fuzz` looks for bytes that they choke on,
//! and a unit test here runs them over its seeds.

use crate::{registry, sign};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// The targets, by name.
pub const TARGETS: [(&str, Target); 11] = [
    ("keys", sign::fuzz::keys),
    ("uris", sign::fuzz::uris),
    ("tokens", sign::fuzz::tokens),
    ("bundles", sign::fuzz::bundles),
    ("signatures", sign::fuzz::signatures),
    ("statements", sign::fuzz::statements),
    ("indexes", sign::fuzz::indexes),
    ("trust", sign::fuzz::trust),
    ("references", registry::fuzz::references),
    ("challenges", registry::fuzz::challenges),
    ("docker_config", registry::fuzz::docker_config),
];

/// Runs one of them.
///
/// # Panics
/// If there is none of that name, or it chokes.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    target(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Each seed whole, each cut short somewhere, each with a byte changed.
    #[test]
    fn the_seeds_go_through_their_targets() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/fuzz/seeds");
        for (name, target) in TARGETS {
            let mut seeds = 0;
            for entry in std::fs::read_dir(folder.join(name)).expect("seeds") {
                let mut bytes = std::fs::read(entry.expect("a file").path()).expect("a seed");
                target(&bytes);
                target(&bytes[..bytes.len() / 2]);
                let middle = bytes.len() / 3;
                bytes[middle] ^= 0x20;
                target(&bytes);
                seeds += 1;
            }
            assert!(seeds > 0, "{name} has none");
        }
        let folders = std::fs::read_dir(folder).expect("seeds").count();
        assert_eq!(folders, TARGETS.len(), "a folder for each target");
    }
}
