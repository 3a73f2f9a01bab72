//! A registry with a token service, as GHCR, Docker Hub and Quay are: the daemon gets tokens from us by the session, and
//! never a password. The registry is real; the token service, which records who asks, is a fake.

use crate::fake_token_service::{Asked, FakeTokenService, Strangers};
use crate::fresh;
use crate::registries::Registry;
use crate::rig::Rig;
use crate::seen::Seen;
use crate::tool::{Ran, Tool, run};

/// Asserts that each token was fetched by the tool, with or without a password, for these repositories only.
#[track_caller]
fn asked_by_us(asked: &[Asked], rig: &Rig, password: bool, repositories: &[&str]) {
    assert!(!asked.is_empty(), "nobody asked for a token");
    for one in asked {
        assert!(one.agent.starts_with("kubectl-build/"), "{one:?}");
        assert_eq!(one.peer.to_string(), rig.get("CLIENT_ADDRESS"), "{one:?}");
        assert_eq!(one.password, password, "{one:?}");
        let fits = |scope: &String| {
            repositories.iter().any(|name| scope.starts_with(&format!("repository:{name}:")))
        };
        assert!(one.scopes.iter().all(fits), "{one:?}");
    }
}

fn has_scope(asked: &[Asked], wanted: &str) -> bool {
    asked.iter().flat_map(|one| &one.scopes).any(|scope| scope == wanted)
}

#[test]
#[ignore = "needs the rig"]
fn the_daemon_gets_tokens_of_the_session_that_builds_and_no_password() {
    let rig = Rig::load();
    let space = rig.namespace("tokens");
    let tool = Tool::new(&rig, space.name());
    let (key, _) = tool.key_pair("k", "");
    let key = key.to_str().expect("UTF-8");
    let (address, password) = (rig.get("CLIENT_ADDRESS"), rig.get("REGISTRY_PASSWORD"));
    let service = FakeTokenService::start(address, rig.get("REGISTRY_USER"), password);
    let registry = Registry::with_auth(address, &service.registry_auth(tool.home()));
    let host = registry.host.as_str();
    let (base, name) = (fresh("base"), fresh("tokens"));
    let (base_tag, tag) = (format!("{host}/{base}:1"), format!("{host}/{name}:1"));
    tool.log_in(host);
    let config = tool.home().join(".docker/config.json");
    // Another builder makes the base, so that this one has to pull it.
    let plain = ["--registry-http", host, "--registry-http", rig.get("REGISTRY")];
    tool.buildkit(&[&["create", "another"][..], &plain].concat()).ok();
    tool.file("base/Dockerfile", format!("FROM {}\n", rig.get("BASE_REF")));
    tool.build(&["--builder", "another", "-t", &base_tag, "--push", "base"]).ok();
    // BuildKit tells hosts apart by their names, not their ports: it would mount the layer from the other registry.
    asked_by_us(&service.take_asked(), &rig, true, &[&base, "base"]);

    tool.buildkit(&["create", "--registry-http", host]).ok();
    tool.file("ctx/Dockerfile", format!("FROM {base_tag}\nRUN echo built > /built\n"));
    tool.file("bare/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let build = |arguments: &[&str]| -> Ran {
        let mut command = tool.command("kubectl-build", arguments);
        command.env("COSIGN_PASSWORD", "");
        run(command)
    };
    let push = ["-t", tag.as_str(), "--push"];
    build(&[&push[..], &["--sign", "--cosign-key", key, "ctx"]].concat()).ok();
    let asked = service.take_asked();
    asked_by_us(&asked, &rig, true, &[&base, &name]);
    // Nobody but the daemon pulls the base.
    assert!(has_scope(&asked, &format!("repository:{base}:pull")), "{asked:?}");
    assert!(has_scope(&asked, &format!("repository:{name}:pull,push")), "{asked:?}");
    let seen = |name: &str| Seen::bearer(&rig, host, &service.token(&format!("repository:{name}:pull")));
    let digest = seen(&name).digest(&name, "1").expect("the tag is there");
    let place = digest.replace(':', "-");
    assert!(seen(&name).manifest(&name, &format!("{place}.sig")).is_some());
    let fallback = seen(&name).manifest(&name, &place).expect("a fallback tag");
    assert_eq!(fallback["manifests"][0]["artifactType"], "application/vnd.dev.sigstore.bundle.v0.3+json");

    // The tokens of that session still live; another session has no use of them.
    std::fs::remove_file(&config).expect("it is there");
    for strangers in [Strangers::GetNothing, Strangers::AreRefused] {
        service.set_strangers(strangers);
        for arguments in [&["ctx"][..], &[&push[..], &["bare"]].concat()] {
            let stderr = build(arguments).fails(1, &[host, "docker login"]);
            assert!(!stderr.contains("credentials are known"), "{strangers:?}:\n{stderr}");
            asked_by_us(&service.take_asked(), &rig, false, &[&base, &name]);
        }
    }
    assert_eq!(seen(&name).digest(&name, "1"), Some(digest), "the tag was not moved");

    let wrong = format!(r#"{{"auths":{{"{host}":{{"username":"me","password":"mistyped"}}}}}}"#);
    tool.file(".docker/config.json", wrong);
    let name = fresh("wrong");
    let tag = format!("{host}/{name}:1");
    let push = ["-t", tag.as_str(), "--push"];
    let stderr = build(&[&push[..], &["--sign", "--cosign-key", key, "bare"]].concat())
        .fails(1, &[&format!("{host}/{name}"), &format!("docker login {host}")]);
    assert!(!stderr.contains("load .dockerignore") && !stderr.contains("COPY"), "{stderr}");
    assert!(!stderr.contains("mistyped"), "{stderr}");
    asked_by_us(&service.take_asked(), &rig, true, &[&name]);
    // Without a signature the daemon is the first to know.
    build(&[&push[..], &["bare"]].concat()).fails(1, &[host, "docker login"]);
    asked_by_us(&service.take_asked(), &rig, true, &[&name]);
    assert!(seen(&name).tags(&name).is_empty());
}
