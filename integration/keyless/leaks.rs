//! Nothing leaks: each way of signing, in each mode of progress, with all that the log can say, and no secret in any of
//! it, as it is or as base64. Key services are in the suite `kms`, tokens of hardware in `pkcs11`.

use crate::bench::Bench;
use crate::login::{Desk, LONG, LOOPBACK, page};
use crate::person;
use crate::rig::Rig;
use crate::running::Pty;
use crate::seen::Seen;
use crate::tap::Tap;
use crate::tool::{Ran, run};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Instant;

const PASSWORD: &str = "the-password-of-the-key-K7";
const CLIENT_SECRET: &str = "the-secret-of-the-client-Q4";

/// Runs a command in every mode; `tty` on a terminal of its own.
fn in_every_mode(make: impl Fn(&[&str]) -> Command) -> Vec<(&'static str, Ran)> {
    let mut all = Vec::new();
    for mode in ["plain", "rawjson", "quiet", "tty"] {
        let command = make(&["--progress", mode, "-vv"]);
        all.push((mode, if mode == "tty" { on_a_terminal(&command) } else { run(command) }));
    }
    all
}

/// Runs the same command below `script`, which gives it a terminal and returns all that it writes there.
fn on_a_terminal(command: &Command) -> Ran {
    let quote = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy().replace('\'', "'\\''"));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(quote).collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(command.get_current_dir().expect("a home"));
    script.env_clear().env("TERM", "xterm");
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(script)
}

/// What must not be seen of a secret: itself, as base64, and of a long one each of its parts.
pub fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), STANDARD.encode(secret)];
    forms.extend(secret.split(['.', '\n']).filter(|part| part.len() > 20).map(str::to_owned));
    forms
}

#[track_caller]
fn leaks_nothing(what: &str, runs: &[(&'static str, Ran)], secrets: &[&str]) {
    for (mode, ran) in runs {
        assert_eq!(ran.code, 0, "{what} {mode}: {}{}", ran.stdout, ran.stderr);
        for form in secrets.iter().flat_map(|secret| forms(secret)) {
            let said = [&ran.stdout, &ran.stderr];
            assert!(
                !said.iter().any(|text| text.contains(&form)),
                "{what} {mode}: a secret in:\n{}{}",
                said[0],
                said[1]
            );
        }
        // The log was on, or this proves nothing.
        let log = if *mode == "tty" { &ran.stdout } else { &ran.stderr };
        assert!(log.contains("DEBUG"), "{what} {mode}: no log:\n{log}");
    }
}

#[test]
#[ignore = "needs the rig"]
fn no_way_of_signing_tells_a_secret_in_any_mode() {
    let rig = Rig::load();
    let space = rig.namespace("leaks");
    let bench = Bench::new(space.name(), "REGISTRY");
    let (user, registry_password) = (rig.get("REGISTRY_USER"), rig.get("REGISTRY_PASSWORD"));
    let (registry, ca) = (rig.get("REGISTRY_TLS"), rig.get("REGISTRY_TLS_CA"));
    // A credential helper, which notes how it was called.
    let helper = bench.tool.file(
        "bin/docker-credential-noting",
        format!(
            "#!/bin/sh\necho \"$@\" >>\"$HOME/arguments\"\necho '{{\"Username\":\"{user}\",\"Secret\":\"{registry_password}\"}}'\n"
        ),
    );
    std::fs::set_permissions(helper, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    bench.tool.file(".docker/config.json", format!(r#"{{"credHelpers":{{"{registry}":"noting"}}}}"#));
    let base = format!("{}/base:busybox", rig.get("REGISTRY"));
    let name = format!("leaks-{}", std::process::id());
    let tag = format!("{registry}/{name}:1");
    let mut crane = rig.command(rig.peer("crane"));
    crane.args(["copy", "--insecure", &base, &tag]).env("DOCKER_CONFIG", {
        let auth = STANDARD.encode(format!("{user}:{registry_password}"));
        bench.tool.file("crane/config.json", format!(r#"{{"auths":{{"{registry}":{{"auth":"{auth}"}}}}}}"#));
        bench.tool.home().join("crane")
    });
    assert!(crane.output().expect("crane runs").status.success());
    let digest = Seen::tls(&rig, registry).digest(&name, "1").expect("it was copied");
    let image = format!("{registry}/{name}@{digest}");
    let registry_ca = format!("{registry}={ca}");

    let (key, _) = bench.tool.key_pair("k", PASSWORD);
    let pem = std::fs::read_to_string(&key).expect("a key");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let password_file = bench.tool.file("password", format!("{PASSWORD}\n"));
    let (key, password_file) = (key.to_str().expect("UTF-8"), password_file.to_str().expect("UTF-8"));
    space.kubectl(&[
        "create",
        "secret",
        "generic",
        "key",
        &format!("--from-file=cosign.key={key}"),
        &format!("--from-literal=cosign.password={PASSWORD}"),
        "--from-file=cosign.pub=/dev/null",
    ]);
    let in_cluster = format!("k8s://{}/key", space.name());
    let plain = include_str!("../fixtures/signing/keys/p256-pkcs8.pem");
    let plain_body: String = plain.lines().filter(|line| !line.starts_with('-')).collect();
    let token = bench.cluster_token(space.name(), "default", "sigstore");
    let token_file = bench.tool.file("token", format!("{token}\n"));
    let token_file = token_file.to_str().expect("UTF-8");
    let basic = STANDARD.encode(format!("{user}:{registry_password}"));
    let secrets = [PASSWORD, registry_password, &body, &plain_body, &token, &basic];

    let services = bench.config_flags();
    type Case<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)], bool);
    let cases: [Case<'_>; 8] = [
        ("a key's password in the variable", &["--cosign-key", key], &[("COSIGN_PASSWORD", PASSWORD)], false),
        (
            "a key's password in a file",
            &["--cosign-key", key, "--cosign-password-file", password_file],
            &[],
            false,
        ),
        ("a key in a Secret", &["--cosign-key", &in_cluster], &[], false),
        ("a plain key in a variable", &["--cosign-key", "env://PEM"], &[("PEM", plain)], false),
        ("a token by value", &["--identity-token", &token], &[], true),
        ("a token in a file", &["--identity-token", token_file], &[], true),
        ("a token in the variable", &["--keyless"], &[("SIGSTORE_ID_TOKEN", &token)], true),
        ("a service account", &["--service-account", "default"], &[], true),
    ];
    for (what, flags, variables, keyless) in cases {
        let runs = in_every_mode(|mode| {
            let arguments = ["sign", "--registry-ca", &registry_ca, &image];
            let mut command = bench.tool.command("kubectl-buildkit", &[&arguments[..], flags, mode].concat());
            if keyless {
                command.args(&services);
            }
            command.envs(variables.iter().copied());
            command
        });
        leaks_nothing(what, &runs, &secrets);
    }
    bench.tool.buildkit(&["create", "--registry-ca", &registry_ca]).ok();
    // A build, where BuildKit is told the registry's password through the session.
    let context = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/hello");
    let runs = in_every_mode(|mode| {
        let built = format!("{registry}/{name}:built");
        let arguments = ["-t", &built, "--push", "--sign", "--cosign-key", key];
        let mut command = bench.tool.command("kubectl-build", &[&arguments[..], mode].concat());
        command.arg(&context).env("COSIGN_PASSWORD", PASSWORD);
        command
    });
    leaks_nothing("a build", &runs, &secrets);
    let arguments = std::fs::read_to_string(bench.tool.home().join("arguments")).expect("the helper ran");
    assert!(arguments.lines().all(|line| line == "get"), "{arguments}");
}

/// Logins with a device and those beside a build are in `login.rs`.
#[test]
#[ignore = "needs the rig"]
fn no_login_tells_a_secret_in_any_mode() {
    let desk = Desk::new("default");
    for mode in ["plain", "rawjson", "quiet", "tty"] {
        let tap = Tap::start();
        let mut pty = Pty::start(tap.before(desk.sign(&["--progress", mode])));
        person::log_in(&desk.bench.rig, &page(&mut pty, 0, LOOPBACK), &format!("untold-{mode}"));
        assert_eq!(pty.ends(Instant::now(), LONG), 0, "{}", pty.said());
        tap.untold(&pty.said(), &["code", "code_verifier", "id_token", "access_token", "refresh_token"]);
    }
    // The provider knows clients without a secret alone, and refuses one that has been sent all the same.
    let secret = desk.bench.tool.file("client-secret", format!("{CLIENT_SECRET}\n"));
    let flags = ["--progress", "plain", "--fulcio-auth-flow", "device", "--oidc-client-secret-file"];
    let mut command = desk.sign(&flags);
    command.arg(secret);
    let tap = Tap::start();
    let mut pty = Pty::start(tap.before(command));
    assert_eq!(pty.ends(Instant::now(), LONG), 4, "{}", pty.said());
    let (said, pair) = (pty.said(), format!("sigstore:{CLIENT_SECRET}"));
    assert!(tap.heard(&format!("Basic {}", STANDARD.encode(&pair))), "no secret was sent:\n{said}");
    assert!(said.contains("answered 401") && said.contains("DEBUG"), "{said}");
    for form in [forms(CLIENT_SECRET), forms(&pair)].concat() {
        assert!(!said.contains(&form), "a secret in:\n{said}");
    }
}
