//! Signatures against real cosign 2 and 3 over real registries, in both directions.

#[path = "interop/command.rs"]
mod command;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/registries.rs"]
mod registries;
#[path = "interop/support.rs"]
mod support;
#[path = "interop/theirs.rs"]
mod theirs;

use kubectl_build::sign::{CosignLine, Formats, RegistryAccess, SignedBy, VerifyLines, verify_lines};
use rstest::rstest;
use support::{Bench, Key};

const FORMATS: [Formats; 3] = [Formats::Both, Formats::Legacy, Formats::Bundle];

/// Every line that the report prints is run as it stands, for RSA keys of unusual length; `matrix.rs` has the usual
/// ones.
#[rstest]
#[case("rsa2560-pkcs8")]
#[case("rsa8192-pkcs8")]
#[tokio::test]
#[ignore = "needs the rig"]
async fn cosign_verifies_what_we_sign(#[case] key: &str) {
    let mut wrong = Vec::new();
    for bench in [Bench::with_referrers(), Bench::without_referrers()] {
        for formats in FORMATS {
            let image = bench.push_image(&format!("{key}-{formats}")).await;
            let key = Key::fixture(key);
            bench.sign(&image, &key, formats).await;
            let lines = VerifyLines {
                repository: &image.repository,
                image: &image.digest,
                storage: None,
                by: SignedBy::Key("cosign.pub"),
                formats,
                access: RegistryAccess::default(),
                annotations: &std::collections::BTreeMap::new(),
                hash: None,
            };
            for CosignLine { cosign, line } in verify_lines(&lines) {
                let output = bench.shell(cosign, &key, &line);
                if !output.status.success() {
                    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                    wrong.push(format!("{cosign} {formats} {}: {line}\n{stderr}", bench.name));
                }
            }
            // What the longer line of cosign 2 is for; if this passes one day, the line can be shorter.
            if formats != Formats::Legacy {
                let plain = format!("cosign verify --key cosign.pub --insecure-ignore-tlog {image}");
                let said = bench.fail("cosign 2", &key, &plain);
                assert!(said.contains("trusted root is required"), "{said}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `cosign env` lists counts here too, but for what we have no use for: another program's log, and secrets of GitHub,
/// which nobody can read back.
#[test]
#[ignore = "needs the rig"]
fn every_variable_that_cosign_documents_is_known() {
    let ours = concat!(include_str!("../src/config/env.rs"), include_str!("../src/config/keyless.rs"));
    let useless = ["BUILDKITE_AGENT_LOG_LEVEL", "GITHUB_HOST", "GITHUB_TOKEN"];
    for peer in ["cosign", "cosign2"] {
        let output = std::process::Command::new(peers::peer(peer)).arg("env").output().expect("cosign runs");
        let said = String::from_utf8(output.stdout).expect("text");
        let names: Vec<_> = said
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split('=').next())
            .collect();
        assert!(names.contains(&"COSIGN_REPOSITORY") && names.len() > 20, "{said}");
        for name in names.into_iter().filter(|name| !useless.contains(name)) {
            assert!(ours.contains(&format!("\"{name}\"")), "{peer} documents {name}");
        }
    }
}
