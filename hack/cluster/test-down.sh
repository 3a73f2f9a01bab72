#!/usr/bin/env bash
# Holds `make cluster-down` to its promise, that nothing of the local provider's cluster stays on the machine.
#   test-down.sh before FILE   notes what the machine has, before the cluster comes up
#   test-down.sh FILE          ends the cluster and names what is left of it
set -euo pipefail
SELF=test-down
. "$(dirname -- "$0")/lib.sh"
. "$HERE/local.sh"

# What of the machine a cluster has to do with: who else has one, rules, mounts, QEMU.
machine_state() {
  echo "clusters: $(ls "$MACHINE/clusters" 2>/dev/null | grep -v "^$ID\$" | tr '\n' ' ')"
  iptables-save 2>/dev/null | grep -E '^(-|:[^ ]+ -)' | grep -E 'KUBE-|CNI-' || true
  cut -d' ' -f2 /proc/mounts | grep -E "^/run/netns\$|$ID|binfmt_misc" | sort || true
  ls /proc/sys/fs/binfmt_misc 2>/dev/null || true
}
if [[ $1 == before ]]; then
  machine_state >"$2"
  exit
fi
# Other clusters that came or went meanwhile took their part.
changed() {
  machine_state >"$1.now"
  if [[ $(head -n 1 "$1") == $(head -n 1 "$1.now") ]]; then diff "$1" "$1.now"; fi
}

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
    [[ -z $started || $(start_time "$pid") != "$started" ]] || tr '\0' ' ' <"/proc/$pid/cmdline"
  done <<<"$ours"
}
ours=$(for pid in $(members); do echo "$pid $(start_time "$pid")"; done)
echo "$(grep -c . <<<"$ours") processes to end"
"$HERE/down.sh"
check "no process is left" survivors
check "no mount is left, in no namespace" grep -lF "$STATE/" /proc/[0-9]*/mountinfo
check "no network namespace is left" ls -d "$NETNS_FILE"
check "no cgroup is left" find /sys/fs/cgroup -maxdepth 3 -name "$CGROUP"
check "no state is left" ls -d "$STATE" "$TARGET"
check "the machine's rules, mounts and interpreters are as before" changed "$1"
exit "$failed"
