use super::Bench;
use kubectl_build::cluster::builder::{self, BuilderSpec, ModeChoice};
use kubectl_build::cluster::watch::{self, LossKind, PodWatch};
use kubectl_build::cluster::{ClusterError, WaitError};
use std::time::{Duration, Instant};

/// Expects that the builder is given up for this reason, and not much later than it should be.
async fn gives_up(bench: &Bench, spec: &BuilderSpec, reason: &str, within: Duration) -> (String, String) {
    let began = Instant::now();
    let error = builder::ensure(&bench.connection, spec, "", &bench.events).await.unwrap_err();
    let took = began.elapsed();
    assert!(took < within, "{reason} took {took:?}");
    let hint = error.hint().unwrap_or_default();
    let ClusterError::Wait(WaitError::Stuck { reason: found, source, .. }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(&**found, reason, "{source}");
    assert!(error.to_string().contains(reason), "{error}");
    (source.to_string(), hint)
}

const TEN_AND_SOME: Duration = Duration::from_secs(45);
const AT_ONCE: Duration = Duration::from_secs(20);

#[tokio::test]
#[ignore = "needs a cluster"]
async fn an_image_that_is_not_there() {
    let mut bench = Bench::new("image").await;
    let image = format!("{}/no/such:image", bench.rig.get("REGISTRY"));
    let spec = BuilderSpec { image: Some(image.clone()), ..bench.spec() };
    let (text, hint) = gives_up(&bench, &spec, "ImagePullBackOff", TEN_AND_SOME).await;
    assert!(text.contains(&image), "{text}");
    assert!(hint.contains("--image"), "{hint}");
    let told = bench.told();
    assert!(told.contains("Failed to pull image"), "{told}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_volume_that_cannot_be_mounted() {
    let bench = Bench::new("mount").await;
    bench.namespace.kubectl(&["create", "configmap", "certs", "--from-literal=a=b"]);
    let spec = BuilderSpec { custom_config: Some("certs".to_owned()), ..bench.spec() };
    builder::create(&bench.connection, &spec, &bench.events).await.unwrap();
    bench.namespace.kubectl(&["delete", "configmap", "certs"]);
    bench.namespace.kubectl(&["delete", "pod", "--all", "--wait=false"]);
    let (text, hint) = gives_up(&bench, &spec, "FailedMount", TEN_AND_SOME * 2).await;
    assert!(text.contains("configmap \"certs\" not found"), "{text}");
    assert!(hint.contains("create the ConfigMap"), "{hint}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_pod_that_no_node_takes() {
    let bench = Bench::new("nowhere").await;
    let spec = bench.spec();
    let there = builder::ensure(&bench.connection, &spec, "", &bench.events).await.unwrap();
    let patch = r#"{"spec":{"template":{"spec":{"nodeSelector":{"no":"node"}}}}}"#;
    bench.namespace.kubectl(&["patch", "deployment", "buildkit", "-p", patch]);
    // The old pod takes builds until it is told to end.
    let old = format!("pod/{}", there.pod.name);
    bench.namespace.kubectl(&["wait", "--for=delete", &old, "--timeout=90s"]);
    let (text, _) = gives_up(&bench, &spec, "Unschedulable", TEN_AND_SOME).await;
    assert!(text.contains("nodes are available"), "{text}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_daemon_that_ends_at_once() {
    let bench = Bench::new("crash").await;
    let spec = BuilderSpec { flags: vec!["--root=/proc/no-such-root".to_owned()], ..bench.spec() };
    let (text, _) = gives_up(&bench, &spec, "CrashLoopBackOff", TEN_AND_SOME).await;
    assert!(text.contains("no-such-root"), "its last words are quoted: {text}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_quota() {
    let bench = Bench::new("quota").await;
    bench.namespace.kubectl(&["create", "quota", "none", "--hard=pods=0"]);
    // The quota counts once its controller has seen it.
    bench.namespace.kubectl(&[
        "wait",
        "quota",
        "none",
        "--for=jsonpath={.status.hard.pods}=0",
        "--timeout=30s",
    ]);
    let (text, hint) = gives_up(&bench, &bench.spec(), "FailedCreate", AT_ONCE).await;
    assert!(text.contains("exceeded quota"), "{text}");
    assert!(hint.contains("kubectl describe resourcequota -n"), "{hint}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pod_security() {
    let bench = Bench::new("security").await;
    let name = bench.namespace.name().to_owned();
    bench.rig.kubectl(&["label", "namespace", &name, "pod-security.kubernetes.io/enforce=baseline"]);
    for (mode, builder) in [("userns", "one"), ("privileged", "two"), ("rootless", "three")] {
        let mode: ModeChoice = mode.parse().unwrap();
        let spec = BuilderSpec { name: builder.to_owned(), mode, ..bench.spec() };
        let (text, hint) = gives_up(&bench, &spec, "FailedCreate", AT_ONCE).await;
        assert!(text.contains("violates PodSecurity"), "{text}");
        let label = format!(
            "kubectl label --overwrite namespace {name} pod-security.kubernetes.io/enforce=privileged"
        );
        assert!(hint.contains(&label), "{hint}");
        // A second build meets the same refusal, though its event is old by now.
        gives_up(&bench, &spec, "FailedCreate", AT_ONCE).await;
    }
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn the_builder_timeout_ends_all() {
    let bench = Bench::new("timeout").await;
    let spec = BuilderSpec { timeout: Duration::from_millis(700), ..bench.spec() };
    let began = Instant::now();
    let error = builder::ensure(&bench.connection, &spec, "", &bench.events).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(matches!(error, ClusterError::Wait(WaitError::Timeout { .. })), "{error:?}");
    assert!(error.to_string().contains("waiting"), "{error}");
    // What was begun goes on, and the next build has it.
    builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_pod_that_is_deleted_is_reported_lost() {
    let bench = Bench::new("lost").await;
    let builder = builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
    let mut watch = PodWatch::start(&bench.connection, &builder.pod);
    let quiet = tokio::time::timeout(Duration::from_secs(3), watch.lost()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    bench.namespace.kubectl(&["delete", "pod", &builder.pod.name, "--wait=false"]);
    let loss =
        tokio::time::timeout(Duration::from_secs(15), watch.lost()).await.expect("it is noticed in time");
    let text = loss.to_string();
    assert!(
        text.contains(&builder.pod.name) && text.contains(builder.pod.node.as_deref().unwrap()),
        "{text}"
    );
    assert!(loss.hint().is_some());
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_daemon_that_is_killed_is_reported_with_how_it_ended() {
    let bench = Bench::new("killed").await;
    let builder = builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
    let mut watch = PodWatch::start(&bench.connection, &builder.pod);
    let signal = bench.rig.get("CLUSTER_SIGNAL").to_owned();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = std::process::Command::new(signal)
        .args(["KILL", "pod", bench.namespace.name(), &builder.pod.name])
        .status()
        .expect("the signal is sent");
    assert!(status.success());
    let loss =
        tokio::time::timeout(Duration::from_secs(15), watch.lost()).await.expect("it is noticed in time");
    assert_eq!(loss.kind, LossKind::Ended);
    assert!(loss.to_string().contains("container buildkitd"), "{loss}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_pod_that_is_only_silent_is_examined() {
    let bench = Bench::new("silent").await;
    let builder = builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
    let loss = watch::examine(&bench.connection, &builder.pod).await;
    assert_eq!(loss.kind, LossKind::Silent);
    let (name, node) = (&builder.pod.name, builder.pod.node.as_deref().unwrap());
    assert_eq!(
        loss.to_string(),
        format!("pod {name} on node {node} no longer answers: the cluster still takes it for ready")
    );
    bench.namespace.kubectl(&["delete", "pod", name, "--grace-period=1"]);
    assert_eq!(watch::examine(&bench.connection, &builder.pod).await.kind, LossKind::Deleted);
}
