#!/usr/bin/env bash
# Holds `make cluster-down` to its promise, that nothing of the local provider's cluster stays on the machine.
#   test-down.sh before FILE   notes what the machine has, before the cluster comes up
#   test-down.sh FILE          ends the cluster and names what is left of it
set -euo pipefail
SELF=test-down
. "$(dirname -- "$0")/lib.sh"
. "$HERE/local.sh"

# Rules and chains without their counters, interfaces, mounts. A fresh machine has no iptables yet.
machine() {
  iptables-save 2>/dev/null | sed -nE 's/\[[0-9]+:[0-9]+\]//; /^(-|:[^ ]+ -)/p' || true
  sed -n '3,$ s/:.*//p' /proc/net/dev
  cut -d' ' -f2 /proc/mounts | grep -v "^/run/netns/$NETNS\$"
}
if [[ $1 == before ]]; then
  machine | sort -u >"$2"
  exit
fi

failed=0
check() { # WHAT COMMAND...: it says nothing
  local said
  said=$("${@:2}" 2>/dev/null) || true
  if [[ -z $said ]]; then
    echo "ok: $1"
  else
    failed=1
    printf 'FAILED: %s\n%s\n' "$1" "$(head -n 5 <<<"$said")"
  fi
}
survivors() {
  local pid started
  while read -r pid started; do
    [[ $(start_time "$pid") != "$started" ]] || tr '\0' ' ' <"/proc/$pid/cmdline"
  done <<<"$ours"
}
ours=$(for pid in $(members); do echo "$pid $(start_time "$pid")"; done)
echo "$(wc -l <<<"$ours") processes to end"
"$HERE/down.sh"
check "no process is left" survivors
check "no mount is left, in no namespace" grep -lF "$STATE/" /proc/[0-9]*/mountinfo
check "no network namespace is left" ls -d "$NETNS_FILE"
check "no cgroup is left" find /sys/fs/cgroup -maxdepth 3 -name "$CGROUP"
check "no state is left" ls -d "$STATE" "$TARGET"
check "the machine has no more rules, interfaces and mounts than before" comm -13 "$1" <(machine | sort -u)
exit "$failed"
