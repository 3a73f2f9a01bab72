//! Who the tool is to the cluster: credential plugins.

use crate::rig::Rig;
use crate::running::Running;
use crate::tool::Tool;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The administrator's kubeconfig.
fn kubeconfig(rig: &Rig) -> Value {
    serde_json::from_str(&rig.kubectl(&["config", "view", "--raw", "-o", "json"])).expect("a kubeconfig")
}

#[test]
#[ignore = "needs the rig"]
fn what_a_login_asks_is_seen_while_it_waits() {
    let rig = Rig::load();
    let space = rig.namespace("login");
    let tool = Tool::new(&rig, space.name());
    tool.file("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    space.kubectl(&["create", "serviceaccount", "jane"]);
    let account = format!("--serviceaccount={}:jane", space.name());
    space.kubectl(&["create", "rolebinding", "jane", "--clusterrole=admin", &account]);
    let token = space.kubectl(&["create", "token", "jane"]);
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": { "token": token.trim() },
    });
    // A device-code login: what to do stands on standard error, the question without a newline.
    let script = format!(
        "#!/bin/sh\nprintf 'open https://login.example/device\\nCode: ' >&2\n\
         while [ ! -e {0}/answered ]; do sleep 0.1; done\necho '{credential}'\n",
        tool.home().display()
    );
    let plugin = tool.file("plugin", script);
    let mut config = kubeconfig(&rig);
    config["contexts"][0]["context"]["namespace"] = json!(space.name());
    config["users"][0]["user"] = json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": "sh", "args": [plugin],
    }});
    let config = tool.file("login.kubeconfig", config.to_string());
    for (program, arguments) in [
        ("kubectl-buildkit", &["ls"][..]),
        ("kubectl-buildkit", &["create"]),
        ("kubectl-build", &["-q", "ctx"]),
    ] {
        let mut command = tool.command(program, arguments);
        command.env("KUBECONFIG", &config);
        let running = Running::start(command);
        running.until("open https://login.example/device\n");
        running.until("Code: ");
        tool.file("answered", "");
        running.ends(Instant::now(), Duration::from_secs(60)).ok();
        std::fs::remove_file(tool.home().join("answered")).expect("it is there");
    }
}
