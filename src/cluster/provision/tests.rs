//! Provisioning against a fake API server: a service at the library's tower boundary that keeps objects in memory
//! and fails as a test tells it. The real one is tested in `integration/cluster.rs`.

use super::*;
use crate::event::Event;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

type Objects = BTreeMap<String, Value>;
/// Looks at a request before it is served; an answer goes back instead.
type Fault = dyn Fn(&Method, &str, bool) -> Option<(StatusCode, Value)> + Send + Sync;

#[derive(Clone)]
struct FakeApi {
    objects: Arc<Mutex<Objects>>,
    fault: Arc<Fault>,
    /// Whether `hostUsers` survives in pods and dry runs.
    user_namespaces: bool,
}

impl FakeApi {
    fn new() -> Self {
        Self { objects: Arc::default(), fault: Arc::new(|_, _, _| None), user_namespaces: true }
    }

    fn fault(
        self,
        fault: impl Fn(&Method, &str, bool) -> Option<(StatusCode, Value)> + Send + Sync + 'static,
    ) -> Self {
        Self { fault: Arc::new(fault), ..self }
    }

    fn with(self, path: &str, object: Value) -> Self {
        self.objects.lock().unwrap().insert(path.to_owned(), object);
        self
    }

    fn has(&self, path: &str) -> bool {
        self.objects.lock().unwrap().contains_key(path)
    }

    fn get(&self, path: &str) -> Value {
        self.objects.lock().unwrap().get(path).cloned().unwrap_or(Value::Null)
    }

    fn connection(&self) -> Connection {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let bytes = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
                let (status, value) = api.serve(&parts.method, &parts.uri, &bytes);
                let body = if value.is_null() { Vec::new() } else { value.to_string().into_bytes() };
                let response = Response::builder().status(status).body(Body::from(body));
                Ok::<_, std::io::Error>(response.unwrap())
            }
        });
        Connection::over(kube::Client::new(service, "ci"), "ci", "https://fake")
    }

    fn serve(&self, method: &Method, uri: &http::Uri, bytes: &[u8]) -> (StatusCode, Value) {
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        let dry_run = query.contains("dryRun=All");
        if let Some(answer) = (self.fault)(method, path, dry_run) {
            return answer;
        }
        if query.contains("watch=true") {
            // A watch that ends at once: the client asks on.
            return (StatusCode::OK, Value::Null);
        }
        let mut objects = self.objects.lock().unwrap();
        match *method {
            Method::GET => match objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None if is_collection(path) => {
                    let prefix = format!("{path}/");
                    let items: Vec<_> = objects
                        .iter()
                        .filter(|(key, _)| key.starts_with(&prefix))
                        .map(|(_, object)| object.clone())
                        .collect();
                    (StatusCode::OK, json!({ "metadata": { "resourceVersion": "1" }, "items": items }))
                }
                None => status(404, "NotFound", "not found"),
            },
            Method::POST => {
                let mut object: Value = serde_json::from_slice(bytes).unwrap();
                let key = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                if objects.contains_key(&key) {
                    return status(409, "AlreadyExists", "already exists");
                }
                if !self.user_namespaces && path.ends_with("/deployments") {
                    object["spec"]["template"]["spec"].as_object_mut().unwrap().remove("hostUsers");
                }
                object["metadata"]["uid"] = json!(key);
                if !dry_run {
                    if path.ends_with("/deployments") {
                        let (name, pod) = start(&object);
                        objects.insert(format!("/api/v1/namespaces/ci/pods/{name}"), pod);
                    }
                    objects.insert(key, object.clone());
                }
                (StatusCode::CREATED, object)
            }
            Method::PUT => {
                let object: Value = serde_json::from_slice(bytes).unwrap();
                objects.insert(path.to_owned(), object.clone());
                (StatusCode::OK, object)
            }
            Method::DELETE => match objects.remove(path) {
                Some(_) => {
                    if path.ends_with("/deployments/buildkit") {
                        objects.retain(|key, _| !key.contains("/pods/"));
                    }
                    (StatusCode::OK, json!({ "kind": "Status", "status": "Success" }))
                }
                None => status(404, "NotFound", "not found"),
            },
            _ => panic!("{method} {path}"),
        }
    }
}

fn is_collection(path: &str) -> bool {
    ["/pods", "/deployments", "/events", "/nodes"].iter().any(|kind| path.ends_with(kind))
}

/// Plays the controllers: a Deployment has a ready pod at once.
fn start(deployment: &Value) -> (String, Value) {
    let name = format!("{}-7d4b9c-p1", deployment["metadata"]["name"].as_str().unwrap());
    let mut pod = deployment["spec"]["template"].clone();
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["uid"] = json!("u1");
    pod["spec"]["nodeName"] = json!("node-1");
    pod["status"] = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    (name, pod)
}

fn status(code: u16, reason: &str, message: &str) -> (StatusCode, Value) {
    let value =
        json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message });
    (StatusCode::from_u16(code).unwrap(), value)
}

fn spec() -> BuilderSpec {
    BuilderSpec::named("buildkit", Duration::from_secs(5))
}

fn notes(receiver: &mut tokio::sync::mpsc::UnboundedReceiver<Event>) -> Vec<String> {
    std::iter::from_fn(|| receiver.try_recv().ok())
        .filter_map(|event| if let Event::Note(text) = event { Some(text) } else { None })
        .collect()
}

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/ci/deployments/buildkit";
const CONFIG_MAP: &str = "/api/v1/namespaces/ci/configmaps/buildkit";
const BUDGET: &str = "/apis/policy/v1/namespaces/ci/poddisruptionbudgets/buildkit";

fn able_node(able: bool) -> Value {
    let handlers = json!([{ "name": "", "features": { "userNamespaces": able } }]);
    json!({ "metadata": { "name": "node-1" }, "spec": {}, "status": { "runtimeHandlers": handlers } })
}

fn foreign_config() -> Value {
    json!({ "metadata": { "name": "buildkit", "resourceVersion": "5" }, "data": { "buildkitd.toml": "debug = true\n" } })
}

#[tokio::test]
async fn the_first_build_makes_a_builder_and_the_second_finds_it() {
    let api = FakeApi::new().with("/api/v1/nodes/node-1", able_node(true));
    let (events, mut seen) = Events::channel();
    let builder = ensure(&api.connection(), &spec(), "/home/x", &events).await.unwrap();
    assert_eq!((builder.mode, builder.pod.node.as_deref()), (Some(Mode::UserNs), Some("node-1")));
    assert_eq!(builder.registries, Some(RegistrySettings::default()));
    assert!(api.has(DEPLOYMENT) && api.has(CONFIG_MAP) && api.has(BUDGET));
    assert_eq!(notes(&mut seen), Vec::<String>::new());

    // The second looks at pods and configuration only.
    let api = api.fault(|method, path, _| {
        let allowed = *method == Method::GET && (path.ends_with("/pods") || path == CONFIG_MAP);
        (!allowed).then(|| panic!("{method} {path}"))
    });
    let again = ensure(&api.connection(), &spec(), "/home/x", &events).await.unwrap();
    assert_eq!(again.pod, builder.pod);
}

#[tokio::test]
async fn without_user_namespaces_it_is_privileged_and_says_so() {
    for (user_namespaces, able) in [(false, true), (true, false)] {
        let api = FakeApi { user_namespaces, ..FakeApi::new() }.with("/api/v1/nodes/node-1", able_node(able));
        let (events, mut seen) = Events::channel();
        let builder = ensure(&api.connection(), &spec(), "", &events).await.unwrap();
        assert_eq!(builder.mode, Some(Mode::Privileged));
        let notes = notes(&mut seen);
        assert!(notes.len() == 1 && notes[0].starts_with("builder buildkit is privileged: "), "{notes:?}");
    }
}

#[tokio::test]
async fn a_pod_that_lost_its_user_namespace_is_deleted() {
    let exact = BuilderSpec { mode: ModeChoice::Exactly(Mode::UserNs), ..spec() };
    let api = FakeApi { user_namespaces: false, ..FakeApi::new() };
    let error = ensure(&api.connection(), &exact, "", &Events::off()).await.unwrap_err();
    assert!(matches!(error, ClusterError::Wait(WaitError::NoUserNamespace { .. })), "{error:?}");
    assert!(error.hint().unwrap().contains("--mode privileged"));
    assert!(!api.has(DEPLOYMENT));
}

#[tokio::test]
async fn whoever_comes_second_uses_what_the_first_made() {
    // The object appears between the look and the creation.
    let api = FakeApi::new();
    let first = spec();
    ensure(&api.connection(), &first, "", &Events::off()).await.unwrap();
    let hidden = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&hidden);
    let racing = api.clone().fault(move |method, path, _| {
        let hide = *method == Method::GET && (path.ends_with("/pods") || path == DEPLOYMENT);
        let early = count.fetch_add(usize::from(hide), std::sync::atomic::Ordering::Relaxed) < 2;
        match (hide && early, path.ends_with("/pods")) {
            (true, true) => Some((StatusCode::OK, json!({ "metadata": {}, "items": [] }))),
            (true, false) => Some(status(404, "NotFound", "not found")),
            _ => None,
        }
    });
    let builder = ensure(&racing.connection(), &first, "", &Events::off()).await.unwrap();
    assert_eq!(builder.pod.name, "buildkit-7d4b9c-p1");
    assert!(hidden.load(std::sync::atomic::Ordering::Relaxed) >= 2);
}

#[tokio::test]
async fn objects_of_others_are_not_touched() {
    let foreign = json!({ "metadata": { "name": "buildkit", "labels": { "app": "mine" } }, "spec": { "selector": {}, "template": {} } });
    let api = FakeApi::new().with(DEPLOYMENT, foreign.clone());
    for error in [
        ensure(&api.connection(), &spec(), "", &Events::off()).await.unwrap_err(),
        create(&api.connection(), &spec(), &Events::off()).await.unwrap_err(),
        remove(&api.connection(), "buildkit", &Events::off()).await.unwrap_err(),
    ] {
        let text =
            "the deployment `buildkit` in namespace `ci` was not made by kubectl-build and stays as it is";
        assert_eq!(error.to_string(), text);
        assert!(error.hint().unwrap().contains("kubectl delete -n ci deployment buildkit"));
    }
    assert_eq!(api.get(DEPLOYMENT), foreign);
    assert!(!api.has(CONFIG_MAP));
}

#[tokio::test]
async fn default_create_writes_a_default_config_and_rm_removes_it() {
    let api = FakeApi::new();
    create(&api.connection(), &spec(), &Events::off()).await.unwrap();
    let toml = api.get(CONFIG_MAP)["data"]["buildkitd.toml"].as_str().unwrap().to_owned();
    assert!(toml.contains("Default buildkitd configuration."));
    remove(&api.connection(), "buildkit", &Events::off()).await.unwrap();
    assert!(!api.has(CONFIG_MAP) && !api.has(DEPLOYMENT) && !api.has(BUDGET));
    let error = remove(&api.connection(), "buildkit", &Events::off()).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no builder `buildkit` in namespace `ci`");
}

#[tokio::test]
async fn a_config_that_was_there_is_used_as_it_is_and_stays() {
    let api = FakeApi::new().with(CONFIG_MAP, foreign_config());
    let (events, mut seen) = Events::channel();
    create(&api.connection(), &spec(), &events).await.unwrap();
    assert_eq!(api.get(CONFIG_MAP), foreign_config());
    remove(&api.connection(), "buildkit", &events).await.unwrap();
    assert_eq!(api.get(CONFIG_MAP), foreign_config());
    let notes = notes(&mut seen);
    assert!(
        notes.iter().any(|note| note.contains("uses the ConfigMap `buildkit` that is there, as it is")),
        "{notes:?}"
    );
    assert!(notes.iter().any(|note| note.contains("the ConfigMap `buildkit` stays")), "{notes:?}");
}

#[tokio::test]
async fn a_given_config_is_used_and_takes_over_one_that_was_there() {
    let given = BuilderSpec { config: Some("[registry.\"r:5000\"]\nhttp = true\n".into()), ..spec() };
    for api in [FakeApi::new(), FakeApi::new().with(CONFIG_MAP, foreign_config())] {
        let there = api.has(CONFIG_MAP);
        let (events, mut seen) = Events::channel();
        let created = create(&api.connection(), &given, &events).await.unwrap();
        assert!(created.builder.registries.unwrap().hosts["r:5000"].http);
        assert_eq!(api.get(CONFIG_MAP)["data"]["buildkitd.toml"], json!(given.config));
        assert_eq!(notes(&mut seen).iter().any(|note| note.contains("taken over")), there);
        remove(&api.connection(), "buildkit", &events).await.unwrap();
        assert!(!api.has(CONFIG_MAP));
    }
}

#[tokio::test]
async fn create_twice_is_fine_with_the_same_settings_only() {
    let api = FakeApi::new();
    let first = BuilderSpec { image: Some("i:1".into()), ..spec() };
    assert!(!create(&api.connection(), &first, &Events::off()).await.unwrap().existed);
    assert!(create(&api.connection(), &first, &Events::off()).await.unwrap().existed);
    let other = BuilderSpec {
        image: Some("i:2".into()),
        config: Some("debug = true".into()),
        flags: vec!["--debug".into()],
        ..spec()
    };
    let error = create(&api.connection(), &other, &Events::off()).await.unwrap_err();
    let text = "builder `buildkit` exists already in namespace `ci`, with image `i:1` and other buildkitd flags and another configuration";
    assert_eq!(error.to_string(), text);
    // A build takes what is there.
    ensure(&api.connection(), &other, "", &Events::off()).await.unwrap();
}

#[tokio::test]
async fn a_missing_custom_config_is_told_before_anything_is_made() {
    let api = FakeApi::new();
    let custom = BuilderSpec { custom_config: Some("certs".into()), ..spec() };
    let error = create(&api.connection(), &custom, &Events::off()).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no ConfigMap `certs` in namespace `ci`");
    assert!(!api.has(CONFIG_MAP) && !api.has(DEPLOYMENT));
}

#[tokio::test]
async fn a_builder_without_a_pod_keeps_its_registry_settings() {
    let certs = json!({ "metadata": { "name": "certs" }, "data": { "cert.pem": "custom" } });
    let api = FakeApi::new().with("/api/v1/namespaces/ci/configmaps/certs", certs);
    assert!(matches!(find(&api.connection(), &spec(), "").await.unwrap(), Found::Absent));
    let config = "[registry.\"r:5000\"]\nca = [\"/etc/config/cert.pem\"]\n";
    let custom = BuilderSpec { custom_config: Some("certs".into()), config: Some(config.into()), ..spec() };
    create(&api.connection(), &custom, &Events::off()).await.unwrap();
    api.objects.lock().unwrap().retain(|key, _| !key.contains("/pods/"));
    let found = find(&api.connection(), &spec(), "").await.unwrap();
    assert!(matches!(found, Found::Waiting { node: None, architecture: None, .. }), "{found:?}");
    let by_name = registries(&api.connection(), "buildkit").await.unwrap();
    for registries in [found.registries().cloned().unwrap(), by_name] {
        assert_eq!(registries.hosts["r:5000"].ca_pem, [b"custom".to_vec()]);
    }
    // Who may read nothing but pods goes without.
    let blind = api.fault(|_, path, _| {
        (!path.ends_with("/pods")).then(|| status(403, "Forbidden", "x is forbidden: User cannot"))
    });
    let found = find(&blind.connection(), &spec(), "").await.unwrap();
    assert!(matches!(found, Found::Absent));
    assert_eq!(registries(&blind.connection(), "buildkit").await.unwrap(), RegistrySettings::default());
}

#[tokio::test]
async fn a_sibling_is_made_like_the_first_and_goes_with_it() {
    let api = FakeApi::new();
    let spec = BuilderSpec { image: Some("i:1".into()), architecture: Some("amd64".into()), ..spec() };
    let sibling = spec.sibling("arm64");
    ensure(&api.connection(), &sibling, "", &Events::off()).await.unwrap();
    let (first, second) = (api.get(DEPLOYMENT), api.get(&format!("{DEPLOYMENT}-arm64")));
    for (object, architecture) in [(&first, "amd64"), (&second, "arm64")] {
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(pod["nodeSelector"]["kubernetes.io/arch"], architecture);
        assert_eq!(pod["containers"][0]["image"], "i:1");
        assert_eq!(pod["volumes"][1]["configMap"]["name"], "buildkit", "one configuration for both");
    }
    // Somebody's Deployment of that name is nobody's sibling.
    api.objects.lock().unwrap().retain(|key, _| !key.contains("/pods/"));
    let foreign = api.clone().with(&format!("{DEPLOYMENT}-s390x"), json!({ "metadata": { "name": "x" } }));
    let error = ensure(&foreign.connection(), &spec.sibling("s390x"), "", &Events::off()).await.unwrap_err();
    assert!(matches!(error, ClusterError::Foreign { .. }), "{error:?}");

    remove(&api.connection(), "buildkit", &Events::off()).await.unwrap();
    assert!(!api.has(DEPLOYMENT) && !api.has(&format!("{DEPLOYMENT}-arm64")) && !api.has(CONFIG_MAP));
    assert!(api.has(&format!("{DEPLOYMENT}-s390x")));
}

#[tokio::test]
async fn what_rbac_lacks_is_named_and_nothing_is_left_behind() {
    let message = "deployments.apps is forbidden: User \"u\" cannot create resource \"deployments\"";
    let api = FakeApi::new().fault(move |method, path, dry_run| {
        let refused = *method == Method::POST && path.ends_with("/deployments") && !dry_run;
        refused.then(|| status(403, "Forbidden", message))
    });
    let error = ensure(&api.connection(), &spec(), "", &Events::off()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "you are not allowed to create deployments.apps `buildkit` in namespace `ci`"
    );
    assert!(
        error.hint().unwrap().contains("kubectl auth can-i create deployments.apps -n ci"),
        "{:?}",
        error.hint()
    );
    assert!(!api.has(CONFIG_MAP));
}

#[tokio::test]
async fn rights_that_are_only_nice_to_have_are_not_needed() {
    let api = FakeApi::new().fault(|method, path, _| {
        let nice =
            path.ends_with("/nodes") || path.ends_with("/events") || path.contains("poddisruptionbudgets");
        let nice = nice || *method == Method::GET && path.ends_with("/deployments");
        nice.then(|| status(403, "Forbidden", "x is forbidden: User cannot"))
    });
    let builder = ensure(&api.connection(), &spec(), "", &Events::off()).await.unwrap();
    assert_eq!(builder.mode, Some(Mode::UserNs), "the dry run decides alone");
}

#[tokio::test]
async fn the_wait_has_an_end_and_says_for_what() {
    let quick = BuilderSpec { timeout: Duration::from_millis(300), ..spec() };
    let api = FakeApi::new();
    create(&api.connection(), &spec(), &Events::off()).await.unwrap();
    api.objects.lock().unwrap().retain(|key, _| !key.contains("/pods/"));
    let error = ensure(&api.connection(), &quick, "", &Events::off()).await.unwrap_err();
    let text = "builder `buildkit` is not ready after 0 s: still waiting for a pod of builder `buildkit` to be created";
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn watches_that_end_at_once_are_not_asked_for_in_a_loop() {
    let watches = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let api = FakeApi::new();
    create(&api.connection(), &spec(), &Events::off()).await.unwrap();
    api.objects.lock().unwrap().retain(|key, _| !key.contains("/pods/"));
    let count = Arc::clone(&watches);
    let counting = api.fault(move |_, _, _| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        None
    });
    let brief = BuilderSpec { timeout: Duration::from_millis(1200), ..spec() };
    let error = ensure(&counting.connection(), &brief, "", &Events::off()).await.unwrap_err();
    assert!(matches!(error, ClusterError::Wait(WaitError::Timeout { .. })), "{error:?}");
    // Three lists, and three watches every half second.
    let asked = watches.load(std::sync::atomic::Ordering::Relaxed);
    assert!((6..30).contains(&asked), "{asked} requests in 1.2 s");
}

#[tokio::test]
async fn a_builder_scaled_to_nothing_is_refused_at_once() {
    let api = FakeApi::new();
    create(&api.connection(), &spec(), &Events::off()).await.unwrap();
    api.objects.lock().unwrap().retain(|key, _| !key.contains("/pods/"));
    api.objects.lock().unwrap().get_mut(DEPLOYMENT).unwrap()["spec"]["replicas"] = json!(0);
    for error in [
        ensure(&api.connection(), &spec(), "", &Events::off()).await.unwrap_err(),
        create(&api.connection(), &spec(), &Events::off()).await.unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "builder `buildkit` in namespace `ci` is scaled to 0");
        assert!(error.hint().unwrap().contains("`kubectl scale deployment buildkit -n ci --replicas=1`"));
    }
}

#[test]
fn names_are_checked() {
    for name in ["default", "", "Über", "-a", "a-", "a.b", &"a".repeat(41)] {
        assert!(BuilderSpec { name: (*name).to_owned(), ..spec() }.check().is_err(), "{name}");
    }
    let error = BuilderSpec { name: "default".into(), ..spec() }.check().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("default is a reserved name and cannot be used to identify builder instance")
    );
    assert!(spec().check().is_ok());
}
