#!/usr/bin/env bash
# Sends a signal to a process of the cluster, for tests of faults.
#
#   signal.sh SIGNAL kubelet NODE
#   signal.sh SIGNAL containerd NODE
#   signal.sh SIGNAL pod NAMESPACE POD   every process of the pod's containers
#   signal.sh START kubelet NODE         starts one that was killed: it stays away
#                                        until then
#
# A container's first process cannot be stopped from inside its own process
# namespace, hence this way from the node.
set -euo pipefail
SELF=signal
. "$(dirname -- "$0")/lib.sh"
. "$HERE/local.sh"
(($# >= 3)) || die "want SIGNAL kubelet|containerd NODE, SIGNAL pod NAMESPACE POD, or START kubelet NODE"
# shellcheck source=/dev/null
. "$TARGET/env"
signal=$1 what=$2

local_start() {
  . "$HERE/node.sh"
  node_kubelet "$3"
}

kind_start() { docker exec "$3" systemctl start kubelet; }

local_signal() {
  local pids node id pid
  case $what in
    kubelet | containerd)
      alive "$what-$3" || die "$what of $3 does not run"
      read -r pids _ <"$PIDS/$what-$3.pid"
      ;;
    pod)
      node=$($CLUSTER_RUN "$PEERS/kubectl" -n "$3" get pod "$4" -o "jsonpath={.spec.nodeName}")
      local ctr=("$PEERS/ctr" --address "$STATE/$node/run/containerd/containerd.sock" -n k8s.io)
      pids=$(
        for id in $("${ctr[@]}" containers ls -q \
          "labels.\"io.kubernetes.pod.namespace\"==$3,labels.\"io.kubernetes.pod.name\"==$4,labels.\"io.cri-containerd.kind\"==container" 2>/dev/null); do
          "${ctr[@]}" tasks ps "$id" 2>/dev/null | awk 'NR > 1 { print $1 }' || true
        done
      )
      [[ -n $pids ]] || die "pod $3/$4 has no process on $node"
      ;;
    *) die "unknown target '$what'" ;;
  esac
  # shellcheck disable=SC2086
  kill "-$signal" $pids
}

kind_signal() {
  local node id
  case $what in
    kubelet | containerd)
      docker exec "$3" pkill "-$signal" -x "$what"
      # The node's systemd would have it back within a second.
      [[ $signal-$what != KILL-kubelet ]] || docker exec "$3" systemctl stop kubelet
      ;;
    pod)
      node=$("$PEERS/kubectl" -n "$3" get pod "$4" -o "jsonpath={.spec.nodeName}")
      for id in $(docker exec "$node" crictl ps -q --pod "$(docker exec "$node" crictl pods -q --namespace "$3" --name "^$4\$")"); do
        docker exec "$node" kill "-$signal" "$(docker exec "$node" crictl inspect -o go-template --template '{{.info.pid}}' "$id")"
      done
      ;;
    *) die "unknown target '$what'" ;;
  esac
}

case $signal-$what in
  START-kubelet) "${CLUSTER_PROVIDER}_start" "$@" ;;
  START-*) die "only a kubelet can be started" ;;
  *) "${CLUSTER_PROVIDER}_signal" "$@" ;;
esac
