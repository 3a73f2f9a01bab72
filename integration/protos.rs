//! Generated code is committed: this test regenerates it and fails on a difference.
//!
//! `UPDATE_PROTOS=1 cargo test --test protos` (that is `make protos`) writes it instead.

use std::fs;
use std::path::Path;

const PROTOS: &[&str] = &[
    "auth.proto",
    "content.proto",
    "control.proto",
    "filesync.proto",
    "fsutil.proto",
    "health.proto",
    "ops.proto",
    "status.proto",
    "worker.proto",
    "workload.proto",
];

#[test]
fn generated_code_matches_the_protos() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(PROTOS, [root.join("proto")]).expect("the protos compile");
    let fresh = tempfile::tempdir().expect("a temporary directory");
    tonic_prost_build::configure()
        .out_dir(fresh.path())
        .bytes(".")
        .emit_package(false)
        .include_file("tree.rs")
        .compile_fds(descriptors)
        .expect("code is generated");

    let committed = root.join("src/pb");
    #[expect(clippy::disallowed_methods, reason = "how `make protos` asks for an update")]
    let update = std::env::var_os("UPDATE_PROTOS").is_some();
    if update {
        fs::create_dir_all(&committed).expect("src/pb exists");
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(fresh.path()).expect("the generated files are listed") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("generated names are UTF-8").to_owned();
        let text = fs::read_to_string(fresh.path().join(&name)).expect("generated text");
        let target = committed.join(&name);
        if update {
            fs::write(&target, &text).expect("src/pb is writable");
        }
        let old = fs::read_to_string(&target).unwrap_or_default();
        assert!(old == text, "src/pb/{name} is not what proto/ gives: run `make protos`");
        names.push(name);
    }
    for entry in fs::read_dir(&committed).expect("src/pb is listed") {
        let name = entry.expect("an entry").file_name();
        let known = names.iter().any(|known| name == known.as_str());
        assert!(known, "src/pb/{} comes from no proto: remove it", name.to_string_lossy());
    }
}
