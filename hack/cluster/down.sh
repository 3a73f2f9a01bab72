#!/usr/bin/env bash
# Ends this checkout's cluster and removes all of it: processes, mounts,
# namespaces (with their interfaces and iptables chains), cgroups and state.
set -euo pipefail
SELF=cluster
. "$(dirname -- "$0")/lib.sh"
case ${PROVIDER:-local} in
  local) ;;
  kind) exec "$HERE/kind.sh" down ;;
  *) die "PROVIDER is '$PROVIDER'; it can be local or kind" ;;
esac
for part in local emulation; do . "$HERE/$part.sh"; done
((EUID == 0)) || die "the local provider needs root: run it with sudo"

if [[ ! -e $STATE && ! -e $NETNS_FILE && -z $(members) ]]; then
  rm -rf "$TARGET"
  say "nothing to end"
  exit 0
fi
if [[ ${1:-} != --locked ]]; then lock 300; fi

say "ending processes"
end_processes

say "removing namespaces and mounts"
if mountpoint -q "$MOUNTS" 2>/dev/null; then
  for file in "$MOUNTS"/*; do
    while mountpoint -q "$file"; do umount "$file"; done
  done
  while mountpoint -q "$MOUNTS"; do umount "$MOUNTS"; done
fi
if [[ -e $NETNS_FILE ]]; then ip netns delete "$NETNS"; fi

for tree in $(awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts); do
  if [[ -d $tree/$CGROUP ]]; then find "$tree/$CGROUP" -depth -type d -exec rmdir {} \; 2>/dev/null || true; fi
done
rm -rf "$STATE" "$TARGET"
last_one() {
  rm -f "$MACHINE/clusters/$ID"
  if [[ -n $(ls "$MACHINE/clusters") ]]; then return; fi
  emulation_down
  if [[ -e $MACHINE/netns && -z $(ls /run/netns) ]]; then umount /run/netns || say "/run/netns stays mounted"; fi
  rm -f "$MACHINE/netns"
}
machine last_one
say "down"
