use super::Bench;
use kubectl_build::cluster::builder::{self, BuilderSpec, ModeChoice};
use kubectl_build::cluster::watch::{self, LossKind, PodWatch};
use kubectl_build::cluster::{ClusterError, WaitError};
use kubectl_build::event::Event;
use std::time::{Duration, Instant};

/// What a person was told of a builder that was given up.
struct GivenUp {
    text: String,
    hint: String,
    told: String,
}

/// Expects that the builder is given up for this reason, `patience` after the first event that has this word.
async fn gives_up(
    bench: &mut Bench,
    spec: &BuilderSpec,
    reason: &str,
    bad: &str,
    patience: Duration,
) -> GivenUp {
    let (began, mut first, mut told) = (Instant::now(), None, String::new());
    let ensured = {
        let Bench { connection, events, seen, .. } = bench;
        let mut ensuring = std::pin::pin!(builder::ensure(connection, spec, "", events));
        loop {
            tokio::select! {
                biased;
                Some(event) = seen.recv() => {
                    if let Event::Output { bytes, .. } = event {
                        let line = String::from_utf8_lossy(&bytes);
                        if line.contains(&format!(": {bad}: ")) {
                            first.get_or_insert_with(Instant::now);
                        }
                        told.push_str(&line);
                    }
                }
                ensured = &mut ensuring => break ensured,
            }
        }
    };
    let error = ensured.unwrap_err();
    let hint = error.hint().unwrap_or_default();
    let ClusterError::Wait(WaitError::Stuck { reason: found, source, .. }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(&**found, reason, "{source}");
    assert!(error.to_string().contains(reason), "{error}");
    // The Deployment's own conditions may come before any event; then all of the wait counts.
    let took = first.unwrap_or(began).elapsed();
    // What the pod's status says may come a moment before the event.
    let least = patience.saturating_sub(Duration::from_secs(2));
    assert!((least..patience + TOLERANCE).contains(&took), "{reason} took {took:?}");
    GivenUp { text: source.to_string(), hint, told }
}

/// Changes the builder's pods after the first one was ready, and waits until that is gone.
async fn change(bench: &Bench, patch: &str) {
    let there = builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
    bench.namespace.kubectl(&["patch", "deployment", "buildkit", "-p", patch]);
    // It takes builds until it is told to end.
    let old = format!("pod/{}", there.pod.name);
    bench.namespace.kubectl(&["wait", "--for=delete", &old, "--timeout=90s"]);
}

/// A pod template that fits no node.
const NOWHERE: &str = r#"{"spec":{"template":{"spec":{"nodeSelector":{"no":"node"}}}}}"#;
const TEN: Duration = Duration::from_secs(10);
const AT_ONCE: Duration = Duration::ZERO;
const TOLERANCE: Duration = Duration::from_secs(10);

#[tokio::test]
#[ignore = "needs a cluster"]
async fn an_image_that_is_not_there() {
    let mut bench = Bench::new("image").await;
    let image = format!("{}/no/such:image", bench.rig.get("REGISTRY"));
    let spec = BuilderSpec { image: Some(image.clone()), ..bench.spec() };
    let GivenUp { text, hint, told } = gives_up(&mut bench, &spec, "ImagePullBackOff", "Failed", TEN).await;
    assert!(text.contains(&image), "{text}");
    assert!(hint.contains("--image"), "{hint}");
    assert!(told.contains("Failed to pull image"), "{told}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_volume_that_cannot_be_mounted() {
    let mut bench = Bench::new("mount").await;
    bench.namespace.kubectl(&["create", "configmap", "certs", "--from-literal=a=b"]);
    let spec = BuilderSpec { custom_config: Some("certs".to_owned()), ..bench.spec() };
    builder::create(&bench.connection, &spec, &bench.events).await.unwrap();
    bench.namespace.kubectl(&["delete", "configmap", "certs"]);
    bench.namespace.kubectl(&["delete", "pod", "--all", "--wait=false"]);
    let GivenUp { text, hint, .. } = gives_up(&mut bench, &spec, "FailedMount", "FailedMount", TEN).await;
    assert!(text.contains("configmap \"certs\" not found"), "{text}");
    assert!(hint.contains("create the ConfigMap"), "{hint}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_pod_that_no_node_takes() {
    let mut bench = Bench::new("nowhere").await;
    let spec = bench.spec();
    change(&bench, NOWHERE).await;
    let GivenUp { text, .. } = gives_up(&mut bench, &spec, "Unschedulable", "FailedScheduling", TEN).await;
    assert!(text.contains("nodes are available"), "{text}");
}

/// No autoscaler runs here, so the test says its word.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_pod_for_which_a_node_is_on_its_way_is_waited_for() {
    let bench = Bench::new("autoscaled").await;
    change(&bench, NOWHERE).await;
    let items = ["get", "pods", "-o", "jsonpath={.items[*].metadata.name} {.items[*].metadata.uid}"];
    let mut found = String::new();
    for _ in 0..100 {
        found = bench.namespace.kubectl(&items);
        if found.len() > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (name, uid) = found.split_once(' ').expect("one pod");
    let now = jiff::Timestamp::now().strftime("%FT%TZ").to_string();
    let event = serde_json::json!({
        "apiVersion": "v1", "kind": "Event", "type": "Normal", "count": 1,
        "metadata": { "name": "scale-up", "namespace": bench.namespace.name() },
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": bench.namespace.name(), "name": name, "uid": uid,
        },
        "reason": "TriggeredScaleUp", "message": "pod triggered scale-up: [{pool 1->2 (max: 5)}]",
        "source": { "component": "cluster-autoscaler" }, "firstTimestamp": now, "lastTimestamp": now,
    });
    bench.rig.apply(&event.to_string());
    let spec = BuilderSpec { timeout: Duration::from_secs(25), ..bench.spec() };
    let error = builder::ensure(&bench.connection, &spec, "", &bench.events).await.unwrap_err();
    assert!(matches!(error, ClusterError::Wait(WaitError::Timeout { .. })), "{error:?}");
    assert!(error.to_string().contains(&format!("waiting for a new node for pod `{name}`")), "{error}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_container_that_cannot_be_made() {
    let mut bench = Bench::new("make").await;
    let spec = bench.spec();
    let profile = r#"{"name":"buildkitd","securityContext":{"seccompProfile":{"type":"Localhost","localhostProfile":"none.json"}}}"#;
    change(&bench, &format!(r#"{{"spec":{{"template":{{"spec":{{"containers":[{profile}]}}}}}}}}"#)).await;
    let GivenUp { text, hint, .. } = gives_up(&mut bench, &spec, "CreateContainerError", "Failed", TEN).await;
    assert!(text.contains("none.json"), "{text}");
    let namespace = bench.namespace.name();
    assert!(
        hint.contains(&format!("kubectl buildkit create buildkit -n {namespace} --mode privileged")),
        "{hint}"
    );
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_daemon_that_ends_at_once() {
    let mut bench = Bench::new("crash").await;
    let spec = BuilderSpec { flags: vec!["--root=/proc/no-such-root".to_owned()], ..bench.spec() };
    let GivenUp { text, .. } = gives_up(&mut bench, &spec, "CrashLoopBackOff", "BackOff", AT_ONCE).await;
    assert!(text.contains("no-such-root"), "its last words are quoted: {text}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_quota() {
    let mut bench = Bench::new("quota").await;
    bench.namespace.kubectl(&["create", "quota", "none", "--hard=pods=0"]);
    // The quota counts once its controller has seen it.
    bench.namespace.kubectl(&[
        "wait",
        "quota",
        "none",
        "--for=jsonpath={.status.hard.pods}=0",
        "--timeout=30s",
    ]);
    let spec = bench.spec();
    let GivenUp { text, hint, .. } =
        gives_up(&mut bench, &spec, "FailedCreate", "FailedCreate", AT_ONCE).await;
    assert!(text.contains("exceeded quota"), "{text}");
    assert!(hint.contains("kubectl describe resourcequota -n"), "{hint}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pod_security() {
    let mut bench = Bench::new("security").await;
    let name = bench.namespace.name().to_owned();
    bench.rig.kubectl(&["label", "namespace", &name, "pod-security.kubernetes.io/enforce=baseline"]);
    for (mode, builder) in [("userns", "one"), ("privileged", "two"), ("rootless", "three")] {
        let mode: ModeChoice = mode.parse().unwrap();
        let spec = BuilderSpec { name: builder.to_owned(), mode, ..bench.spec() };
        let GivenUp { text, hint, .. } =
            gives_up(&mut bench, &spec, "FailedCreate", "FailedCreate", AT_ONCE).await;
        assert!(text.contains("violates PodSecurity"), "{text}");
        let label = format!(
            "kubectl label --overwrite namespace {name} pod-security.kubernetes.io/enforce=privileged"
        );
        assert!(hint.contains(&label), "{hint}");
        // A second build meets the same refusal, though its event is old by now.
        let began = Instant::now();
        let error = builder::ensure(&bench.connection, &spec, "", &bench.events).await.unwrap_err();
        assert!(matches!(error, ClusterError::Wait(WaitError::Stuck { .. })), "{error:?}");
        assert!(began.elapsed() < TOLERANCE, "{:?}", began.elapsed());
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
