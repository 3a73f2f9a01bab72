//! A base image that only who logs in may pull: the daemon asks for the login by the session.

use crate::fresh;
use crate::rig::{Rig, text};
use crate::tool::Tool;
use std::os::unix::fs::PermissionsExt as _;

#[test]
#[ignore = "needs the rig"]
fn a_private_base_image_is_pulled_with_a_helpers_login_or_a_secrets() {
    let rig = Rig::load();
    let space = rig.namespace("private");
    let tool = Tool::new(&rig, space.name());
    let (host, user, password) =
        (rig.get("REGISTRY_TLS"), rig.get("REGISTRY_USER"), rig.get("REGISTRY_PASSWORD"));
    let base = format!("{host}/{}:1", fresh("private"));
    let auth = format!(r#"{{"auths":{{"{host}":{{"username":"{user}","password":"{password}"}}}}}}"#);
    tool.file("crane/config.json", auth);
    let mut copy = rig.command(rig.peer("crane"));
    copy.args(["copy", "--insecure", rig.get("BASE_REF"), &base]);
    let copied = copy.env("DOCKER_CONFIG", tool.home().join("crane")).output().expect("crane runs");
    assert!(copied.status.success(), "{}", text(&copied.stderr));

    let ca = format!("{host}={}", rig.get("REGISTRY_TLS_CA"));
    tool.buildkit(&["create", "--registry-ca", &ca]).ok();
    tool.file("ctx/Dockerfile", format!("FROM {base}\nRUN true\n"));
    let nobody = || tool.build(&["--no-cache", "ctx"]).fails(1, &[&base, "hint: ", "--registry-secret"]);
    nobody();

    // The helper is asked for this registry and no other, by the protocol: `get`, and the host on stdin.
    let helper = tool.file(
        "bin/docker-credential-stub",
        format!(
            "#!/bin/sh\nread host\necho \"$1 $host\" >> \"$HOME/asked\"\n\
             if [ \"$1 $host\" != 'get {host}' ]; then echo 'credentials not found in native keychain'; exit 1; fi\n\
             echo '{{\"ServerURL\":\"{host}\",\"Username\":\"{user}\",\"Secret\":\"{password}\"}}'\n"
        ),
    );
    std::fs::set_permissions(helper, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let config = tool.file(".docker/config.json", format!(r#"{{"credHelpers":{{"{host}":"stub"}}}}"#));
    tool.build(&["--no-cache", "ctx"]).ok();
    let asked = std::fs::read_to_string(tool.home().join("asked")).expect("it was asked");
    assert!(asked.lines().all(|line| line == format!("get {host}")), "{asked}");
    // Nor does the daemon keep the login for the next one who comes.
    std::fs::remove_file(config).expect("it is there");
    nobody();

    space.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "pull",
        &format!("--docker-server={host}"),
        &format!("--docker-username={user}"),
        &format!("--docker-password={password}"),
    ]);
    tool.build(&["--no-cache", "--registry-secret", "pull", "ctx"]).ok();
    // A helper that is missing is named.
    tool.file(".docker/config.json", format!(r#"{{"credHelpers":{{"{host}":"absent"}}}}"#));
    tool.build(&["--no-cache", "ctx"]).fails(1, &[&base, "docker-credential-absent"]);
}
