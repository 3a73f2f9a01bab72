//! Where the peer binaries are.

use std::path::{Path, PathBuf};

/// Returns the path of a peer binary, such as `cosign2`, from the folder that `PEERS` names.
pub(crate) fn peer(name: &str) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "tests are told of their peers by the environment")]
    let folder = std::env::var_os("PEERS");
    let folder = folder.expect("PEERS names the folder of the peer binaries: source target/cluster/env");
    let path = Path::new(&folder).join(name);
    assert!(path.is_file(), "{} is missing: run `make peers`", path.display());
    path
}
