//! For one tree, the digest of what the tool builds is that of what buildctl builds on the same daemon.

use crate::rig::{Rig, text};
use crate::seen::Seen;
use crate::tool::Tool;
use crate::tree::every_kind;
use crate::{Local, fresh};
use serde_json::Value;
use std::path::Path;

const EPOCH: &str = "1700000000";

/// Makes the daemon forget earlier contexts: removing what is gone from its copy of one, it leaves the clock on the
/// directory around it.
fn forget(local: &Local) {
    let mut command = local.tool.rig.command(local.tool.rig.peer("buildctl"));
    let pruned = command.args(["--addr", &local.address, "prune", "--all"]).output().expect("buildctl runs");
    assert!(pruned.status.success(), "{}", text(&pruned.stderr));
}

/// Builds a context with buildctl, by the Dockerfile at this path, and returns the digest of the image.
fn buildctl(tool: &Tool, address: &str, context: &Path, dockerfile: &Path, output: &str) -> String {
    let metadata = tool.home().join("buildctl.json");
    let name = dockerfile.file_name().expect("a name").to_str().expect("UTF-8");
    let mut command = tool.rig.command(tool.rig.peer("buildctl"));
    command
        .args(["--addr", address, "build", "--progress=plain", "--frontend=dockerfile.v0", "--no-cache"])
        .arg(format!("--local=context={}", context.display()))
        .arg(format!("--local=dockerfile={}", dockerfile.parent().expect("a directory").display()))
        .arg(format!("--opt=filename={name}"))
        .arg(format!("--opt=build-arg:SOURCE_DATE_EPOCH={EPOCH}"))
        .args(["--output", output, "--metadata-file"])
        .arg(&metadata)
        // For a pod it runs kubectl.
        .env("PATH", format!("{}:/usr/bin:/bin", tool.rig.get("PEERS")));
    let built = command.output().expect("buildctl runs");
    assert!(built.status.success(), "{}", text(&built.stderr));
    let metadata = std::fs::read(metadata).expect("its metadata");
    let metadata: Value = serde_json::from_slice(&metadata).expect("JSON");
    metadata["containerimage.digest"].as_str().expect("a digest").to_owned()
}

#[test]
#[ignore = "needs the rig"]
fn a_pushed_image_is_buildctls_signed_or_not() {
    let rig = Rig::load();
    let space = rig.namespace("digest");
    let tool = Tool::new(&rig, space.name());
    let (context, (key, _)) = (every_kind(), tool.key_pair("k", ""));
    let (registry, name) = (rig.get("REGISTRY"), fresh("digest"));
    // In a user namespace nobody makes the tree's device.
    tool.buildkit(&["create", "--mode", "privileged", "--registry-http", registry]).ok();
    let pod = space.kubectl(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]);
    let address = format!("kube-pod://{pod}?namespace={}", space.name());
    let output = format!("type=image,name={registry}/{name}:theirs,push=true");
    let dockerfile = context.path().join("Dockerfile");
    let theirs = buildctl(&tool, &address, context.path(), &dockerfile, &output);

    let seen = Seen::plain(&rig);
    assert_eq!(seen.digest(&name, "theirs").as_ref(), Some(&theirs));
    let key = key.to_str().expect("UTF-8");
    for (tag, more) in [("plain", &[][..]), ("signed", &["--sign", "--cosign-key", key])] {
        let reference = format!("{registry}/{name}:{tag}");
        let arguments = ["--push", "--no-cache", "-t", &reference, context.path().to_str().expect("UTF-8")];
        let mut command = tool.command("kubectl-build", &[&arguments[..], more].concat());
        command.env("SOURCE_DATE_EPOCH", EPOCH).env("COSIGN_PASSWORD", "");
        crate::tool::run(command).ok();
        assert_eq!(seen.digest(&name, tag).as_ref(), Some(&theirs), "{tag}");
    }

    tool.buildkit(&["create", "confined", "--mode", "userns"]).ok();
    let refused = tool.build(&["--builder", "confined", context.path().to_str().expect("UTF-8")]);
    refused
        .fails(1, &["failed to create device", "/null: operation not permitted", "hint: nothing was pushed"]);
}

/// Files for the patterns to pick from.
const FILES: &[&str] = &[
    "#hash",
    ".hidden/config",
    "README.md",
    "[x]",
    "a/b",
    "a/x/b",
    "a/x/other",
    "a/y/b/c",
    "b",
    "docs/readme.md",
    "docs/sub/readme.md",
    "keep.o",
    "out.o",
    "sp ace",
    "src/gen/out.o",
    "src/main.rs",
    "sub/dir/deep/file.txt",
];

/// What may stand in an ignore file.
const IGNORED: &[&str] = &[
    "",
    "**/*.o\n!keep.o\n",
    "a/*/b\n",
    "docs/\n!docs/readme.md\n",
    "# docs\n  src/gen  \n\n\t\n#hash\n\\#hash\n",
    "\u{feff}docs\nb\n",
    "*\n!src\n**/gen\n!Dockerfile\n",
    "**\n!a/**/c\n!.hidden/\n",
    "/b\n./src/\ndocs/../README.md\na//x\n",
    "!b\nb\n!a/b\n",
    "*.md\n**/sub\nsub/**/file.txt\n",
    "[^a-r]*\n?\n\\[x\\]\n",
    "docs\r\nsp ace\r\n",
    "docs/**\n!docs/sub/*.md\n! b\n",
    "Dockerfile\n.dockerignore\n.\n..\n",
];

#[test]
#[ignore = "needs the rig"]
fn ignore_files_leave_out_what_they_leave_out_for_buildctl() {
    let local = Local::start(&Rig::load());
    let tool = &local.tool;
    for name in FILES {
        tool.file(&format!("ctx/{name}"), name);
    }
    std::fs::create_dir(tool.home().join("ctx/empty")).expect("a directory");
    let dockerfile = "FROM scratch\nCOPY . /\n";
    let compared = |file: Option<&str>, what: &str| {
        let mut arguments = vec!["--no-cache", "--iidfile", "iid", "ctx"];
        arguments.extend(file.iter().flat_map(|file| ["-f", file]));
        let mut command = local.command(&arguments);
        command.env("SOURCE_DATE_EPOCH", EPOCH);
        forget(&local);
        crate::tool::run(command).ok();
        forget(&local);
        let ours = std::fs::read_to_string(tool.home().join("iid")).expect("the digest");
        let (context, file) = (tool.home().join("ctx"), tool.home().join(file.unwrap_or("ctx/Dockerfile")));
        let theirs = buildctl(tool, &local.address, &context, &file, "type=image");
        assert_eq!(ours, theirs, "{what:?}");
        ours
    };
    // The one beside the Dockerfile counts, inside and outside of the context, and else the context's own.
    tool.file("ctx/Dockerfile", dockerfile);
    tool.file("ctx/.dockerignore", "a\n");
    let plain = compared(None, "the context's");
    for place in ["ctx/docs/My.Dockerfile", "outside/My.Dockerfile"] {
        tool.file(place, dockerfile);
        let without = compared(Some(place), place);
        tool.file(&format!("{place}.dockerignore"), "docs\nb\n");
        assert_ne!(compared(Some(place), place), without, "{place} has one of its own");
    }
    tool.file("ctx/Dockerfile.dockerignore", "b\n");
    assert_ne!(compared(None, "the Dockerfile's"), plain);
    std::fs::remove_file(tool.home().join("ctx/Dockerfile.dockerignore")).expect("it is there");
    for patterns in IGNORED {
        tool.file("ctx/.dockerignore", patterns);
        compared(None, patterns);
    }
    tool.file("ctx/.dockerignore", "a[\n");
    local.build(&["ctx"]).fails(1, &["syntax error in pattern"]);
}
