//! What can't be meant is refused before anything starts: no cluster is asked, no builder made, no file touched.

use crate::rig::Rig;
use crate::tool::{Tool, binary, run};
use std::path::Path;

#[test]
#[ignore = "needs the rig"]
fn each_misuse_has_its_message_and_exit_code_2() {
    let rig = Rig::load();
    let tool = Tool::new(&rig, "default");
    tool.file("ctx/Dockerfile", "FROM scratch\n");
    tool.file("plain.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let cases: &[(&[&str], &str)] = &[
        (&[], "\"build\" requires exactly 1 argument(s)."),
        (&["ctx", "ctx"], "\"build\" requires exactly 1 argument(s)."),
        (&[""], "please specify build context"),
        (&["-"], "stdin"),
        (&["-f", "-", "-"], "can't use stdin for both build context and dockerfile"),
        (&["https://github.com/moby/buildkit.git"], "https://github.com/moby/buildkit.git"),
        (&["nowhere"], "unable to prepare context: path \"nowhere\" not found"),
        (&["ctx/Dockerfile"], "is not a directory"),
        (&["-f", "absent", "ctx"], "failed to read dockerfile"),
        (&["--push", "ctx"], "tag is needed when pushing to registry"),
        (&["--sign", "-t", "r.example/a:1", "ctx"], "--push"),
        (&["--sign", "--push", "-t", "r.example/a:1", "ctx"], "COSIGN_KEY"),
        (&["--sign=perhaps", "--push", "-t", "r.example/a:1", "ctx"], "perhaps"),
        (&["--sign", "--cosign-key", "ctx", "--push", "-t", "r.example/a:1", "ctx"], "the signing key"),
        (&["--sign", "--cosign-key", "plain.pem", "--push", "-t", "r.example/a:1", "ctx"], "plain.pem"),
        (&["--sign", "--cosign-key", "foo://x", "--push", "-t", "r.example/a:1", "ctx"], "foo://"),
        (
            &["--sign", "--cosign-key", "awskms://alias/x", "--push", "-t", "r.example/a:1", "ctx"],
            "`awskms://` needs an endpoint",
        ),
        (&["--cosign-key", "plain.pem", "--push", "-t", "r.example/a:1", "ctx"], "--sign"),
        (&["-t", "r.example/UPPER:1", "ctx"], "r.example/UPPER:1"),
        (&["--platform", "linux/amd64,", "ctx"], "OS/ARCH"),
        (&["--platform", "linux", "ctx"], "linux/arm64"),
        (&["--network", "bridge", "ctx"], "network mode \"bridge\" not supported by buildkit"),
        (&["--allow", "everything", "ctx"], "invalid entitlement: everything"),
        (&["--add-host", "nonsense", "ctx"], "invalid host nonsense"),
        (&["--ulimit", "nofiles=1", "ctx"], "nofiles"),
        (&["--shm-size", "64x", "ctx"], "64x"),
        (&["--progress", "fancy", "ctx"], "fancy"),
        // Before a cluster is asked that isn't there.
        (&["--progress", "tty", "--kubeconfig", "nowhere", "ctx"], "terminal"),
        (&["--iidfile", "no/such/dir/iid", "ctx"], "--iidfile"),
        (&["--builder", "ftp://x", "ctx"], "ftp://x"),
        (&["--builder", "Not_A_Name", "ctx"], "Not_A_Name"),
        (&["--builder", "buildkit", "--builder-tls-ca", "plain.pem", "ctx"], "--builder-tls-ca"),
        (&["--builder-timeout", "soon", "ctx"], "soon"),
        (&["--kubeconfig", "absent", "ctx"], "absent"),
        (&["--squash", "ctx"], "--squash"),
        (&["--secret", "id=x", "ctx"], "--secret"),
        (&["--keyless", "ctx"], "--keyless"),
    ];
    for (arguments, text) in cases {
        let ran = tool.build(arguments);
        let code = if *text == "absent" { 3 } else { 2 };
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(text), "{arguments:?}: {text:?} is not in:\n{}", ran.stderr);
        assert!(!ran.stderr.contains("#1 "), "{arguments:?} started something:\n{}", ran.stderr);
    }
}

/// The binary that users get is static, and so neither loads nor links a device's library. The one beside the tests may
/// have been built to: it goes on to what is wrong then, and asks no device either.
#[test]
#[ignore = "needs the rig"]
fn a_key_on_a_device_that_this_build_does_not_reach_names_the_build_that_does() {
    let rig = Rig::load();
    let tool = Tool::new(&rig, "default");
    tool.file("ctx/Dockerfile", "FROM scratch\n");
    let beside = binary() == Path::new(env!("CARGO_BIN_EXE_kubectl-build"));
    let uri = "pkcs11:token=t;object=o?module-path=/x.so";
    let cases: [(&[&str], bool, &str, &str); 2] = [
        (
            &["--cosign-key", uri],
            cfg!(feature = "pkcs11"),
            "make install FEATURES=pkcs11",
            "/x.so is no library",
        ),
        (
            &["--sk", "--signature-format", "fancy"],
            cfg!(feature = "piv"),
            "make install FEATURES=piv",
            "--signature-format",
        ),
    ];
    for (key, built, lacking, wrong) in cases {
        let arguments = [&["--sign", "--push", "-t", "r.example/a:1"][..], key, &["ctx"]].concat();
        let (told, untold) = if beside && built { (wrong, lacking) } else { (lacking, wrong) };
        let stderr = tool.build(&arguments).fails(2, &[told]);
        assert!(!stderr.contains(untold), "{untold:?} is in:\n{stderr}");
        assert!(!stderr.contains("#1 "), "{key:?} started something:\n{stderr}");
    }
}

#[test]
#[ignore = "needs the rig"]
fn a_key_that_stands_where_its_place_belongs_is_not_printed() {
    let rig = Rig::load();
    let tool = Tool::new(&rig, "default");
    tool.file("ctx/Dockerfile", "FROM scratch\n");
    let (private, _) = tool.key_pair("cosign", "");
    let pem = std::fs::read_to_string(private).expect("a key");
    let body = pem.lines().nth(1).expect("a line of base64");
    for (text, said) in [
        (pem.as_str(), "env://NAME"),
        ("pkcs11:object=o?pin-value=4711", "`pkcs11:` needs a token and a key"),
    ] {
        let mut command =
            tool.command("kubectl-build", &["--sign", "--push", "-vv", "-t", "r.example/a:1", "ctx"]);
        command.env("COSIGN_KEY", text);
        let stderr = run(command).fails(2, &["COSIGN_KEY", said]);
        assert!(!stderr.contains(body) && !stderr.contains("4711"), "{stderr}");
    }
}

#[test]
#[ignore = "needs the rig"]
fn stale_results_are_gone_when_a_build_fails() {
    let rig = Rig::load();
    let space = rig.namespace("stale");
    let tool = Tool::new(&rig, space.name());
    tool.file("iid", "sha256:stale");
    tool.file("meta.json", "{}");
    // Its words aren't in its command, which is shown too.
    tool.file("ctx/Dockerfile", format!("FROM {}\nRUN echo last-$((40 + 2)); exit 7\n", rig.get("BASE_REF")));
    let registry = rig.get("REGISTRY");
    for mode in ["plain", "quiet", "rawjson"] {
        let arguments = ["--iidfile", "iid", "--metadata-file", "meta.json", "--progress", mode, "ctx"];
        let ran = tool.build(&[&["--registry-http", registry], &arguments[..]].concat());
        // The lines at fault and the step's own words stand in the report.
        let stderr = ran.fails(1, &["exit code: 7", "Dockerfile:2", ">>> RUN echo last-"]);
        let report = stderr.split_once("------\n > ").expect("the failed step").1;
        let (step, rest) = report.split_once("------\n").expect("its end");
        assert!(step.starts_with("[2/2] RUN echo last-") && step.contains(" last-42\n"), "{mode}: {stderr}");
        assert!(!rest.contains("last-42"), "it is said once: {rest}");
        assert!(mode == "plain" || !stderr.contains("#1 "), "{mode}: {stderr}");
    }
    assert!(!tool.home().join("iid").exists() && !tool.home().join("meta.json").exists());
}
