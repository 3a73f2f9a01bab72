# Writes target/cluster/env, all that tests know about the cluster.
# Sourced by up.sh and kind.sh.
# shellcheck shell=bash disable=SC2034

ENV_NAMES=(
  CLUSTER_PROVIDER # local or kind
  CLUSTER_RUN      # prefix of commands that talk to the cluster; may be empty
  CLIENT_ADDRESS   # of where CLUSTER_RUN's commands run; pods reach what listens there
  CLUSTER_NODES    # names, separated by spaces
  CLUSTER_SIGNAL   # script that signals a kubelet, a containerd or a pod
  CLUSTER_LOGS     # folder of the daemons' logs
  CLUSTER_PIDS     # folder of NAME.pid files ("PID STARTTIME"); empty with kind
  KUBECONFIG APISERVER CLUSTER_CA
  PEERS # folder of kubectl, buildctl, buildx, cosign (3), cosign2, crane, ...
  REGISTRY REGISTRY_REFERRERS
  REGISTRY_TLS REGISTRY_TLS_CA REGISTRY_USER REGISTRY_PASSWORD
  # Only pods resolve this name. Its certificate is self-signed with CA:TRUE.
  # `kubectl -n registry exec deploy/tools -- curl` sees it as pods do.
  REGISTRY_SVC REGISTRY_SVC_IP REGISTRY_SVC_CA
  BUILDKIT_IMAGE BUILDKIT_ROOTLESS_IMAGE BASE_IMAGE TOOLS_IMAGE # loaded into every node
  BASE_REF                              # busybox in REGISTRY, for FROM
)

# Written aside and moved: a reader never sees half of it.
env_cluster() {
  local name
  CLUSTER_NODES=${NODES[*]} CLUSTER_SIGNAL=$HERE/signal.sh CLUSTER_LOGS=$LOGS CLUSTER_CA=$PKI/ca.crt
  REGISTRY_TLS_CA=$PKI/registry-ca.crt REGISTRY_SVC_CA=$PKI/registry-svc.crt BASE_REF=$REGISTRY/base:busybox
  [[ $CLUSTER_PROVIDER == local ]] && CLUSTER_PIDS=$PIDS || CLUSTER_PIDS=
  mkdir -p "$TARGET"
  {
    echo "# Made by hack/cluster/up.sh; source it from a shell."
    for name in "${ENV_NAMES[@]}"; do printf 'export %s=%s\n' "$name" "${!name@Q}"; done
  } >"$TARGET/.env.$$"
  mv "$TARGET/.env.$$" "$TARGET/env"
}
