use super::Bench;
use kubectl_build::cluster::ClusterError;
use kubectl_build::cluster::builder::{self, BuilderSpec, Mode, ModeChoice};
use kubectl_build::cluster::buildkitd::{RegistryHost, RegistrySettings};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const CUSTOM: &str = "debug = true\n[registry.\"from-the-file\"]\nhttp = true\n";

/// Runs a `RUN` step on the daemon of a builder that was made with the rig's plain registry as `http`.
fn builds(bench: &Bench, builder: &builder::Builder) {
    let base = bench.rig.get("BASE_REF");
    let script = format!(
        "mkdir -p /tmp/c && printf 'FROM {base}\\nRUN id -u && cat /proc/self/uid_map && touch /made\\n' > /tmp/c/Dockerfile && \
         buildctl build --progress plain --frontend dockerfile.v0 --local context=/tmp/c --local dockerfile=/tmp/c 2>&1"
    );
    let log = bench.in_pod(builder, &script);
    assert!(log.contains("touch /made") && log.contains("DONE"), "{log}");
}

fn http_registry(bench: &Bench) -> RegistrySettings {
    let settings = RegistryHost { http: true, ..RegistryHost::default() };
    let hosts = BTreeMap::from([(bench.rig.get("REGISTRY").to_owned(), settings)]);
    RegistrySettings { hosts, ..RegistrySettings::default() }
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn auto_gives_a_user_namespace_where_the_cluster_has_them() {
    let mut bench = Bench::new("auto").await;
    let spec = BuilderSpec { registries: http_registry(&bench), ..bench.spec() };
    let builder = builder::ensure(&bench.connection, &spec, "/home/me/app", &bench.events).await.unwrap();
    assert_eq!(builder.mode, Some(Mode::UserNs), "{}", bench.told());
    assert_eq!(builder.registries, Some(http_registry(&bench)), "what was set is read back");
    let pod = ["get", "pod", builder.pod.name.as_str(), "-o"];
    let security = bench.namespace.kubectl(
        &[&pod[..], &["jsonpath={.spec.hostUsers} {.spec.containers[0].securityContext.privileged}"]]
            .concat(),
    );
    assert_eq!(security.trim(), "false");
    let map = bench.in_pod(&builder, "cat /proc/self/uid_map");
    assert_ne!(
        map.split_whitespace().nth(1),
        Some("0"),
        "root in the pod is somebody else on the node: {map}"
    );
    builds(&bench, &builder);

    let again = builder::ensure(&bench.connection, &spec, "/home/me/app", &bench.events).await.unwrap();
    assert_eq!(again.pod, builder.pod);
    let told = bench.told();
    assert!(told.contains("Scheduled") && told.contains("Started"), "the cluster's events are shown: {told}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn other_modes_build_too() {
    let bench = Bench::new("modes").await;
    let rootless = bench.rig.maybe("BUILDKIT_ROOTLESS_IMAGE").map(str::to_owned);
    for (mode, image) in [(Mode::Privileged, bench.spec().image), (Mode::Rootless, rootless)] {
        let image = Some(image.unwrap_or_else(|| panic!("target/cluster/env names no image for {mode}")));
        let registries = http_registry(&bench);
        let spec = BuilderSpec {
            name: mode.to_string(),
            mode: ModeChoice::Exactly(mode),
            image,
            registries,
            ..bench.spec()
        };
        let created = builder::create(&bench.connection, &spec, &bench.events).await.unwrap();
        assert_eq!((created.existed, created.builder.mode), (false, Some(mode)));
        builds(&bench, &created.builder);
        builder::remove(&bench.connection, &spec.name, &bench.events).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_new_builder_is_known_to_be_ready_within_a_second() {
    let bench = Bench::new("cold").await;
    let builder = builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
    let told = std::time::SystemTime::now();
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].lastTransitionTime}";
    let ready = bench.namespace.kubectl(&["get", "pod", &builder.pod.name, "-o", path]);
    let ready: jiff::Timestamp = ready.trim().parse().unwrap();
    let late = told.duration_since(ready.into()).unwrap_or_default();
    // The cluster's times are whole seconds, rounded down.
    assert!(late < Duration::from_secs(2), "{late:?} after the pod was ready");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn first_builds_at_the_same_time_share_a_builder() {
    let bench = Bench::new("race").await;
    let spec = bench.spec();
    let racers = (0..5).map(|_| builder::ensure(&bench.connection, &spec, "", &bench.events));
    let builders = futures_util::future::join_all(racers).await;
    let pods: Vec<_> = builders.into_iter().map(|builder| builder.unwrap().pod).collect();
    assert!(pods.iter().all(|pod| *pod == pods[0]), "{pods:?}");
    let names =
        bench.namespace.kubectl(&["get", "deployments,configmaps,poddisruptionbudgets", "-o", "name"]);
    assert_eq!(names.lines().filter(|name| name.ends_with("/buildkit")).count(), 3, "{names}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn builders_are_listed_with_and_without_pods_and_removed() {
    let bench = Bench::new("list").await;
    assert_eq!(builder::list(&bench.connection).await.unwrap(), []);
    let one = builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
    let idle = BuilderSpec { name: "idle".to_owned(), ..bench.spec() };
    builder::ensure(&bench.connection, &idle, "", &bench.events).await.unwrap();
    bench.namespace.kubectl(&["scale", "deployment", "idle", "--replicas=0"]);
    bench.namespace.kubectl(&[
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "kubectl-build.github.io/builder=idle",
        "--timeout=60s",
    ]);

    let listed = builder::list(&bench.connection).await.unwrap();
    let short: Vec<_> =
        listed.iter().map(|builder| (builder.name.as_str(), builder.status.as_str())).collect();
    assert_eq!(short, [("buildkit", "ready"), ("idle", "no pods (scaled to 0)")]);
    let pod = &listed[0].pods[0];
    assert_eq!((&pod.name, &pod.node, pod.status.as_str()), (&one.pod.name, &one.pod.node, "ready"));
    assert!(pod.platforms.iter().any(|platform| platform.starts_with("linux/")), "{:?}", pod.platforms);
    assert!(listed[1].pods.is_empty());

    let error = builder::remove(&bench.connection, "nope", &bench.events).await.unwrap_err();
    assert!(
        matches!(&error, ClusterError::Unknown { known, .. } if known == &["buildkit", "idle"]),
        "{error:?}"
    );
    bench.namespace.kubectl(&["create", "deployment", "theirs", "--image=localhost/base:dev"]);
    let error = builder::remove(&bench.connection, "theirs", &bench.events).await.unwrap_err();
    assert!(matches!(error, ClusterError::Foreign { .. }), "{error:?}");

    for name in ["buildkit", "idle"] {
        builder::remove(&bench.connection, name, &bench.events).await.unwrap();
    }
    let names =
        bench.namespace.kubectl(&["get", "deployments,configmaps,poddisruptionbudgets", "-o", "name"]);
    let left: Vec<_> = names.lines().filter(|name| !name.contains("kube-root-ca")).collect();
    assert_eq!(left, ["deployment.apps/theirs"]);
}

/// The predecessor's TestConfigMapSuite, all four cases.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn config_maps_are_made_kept_used_and_replaced() {
    for (case, (there, given)) in
        [(false, false), (true, false), (false, true), (true, true)].into_iter().enumerate()
    {
        let mut bench = Bench::new(&format!("config-{case}")).await;
        let content = || {
            bench.namespace.kubectl(&[
                "get",
                "configmap",
                "configmaptest",
                "-o",
                "jsonpath={.data.buildkitd\\.toml}",
            ])
        };
        if there {
            bench.namespace.kubectl(&[
                "create",
                "configmap",
                "configmaptest",
                "--from-literal=buildkitd.toml=# mine",
            ]);
        }
        let config = given.then(|| CUSTOM.to_owned());
        let flags = vec!["--debug".to_owned()];
        let spec = BuilderSpec { name: "configmaptest".to_owned(), config, flags, ..bench.spec() };
        let created = builder::create(&bench.connection, &spec, &bench.events).await.unwrap();
        match (there, given) {
            (false, false) => {
                assert!(content().contains("Default buildkitd configuration."), "{}", content());
            }
            (true, false) => assert_eq!(content(), "# mine"),
            (_, true) => {
                assert_eq!(content(), CUSTOM);
                assert!(created.builder.registries.as_ref().unwrap().hosts["from-the-file"].http);
                assert_eq!(bench.in_pod(&created.builder, "cat /etc/buildkit/buildkitd.toml"), CUSTOM);
            }
        }
        builder::remove(&bench.connection, "configmaptest", &bench.events).await.unwrap();
        let left = bench.namespace.kubectl(&[
            "get",
            "configmap",
            "configmaptest",
            "--ignore-not-found",
            "-o",
            "name",
        ]);
        assert_eq!(!left.is_empty(), there && !given, "one of ours goes, one of the user's stays");
        let told = bench.told();
        assert_eq!(told.contains("is taken over"), there && given, "{told}");
    }
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_custom_config_is_mounted_and_its_certificates_are_read_back() {
    let bench = Bench::new("custom").await;
    let certificate = std::fs::read(bench.rig.get("REGISTRY_SVC_CA")).unwrap();
    let file = format!("--from-file=cert.pem={}", bench.rig.get("REGISTRY_SVC_CA"));
    let config = Some("[registry.\"reg:5000\"]\nca = [\"/etc/config/cert.pem\"]\n".to_owned());
    let spec = BuilderSpec { config, custom_config: Some("certs".to_owned()), ..bench.spec() };
    let error = builder::create(&bench.connection, &spec, &bench.events).await.unwrap_err();
    assert!(matches!(error, ClusterError::NoConfigMap { .. }), "{error:?}");

    bench.namespace.kubectl(&["create", "configmap", "certs", &file]);
    let created = builder::create(&bench.connection, &spec, &bench.events).await.unwrap();
    assert_eq!(created.builder.registries.as_ref().unwrap().hosts["reg:5000"].ca_pem, [certificate]);
    assert!(bench.in_pod(&created.builder, "cat /etc/config/cert.pem").contains("BEGIN CERTIFICATE"));

    let again = builder::create(&bench.connection, &spec, &bench.events).await.unwrap();
    assert!(again.existed);
    let other = BuilderSpec { flags: vec!["--debug".to_owned()], ..spec };
    let error = builder::create(&bench.connection, &other, &bench.events).await.unwrap_err();
    assert!(matches!(error, ClusterError::Exists { .. }), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn finding_a_builder_that_is_there_is_quick() {
    let bench = Bench::new("quick").await;
    let spec = bench.spec();
    builder::ensure(&bench.connection, &spec, "", &bench.events).await.unwrap();
    let began = Instant::now();
    builder::ensure(&bench.connection, &spec, "", &bench.events).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
