//! In a pod: no kubeconfig, no home, a read-only root, an unprivileged user; what is there is a service account.

use crate::fresh;
use crate::rig::{Rig, text};
use crate::seen::Seen;
use crate::tool::{Tool, binary};
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

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
    volumeMounts: [{name: work, mountPath: /work}]
  volumes: [{name: work, emptyDir: {}}]
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
    let (key, _) = tool.key_pair("cosign", "pw");
    space.kubectl(&[
        "create",
        "secret",
        "generic",
        "signer",
        &format!("--from-file=cosign.key={}", key.display()),
        "--from-literal=cosign.password=pw",
    ]);

    // The binary goes in by exec: the image knows nothing of us.
    let mut copy = rig.command(rig.peer("kubectl"));
    copy.args([
        "exec",
        "-i",
        "-n",
        space.name(),
        "ci",
        "--",
        "sh",
        "-c",
        "cat > /work/kubectl-build && chmod 755 /work/kubectl-build",
    ]);
    let mut child = copy.stdin(Stdio::piped()).spawn().expect("kubectl runs");
    child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(&std::fs::read(binary()).expect("the binary"))
        .expect("kubectl reads");
    assert!(child.wait().expect("kubectl ends").success());

    let (registry, name) = (rig.get("REGISTRY"), fresh("pod"));
    let script = format!(
        "mkdir /work/ctx && cd /work/ctx && printf 'FROM scratch\\nCOPY Dockerfile /a\\n' > Dockerfile && env -i \
         KUBERNETES_SERVICE_HOST=$KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT=$KUBERNETES_SERVICE_PORT \
         KUBECTL_BUILD_BUILDER_IMAGE={} /work/kubectl-build -t {registry}/{name}:1 --push --sign \
         --cosign-key k8s://{}/signer --registry-http {registry} .",
        rig.get("BUILDKIT_IMAGE"),
        space.name()
    );
    let output = rig.try_kubectl(&["exec", "-n", space.name(), "ci", "--", "sh", "-c", &script]);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let seen = Seen::plain(&rig);
    let digest = seen.digest(&name, "1").expect("the tag is there");
    assert!(seen.manifest(&name, &format!("{}.sig", digest.replace(':', "-"))).is_some());
}
