#!/usr/bin/env bash
# The cluster by kind, for Linux machines with Docker: the same env file as the
# local provider writes, from a two-node kind cluster and registry containers on
# kind's Docker network, whose addresses the client and the pods both reach.
#
#   kind.sh up | down
set -euo pipefail
SELF=kind
. "$(dirname -- "$0")/lib.sh"
for part in local pki registries env; do . "$HERE/$part.sh"; done

# Everything pinned; kind itself is the user's.
KIND_NODE_IMAGE=kindest/node:v1.34.0
BUSYBOX=busybox:1.37.0
BUILDKIT_IMAGE=moby/buildkit:v0.33.1
BUILDKIT_ROOTLESS_IMAGE=moby/buildkit:v0.33.1-rootless
REGISTRY_IMAGE=registry:3.0.0
TOOLS_IMAGE=curlimages/curl:8.11.1
BASE_IMAGE=$BUSYBOX
BINFMT_IMAGE=tonistiigi/binfmt:qemu-v7.0.0-28

NAME=$NETNS # names are per checkout here too
# Tokens name their issuer, which Fulcio asks for its keys: it must be an address that this machine reaches.
ISSUER=https://127.0.0.1:$((20000 + 0x${ID:0:6} % 10000))
CONTAINERS=("$NAME-plain" "$NAME-tls" "$NAME-referrers")

# The functions shared with the local provider go through these two.
in_netns() { "$@"; }
kubectl() { command kubectl --kubeconfig "$STATE/admin.kubeconfig" "$@"; }

address_of() { docker inspect -f '{{.NetworkSettings.Networks.kind.IPAddress}}' "$1"; }
# The machine's own address on kind's network: containers reach what listens there.
gateway() { docker network inspect -f '{{range .IPAM.Config}}{{println .Gateway}}{{end}}' kind | awk '/[.]/ && !seen++'; }
exists() { [[ -n $(docker ps -aq --filter "name=^$1\$") ]]; }

cluster_up() {
  if kind get clusters 2>/dev/null | grep -qx "$NAME"; then
    say "cluster $NAME is there"
  else
    say "making cluster $NAME: two nodes of $KIND_NODE_IMAGE"
    kind create cluster --name "$NAME" --image "$KIND_NODE_IMAGE" --kubeconfig "$STATE/admin.kubeconfig" \
      --wait 180s --config - <<YAML
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {apiServerAddress: 127.0.0.1, apiServerPort: ${ISSUER##*:}}
nodes: [{role: control-plane}, {role: worker}]
kubeadmConfigPatches:
- |-
  kind: ClusterConfiguration
  apiServer: {extraArgs: {service-account-issuer: "$ISSUER", service-account-jwks-uri: "$ISSUER/openid/v1/jwks"}}
containerdConfigPatches:
- |-
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
YAML
  fi
  kind get kubeconfig --name "$NAME" >"$STATE/admin.kubeconfig"
  # Both nodes take pods.
  kubectl taint nodes --all node-role.kubernetes.io/control-plane:NoSchedule- >/dev/null 2>&1 || true
  # Whoever checks tokens reads the issuer's keys without any of his own.
  kubectl create clusterrolebinding issuer-discovery --clusterrole system:service-account-issuer-discovery \
    --group system:unauthenticated --dry-run=client -o yaml | kubectl apply -f - >/dev/null
}

images_up() {
  local image
  for image in "$BUILDKIT_IMAGE" "$BUILDKIT_ROOTLESS_IMAGE" "$REGISTRY_IMAGE" "$TOOLS_IMAGE" "$BASE_IMAGE"; do
    docker image inspect "$image" >/dev/null 2>&1 || { say "pulling $image"; docker pull -q "$image" >/dev/null; }
    kind load docker-image --name "$NAME" "$image" >/dev/null 2>&1
  done
}

# registry_container NAME DIRECTORY COMMAND: starts a registry that waits for
# its configuration, since a certificate can be made only when Docker has
# chosen the address.
registry_container() {
  local name=$1 dir=$2
  mkdir -p "$dir"
  if exists "$name"; then
    docker start "$name" >/dev/null
    return
  fi
  say "starting $name"
  docker run -d --name "$name" --network kind --restart unless-stopped -e OTEL_TRACES_EXPORTER=none \
    -v "$dir:/rig:ro" --entrypoint /bin/sh "$REGISTRY_IMAGE" \
    -c 'while [ ! -e /rig/ready ]; do sleep 0.1; done; '"exec $3" >/dev/null
}

registries_up() {
  local dir=$STATE/registry tools
  tools=$(dirname -- "$(readlink -f "$PEERS_BUILT/rigtool")")
  registry_container "$NAME-plain" "$dir/plain" "registry serve /rig/config.yml"
  registry_container "$NAME-tls" "$dir/tls" "registry serve /rig/config.yml"
  registry_container "$NAME-referrers" "$dir/referrers" "/rig/rigtool referrers :5000"
  REGISTRY=$(address_of "$NAME-plain"):5000
  REGISTRY_TLS=$(address_of "$NAME-tls"):5000
  REGISTRY_REFERRERS=$(address_of "$NAME-referrers"):5000

  if [[ $(cat "$PKI/complete" 2>/dev/null) != "$REGISTRY_TLS" ]]; then
    mkdir -p "$PKI" "$LOGS"
    quietly pki_registries "${REGISTRY_TLS%:*}"
    "$PEERS_BUILT/rigtool" htpasswd "$REGISTRY_USER" "$REGISTRY_PASSWORD" >"$PKI/htpasswd"
    echo "$REGISTRY_TLS" >"$PKI/complete"
  fi
  cp "$PKI/registry-tls.crt" "$dir/tls/tls.crt"
  cp "$PKI/registry-tls.key" "$dir/tls/tls.key"
  cp "$PKI/htpasswd" "$dir/tls/htpasswd"
  registry_config :5000 /var/lib/registry >"$dir/plain/config.yml"
  registry_config :5000 /var/lib/registry /rig >"$dir/tls/config.yml"
  cp "$tools/rigtool" "$dir/referrers/rigtool"
  touch "$dir"/{plain,tls,referrers}/ready
}

# QEMU for arm64, in the machine's kernel: nodes are containers of it.
emulation_up() {
  if grep -qs '^enabled' /proc/sys/fs/binfmt_misc/*aarch64 || [[ -e $STATE/emulation ]]; then return; fi
  say "registering QEMU for arm64"
  docker run --privileged --rm "$BINFMT_IMAGE" --install arm64 >>"$LOGS/images.log" 2>&1 ||
    die "QEMU could not be registered (log: $LOGS/images.log)"
  touch "$STATE/emulation"
}

# The nodes pull what tests pushed and run it.
nodes_trust_registries() {
  local node host
  mkdir -p "$STATE/certs.d"
  hosts_files /etc/containerd/certs.d
  for node in "${NODES[@]}"; do
    docker exec "$node" mkdir -p /etc/containerd/certs.d
    docker cp "$STATE/certs.d/." "$node:/etc/containerd/certs.d/" >/dev/null
    docker cp "$PKI/registry-ca.crt" "$node:/etc/containerd/certs.d/registry-ca.crt" >/dev/null
    docker cp "$PKI/registry-svc.crt" "$node:/etc/containerd/certs.d/registry-svc.crt" >/dev/null
  done
}

up() {
  local missing=() tool
  for tool in docker kind kubectl; do command -v "$tool" >/dev/null 2>&1 || missing+=("$tool"); done
  ((${#missing[@]} == 0)) || die "PROVIDER=kind needs these in PATH: ${missing[*]}"
  docker info >/dev/null 2>&1 || die "the Docker engine does not answer: start it, or add yourself to its group"
  # Those of the tests too, which run peers of their own beside the cluster.
  "$HERE/peers.sh" rigtools runc buildkit registry crane clients policy-tester
  PEERS_BUILT=$("$HERE/peers.sh" path)
  mkdir -p "$STATE" "$LOGS"
  SECONDS=0

  emulation_up
  cluster_up
  read -r -a NODES <<<"$(kind get nodes --name "$NAME" | LC_ALL=C sort | tr '\n' ' ')"
  images_up
  registries_up
  nodes_trust_registries
  until_ok 60 "the registries" registries_ready || exit 1
  BASE_REF=$REGISTRY/base:busybox
  "$PEERS_BUILT/crane" digest --insecure "$BASE_REF" >/dev/null 2>&1 ||
    "$PEERS_BUILT/crane" copy --insecure "$BUSYBOX" "$BASE_REF" >>"$LOGS/images.log" 2>&1 ||
    { tail -n 5 "$LOGS/images.log" >&2; die "the base image could not be pushed to $REGISTRY"; }
  registry_service_apply
  kubectl -n registry rollout status deployment/registry --timeout=120s >/dev/null
  kubectl -n registry rollout status deployment/tools --timeout=120s >/dev/null

  mkdir -p "$TARGET/peers"
  ln -sfn "$PEERS_BUILT"/* "$TARGET/peers/"
  ln -sfn "$(command -v kubectl)" "$TARGET/peers/kubectl"
  install -m 600 "$STATE/admin.kubeconfig" "$TARGET/kubeconfig"
  CLIENT_ADDRESS=$(gateway)
  [[ -n $CLIENT_ADDRESS ]] || die "the network of kind has no IPv4 gateway"
  CLUSTER_PROVIDER=kind CLUSTER_RUN='' PEERS=$TARGET/peers KUBECONFIG=$TARGET/kubeconfig
  APISERVER=$(kubectl config view --minify -o 'jsonpath={.clusters[0].cluster.server}')
  kubectl config view --minify --raw -o 'jsonpath={.clusters[0].cluster.certificate-authority-data}' | base64 -d >"$PKI/ca.crt"
  env_cluster
  say "up in $SECONDS s: source $TARGET/env"
}

down() {
  command -v docker >/dev/null && command -v kind >/dev/null || die "PROVIDER=kind needs docker and kind in PATH"
  local container
  for container in "${CONTAINERS[@]}"; do
    if exists "$container"; then docker rm -f -v "$container" >/dev/null; fi
  done
  end_processes # the signing services
  kind delete cluster --name "$NAME"
  rm -rf "$STATE" "$TARGET"
  say "down"
}

case ${1:-} in
  up | down) "$1" ;;
  *) die "want up or down" ;;
esac
