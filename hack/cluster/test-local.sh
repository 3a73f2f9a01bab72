#!/usr/bin/env bash
# Holds the local provider to its promises, with a cluster of its own beside any
# other: `up` goes on from whatever an earlier run left, changes nothing where
# all is well, and `down` leaves nothing of it on the machine. Needs root.
set -euo pipefail
work=$(mktemp -d)
mkdir -p "$work/repo/hack"
cp -R "$(dirname -- "$0")" "$work/repo/hack/cluster"
SELF=test-local
. "$work/repo/hack/cluster/lib.sh"
. "$HERE/local.sh"
export CLUSTER_ONLY=1 PROVIDER=local
PEERS=$("$HERE/peers.sh" path)
trap '"$HERE/down.sh" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

passed=0 failed=0
check() { # WHAT COMMAND...
  if "${@:2}"; then
    passed=$((passed + 1)) && echo "ok: $1 ($SECONDS s)"
  else
    failed=$((failed + 1)) && echo "FAILED: $1"
  fi
}
is() { [[ $("${@:2}") == "$1" ]]; }
up() { "$HERE/up.sh" >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; return 1; }; }
nodes_ready() {
  is "True True" kubectl get nodes -o 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'
}
all_alive() {
  local file
  for file in "$PIDS"/*.pid; do alive "$(basename "$file" .pid)" || return 1; done
}
state_of() { sed 's/.*) //' "/proc/$1/stat" | cut -c1; }

SECONDS=0
"$HERE/test-down.sh" before "$work/before"
# A run that is killed when half of the daemons have started.
setsid "$HERE/up.sh" >"$work/killed.log" 2>&1 &
first=$!
until_ok 60 "the first daemons" test -e "$PIDS/containerd-node-b.pid"
kill -KILL -- "-$first"
wait "$first" 2>/dev/null || true
check "up goes on from a run that was killed" up
check "both nodes are ready" nodes_ready

cat "$PIDS"/*.pid >"$work/pids"
check "up again" up
check "finds all well" grep -q "up already" "$work/up.log"
check "and restarts nothing" diff "$work/pids" <(cat "$PIDS"/*.pid)

read -r kubelet _ <"$PIDS/kubelet-node-a.pid"
kill -STOP "$kubelet"
check "up continues a stopped kubelet, though its node still counts as ready" up
check "it runs" is S state_of "$kubelet"

# shellcheck disable=SC2046
kill -KILL $(members | awk 'NR % 2')
check "up starts what was killed" up
check "every daemon runs" all_alive
check "both nodes are ready again" nodes_ready

check "there are processes to end" test "$(members | wc -l)" -gt 15
check "down leaves nothing" "$HERE/test-down.sh" "$work/before"
check "down again" "$HERE/down.sh"

echo "$passed passed, $failed failed, $SECONDS s"
((failed == 0))
