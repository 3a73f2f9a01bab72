//! Where the peer binaries are, and where they listen.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Returns the path of a peer binary, such as `cosign2`, from the folder that `PEERS` names.
pub(crate) fn peer(name: &str) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "tests are told of their peers by the environment")]
    let folder = std::env::var_os("PEERS");
    let folder = folder.expect("PEERS names the folder of the peer binaries: source target/cluster/env");
    let path = Path::new(&folder).join(name);
    assert!(path.is_file(), "{} is missing: run `make peers`", path.display());
    path
}

/// Returns an address on which nobody listens, for a peer that cannot choose one. The port is none that the system gives to
/// connections, so no other test's takes it, and who waits for the peer is not connected to itself. We don't listen there
/// to try it: a process that another thread starts just then would inherit that, and pass for the peer. The port is even,
/// since OpenBao takes the next one, too.
pub(crate) fn free_address(address: IpAddr) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(131).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(10_000 + number % 10_000 * 2).expect("below 30,000");
        let free = SocketAddr::new(address, port);
        if TcpStream::connect(free).is_err() {
            return free.to_string();
        }
    }
}
