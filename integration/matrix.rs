//! Who verifies what we sign, as a table: every kind of signer in every format, without a log, with a v2 log and with
//! a v1 log, before cosign 2, cosign 3 and our own `verify`, by tag, by the index's digest and by each platform's.
//! What cannot be is refused, and the table says in which words. Keys are files, a real OpenBao's and a plugin's; the
//! v2 log, the clock and the certificate authority are real, the v1 log and the authority beside it are emulated, the
//! issuer is the cluster's API server. PKCS#11 has its rows in `pkcs11.rs`.

#[path = "support/openbao.rs"]
#[allow(dead_code, reason = "the suite of key services uses more of it")]
mod openbao;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/registries.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod registries;
#[path = "support/rig.rs"]
mod rig;
#[path = "matrix/row.rs"]
mod row;
#[path = "support/services.rs"]
mod services;
#[path = "kms/support.rs"]
#[allow(dead_code, reason = "the suite of key services uses more of it")]
mod support;

use crate::openbao::{OpenBao, ROOT};
use crate::rig::Rig;
use crate::row::{Outcome, Signer, check};
use crate::services::Services;
use crate::support::{Bench, PLUGIN, PLUGIN_KEYS};
use rstest::rstest;

const OK: Outcome = Outcome::Accepted;
/// `.sig` tags cannot carry a v2 log's entries.
const V2: Outcome = Outcome::Refused(&["Rekor v2", "--signature-format bundle"]);
/// The log takes a variant of Ed25519 that `cosign verify` refuses; cosign 3 cannot sign so either.
const KIND: Outcome = Outcome::Refused(&["Rekor v2", "Ed25519", "--rekor=false"]);
/// The log wants longer hashes of larger curves, and a variant of Ed25519; `cosign verify` expects neither.
const V1: Outcome = Outcome::Refused(&["Rekor v1", "P-256", "--rekor=false"]);
/// A certificate lives for minutes; only a log or clock says that it was valid.
const LOG: Outcome = Outcome::Refused(&["always recorded"]);

const LOGS: [&str; 3] = ["no_log", "log", "emulated_v1_log"];
const FORMATS: [&str; 3] = ["legacy", "bundle", "both"];
#[rustfmt::skip]
const TABLE: [(&str, [[Outcome; 3]; 3]); 12] = [
    //           no log:                Rekor v2 and a timestamp:  Rekor v1, emulated:
    // signer     legacy bundle both     legacy bundle both         legacy bundle both
    ("p256",    [[OK,    OK,    OK ],   [V2,    OK,    V2],       [OK,    OK,    OK]]),
    ("p384",    [[OK,    OK,    OK ],   [V2,    OK,    V2],       [V1,    V1,    V1]]),
    ("p521",    [[OK,    OK,    OK ],   [V2,    OK,    V2],       [V1,    V1,    V1]]),
    ("rsa2048", [[OK,    OK,    OK ],   [V2,    OK,    V2],       [OK,    OK,    OK]]),
    ("rsa3072", [[OK,    OK,    OK ],   [V2,    OK,    V2],       [OK,    OK,    OK]]),
    ("rsa4096", [[OK,    OK,    OK ],   [V2,    OK,    V2],       [OK,    OK,    OK]]),
    ("ed25519", [[OK,    OK,    OK ],   [V2,    KIND,  V2],       [V1,    V1,    V1]]),
    ("openbao", [[OK,    OK,    OK ],   [V2,    OK,    V2],       [OK,    OK,    OK]]),
    ("bao-384", [[OK,    OK,    OK ],   [V2,    OK,    V2],       [V1,    V1,    V1]]),
    ("bao-rsa", [[OK,    OK,    OK ],   [V2,    OK,    V2],       [OK,    OK,    OK]]),
    ("plugin",  [[OK,    OK,    OK ],   [V2,    OK,    V2],       [OK,    OK,    OK]]),
    ("keyless", [[LOG,   LOG,   LOG],   [V2,    OK,    V2],       [OK,    OK,    OK]]),
];

#[rstest]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn the_matrix(
    #[values(
        "p256", "p384", "p521", "rsa2048", "rsa3072", "rsa4096", "ed25519", "openbao", "bao-384", "bao-rsa",
        "plugin", "keyless"
    )]
    name: &str,
    #[values("legacy", "bundle", "both")] format: &str,
    #[values("no_log", "log", "emulated_v1_log")] log: &str,
) {
    let (_, outcomes) = TABLE.iter().find(|(signer, _)| *signer == name).expect("it has a row");
    let at = |known: [&str; 3], one: &str| known.iter().position(|it| *it == one).expect("it has a column");
    let outcome = outcomes[at(LOGS, log)][at(FORMATS, format)];
    let root = if log == "emulated_v1_log" { "EMULATOR_ROOT" } else { "TRUSTED_ROOT" };
    let (_server, bench, signer) = signer(name, root);
    let log = match (log, name) {
        ("log", _) => Services::load().config_flags(),
        ("emulated_v1_log", _) => Services::load().emulator_flags(),
        // Its authority and clock stay.
        (_, "keyless") => [Services::load().config_flags(), vec!["--rekor=false".to_owned()]].concat(),
        _ => Vec::new(),
    };
    check(&bench, &signer, format, &log, outcome).await;
}

/// Returns a signer with the bench that it signs at, and with its server, if it is one. `root` is the setting that
/// names the file of whom an identity's verifiers trust.
fn signer(name: &str, root: &str) -> (Option<OpenBao>, Bench, Signer) {
    let flags = |text: &[&str]| text.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>();
    let mut bench = Bench::new(&[]);
    let mut server = None;
    let other = bench.file("other.pub", include_str!("fixtures/signing/cosign.pub"));
    let mut stranger = flags(&["--key", &other]);
    let signing = match name {
        "openbao" | "bao-384" | "bao-rsa" => {
            let bao = server.insert(OpenBao::start());
            let kinds = [("openbao", "ecdsa-p256"), ("bao-384", "ecdsa-p384"), ("bao-rsa", "rsa-2048")];
            let (_, kind) = kinds.into_iter().find(|(signer, _)| *signer == name).expect("it is one of them");
            bao.key("app", kind);
            // The lines for cosign name `hashivault://`, since cosign 2 knows no other scheme for it.
            for (name, value) in [("ADDR", bao.address.as_str()), ("TOKEN", ROOT)] {
                bench.set(&format!("BAO_{name}"), value);
                bench.set(&format!("VAULT_{name}"), value);
            }
            flags(&["--cosign-key", "openbao://app"])
        }
        "plugin" => {
            bench.plugin("test", PLUGIN);
            bench.shell("cosign 3", PLUGIN_KEYS).ok();
            flags(&["--cosign-key", "test://slot/1"])
        }
        "keyless" => {
            let create = [
                "-n",
                "default",
                "create",
                "token",
                "default",
                "--audience",
                "sigstore",
                "--duration",
                "10m",
            ];
            let token = bench.file("token", Rig::load().kubectl(&create));
            let services = Services::load();
            let root = services.get(root);
            let issuer = services.get("OIDC_ISSUER");
            stranger =
                flags(&["--certificate-identity", "dev@example.com", "--certificate-oidc-issuer", issuer]);
            stranger.extend(flags(&["--trusted-root", root, "--insecure-ignore-sct"]));
            flags(&["--identity-token", &token])
        }
        file => {
            let pem =
                format!("{}/integration/fixtures/signing/keys/{file}-pkcs8.pem", env!("CARGO_MANIFEST_DIR"));
            bench.file("cosign.key", std::fs::read(&pem).expect("a fixture"));
            bench.shell("cosign 3", "openssl pkey -in cosign.key -pubout -out cosign.pub").ok();
            flags(&["--cosign-key", "cosign.key"])
        }
    };
    (server, bench, Signer { flags: signing, stranger })
}
