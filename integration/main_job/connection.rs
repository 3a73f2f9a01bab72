//! Who the tool is to the cluster, and which cluster and namespace it means: kubectl's flags, and credential plugins.

use crate::rig::{Rig, text};
use crate::running::Running;
use crate::tool::Tool;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
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

#[test]
#[ignore = "needs the rig"]
fn namespace_and_context_are_kubectls() {
    let rig = Rig::load();
    let space = rig.namespace("flags");
    let tool = Tool::new(&rig, "default");
    tool.buildkit(&["create", "there", "-n", space.name()]).ok();
    let list = |arguments: &[&str]| tool.buildkit(&[&["ls"][..], arguments].concat()).ok();
    assert!(!list(&[]).contains("there "), "the context says another namespace");
    assert!(list(&["-n", space.name()]).contains("there "));
    assert!(list(&[&format!("--namespace={}", space.name())]).contains("there "));

    let path = tool.home().join("kubeconfig");
    let mut config = kubeconfig(&rig);
    let mut other = config["contexts"][0].clone();
    other["name"] = json!("other");
    other["context"]["namespace"] = json!(space.name());
    config["contexts"].as_array_mut().expect("contexts").push(other);
    std::fs::write(path, config.to_string()).expect("a file");
    assert!(!list(&[]).contains("there "));
    assert!(list(&["--context", "other"]).contains("there "));
    tool.buildkit(&["ls", "--context", "third"]).fails(3, &["context `third`", "other"]);

    tool.file("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    tool.build(&["--context", "other", "--builder", "there", "ctx"]).ok();
    tool.build(&["-n", space.name(), "--builder", "there", "ctx"]).ok();
}

#[test]
#[ignore = "needs the rig"]
fn who_acts_as_another_is_that_other() {
    let rig = Rig::load();
    let space = rig.namespace("as");
    let tool = Tool::new(&rig, space.name());
    let ran = tool.buildkit(&["ls", "--as", "jane"]);
    ran.fails(3, &["you are not allowed to list", "User \"jane\" cannot list"]);
    // The stream into the pod says it, too: jane may do all but that.
    tool.file("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let admin = ["--as", "jane", "--as-group", "system:masters"];
    tool.build(&[&admin[..], &["ctx"]].concat()).ok();
    let resources = "--resource=pods,deployments.apps,configmaps,events,poddisruptionbudgets.policy";
    space.kubectl(&["create", "role", "most", "--verb=*", resources]);
    space.kubectl(&["create", "rolebinding", "most", "--role=most", "--user=jane"]);
    tool.build(&["--as", "jane", "ctx"]).fails(3, &["pods/exec", "User \"jane\" cannot"]);
}

/// No API server takes passwords any more, but proxies before some do: a fake one listens to what is sent.
#[test]
#[ignore = "needs the rig"]
fn name_and_password_are_sent() {
    let rig = Rig::load();
    let tool = Tool::new(&rig, "default");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("an address"));
    let fake = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            request.extend(byte);
        }
        let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
        stream.write_all(answer.as_bytes()).expect("it listens");
        text(&request).to_lowercase()
    });
    let ran = tool.buildkit(&["ls", "-s", &server, "--username", "jane", "--password", "s3cret"]);
    assert_ne!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    let request = fake.join().expect("it was asked");
    // jane:s3cret
    assert!(request.contains("\r\nauthorization: basic amfuztpzm2nyzxq=\r\n"), "{request}");
}
