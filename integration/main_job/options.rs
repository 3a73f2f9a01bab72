//! Options reach the build: each is seen from inside a RUN step or in the image's configuration.

use crate::rig::Rig;
use crate::seen::Seen;
use crate::tool::Tool;
use crate::{Local, fresh};
use serde_json::Value;

#[test]
#[ignore = "needs the rig"]
fn what_is_passed_to_the_frontend_arrives() {
    let rig = Rig::load();
    let space = rig.namespace("options");
    let tool = Tool::new(&rig, space.name());
    let (registry, base, name) = (rig.get("REGISTRY"), rig.get("BASE_REF"), fresh("options"));
    tool.file(
        "ctx/My.Dockerfile",
        format!(
            "FROM {base} AS wanted\nARG FROM_FLAG\nARG FROM_ENV\nARG UNSET=default\n\
             RUN test \"$FROM_FLAG\" = flag && test \"$FROM_ENV\" = env && test \"$UNSET\" = default\n\
             RUN test \"$(ulimit -n)\" = 1234\n\
             RUN grep -q '10.1.2.3.*myhost' /etc/hosts && grep -q '::5.*sixhost' /etc/hosts\n\
             RUN df -k /dev/shm | grep -q 131072\n\
             RUN test \"$(grep -c : /proc/net/dev)\" = 1 && grep -q ' lo:' /proc/net/dev\n\
             FROM wanted\nRUN exit 9\n"
        ),
    );
    let tag = format!("{registry}/{name}:1");
    let arguments = [
        "-f",
        "ctx/My.Dockerfile",
        "-t",
        &tag,
        "--push",
        "--registry-http",
        registry,
        "--target",
        "wanted",
        "--build-arg",
        "FROM_FLAG=flag",
        "--build-arg",
        "FROM_ENV",
        "--build-arg",
        "UNSET",
        "--label",
        "a=b",
        "--label",
        "bare",
        "--ulimit",
        "nofile=1234",
        "--add-host",
        "MyHost:10.1.2.3",
        "--add-host",
        "sixhost:[::5]",
        "--shm-size",
        "128m",
        "--network",
        "none",
        "--no-cache",
        "--pull",
        "--platform",
        "linux/amd64",
        "ctx",
    ];
    let mut command = tool.command("kubectl-build", &arguments);
    command.env("FROM_ENV", "env");
    crate::tool::run(command).ok();
    let seen = Seen::plain(&rig);
    let manifest = seen.manifest(&name, "1").expect("a manifest");
    let config = seen.blob(&name, manifest["config"]["digest"].as_str().expect("a digest"));
    assert_eq!(config["config"]["Labels"]["a"], "b");
    assert_eq!(config["config"]["Labels"]["bare"], "");
    assert_eq!(config["architecture"], "amd64");
}

#[test]
#[ignore = "needs the rig"]
fn every_progress_mode_tells_of_the_same_build() {
    let rig = Rig::load();
    let space = rig.namespace("progress");
    let tool = Tool::new(&rig, space.name());
    tool.file("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /a\n");
    let plain = tool.build(&["--progress", "plain", "ctx"]);
    assert!(plain.stderr.contains("#1 ") && plain.stderr.contains("COPY Dockerfile /a"), "{}", plain.stderr);
    let raw = tool.build(&["--progress", "rawjson", "ctx"]);
    let lines: Vec<serde_json::Value> = raw
        .stderr
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .collect();
    assert!(lines.iter().any(|line| line["vertexes"].to_string().contains("COPY Dockerfile /a")));
    let mut quiet = tool.command("kubectl-build", &["ctx"]);
    quiet.env("BUILDKIT_PROGRESS", "quiet");
    let quiet = crate::tool::run(quiet);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
    assert!(quiet.stdout.starts_with("sha256:") && quiet.stdout.lines().count() == 1, "{}", quiet.stdout);
}

/// Returns the configuration of the image under a tag.
fn config(seen: &Seen<'_>, name: &str, tag: &str) -> Value {
    let manifest = seen.manifest(name, tag).expect("a manifest");
    seen.blob(name, manifest["config"]["digest"].as_str().expect("a digest"))
}

#[test]
#[ignore = "needs the rig"]
fn without_the_cache_steps_run_again_and_a_moved_base_is_pulled() {
    let rig = Rig::load();
    let local = Local::start(&rig);
    let (registry, base) = (rig.get("REGISTRY"), rig.get("BASE_REF"));
    let built = |arguments: &[&str]| {
        let mut command = local.command(&[&["--iidfile", "iid"], arguments].concat());
        // Else the clock alone would make every image another.
        command.env("SOURCE_DATE_EPOCH", "1700000000");
        crate::tool::run(command).ok();
        std::fs::read_to_string(local.tool.home().join("iid")).expect("a digest")
    };
    let random = "RUN cat /proc/sys/kernel/random/uuid > /random && touch -d @0 /random\n";
    local.tool.file("random/Dockerfile", format!("FROM {base}\n{random}"));
    let first = built(&["random"]);
    assert_eq!(built(&["random"]), first, "from the cache");
    assert_eq!(built(&["--no-cache=false", "random"]), first);
    assert_ne!(built(&["--no-cache", "random"]), first);

    let moving = format!("{registry}/{}:moving", fresh("base"));
    local.tool.file("base/Dockerfile", "FROM scratch\nCOPY . /\n");
    local.tool.file("app/Dockerfile", format!("FROM {moving}\nLABEL on=top\n"));
    let mut apps = Vec::new();
    for content in ["one", "two"] {
        local.tool.file("base/content", content);
        built(&["--push", "-t", &moving, "--registry-http", registry, "base"]);
        apps.extend([built(&["--pull", "app"]), built(&["--pull", "app"])]);
    }
    assert!(apps[0] == apps[1] && apps[1] != apps[2] && apps[2] == apps[3], "{apps:?}");
}

#[test]
#[ignore = "needs the rig"]
fn the_platform_is_the_flags_else_the_environments() {
    let rig = Rig::load();
    let (local, seen) = (Local::start(&rig), Seen::plain(&rig));
    let (registry, name) = (rig.get("REGISTRY"), fresh("platform"));
    local.tool.file("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let cases: [(&str, &[&str], &str, Option<&str>); 3] = [
        ("flag", &["--platform", "linux/arm64"], "arm64", None),
        ("variable", &[], "s390x", None),
        ("variant", &["--platform", "linux/arm/v7"], "arm", Some("v7")),
    ];
    for (tag, flags, architecture, variant) in cases {
        let reference = format!("{registry}/{name}:{tag}");
        let arguments = ["--push", "-t", &reference, "--registry-http", registry, "ctx"];
        let mut command = local.command(&[flags, &arguments].concat());
        command.env("DOCKER_DEFAULT_PLATFORM", "linux/s390x");
        crate::tool::run(command).ok();
        let config = config(&seen, &name, tag);
        assert_eq!(
            (config["os"].as_str(), config["architecture"].as_str()),
            (Some("linux"), Some(architecture))
        );
        assert_eq!(config["variant"].as_str(), variant);
    }
}

#[test]
#[ignore = "needs the rig"]
fn networks_and_rights_are_what_was_asked_for() {
    let rig = Rig::load();
    let (local, base) = (Local::start(&rig), rig.get("BASE_REF"));
    // The daemon runs where the tests do.
    let address = rig.get("CLIENT_ADDRESS");
    local.tool.file("host/Dockerfile", format!("FROM {base}\nRUN ip -o addr | grep -q 'inet {address}/'\n"));
    local.tool.file(
        "none/Dockerfile",
        format!("FROM {base}\nRUN test \"$(grep -c : /proc/net/dev)\" = 1 && grep -q ' lo:' /proc/net/dev\n"),
    );
    local.tool.file(
        "insecure/Dockerfile",
        format!("FROM {base}\nRUN --security=insecure mkdir -p /mnt && mount -t tmpfs none /mnt\n"),
    );
    local.build(&["--network", "none", "none"]).ok();
    assert_eq!(local.build(&["--network", "none", "host"]).code, 1, "that network has no such address");
    local.build(&["--network", "host", "host"]).ok();
    local.build(&["--allow", "network.host", "--network", "host", "--no-cache", "host"]).ok();
    local.build(&["--allow", "network.host,security.insecure", "insecure"]).ok();
    local.build(&["--no-cache", "insecure"]).fails(1, &["security.insecure is not allowed"]);

    // A builder that nobody told to grants nothing.
    let plain = crate::buildkitd::Buildkitd::start();
    let address = format!("unix://{}", plain.socket().display());
    local.tool.file("scratch/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let asked = |flags: &[&str]| local.tool.build(&[&["--builder", &address], flags, &["scratch"]].concat());
    asked(&["--network", "host"]).fails(1, &["network.host is not allowed"]);
    asked(&["--allow", "security.insecure"]).fails(1, &["security.insecure is not allowed"]);
}

#[test]
#[ignore = "needs the rig"]
fn what_a_builder_was_told_of_registries_holds_for_builds() {
    let rig = Rig::load();
    let space = rig.namespace("told");
    let tool = Tool::new(&rig, space.name());
    let (plain, tls, svc) = (rig.get("REGISTRY"), rig.get("REGISTRY_TLS"), rig.get("REGISTRY_SVC"));
    let (user, password) = (rig.get("REGISTRY_USER"), rig.get("REGISTRY_PASSWORD"));
    let auth = format!(r#"{{"auths":{{"{tls}":{{"username":"{user}","password":"{password}"}}}}}}"#);
    tool.file(".docker/config.json", auth);
    let (key, _) = tool.key_pair("k", "");
    let key = key.to_str().expect("UTF-8");
    let mirror = format!("mirrored.example={plain}");
    let arguments = ["--registry-insecure", tls, "--registry-http", plain, "--registry-mirror", &mirror];
    tool.buildkit(&[&["create"], &arguments[..]].concat()).ok();

    // No CA is known here or there; nobody resolves the base image's name.
    let base = rig.get("BASE_REF").split_once('/').expect("a name").1;
    tool.file("ctx/Dockerfile", format!("FROM mirrored.example/{base}\nRUN true\n"));
    let (seen, name) = (Seen::tls(&rig, tls), fresh("told"));
    let signed = |tag: &str, more: &[&str]| {
        let reference = format!("{tls}/{name}:{tag}");
        let arguments = ["--push", "-t", &reference, "--sign", "--cosign-key", key, "ctx"];
        let mut command = tool.command("kubectl-build", &[more, &arguments].concat());
        command.env("COSIGN_PASSWORD", "");
        crate::tool::run(command).ok();
        let digest = seen.digest(&name, tag).expect("the tag is there");
        assert!(seen.manifest(&name, &format!("{}.sig", digest.replace(':', "-"))).is_some());
    };
    signed("builder", &[]);
    // A daemon that knows nothing of the registry is told with the build.
    let local = Local::start(&rig);
    tool.file("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    signed("flag", &["--builder", &local.address, "--registry-insecure", tls]);

    let tag = format!("{svc}/{name}:1");
    let ca = format!("{svc}={}", rig.get("REGISTRY_SVC_CA"));
    let refused = tool.build(&["--registry-ca", &ca, "-t", &tag, "--push", "ctx"]);
    let line = format!("`kubectl buildkit create NAME --registry-ca {svc}=FILE`");
    refused.fails(2, &[&format!("builder buildkit does not know the CA for {svc}"), &line]);
}
