//! Daemons that are in no cluster: a unix socket, and TCP with certificates on both sides.

use crate::buildkitd::Buildkitd;
use crate::peers::free_address;
use crate::rig::Rig;
use crate::seen::Seen;
use crate::tool::{Ran, Tool};
use crate::{fresh, hello};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::net::Ipv4Addr;

/// Runs a build without a kubeconfig: none is needed.
fn build(tool: &Tool, arguments: &[&str]) -> Ran {
    let mut command = tool.command("kubectl-build", arguments);
    command.env("KUBECONFIG", "/nonexistent").env("COSIGN_PASSWORD", "pw");
    crate::tool::run(command)
}

#[test]
#[ignore = "needs the rig"]
fn a_daemon_behind_a_unix_socket_builds_pushes_and_signs() {
    let rig = Rig::load();
    let tool = Tool::new(&rig, "default");
    let daemon = Buildkitd::start();
    let address = format!("unix://{}", daemon.socket().display());
    let (key, _) = tool.key_pair("k", "pw");
    let (registry, name) = (rig.get("REGISTRY"), fresh("unix"));
    let tag = format!("{registry}/{name}:1");
    let context = hello();
    let (key, context) = (key.to_str().expect("UTF-8"), context.to_str().expect("UTF-8"));
    let arguments = [
        "--builder",
        &address,
        "-t",
        &tag,
        "--push",
        "--sign",
        "--cosign-key",
        key,
        "--registry-http",
        registry,
        context,
    ];
    build(&tool, &arguments).ok();
    let seen = Seen::plain(&rig);
    let digest = seen.digest(&name, "1").expect("the tag is there");
    assert!(seen.manifest(&name, &format!("{}.sig", digest.replace(':', "-"))).is_some());
    let gone = build(&tool, &["--builder", "unix:///nonexistent/b.sock", context]);
    gone.fails(3, &["unix:///nonexistent/b.sock"]);
}

#[test]
#[ignore = "needs the rig"]
fn a_daemon_at_a_tcp_address_wants_certificates() {
    let rig = Rig::load();
    let tool = Tool::new(&rig, "default");
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("a CA");
    let issue = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new([name.to_owned()]).expect("a name").signed_by(&key, &ca);
        (certificate.expect("a certificate").pem(), key.serialize_pem())
    };
    let ((server, server_key), (client, client_key)) = (issue("buildkitd.test"), issue("client"));
    let file = |name: &str, text: String| tool.file(name, text).display().to_string();
    let ca_file = file("ca.pem", ca.pem());
    let (server, server_key) = (file("server.pem", server), file("server.key", server_key));
    let (client, client_key) = (file("client.pem", client), file("client.key", client_key));
    let address = format!("tcp://{}", free_address(Ipv4Addr::LOCALHOST.into()));
    let daemon = [
        format!("--addr={address}"),
        format!("--tlscacert={ca_file}"),
        format!("--tlscert={server}"),
        format!("--tlskey={server_key}"),
    ];
    let _daemon = Buildkitd::start_with(&daemon);
    let context = hello();
    let context = context.to_str().expect("UTF-8");
    let certificates =
        ["--builder-tls-ca", &ca_file, "--builder-tls-cert", &client, "--builder-tls-key", &client_key];
    let name = ["--builder-tls-server-name", "buildkitd.test"];
    let run = |flags: &[&str]| build(&tool, &[&["--builder", address.as_str()], flags, &[context]].concat());
    run(&[&certificates[..], &name].concat()).ok();
    // Another name than the certificate's, no certificate of ours, no TLS at all: an error each, at once.
    assert_eq!(run(&certificates).code, 3);
    let limited = ["--builder-timeout", "10s"];
    assert_eq!(run(&[&certificates[..2], &name, &limited].concat()).code, 3);
    assert_eq!(run(&limited).code, 3);
}
