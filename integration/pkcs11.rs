//! Keys on SoftHSM, a PKCS#11 token in software, through a binary that can load its library.

#![cfg(feature = "pkcs11")]

#[path = "support/peers.rs"]
mod peers;
#[path = "support/registries.rs"]
mod registries;
#[path = "support/rig.rs"]
mod rig;
#[path = "matrix/row.rs"]
mod row;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the suites of the cluster use more of it, without a runtime"
)]
#[path = "support/running.rs"]
mod running;
#[path = "support/services.rs"]
mod services;
#[allow(dead_code, reason = "the suite of key services uses more of it")]
#[path = "kms/support.rs"]
mod support;
#[allow(dead_code, unreachable_pub, reason = "the suites of the cluster use more of it")]
#[path = "support/tool.rs"]
mod tool;

use row::{Outcome, Signer, check};
use rstest::rstest;
use running::Pty;
use services::Services;
use std::path::Path;
use std::time::{Duration, Instant};
use support::Bench;

const PIN: &str = "482915";

fn library() -> &'static str {
    let places = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    ];
    let found = places.into_iter().find(|path| Path::new(path).is_file());
    found.expect("SoftHSM is installed (hack/cluster/kms-peers.sh)")
}

/// A token with a key of each kind.
fn token() -> Bench {
    let mut bench = Bench::new(&[]);
    std::fs::create_dir(bench.home().join("tokens")).unwrap();
    let folder = bench.home().join("tokens").display().to_string();
    let config = bench.file("softhsm2.conf", format!("directories.tokendir = {folder}\nlog.level = ERROR\n"));
    bench.set("SOFTHSM2_CONF", &config);
    bench.set("LIB", library());
    let make = format!("softhsm2-util --init-token --free --label 'the token' --pin {PIN} --so-pin 573920");
    bench.shell("cosign 3", &make).ok();
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/fixtures/signing/keys");
    for (id, label, key) in [
        ("01", "EC-prime256v1", "p256"),
        ("02", "EC-secp384r1", "p384"),
        ("03", "rsa-2048", "rsa2048"),
        ("04", "rsa-4096", "rsa4096"),
    ] {
        let line = format!(
            "cp {keys}/{key}-pkcs8.pem {id}.pem && openssl pkey -in {id}.pem -pubout -out {id}.pub && \
             softhsm2-util --import {id}.pem --token 'the token' --label {label} --id {id} --pin {PIN}"
        );
        bench.shell("cosign 3", &line).ok();
    }
    bench
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn cosign_accepts_what_softhsm_signs_and_refusals_are_told() {
    let mut bench = token();
    let module = library();
    let image = bench.image("module").await;
    bench.sign(&image, "pkcs11:token=the%20token;object=rsa-2048").fails(2, &["COSIGN_PKCS11_MODULE_PATH"]);
    bench.set("COSIGN_PKCS11_MODULE_PATH", module);
    bench
        .sign(&image, "pkcs11:token=the%20token;object=rsa-2048")
        .fails(2, &["wants a PIN", "COSIGN_PKCS11_PIN"]);

    // The PIN from the reference, a file, the variable.
    let pin = bench.file("pin", format!("{PIN}\n"));
    for (id, reference) in [
        ("01", format!("pkcs11:token=the%20token;object=EC-prime256v1?module-path={module}&pin-value={PIN}")),
        ("02", format!("pkcs11:token=the%20token;id=%02?pin-source=file:{pin}")),
        ("03", "pkcs11:token=the%20token;object=rsa-2048".to_owned()),
        ("04", "pkcs11:token=the%20token;object=rsa-4096;id=%04".to_owned()),
    ] {
        if id == "03" {
            bench.set("COSIGN_PKCS11_PIN", PIN);
        }
        let image = bench.image(&format!("key{id}")).await;
        bench.sign(&image, &reference).ok().never_says(&[PIN]);
        bench.accept(&image, &format!("{id}.pub"));
    }

    // A certificate of the key's is no hindrance, and isn't written along.
    let own = "openssl req -x509 -new -key 01.pem -subj /CN=app -days 1 -outform DER -out own.der && \
               pkcs11-tool --module $LIB --token-label 'the token' --login --pin 482915 --write-object own.der --type cert \
               --label EC-prime256v1 --id 01";
    bench.shell("cosign 3", own).ok();
    let image = bench.image("certified").await;
    bench.sign(&image, "pkcs11:token=the%20token;object=EC-prime256v1").ok();
    bench.accept(&image, "01.pub");
    let (repository, digest) = image.split_once('@').unwrap();
    let (host, path) = repository.split_once('/').unwrap();
    let signatures = format!("http://{host}/v2/{path}/manifests/{}.sig", digest.replace(':', "-"));
    let line = format!("curl -sf -H 'Accept: application/vnd.oci.image.manifest.v1+json' {signatures}");
    let manifest = bench.shell("cosign 3", &line).ok().stdout;
    assert!(manifest.contains("/signature") && !manifest.contains("/certificate"), "{manifest}");

    let image = bench.image("refused").await;
    let wrong = "pkcs11:token=the%20token;object=rsa-2048?pin-value=99887766";
    bench.sign(&image, wrong).fails(2, &["the PIN is wrong"]).never_says(&["99887766"]);
    bench.sign(&image, "pkcs11:token=other;object=rsa-2048").fails(2, &["no such token", "`the token`"]);
    bench.sign(&image, "pkcs11:token=the%20token;object=absent").fails(2, &["no such private key"]);
    let certificate = "openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -subj /CN=other -outform DER -out other.der && \
                       pkcs11-tool --module $LIB --token-label 'the token' --login --pin 482915 --write-object other.der --type cert \
                       --label rsa-2048 --id 03";
    bench.shell("cosign 3", certificate).ok();
    let key = "pkcs11:token=the%20token;object=rsa-2048";
    bench.sign(&image, key).fails(2, &["the certificate beside it holds another key"]);
    assert!(!bench.is_signed(&image).await);
    bench.set("COSIGN_PKCS11_IGNORE_CERTIFICATE", "1");
    bench.sign(&image, key).ok();
}

/// The question is the terminal's, which shows nothing of the answer; who has none is told how else to say it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_pin_that_nobody_said_is_asked_for_at_a_terminal() {
    let mut bench = token();
    bench.set("COSIGN_PKCS11_MODULE_PATH", library());
    let key = "pkcs11:token=the%20token;object=rsa-2048";
    let sign =
        |image: &str| format!("kubectl-buildkit sign {image} --cosign-key '{key}' --progress plain -vv");
    let image = bench.image("asked").await;
    // Without a controlling terminal, whoever runs the tests.
    bench
        .shell("cosign 3", &format!("setsid --wait {}", sign(&image)))
        .fails(2, &["it wants a PIN", "COSIGN_PKCS11_PIN", "pin-source=file:PATH"]);

    let question = format!("PIN of the token for {key} (empty if it wants none): ");
    let signed = format!("signed by {key} (");
    for (answer, code, told) in
        [("", 2, "it wants a PIN"), ("99887766", 2, "the PIN is wrong"), (PIN, 0, signed.as_str())]
    {
        assert!(!bench.is_signed(&image).await, "nobody has said the PIN yet");
        let mut pty = Pty::start(bench.shell_command("cosign 3", &sign(&image)));
        pty.until_said("question", |said| said.contains(&question).then_some(()));
        pty.type_in(format!("{answer}\n").as_bytes());
        assert_eq!(pty.ends(Instant::now(), Duration::from_secs(60)), code, "{}", pty.said());
        pty.assert_in_order();
        let said = pty.said();
        assert!(said.contains(told), "{told:?} is not in:\n{said}");
        assert!(answer.is_empty() || !said.contains(answer), "nobody else reads it:\n{said}");
        assert!(code != 0 || said.contains("DEBUG"), "no log proves nothing:\n{said}");
    }
    bench.accept(&image, "03.pub");

    // Who has said it is not asked.
    bench.set("COSIGN_PKCS11_PIN", PIN);
    let image = bench.image("unasked").await;
    let mut pty = Pty::start(bench.shell_command("cosign 3", &sign(&image)));
    assert_eq!(pty.ends(Instant::now(), Duration::from_secs(60)), 0, "{}", pty.said());
    assert!(!pty.said().contains("PIN of the token"), "{}", pty.said());
}

#[cfg(feature = "piv")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_security_key_that_is_not_there_is_told() {
    let mut bench = Bench::new(&[]);
    let image = bench.image("piv").await;
    // Where the service of PC/SC is listened for: nobody is there, whatever this machine runs.
    bench.set("PCSCLITE_CSOCK_NAME", "/no/such/socket");
    for verb in ["sign", "verify"] {
        bench.tool(&[verb, &image, "--sk"]).fails(
            2,
            &[
                "the security key could not read the public key of `PIV slot signature`",
                "pcscd) does not run",
                "package `pcscd`",
            ],
        );
    }
    assert!(!bench.is_signed(&image).await);
}

/// The token's rows of the matrix in `matrix.rs`.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn the_matrix(
    #[values("legacy", "bundle", "both")] format: &str,
    #[values("no_log", "log", "emulated_v1_log")] log: &str,
) {
    let bench = token();
    bench.shell("cosign 3", "cp 01.pub cosign.pub").ok();
    let key =
        format!("pkcs11:token=the%20token;object=EC-prime256v1?module-path={}&pin-value={PIN}", library());
    let signer = Signer {
        flags: vec!["--cosign-key".to_owned(), key],
        stranger: vec!["--key".to_owned(), bench.home().join("02.pub").display().to_string()],
    };
    let services = match log {
        "log" => Services::load().config_flags(),
        "emulated_v1_log" => Services::load().emulator_flags(),
        _ => Vec::new(),
    };
    let outcome = match (log, format) {
        ("log", "legacy" | "both") => Outcome::Refused(&["Rekor v2", "--signature-format bundle"]),
        _ => Outcome::Accepted,
    };
    check(&bench, &signer, format, &services, outcome).await;
}
