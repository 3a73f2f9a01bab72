//! Caches beside the builder's own: left by one builder, found by another that has never built.

use crate::rig::Rig;
use crate::seen::Seen;
use crate::tool::Tool;
use crate::{Local, fresh};
use serde_json::Value;

/// Two stages whose steps come out otherwise each time they run.
fn dockerfile(base: &str) -> String {
    let random = "head -c 16 /dev/urandom >";
    format!(
        "FROM {base} AS a\nRUN {random} /a\nFROM {base}\nRUN {random} /b\nCOPY --from=a /a /\nRUN {random} /c\n"
    )
}

/// Returns the digests of an image's layers.
fn layers(seen: &Seen<'_>, name: &str, tag: &str) -> Vec<String> {
    let manifest = seen.manifest(name, tag).expect("the tag is there");
    let layers = manifest["layers"].as_array().expect("layers");
    layers.iter().map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect()
}

/// The predecessor's TestBuildWithCacheScenarios, in its order and with its registry: self-signed, with a password, and
/// reached only by pods. Each build has a builder of its own, so what it reuses came from the registry.
#[test]
#[ignore = "needs the rig"]
fn builders_that_share_nothing_but_a_registry_share_their_work() {
    let rig = Rig::load();
    let space = rig.namespace("shared-cache");
    let tool = Tool::new(&rig, space.name());
    let svc = rig.get("REGISTRY_SVC");
    tool.log_in(svc);
    tool.file("ctx/Dockerfile", dockerfile(rig.get("BASE_REF")));
    let (seen, name) = (Seen::tls(&rig, svc), fresh("shared-cache"));
    let cache = format!("{svc}/{name}:cache");
    let to = format!("type=registry,ref={cache},mode=max");
    let ca = format!("{svc}={}", rig.get("REGISTRY_SVC_CA"));
    let build = |builder: &str, tag: &str, more: &[&str]| {
        tool.buildkit(&["create", builder, "--registry-ca", &ca, "--registry-http", rig.get("REGISTRY")])
            .ok();
        let tag = format!("{svc}/{name}:{tag}");
        let arguments = ["--builder", builder, "--progress", "plain", "--push", "-t", &tag, "ctx"];
        let ran = tool.build(&[more, &arguments].concat());
        tool.buildkit(&["rm", builder]).ok();
        let progress = ran.stderr.clone();
        ran.ok();
        progress
    };

    build("one", "to", &["--cache-to", &to, "--metadata-file", "metadata.json"]);
    let left = seen.manifest(&name, "cache").expect("the cache is there");
    assert_eq!(left["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0");
    let metadata = std::fs::read(tool.home().join("metadata.json")).expect("a file");
    let metadata: Value = serde_json::from_slice(&metadata).expect("JSON");
    // A text, as buildx has it.
    let descriptor = metadata["cache.manifest"].as_str().expect("a descriptor");
    assert!(descriptor.contains(&seen.digest(&name, "cache").expect("a digest")), "{descriptor}");

    // What is not there is passed over.
    let absent = format!("{svc}/{name}:absent");
    let progress =
        build("two", "from", &["--cache-from", &absent, "--cache-from", &cache, "--cache-to", &to]);
    assert!(progress.contains("CACHED"), "{progress}");
    assert_eq!(layers(&seen, &name, "from"), layers(&seen, &name, "to"));

    build("three", "inline", &["--cache-from", &cache, "--cache-to", "type=inline"]);
    assert_eq!(layers(&seen, &name, "inline"), layers(&seen, &name, "to"));
    let image = format!("type=registry,ref={svc}/{name}:inline");
    build("four", "from-inline", &["--cache-from", &image]);
    assert_eq!(layers(&seen, &name, "from-inline"), layers(&seen, &name, "to"));

    build("five", "alone", &[]);
    assert_ne!(
        layers(&seen, &name, "alone"),
        layers(&seen, &name, "to"),
        "no builder knew of another's work"
    );
}

#[test]
#[ignore = "needs the rig"]
fn a_registry_that_takes_no_cache_is_told_unless_that_does_not_matter() {
    let rig = Rig::load();
    let (local, registry) = (Local::start(&rig), rig.get("REGISTRY"));
    let tls = rig.get("REGISTRY_TLS");
    local.tool.file("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let tag = format!("{registry}/{}:1", fresh("refused-cache"));
    let build = |to: &str| {
        let arguments =
            ["--push", "-t", &tag, "--registry-http", registry, "--registry-insecure", tls, "ctx"];
        local.build(&[&["--cache-to", to], &arguments[..]].concat())
    };
    let to = format!("type=registry,ref={tls}/refused:cache");
    build(&to).fails(1, &[tls, "docker login"]);
    build(&format!("{to},ignore-error=true")).ok();
    // With the right to it, by checks that are loosened with the cache.
    local.tool.log_in(tls);
    build(&to).ok();
    assert!(Seen::tls(&rig, tls).manifest("refused", "cache").is_some());
}

#[test]
#[ignore = "needs the rig"]
fn an_inline_cache_of_no_image_is_spoken_of() {
    let rig = Rig::load();
    let local = Local::start(&rig);
    local.tool.file("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    for asked in [["--cache-to", "type=inline"], ["--build-arg", "BUILDKIT_INLINE_CACHE=1"]] {
        let ran = local.build(&[&asked[..], &["ctx"]].concat());
        assert!(
            ran.stderr.contains("An inline cache is part of a pushed image: none was written."),
            "{}",
            ran.stderr
        );
        ran.ok();
    }
    local.build(&["--cache-from", "type=s3,region=r", "ctx"]).fails(2, &["no cache of type `s3` here"]);
}
