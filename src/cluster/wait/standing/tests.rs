use super::*;
use rstest::rstest;
use serde_json::{Value, json};

fn pod(uid: &str, status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": format!("buildkit-7d4b9c-{uid}"), "uid": uid },
        "spec": { "containers": [], "nodeName": "node-1", "hostUsers": false },
        "status": status,
    }))
    .unwrap()
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({ "phase": "Pending", "containerStatuses": [{
        "name": "buildkitd", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "waiting": { "reason": reason, "message": message } },
    }]})
}

fn unschedulable() -> Value {
    json!({ "phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available",
    }]})
}

fn ready() -> Value {
    json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] })
}

fn event(kind: &str, name: &str, uid: &str, reason: &str, message: &str) -> Event {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = COUNT.fetch_add(1, Ordering::Relaxed);
    serde_json::from_value(json!({
        "metadata": { "name": format!("e{id}"), "uid": format!("e{id}") },
        "involvedObject": { "kind": kind, "name": name, "uid": uid },
        "reason": reason, "message": message, "count": 1,
    }))
    .unwrap()
}

fn pod_event(uid: &str, reason: &str, message: &str) -> Event {
    event("Pod", &format!("buildkit-7d4b9c-{uid}"), uid, reason, message)
}

fn standing(status: Value) -> (Standing, Instant) {
    let mut standing = Standing::new("buildkit", "ci", false);
    standing.apply_pods(Change::Reset(vec![pod("p1", status)]));
    (standing, Instant::now())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Expects that nothing happens before the tenth second and then the reason.
fn stands_ten_seconds(mut standing: Standing, now: Instant, reason: &str) -> Obstacle {
    assert_eq!(standing.verdict(now), Verdict::Wait(Some(now + seconds(10))));
    assert_eq!(standing.verdict(now + seconds(9)), Verdict::Wait(Some(now + seconds(10))));
    match standing.verdict(now + seconds(10)) {
        Verdict::Stuck(obstacle) => {
            assert_eq!(obstacle.reason, reason);
            obstacle
        }
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case("ImagePullBackOff", "ImagePullBackOff")]
#[case("ErrImagePull", "ImagePullBackOff")]
#[case("InvalidImageName", "ImagePullBackOff")]
#[case("CreateContainerError", "CreateContainerError")]
#[case("CreateContainerConfigError", "CreateContainerError")]
fn container_reasons_stand_ten_seconds(#[case] waits: &str, #[case] reason: &str) {
    let (standing, now) = standing(waiting(waits, "no such thing"));
    let obstacle = stands_ten_seconds(standing, now, reason);
    assert_eq!(obstacle.text, "no such thing");
    assert!(obstacle.hint("buildkit", "ci").is_some());
}

#[test]
fn words_that_alternate_are_one_reason() {
    let (mut standing, now) = standing(waiting("ErrImagePull", "x"));
    standing.verdict(now);
    standing.apply_pods(Change::Applied(pod("p1", waiting("ImagePullBackOff", "x"))));
    assert!(matches!(standing.verdict(now + seconds(10)), Verdict::Stuck(_)));
}

#[test]
fn progress_starts_the_clock_anew() {
    let (mut standing, now) = standing(waiting("ErrImagePull", "x"));
    standing.verdict(now);
    standing.apply_pods(Change::Applied(pod("p1", waiting("ContainerCreating", ""))));
    assert_eq!(standing.verdict(now + seconds(9)), Verdict::Wait(None));
    standing.apply_pods(Change::Applied(pod("p1", waiting("CreateContainerError", "y"))));
    let later = now + seconds(12);
    assert_eq!(standing.verdict(later), Verdict::Wait(Some(later + seconds(10))));
}

#[test]
fn a_failed_mount_stands_until_something_follows_it() {
    let (mut standing, now) = standing(waiting("ContainerCreating", ""));
    let line =
        standing.apply_event(&pod_event("p1", "FailedMount", "configmap \"certs\" not found")).unwrap();
    assert_eq!(line, "pod buildkit-7d4b9c-p1: FailedMount: configmap \"certs\" not found");
    assert_eq!(standing.verdict(now), Verdict::Wait(Some(now + seconds(10))));
    standing.apply_event(&pod_event("p1", "Pulling", "pulling"));
    assert_eq!(standing.verdict(now + seconds(30)), Verdict::Wait(None));

    standing.apply_event(&pod_event("p1", "FailedMount", "configmap \"certs\" not found"));
    let obstacle = stands_ten_seconds(standing, now + seconds(60), "FailedMount");
    assert!(obstacle.hint("buildkit", "ci").unwrap().starts_with("create the ConfigMap in namespace `ci`"));
}

#[test]
fn an_unschedulable_pod_waits_while_a_node_is_on_its_way() {
    let (mut standing, now) = standing(unschedulable());
    assert_eq!(standing.verdict(now), Verdict::Wait(Some(now + seconds(10))));
    standing.apply_event(&pod_event("p1", "TriggeredScaleUp", "pod triggered scale-up"));
    assert_eq!(standing.verdict(now + seconds(60)), Verdict::Wait(None));
    standing.apply_event(&pod_event("p1", "NotTriggerScaleUp", "pod didn't trigger scale-up"));
    stands_ten_seconds(standing, now + seconds(61), "Unschedulable");
}

#[rstest]
#[case("pods \"x\" is forbidden: exceeded quota: q", "resourcequota")]
#[case(
    "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\"",
    "pod-security.kubernetes.io/enforce=privileged"
)]
#[case("admission webhook \"w\" denied the request: no", "policy")]
fn refusals_end_the_wait_at_once(#[case] text: &str, #[case] hint: &str) {
    for by_event in [true, false] {
        let mut standing = Standing::new("buildkit", "ci", false);
        standing.apply_pods(Change::Reset(Vec::new()));
        if by_event {
            let line =
                standing.apply_event(&event("ReplicaSet", "buildkit-7d4b9c", "rs", "FailedCreate", text));
            assert!(line.unwrap().contains(text));
        } else {
            let deployment = serde_json::from_value(json!({
                "metadata": { "name": "buildkit" },
                "status": { "conditions": [{ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": text }] },
            }));
            standing.apply_deployments(Change::Applied(deployment.unwrap()));
        }
        let Verdict::Stuck(obstacle) = standing.verdict(Instant::now()) else { panic!("{text} is final") };
        assert_eq!((obstacle.reason.as_str(), obstacle.text.as_str()), ("FailedCreate", text));
        assert!(
            obstacle.hint("buildkit", "ci").unwrap().contains(hint),
            "{:?}",
            obstacle.hint("buildkit", "ci")
        );
    }
}

#[test]
fn events_of_others_do_not_count() {
    let mut standing = Standing::new("buildkit", "ci", false);
    standing.apply_pods(Change::Reset(Vec::new()));
    let text = "pods \"x\" is forbidden: exceeded quota: q";
    for (kind, name) in [
        ("ReplicaSet", "buildkit-other-7d4b9c"),
        ("ReplicaSet", "web-7d4b9c"),
        ("ReplicaSet", "buildkitx-7d4b9c"),
        ("Deployment", "buildkit-other"),
        ("Job", "buildkit-7d4b9c"),
    ] {
        assert_eq!(
            standing.apply_event(&event(kind, name, "u", "FailedCreate", text)),
            None,
            "{kind} {name}"
        );
    }
    assert_eq!(standing.verdict(Instant::now()), Verdict::Wait(None));
}

#[test]
fn events_from_before_count_for_pods_that_are_there() {
    let (mut standing, now) = standing(waiting("ContainerCreating", ""));
    let old = pod_event("p1", "FailedMount", "no such volume");
    let refusal = event("ReplicaSet", "buildkit-7d4b9c", "rs", "FailedCreate", "exceeded quota");
    let gone = pod_event("p0", "FailedMount", "another pod's");
    let lines = standing.known_events(vec![old.clone(), refusal, gone]);
    assert_eq!(lines, ["pod buildkit-7d4b9c-p1: FailedMount: no such volume"]);
    assert_eq!(standing.apply_event(&old), None, "once is enough");
    standing.known_events(vec![pod_event("p2", "Scheduled", "to node-1")]);
    let lines = standing.apply_pods(Change::Applied(pod("p2", waiting("ContainerCreating", ""))));
    assert_eq!(lines, ["pod buildkit-7d4b9c-p2: Scheduled: to node-1"]);
    standing.apply_pods(Change::Deleted(pod("p2", waiting("ContainerCreating", ""))));
    stands_ten_seconds(standing, now, "FailedMount");
}

#[test]
fn a_crash_is_final() {
    let status = json!({ "phase": "Running", "containerStatuses": [{
        "name": "buildkitd", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
        "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } },
        "lastState": { "terminated": { "exitCode": 1, "reason": "Error" } },
    }]});
    let (mut standing, now) = standing(status);
    let Verdict::Stuck(obstacle) = standing.verdict(now) else { panic!("it is final") };
    assert_eq!(obstacle.text, "buildkitd ends at once: Error, exit code 1");
    assert!(obstacle.has_log);
}

/// The kubelet goes to and fro between these for a container that runc refuses.
#[test]
fn a_container_that_cannot_start_is_told_in_the_runtimes_words() {
    let ended = |message: &str| json!({ "terminated": { "exitCode": 128, "reason": "StartError", "message": message } });
    let status = |state: Value, last: Value| {
        json!({ "phase": "Running", "containerStatuses": [{
            "name": "buildkitd", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
            "state": state, "lastState": last,
        }]})
    };
    let crash = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } });
    let words = "runc create failed: exec: \"--config\": executable file not found in $PATH";
    let (mut standing, now) = standing(waiting("RunContainerError", words));
    assert_eq!(standing.verdict(now), Verdict::Wait(Some(now + seconds(10))));
    standing.apply_pods(Change::Applied(pod("p1", status(ended(words), json!({})))));
    assert_eq!(standing.verdict(now + seconds(1)), Verdict::Wait(Some(now + seconds(10))));
    standing.apply_pods(Change::Applied(pod("p1", status(crash.clone(), ended(words)))));
    let Verdict::Stuck(obstacle) = standing.verdict(now + seconds(10)) else {
        panic!("it stood long enough")
    };
    assert_eq!((obstacle.reason.as_str(), obstacle.text.as_str()), ("CreateContainerError", words));
    assert!(!obstacle.has_log);
    let line = "`kubectl buildkit rm bk -n ci && kubectl buildkit create bk -n ci --image IMAGE`";
    assert!(obstacle.hint("bk", "ci").unwrap().ends_with(line), "{:?}", obstacle.hint("bk", "ci"));

    let mut standing = Standing::new("buildkit", "ci", true);
    let refused = status(crash, ended("runc create failed: uid mapping: operation not permitted"));
    standing.apply_pods(Change::Reset(vec![pod("p1", refused)]));
    let obstacle = stands_ten_seconds(standing, now, "CreateContainerError");
    assert!(
        obstacle.hint("bk", "ci").unwrap().contains("kubectl buildkit create bk -n ci --mode privileged")
    );
}

#[test]
fn a_node_out_of_touch_is_an_obstacle() {
    let conditions = |reason: &str| {
        json!({ "phase": "Running", "conditions": [
            { "type": "Ready", "status": "False", "reason": reason },
            { "type": "ContainersReady", "status": "True" },
        ], "containerStatuses": [{
            "name": "buildkitd", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": { "running": {} },
        }]})
    };
    let (gated, now) = standing(conditions("ReadinessGatesNotReady"));
    let mut gated = gated;
    assert_eq!(gated.verdict(now), Verdict::Wait(None));
    let (silent, now) = standing(conditions(""));
    let obstacle = stands_ten_seconds(silent, now, "NodeNotReady");
    assert_eq!(obstacle.silent_node.as_deref(), Some("node-1"));
    assert!(obstacle.hint("buildkit", "ci").unwrap().contains("kubectl describe node node-1"));
}

#[test]
fn pods_from_before_the_deployment_do_not_count() {
    let made = |uid: &str, time: &str, status: Value| {
        let mut pod = pod(uid, status);
        pod.metadata.creation_timestamp = Some(serde_json::from_value(json!(time)).unwrap());
        pod
    };
    let born = serde_json::from_value(json!("2026-01-01T00:00:10Z")).unwrap();
    let mut standing = Standing::new("buildkit", "ci", true).born(Some(born));
    let mut exposed = made("p0", "2026-01-01T00:00:09Z", ready());
    exposed.spec.as_mut().unwrap().host_users = None;
    standing.apply_pods(Change::Reset(vec![exposed.clone()]));
    standing.apply_pods(Change::Applied(exposed));
    let now = Instant::now();
    assert_eq!(standing.verdict(now), Verdict::Wait(None));
    standing.apply_pods(Change::Applied(made("p1", "2026-01-01T00:00:10Z", ready())));
    assert_eq!(standing.verdict(now), Verdict::Ready);
}

#[test]
fn a_pod_without_its_user_namespace_is_never_used() {
    let mut standing = Standing::new("buildkit", "ci", true);
    let mut exposed = pod("p1", ready());
    exposed.spec.as_mut().unwrap().host_users = None;
    standing.apply_pods(Change::Reset(vec![exposed]));
    let verdict = standing.verdict(Instant::now());
    assert_eq!(verdict, Verdict::NoUserNamespace("buildkit-7d4b9c-p1".to_owned()));
    standing.apply_pods(Change::Applied(pod("p1", ready())));
    assert_eq!(standing.verdict(Instant::now()), Verdict::Ready);
}

#[test]
fn it_says_what_it_waits_for() {
    let mut standing = Standing::new("buildkit", "ci", false);
    assert_eq!(standing.doing(), "looking for the pods of builder `buildkit`");
    standing.apply_pods(Change::Reset(Vec::new()));
    assert_eq!(standing.doing(), "waiting for a pod of builder `buildkit` to be created");
    standing.apply_pods(Change::Applied(pod("p1", waiting("ContainerCreating", ""))));
    assert_eq!(standing.doing(), "waiting on node `node-1` for the container of pod `buildkit-7d4b9c-p1`");
    standing.apply_event(&pod_event("p1", "Pulling", "Pulling image"));
    assert_eq!(standing.doing(), "pulling the builder's image on node `node-1` for pod `buildkit-7d4b9c-p1`");
}

#[test]
fn a_builder_that_is_removed_is_not_waited_for() {
    let mut standing = Standing::new("buildkit", "ci", false);
    let deployment: Deployment =
        serde_json::from_value(json!({ "metadata": { "name": "buildkit" } })).unwrap();
    standing.apply_deployments(Change::Reset(Vec::new()));
    assert_eq!(standing.verdict(Instant::now()), Verdict::Wait(None), "it may be about to come");
    standing.apply_deployments(Change::Applied(deployment.clone()));
    standing.apply_deployments(Change::Deleted(deployment));
    assert_eq!(standing.verdict(Instant::now()), Verdict::Removed);
}
