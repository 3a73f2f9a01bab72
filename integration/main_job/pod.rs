//! In a pod: no kubeconfig, no home, a read-only root, an unprivileged user; what is there is a service account.

use crate::fresh;
use crate::rig::{Rig, text};
use crate::seen::Seen;
use crate::tool::{Tool, binary};
use std::path::Path;

const JOB: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: ci, namespace: NAMESPACE}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: ci, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: kubectl-build}
subjects: [{kind: ServiceAccount, name: ci, namespace: NAMESPACE}]
---
apiVersion: v1
kind: Pod
metadata: {name: ci, namespace: NAMESPACE}
spec:
  serviceAccountName: ci
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532}
  containers:
  - name: ci
    image: IMAGE
    imagePullPolicy: IfNotPresent
    command: [sleep, "3600"]
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    volumeMounts: [{name: work, mountPath: /scratch}, {name: results, mountPath: /tekton/results}]
  volumes: [{name: work, emptyDir: {}}, {name: results, emptyDir: {}}]
"#;

#[test]
#[ignore = "needs the rig"]
fn a_pod_builds_pushes_and_signs_with_its_service_account() {
    let rig = Rig::load();
    let space = rig.namespace("pod");
    let tool = Tool::new(&rig, space.name());
    let role = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/rbac.yaml"))
        .expect("a file");
    let role = tool.file("rbac.yaml", role);
    space.kubectl(&["apply", "-f", role.to_str().expect("UTF-8")]);
    rig.apply(&JOB.replace("NAMESPACE", space.name()).replace("IMAGE", rig.get("TOOLS_IMAGE")));
    space.kubectl(&["wait", "--for=condition=Ready", "pod/ci", "--timeout=90s"]);
    let (key, public) = tool.key_pair("cosign", "pw");
    space.kubectl(&[
        "create",
        "secret",
        "generic",
        "signer",
        &format!("--from-file=cosign.key={}", key.display()),
        "--from-literal=cosign.password=pw",
    ]);

    // The binaries go in by exec: the image knows nothing of them.
    for (name, binary) in [("kubectl-build", binary()), ("cosign", rig.peer("cosign"))] {
        let mut copy = rig.command(rig.peer("kubectl"));
        let script = format!("cat > /scratch/{name} && chmod 755 /scratch/{name}");
        copy.args(["exec", "-i", "-n", space.name(), "ci", "--", "sh", "-c", &script]);
        let file = std::fs::File::open(binary).expect("the binary");
        assert!(copy.stdin(file).status().expect("kubectl runs").success());
    }

    let (registry, name) = (rig.get("REGISTRY"), fresh("pod"));
    let run = |script: &str| {
        let output = rig.try_kubectl(&["exec", "-n", space.name(), "ci", "--", "sh", "-c", script]);
        assert!(output.status.success(), "{script}\n{}\n{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    run("mkdir /scratch/ctx && printf 'FROM scratch\\nCOPY Dockerfile /a\\n' > /scratch/ctx/Dockerfile");
    let build = |arguments: &str| {
        run(&format!(
            "cd /scratch/ctx && env -i KUBERNETES_SERVICE_HOST=$KUBERNETES_SERVICE_HOST \
             KUBERNETES_SERVICE_PORT=$KUBERNETES_SERVICE_PORT KUBECTL_BUILD_BUILDER_IMAGE={} \
             /scratch/kubectl-build --push --sign --cosign-key k8s://{}/signer {arguments} .",
            rig.get("BUILDKIT_IMAGE"),
            space.name()
        ))
    };
    build(&format!("-t {registry}/{name}:1 --registry-http {registry}"));
    let seen = Seen::plain(&rig);
    let digest = seen.digest(&name, "1").expect("the tag is there");
    assert!(seen.manifest(&name, &format!("{}.sig", digest.replace(':', "-"))).is_some());
    // What Tekton Chains joins as URL@DIGEST: every byte counts.
    let result = |name: &str| run(&format!("cat /tekton/results/{name}"));
    assert_eq!(result("IMAGE_URL"), format!("{registry}/{name}:1"));
    assert_eq!(result("IMAGE_DIGEST"), digest);
    assert_eq!(result("IMAGES"), format!("{registry}/{name}@{digest}"));
    // Chains' own parser (go-containerregistry's `name.NewDigest`) finds the image by both ways.
    let joined = format!("{}@{}", result("IMAGE_URL"), result("IMAGE_DIGEST"));
    for image in [joined].iter().map(String::as_str).chain(result("IMAGES").split([',', '\n'])) {
        let output = rig.command(rig.peer("crane")).args(["digest", "--insecure", image]).output();
        assert_eq!(text(&output.expect("crane runs").stdout).trim(), digest, "{image}");
    }

    // The predecessor's TestBuildWithPush, signed: a registry that only pods resolve, with TLS of its own and a
    // login from a Secret. Its CA is the builder's to know.
    let svc = rig.get("REGISTRY_SVC");
    let ca = format!("{svc}={}", rig.get("REGISTRY_SVC_CA"));
    tool.buildkit(&["create", "svc", "--registry-ca", &ca]).ok();
    let (user, password) = (rig.get("REGISTRY_USER"), rig.get("REGISTRY_PASSWORD"));
    space.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "regtest",
        &format!("--docker-server=https://{svc}"),
        &format!("--docker-username={user}"),
        &format!("--docker-password={password}"),
    ]);
    // Who may not list nodes has the builder's own word for what it runs.
    let said =
        build(&format!("--platform linux/amd64 -t {svc}/{name}:1 --builder svc --registry-secret regtest"));
    let digest = Seen::tls(&rig, svc).digest(&name, "1").expect("the tag is there");
    assert_eq!(said, format!("{svc}/{name}:1@{digest}\n"));
    // Without a docker configuration the pull secrets of the pod's own account are the pod's.
    space.kubectl(&["patch", "serviceaccount", "ci", "-p", r#"{"imagePullSecrets":[{"name":"regtest"}]}"#]);
    build(&format!("-t {svc}/{name}:2 --builder svc"));
    assert!(Seen::tls(&rig, svc).digest(&name, "2").is_some());
    let (ca, public) = (read(rig.get("REGISTRY_SVC_CA")), read(&public));
    let verify = "HOME=/scratch ./cosign verify --key k.pub --insecure-ignore-tlog --registry-cacert ca.pem";
    let verified = run(&format!(
        "cd /scratch && echo '{ca}' > ca.pem && echo '{public}' > k.pub && \
         {verify} --registry-username {user} --registry-password {password} {svc}/{name}@{digest}"
    ));
    assert!(verified.contains(&digest), "{verified}");
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).expect("a file")
}
