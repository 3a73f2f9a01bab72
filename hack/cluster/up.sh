#!/usr/bin/env bash
# Brings the cluster up, or repairs it, or finds it well; then writes
# target/cluster/env. PROVIDER=local (default) runs real peers as processes of
# this machine, inside a network namespace; PROVIDER=kind uses Docker.
# With CLUSTER_ONLY=1 the peers that only tests need are not built.
set -euo pipefail
SELF=cluster
. "$(dirname -- "$0")/lib.sh"
case ${1:-} in
  '') ;;
  -h | --help) sed -n '2,/^set /s/^# //p' "$0"; exit ;;
  *) die "want no arguments: PROVIDER and CLUSTER_ONLY are variables" ;;
esac
case ${PROVIDER:-local} in
  local) ;;
  kind) exec "$HERE/kind.sh" up ;;
  *) die "PROVIDER is '$PROVIDER'; it can be local or kind" ;;
esac
for part in local images network pki control node registries emulation env; do . "$HERE/$part.sh"; done

# What runs where; the order is the order of starting.
DAEMONS=(etcd apiserver controller-manager scheduler kube-proxy coredns registry-plain registry-tls registry-referrers)
for node in "${NODES[@]}"; do DAEMONS+=("containerd-$node" "kubelet-$node"); done

# wake: continues what a test has stopped. Stopped daemons pass for running ones,
# and a node whose kubelet is stopped still counts as Ready for 30 s.
wake() {
  # shellcheck disable=SC2046
  kill -CONT $(members) 2>/dev/null || true
}

# healthy: everything runs and answers.
healthy() {
  local name
  wake
  [[ -e $NETNS_FILE ]] || return 1
  for name in "${DAEMONS[@]}"; do alive "$name" || { say "$name does not run"; return 1; }; done
  apiserver_ready >/dev/null 2>&1 || { say "the API server does not answer"; return 1; }
  for name in "${NODES[@]}"; do
    node_ready "$name" || { say "node $name is not Ready"; return 1; }
    [[ $(cat "$STATE/$name/images" 2>/dev/null) == "$(images_dir)" ]] || { say "the images changed"; return 1; }
  done
  registries_ready || { say "a registry does not answer"; return 1; }
  registry_service_ready || { say "the registry Service does not answer"; return 1; }
}

# What an earlier run left without its namespaces, after a crash or a boot of the
# machine.
recover() {
  local node whole=1
  for node in "${NODES[@]}"; do mountpoint -q "$MOUNTS/$node" || whole=; done
  if [[ -z $whole || ! -e $NETNS_FILE ]]; then end_processes; else wake; fi
}

start() {
  local node index=0
  mkdir -p "$LOGS" "$PIDS"
  recover
  echo "$PEERS_KEY" >"$STATE/peers"
  network_up
  pki_up
  control_start
  hosts_files "$PKI"
  for node in "${NODES[@]}"; do
    node_cgroup "$node"
    node_namespace "$node"
    node_config "$node" $((index++))
    node_containerd "$node"
  done
  registries_start
  for node in "${NODES[@]}"; do images_import "$node"; done
  control_finish
  for node in "${NODES[@]}"; do node_kubelet "$node"; done
  proxy_start
  until_ok 30 "the registries" registries_ready || exit 1
  base_push
  for node in "${NODES[@]}"; do
    until_ok 120 "node $node to be Ready" node_ready "$node" || { tail -n 5 "$LOGS/kubelet-$node.log" >&2; exit 1; }
  done
  # A service account is needed before pods can be made by hand.
  until_ok 30 "the default service account" kubectl -n default get serviceaccount default || exit 1
  registry_service_apply
  until_ok 120 "the registry in the cluster" registry_service_ready ||
    { kubectl -n registry get pods,events >&2; exit 1; }
}

write_env() {
  mkdir -p "$TARGET"
  ln -sfn "$LOGS" "$TARGET/logs"
  install -m 600 "$STATE/admin.kubeconfig" "$TARGET/kubeconfig"
  CLIENT_ADDRESS=$MAIN_IP CLUSTER_PROVIDER=local CLUSTER_RUN="nsenter --net=$NETNS_FILE" KUBECONFIG=$TARGET/kubeconfig
  env_cluster
}

# Before the question of root, so that who may not install them learns their names at once.
need_packages ip=iproute2 iptables=iptables nsenter=util-linux openssl=openssl curl=curl awk=gawk
((EUID == 0)) || die "the local provider needs root for namespaces and mounts: run it with sudo, or use PROVIDER=kind"
"$HERE/peers.sh" cluster images
PEERS=$("$HERE/peers.sh" path)
PEERS_KEY=$("$HERE/peers.sh" key cluster)
lock 600

up() {
  if [[ -e $STATE/peers ]]; then
    if [[ $(cat "$STATE/peers") != "$PEERS_KEY" ]]; then
      say "the cluster's peers changed: starting anew"
      "$HERE/down.sh" --locked
      lock 600
    elif healthy; then
      machine emulation_up
      write_env
      say "up already: source $TARGET/env"
      return
    fi
  fi
  SECONDS=0
  machine emulation_up
  images_build
  start
  write_env
  say "up in $SECONDS s: source $TARGET/env"
}

up
exec 9>&- # the cluster is usable while the rest is still built
# What only tests and benchmarks need.
[[ -n ${CLUSTER_ONLY:-} ]] || "$HERE/peers.sh" clients
