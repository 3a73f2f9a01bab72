//! Options reach the build: each is seen from inside a RUN step or in the image's configuration.

use crate::fresh;
use crate::rig::Rig;
use crate::seen::Seen;
use crate::tool::Tool;

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
