//! Registries that only the cluster reaches: the rig's own, whose name no client resolves, and Services of every kind.

use crate::fake_token_service::FakeTokenService;
use crate::registries::Registry;
use crate::rig::{Namespace, Rig};
use crate::running::Running;
use crate::seen::Seen;
use crate::tool::{Ran, Tool, run};
use crate::{fresh, hello};
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// An error about a registry is to come within this.
const TOLD: Duration = Duration::from_secs(60);

/// A tool in a namespace of its own that knows the rig's registry by everything but its name.
struct Bench<'a> {
    rig: &'a Rig,
    space: Namespace,
    tool: Tool,
    key: PathBuf,
    host: String,
}

impl<'a> Bench<'a> {
    fn new(rig: &'a Rig, purpose: &str) -> Self {
        let space = rig.namespace(purpose);
        let tool = Tool::new(rig, space.name());
        let (key, _) = tool.key_pair("k", "");
        let host = rig.get("REGISTRY_SVC").to_owned();
        tool.log_in(&host);
        Self { rig, space, tool, key, host }
    }

    fn ca(&self) -> String {
        format!("{}={}", self.host, self.rig.get("REGISTRY_SVC_CA"))
    }

    /// Makes a builder that knows the registry's CA.
    fn builder(&self) {
        self.tool.buildkit(&["create", "--registry-ca", &self.ca()]).ok();
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        let mut command = self.tool.command(program, arguments);
        command.env("COSIGN_PASSWORD", "");
        run(command)
    }

    fn build(&self, tag: &str, more: &[&str]) -> Ran {
        let key = self.key.to_str().expect("UTF-8");
        let arguments = ["-t", tag, "--push", "--sign", "--cosign-key", key, "--progress", "plain"];
        let context = hello();
        self.run("kubectl-build", &[&arguments[..], more, &[context.to_str().expect("UTF-8")]].concat())
    }

    fn verify(&self, reference: &str, more: &[&str]) -> Ran {
        let key = self.key.to_str().expect("UTF-8");
        self.run("kubectl-buildkit", &[&["verify", "--key", key][..], more, &[reference]].concat())
    }

    /// The flags of somebody with a role of its own.
    fn restricted(&self, rules: &str) -> [String; 2] {
        let name = self.space.name();
        self.rig.apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: restricted, namespace: {name}}}
rules: [{rules}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: restricted, namespace: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: restricted}}
subjects: [{{kind: ServiceAccount, name: restricted, namespace: {name}}}]
"
        ));
        ["--as".to_owned(), format!("system:serviceaccount:{name}:restricted")]
    }
}

/// What building takes, and no way to another namespace.
const BUILDS: &str = "{apiGroups: [''], resources: [pods, events, configmaps], verbs: [get, list, watch]}, \
                      {apiGroups: [''], resources: [pods/exec], verbs: [get, create]}, \
                      {apiGroups: [apps], resources: [deployments, replicasets], verbs: [get, list, watch]}";

#[test]
#[ignore = "needs the rig"]
fn a_signed_push_goes_through_a_services_pod_where_nobody_resolves_its_name() {
    let rig = Rig::load();
    let bench = Bench::new(&rig, "service");
    bench.builder();
    let (other, _) = bench.tool.key_pair("other", "");
    let (name, svc) = (fresh("service"), &bench.host);
    let tag = format!("{svc}/{name}:1");
    let more = ["--sign-scope", "all", "--provenance", "--cosign-key", other.to_str().expect("UTF-8")];
    let ran = bench.build(&tag, &more);
    let way = " through pod `registry-";
    assert_eq!(ran.stderr.matches(way).count(), 1, "it is said once:\n{}", ran.stderr);
    assert!(
        ran.stderr.contains(", port 5000, of the Service `registry` in namespace `registry`"),
        "{}",
        ran.stderr
    );
    let said = ran.ok();
    let seen = Seen::tls(&rig, svc);
    let digest = seen.digest(&name, "1").expect("the tag is there");
    assert_eq!(said, format!("{tag}@{digest}\n"));
    let place = digest.replace(':', "-");
    let signatures = seen.manifest(&name, &format!("{place}.sig")).expect("signatures");
    assert_eq!(signatures["layers"].as_array().expect("layers").len(), 2, "both signed");
    assert!(seen.manifest(&name, &format!("{place}.att")).is_some());

    // Verifying and resuming go the same way, with the registry's settings from the builder or from flags.
    for key in [&bench.key, &other] {
        let arguments = ["verify", "--builder", "buildkit", "--key", key.to_str().expect("UTF-8"), &tag];
        let ran = bench.run("kubectl-buildkit", &arguments);
        assert!(ran.stderr.contains(way), "{}", ran.stderr);
        assert!(ran.ok().contains(&digest));
    }
    let (image, second) = (format!("{svc}/{name}@{digest}"), format!("{svc}/{name}:2"));
    let key = bench.key.to_str().expect("UTF-8");
    let ca = bench.ca();
    let resume = ["sign", "--cosign-key", key, "--registry-ca", &ca, "--tag", &second, &image];
    bench.run("kubectl-buildkit", &resume).ok();
    assert_eq!(seen.digest(&name, "2"), Some(digest));
    // TLS ends here and at the registry: a tunnel vouches for nobody.
    let unknown = format!("the certificate of {svc} is signed by an unknown authority");
    let hint = format!("hint: name its authority with `--registry-ca {svc}=FILE`");
    bench.verify(&tag, &["--registry-via", "service"]).fails(1, &[way, &unknown, &hint]);
    // The daemon needs no such way: without us it would have had none to give.
    bench
        .verify(&tag, &["--registry-ca", &ca, "--registry-via", "direct"])
        .fails(1, &["does not resolve", "hint: "]);
}

#[test]
#[ignore = "needs the rig"]
fn a_signed_push_goes_through_a_builder_that_is_made_for_it() {
    let rig = Rig::load();
    let bench = Bench::new(&rig, "builder");
    let (name, svc) = (fresh("builder"), &bench.host);
    let (tag, ca) = (format!("{svc}/{name}:1"), bench.ca());
    let via = ["--registry-via", "builder", "--registry-ca", &ca];
    let nobody = bench.verify(&tag, &via);
    nobody.fails(1, &["no pod of builder buildkit", "`kubectl buildkit create", "--builder"]);
    let ran = bench.build(&tag, &via);
    let pod = bench.space.kubectl(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]);
    assert!(
        ran.stderr.contains(&format!("connecting to {svc} through pod `{pod}` of the builder")),
        "{}",
        ran.stderr
    );
    ran.ok();
    let digest = Seen::tls(&rig, svc).digest(&name, "1").expect("the tag is there");
    assert!(bench.verify(&tag, &via).ok().contains(&digest));
    // Each connection was a process, and all of them have ended.
    let processes = || bench.space.kubectl(&["exec", &pod, "--", "ps"]);
    crate::tool::eventually("no `nc` is left", Duration::from_secs(20), || {
        (!processes().contains(&format!("nc {}", svc.split(':').next().expect("a host")))).then_some(())
    });
    // The pod's end of the way is no end of TLS.
    let way = format!("through pod `{pod}` of the builder");
    let unknown = format!("the certificate of {svc} is signed by an unknown authority");
    let hint = format!("hint: name its authority with `--registry-ca {svc}=FILE`");
    bench.verify(&tag, &["--registry-via", "builder"]).fails(1, &[&way, &unknown, &hint]);
    let missing = format!("{}/{name}:1", svc.replace("registry.registry", "absent.registry"));
    bench
        .verify(&missing, &via)
        .fails(1, &["host name `absent.registry.svc.cluster.local` does not resolve", &pod]);
    let closed = format!("{}/{name}:1", svc.replace(":5000", ":5001"));
    let began = Instant::now();
    bench.verify(&closed, &via).fails(1, &["registry.registry.svc.cluster.local:5001", &pod, "hint: "]);
    assert!(began.elapsed() < TOLD, "{:?}", began.elapsed());

    // A container without the program: the tools image has one under another name.
    bench.space.kubectl(&["exec", &pod, "--", "sh", "-c", "mv $(which nc) /tmp/nc-away"]);
    bench.verify(&tag, &via).fails(1, &["has no `nc`", &pod, "busybox"]);
}

#[test]
#[ignore = "needs the rig"]
fn who_may_not_forward_ports_goes_through_the_builder_or_is_told_of_the_right() {
    let rig = Rig::load();
    let bench = Bench::new(&rig, "restricted");
    bench.builder();
    let user = bench.restricted(BUILDS);
    let user = [user[0].as_str(), user[1].as_str()];
    let (name, svc) = (fresh("restricted"), &bench.host);
    let tag = format!("{svc}/{name}:1");
    let strict = [&user[..], &["--registry-via", "service"]].concat();
    bench.build(&tag, &strict).fails(
        1,
        &[
            "through the Service `registry` in namespace `registry`",
            "not allowed to get services",
            "kubectl auth can-i",
        ],
    );
    let ran = bench.build(&tag, &user);
    assert!(ran.stderr.contains("of the builder"), "{}", ran.stderr);
    ran.ok();
    assert!(Seen::tls(&rig, svc).digest(&name, "1").is_some());
}

/// Everything but the right to forward, and Services that nobody can forward to.
#[test]
#[ignore = "needs the rig"]
fn a_single_missing_right_and_services_without_pods_are_told_with_what_to_do() {
    let rig = Rig::load();
    let bench = Bench::new(&rig, "unforwarded");
    let space = bench.space.name().to_owned();
    rig.apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: external, namespace: {space}}}
spec: {{type: ExternalName, externalName: r.example, ports: [{{port: 5000}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: bare, namespace: {space}}}
spec: {{ports: [{{port: 5000}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: there, namespace: {space}}}
spec: {{selector: {{app: there}}, ports: [{{port: 5000}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: there, namespace: {space}, labels: {{app: there}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: there, image: {image}, imagePullPolicy: IfNotPresent, command: [sleep, '300']}}]
",
        image = rig.get("BUILDKIT_IMAGE")
    ));
    bench.space.kubectl(&["wait", "--for=condition=Ready", "pod/there", "--timeout=90s"]);
    let user = bench.restricted(&format!(
        "{BUILDS}, {{apiGroups: [''], resources: [services], verbs: [get]}}, \
         {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list]}}"
    ));
    let verify = |name: &str, more: &[&str]| {
        let host = format!("{name}.{space}.svc:5000");
        let user = [user[0].as_str(), user[1].as_str(), "--registry-http", &host];
        bench.verify(&format!("{host}/x:1"), &[&user[..], more].concat())
    };
    let strict = ["--registry-via", "service"];
    let rights = [
        "through pod `there`, port 5000, of the Service `there`",
        "not allowed to create pods/portforward",
        "on `pods/portforward` (the verbs `create` and `get`)",
        "kubectl auth can-i create pods --subresource=portforward",
        "or go through the builder's pod with `--registry-via builder`",
    ];
    verify("there", &strict).fails(1, &rights);
    verify("external", &strict).fails(1, &["is another name for r.example", "`--registry-via builder`"]);
    verify("bare", &strict).fails(1, &["leads to no pods", "`--registry-via builder`"]);
    // Left to choose, it says that there is no builder to go through either.
    verify("there", &[]).fails(1, &["pods/portforward", "no pod of builder buildkit"]);
    verify("external", &[]).fails(1, &["is another name for r.example", "no pod of builder buildkit"]);
}

/// Services that lead to no pod of their own: the builder's pod reaches what is behind them, and what that names.
#[test]
#[ignore = "needs the rig"]
fn a_registry_behind_a_selectorless_service_and_its_token_service_are_reached_by_the_builder() {
    let rig = Rig::load();
    let space = rig.namespace("elsewhere");
    let tool = Tool::new(&rig, space.name());
    let address = rig.get("CLIENT_ADDRESS");
    let (user, password) = (rig.get("REGISTRY_USER"), rig.get("REGISTRY_PASSWORD"));
    let service = FakeTokenService::start(address, user, password);
    let realm = format!("tokens.{}.svc.cluster.local", space.name());
    let auth = service
        .registry_auth(tool.home())
        .replace(&format!("http://{address}:"), &format!("http://{realm}:"));
    let registry = Registry::with_auth(address, &auth);
    let port = |host: &str| host.rsplit(':').next().expect("a port").trim_end_matches("/token").to_owned();
    for (name, port) in [("registry", port(&registry.host)), ("tokens", port(service.realm()))] {
        rig.apply(&format!(
            "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {space}}}
spec: {{ports: [{{port: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: {space}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: ['{address}']}}]
",
            space = space.name()
        ));
    }
    let host = format!("registry.{}.svc.cluster.local:{}", space.name(), port(&registry.host));
    tool.log_in(&host);
    let (key, _) = tool.key_pair("k", "");
    let token_host = format!("{realm}:{}", port(service.realm()));
    let plain = ["--registry-http", &host, "--registry-http", &token_host];
    tool.buildkit(&[&["create"][..], &plain].concat()).ok();
    let name = fresh("elsewhere");
    let tag = format!("{host}/{name}:1");
    let context = hello();
    let arguments = ["-t", &tag, "--push", "--sign", "--cosign-key", key.to_str().expect("UTF-8")];
    let flags = ["--progress", "plain", context.to_str().expect("UTF-8")];
    let mut command = tool.command("kubectl-build", &[&arguments[..], &plain, &flags].concat());
    command.env("COSIGN_PASSWORD", "");
    let ran = run(command);
    for place in [&host, &token_host] {
        let line = format!("connecting to {place} through pod `buildkit-");
        assert!(ran.stderr.contains(&line), "{line:?} is not in:\n{}", ran.stderr);
    }
    ran.ok();
    // The daemon's tokens were fetched by us too, and no password went to it.
    let asked = service.take_asked();
    assert!(asked.iter().all(|one| one.agent.starts_with("kubectl-build/")), "{asked:?}");
    assert!(asked.iter().any(|one| one.scopes.iter().any(|scope| scope.contains("push"))), "{asked:?}");
    let token = service.token(&format!("repository:{name}:pull"));
    assert!(Seen::bearer(&rig, &registry.host, &token).digest(&name, "1").is_some());

    // A daemon outside of the cluster has no pod to go through.
    let arguments = ["-t", &tag, "--push", "--builder", "tcp://127.0.0.1:1", "--registry-via", "builder"];
    let sign = ["--sign", "--cosign-key", key.to_str().expect("UTF-8"), context.to_str().expect("UTF-8")];
    let mut command = tool.command("kubectl-build", &[&arguments[..], &plain, &sign].concat());
    command.env("COSIGN_PASSWORD", "");
    let ran = run(command);
    assert_ne!(ran.code, 0);
    assert!(
        ran.stderr.contains("no pod of a cluster") || ran.stderr.contains("127.0.0.1:1"),
        "{}",
        ran.stderr
    );
}

#[test]
#[ignore = "needs the rig"]
fn each_way_that_leads_nowhere_ends_with_its_name_and_a_hint() {
    let rig = Rig::load();
    let bench = Bench::new(&rig, "nowhere");
    let space = bench.space.name().to_owned();
    rig.apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: unready, namespace: {space}}}
spec: {{selector: {{app: absent}}, ports: [{{port: 5000}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: silent, namespace: {space}}}
spec: {{selector: {{app: silent}}, ports: [{{name: open, port: 80, targetPort: 5000}}, {{name: closed, port: 81, targetPort: 9}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: silent, namespace: {space}, labels: {{app: silent}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: silent
    image: {image}
    imagePullPolicy: IfNotPresent
    # Each connection is held by a process of its own, which says nothing.
    command: [sh, -c, \"while :; do nc -l -p 5000 -e sh -c 'sleep 300 &'; done\"]
",
        image = rig.get("BUILDKIT_IMAGE")
    ));
    bench.space.kubectl(&["wait", "--for=condition=Ready", "pod/silent", "--timeout=90s"]);
    let verify = |host: &str, more: &[&str]| {
        let began = Instant::now();
        let ran = bench.verify(&format!("{host}/x:1"), &[&["--registry-http", host], more].concat());
        assert!(began.elapsed() < TOLD, "after {:?}: {}", began.elapsed(), ran.stderr);
        ran
    };
    let host = |name: &str, port: u16| format!("{name}.{space}.svc:{port}");
    verify(&host("absent", 5000), &[]).fails(
        1,
        &[
            &format!("there is no Service `absent` in namespace `{space}`"),
            &format!("kubectl get services -n {space}"),
        ],
    );
    verify(&host("unready", 5000), &[]).fails(
        1,
        &[
            &format!("the Service `unready` in namespace `{space}` has no pod that is ready on port 5000"),
            "endpointslices",
        ],
    );
    verify(&host("unready", 443), &[]).fails(1, &["has no port 443, only 5000", "kubectl get service"]);
    verify("registry.example.com", &["--registry-via", "service"])
        .fails(1, &["`registry.example.com` is no name of a Service"]);
    verify(&host("silent", 81), &["--registry-via", "service"])
        .fails(1, &["nobody answers", "pod `silent`, port 9, of the Service `silent`", "kubectl get pod"]);
    verify(&host("silent", 80), &[]).fails(
        1,
        &[
            "no answer from",
            "within 30 s",
            "pod `silent`, port 5000, of the Service `silent`",
            "kubectl get pod",
        ],
    );

    // Interrupted, or its pod deleted, while it waits for an answer.
    let waiting = || {
        let (place, key) = (host("silent", 80), bench.key.to_str().expect("UTF-8"));
        let reference = format!("{place}/x:1");
        let arguments = ["verify", "--key", key, "--registry-http", &place, &reference];
        let mut command = bench.tool.command("kubectl-buildkit", &arguments);
        command.env("COSIGN_PASSWORD", "");
        let running = Running::start(command);
        running.until("through pod `silent`");
        std::thread::sleep(Duration::from_secs(1));
        running
    };
    let running = waiting();
    let since = running.signal(Signal::INT);
    running.ends(since, Duration::from_secs(10)).fails(130, &["interrupted"]);
    let running = waiting();
    bench.space.kubectl(&["delete", "pod", "silent", "--grace-period=0", "--force"]);
    running.ends(Instant::now(), TOLD).fails(1, &["Service `silent`", "hint: "]);
}

#[test]
#[ignore = "needs the rig"]
fn a_robots_credentials_come_from_a_service_accounts_pull_secrets() {
    let rig = Rig::load();
    let space = rig.namespace("robot");
    let tool = Tool::new(&rig, space.name());
    let (user, password) = ("org+robot", "a$b:c");
    let hashed =
        rig.command(rig.peer("rigtool")).args(["htpasswd", user, password]).output().expect("it runs");
    let file = tool.file("htpasswd", hashed.stdout);
    let registry = Registry::with_auth(
        rig.get("CLIENT_ADDRESS"),
        &format!("{{htpasswd: {{realm: r, path: {:?}}}}}", file.display().to_string()),
    );
    let host = registry.host.as_str();
    space.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "robot",
        &format!("--docker-server={host}"),
        &format!("--docker-username={user}"),
        &format!("--docker-password={password}"),
    ]);
    space.kubectl(&["create", "serviceaccount", "puller"]);
    let account = format!("{}/puller", space.name());
    let (key, _) = tool.key_pair("k", "");
    let tag = format!("{host}/org/{}:1", fresh("robot"));
    let build = || {
        let arguments = ["-t", &tag, "--push", "--sign", "--registry-http", host, "--cosign-key"];
        let context = hello();
        let more = [
            key.to_str().expect("UTF-8"),
            "--registry-service-account",
            &account,
            context.to_str().expect("UTF-8"),
        ];
        let mut command = tool.command("kubectl-build", &[&arguments[..], &more].concat());
        command.env("COSIGN_PASSWORD", "");
        run(command)
    };
    build().fails(2, &["the service account `puller`", "names no Secret", "imagePullSecrets"]);
    let patch = r#"{"imagePullSecrets":[{"name":"gone"},{"name":"robot"}]}"#;
    space.kubectl(&["patch", "serviceaccount", "puller", "-p", patch]);
    let digest = build().ok();
    let digest = digest.trim().rsplit('@').next().expect("a digest");
    let path = tag.strip_prefix(&format!("{host}/")).expect("of this host").trim_end_matches(":1");
    let seen = Seen::user(&rig, host, user, password);
    assert_eq!(seen.digest(path, "1").as_deref(), Some(digest));
    assert!(seen.manifest(path, &format!("{}.sig", digest.replace(':', "-"))).is_some());
    // Those that it names for its pods' use serve as well. No other type of patch empties a list.
    let patch = r#"{"imagePullSecrets":[],"secrets":[{"name":"robot"}]}"#;
    space.kubectl(&["patch", "serviceaccount", "puller", "--type=merge", "-p", patch]);
    build().ok();
    let absent =
        ["verify", "--key", "k.pub", "--registry-service-account", "absent", "--registry-http", host, &tag];
    tool.buildkit(&absent).fails(3, &["there is no service account `absent`"]);
}

/// A tiny proxy on the tests' own address: it takes any name for that of the registry, and notes the first request of each
/// connection.
struct Proxy {
    address: String,
    asked: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(registry: String) -> Self {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
        let notes = std::sync::Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut from, registry) = (stream.expect("a connection"), registry.clone());
                let notes = std::sync::Arc::clone(&notes);
                std::thread::spawn(move || {
                    let (mut head, mut byte) = (Vec::new(), [0]);
                    while !head.ends_with(b"\r\n\r\n") && from.read(&mut byte).is_ok_and(|read| read == 1) {
                        head.push(byte[0]);
                    }
                    notes.lock().expect("no holder panics").push(crate::rig::text(&head));
                    let mut to = std::net::TcpStream::connect(&registry).expect("the registry");
                    // A registry takes requests with whole URLs, too.
                    to.write_all(&head).expect("it listens");
                    let (mut back, mut forth) =
                        (to.try_clone().expect("a copy"), from.try_clone().expect("a copy"));
                    std::thread::spawn(move || std::io::copy(&mut back, &mut forth));
                    std::io::copy(&mut from, &mut to)
                });
            }
        });
        Self { address, asked }
    }
}

#[test]
#[ignore = "needs the rig"]
fn the_environments_proxy_leads_to_a_registry() {
    let rig = Rig::load();
    let tool = Tool::new(&rig, "default");
    let registry = Registry::with_referrers();
    let base = format!("{}/proxied:1", registry.host);
    let copy =
        rig.command(rig.peer("crane")).args(["copy", "--insecure", rig.get("BASE_REF"), &base]).output();
    assert!(copy.expect("crane runs").status.success());
    let (key, public) = tool.key_pair("k", "");
    let digest =
        rig.command(rig.peer("crane")).args(["digest", "--insecure", &base]).output().expect("crane runs");
    let digest = crate::rig::text(&digest.stdout).trim().to_owned();
    let proxy = Proxy::start(registry.host.clone());
    let asked = |verb: &str, more: &[&str], no_proxy: &str| {
        let host = "registry.example";
        let reference = format!("{host}/proxied@{digest}");
        let arguments = [&[verb, "--registry-http", host][..], more, &[reference.as_str()]].concat();
        let mut command = tool.command("kubectl-buildkit", &arguments);
        command.env("COSIGN_PASSWORD", "").env("http_proxy", format!("http://me:hidden@{}", proxy.address));
        command.env("NO_PROXY", no_proxy);
        run(command)
    };
    let ran = asked("sign", &["--cosign-key", key.to_str().expect("UTF-8")], "");
    let line = format!("connecting to registry.example:80 through the proxy {}", proxy.address);
    assert!(ran.stderr.contains(&line) && !ran.stderr.contains("hidden"), "{}", ran.stderr);
    ran.ok();
    asked("verify", &["--key", public.to_str().expect("UTF-8")], "").ok();
    let mut heads = proxy.asked.lock().expect("no holder panics").clone();
    // A connection may not be needed any more once it stands.
    heads.retain(|head| !head.is_empty());
    assert!(!heads.is_empty());
    for head in heads {
        assert!(head.contains(" http://registry.example/v2/"), "{head}");
    }
    asked("verify", &["--key", public.to_str().expect("UTF-8")], ".example").fails(1, &["does not resolve"]);
}
