# The local provider's place and processes: everything of one cluster lives in
# one network namespace and one state folder, both named after the checkout, so
# that clusters of two checkouts do not meet. Sourced by up.sh and down.sh.
# shellcheck shell=bash

ID=$(printf %s "$REPO" | sha256sum | cut -c1-8)
NETNS=kubectl-build-$ID
NETNS_FILE=/run/netns/$NETNS
CGROUP=kubectl-build-$ID
MACHINE=/run/kubectl-build # what the clusters of this machine share, and which there are
STATE=$CACHE/clusters/$ID # outside the checkout: `down` works when target/ is gone
LOGS=$STATE/logs
PIDS=$STATE/pids
PKI=$STATE/pki
MOUNTS=$STATE/ns # one file per node: its mount namespace
TARGET=$REPO/target/cluster

# Addresses inside the namespace; nothing outside of it sees them.
BRIDGE=pods0
POD_CIDR=10.88.0.0/16
SERVICE_CIDR=10.96.0.0/16
MAIN_IP=10.88.0.1 # control plane, DNS, registries
NODES=(node-a node-b)
declare -A NODE_IP=([node-a]=10.88.0.2 [node-b]=10.88.0.3)
declare -A NODE_PODS=([node-a]=10.88.1.0/24 [node-b]=10.88.2.0/24)
APISERVER=https://$MAIN_IP:6443
REGISTRY=$MAIN_IP:5000
REGISTRY_REFERRERS=$MAIN_IP:5001
REGISTRY_TLS=$MAIN_IP:5443
REGISTRY_SVC_IP=10.96.0.50
REGISTRY_SVC=registry.registry.svc.cluster.local:5000
REGISTRY_USER=tester
REGISTRY_PASSWORD=correct-horse

in_netns() { nsenter --net="$NETNS_FILE" "$@"; }
kubectl() { in_netns "$PEERS/kubectl" --kubeconfig "$STATE/admin.kubeconfig" "$@"; }

# alive NAME: the recorded process runs. The start time tells it from another
# process that got the same number later; one that ended before it was noted has none.
alive() {
  local pid started
  [[ -r $PIDS/$1.pid ]] && read -r pid started <"$PIDS/$1.pid" || return 1
  [[ -n $started && $(start_time "$pid") == "$started" ]]
}

# machine COMMAND...: while no other cluster's run changes what all of them share.
machine() {
  mkdir -p "$MACHINE/clusters"
  (
    flock -w 300 8 || die "another run still holds $MACHINE/lock"
    "$@"
  ) 8>"$MACHINE/lock"
}

# start_time PID: in clock ticks since boot; empty when gone or a zombie.
start_time() {
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
  stat=${stat##*) } # the name in parentheses may hold spaces
  # shellcheck disable=SC2086
  set -- $stat
  [[ $1 == Z ]] || echo "${20}"
}

# spawn NAME [NODE] -- COMMAND...: starts a daemon unless it runs, inside the
# network namespace if there is one (and a node's mount namespace), detached from
# this shell.
spawn() {
  local name=$1 node='' enter=()
  [[ -z $NETNS_FILE ]] || enter=(nsenter --net="$NETNS_FILE")
  shift
  if [[ $1 != -- ]]; then node=$1; shift; fi
  shift
  if alive "$name"; then return; fi
  [[ -z $node ]] || enter+=(--mount="$MOUNTS/$node")
  say "starting $name"
  mkdir -p "$LOGS" "$PIDS"
  # Every link of this chain execs, so the number stays the daemon's own; it is noted before there is a daemon, which
  # nobody would find again when this run is killed. The descriptors of our lock must not live on in it.
  (
    self=$BASHPID # a substitution has a number of its own
    echo "$self $(start_time "$self")" >"$PIDS/$name.pid"
    cd / && exec setsid "${enter[@]}" "$@"
  ) >>"$LOGS/$name.log" 2>&1 </dev/null 9>&- &
  until grep -qs "^$! " "$PIDS/$name.pid" || [[ -z $(start_time $!) ]]; do sleep 0.01; done
  disown
}

# until_ok SECONDS WHAT COMMAND...: polls; on failure says what was waited for.
until_ok() {
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  while ! "$@" >/dev/null 2>&1; do
    if ((SECONDS >= limit)); then
      say "gave up waiting for $what; logs: $LOGS"
      return 1
    fi
    sleep 0.2
  done
}

# lock SECONDS: one run at a time works on the cluster. `down` removes the lock
# file with the state, so the one that was waited for may be gone: look again.
lock() {
  while :; do
    mkdir -p "$STATE"
    exec 9>"$STATE/lock"
    if ! flock -n 9; then
      say "another run is at work on this cluster, waiting"
      flock -w "$1" 9 || die "another run still holds $STATE/lock after $1 s"
    fi
    if [[ /proc/self/fd/9 -ef $STATE/lock ]]; then return; fi
  done
}

# members: every process that belongs to this cluster, by the namespace and the
# binaries of the daemons, and by the cgroup of the pods' processes. Found by
# looking, not from the pid files, since those may be lost.
members() {
  local ns exe pid
  {
    grep -lE "/$CGROUP(/|\$)" /proc/[0-9]*/cgroup 2>/dev/null || true
    if [[ -e $NETNS_FILE ]]; then
      ns=$(stat -Lc %i "$NETNS_FILE")
      find /proc/[0-9]*/ns/net -maxdepth 0 -lname "net:\\[$ns\\]" 2>/dev/null | while read -r pid; do
        exe=$(readlink "${pid%/ns/net}/exe" 2>/dev/null) || continue
        if [[ $exe == "$CACHE"/peers/* ]]; then echo "$pid"; fi
      done
    fi
  } | cut -d/ -f3 | sort -un
}

# end_processes: at once, since nothing here is worth a graceful end. Several
# rounds, for what forks or is started anew meanwhile.
end_processes() {
  local pids file
  for _ in $(seq 50); do
    pids=$(
      members
      # Daemons of a namespace whose name is gone are known by their files only.
      for file in "$PIDS"/*.pid; do
        if alive "$(basename "$file" .pid)"; then cut -d' ' -f1 "$file"; fi
      done
    )
    [[ -n $pids ]] || return 0
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null || true
    sleep 0.1
  done
  die "these processes do not end: $pids"
}
