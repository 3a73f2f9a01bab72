# The network namespace with the pod bridge. Sourced by up.sh.
# shellcheck shell=bash

network_namespace() {
  if [[ -e $NETNS_FILE ]]; then return; fi
  say "making network namespace $NETNS"
  mountpoint -q /run/netns || touch "$MACHINE/netns" # `ip` makes a mount of it, once
  ip netns add "$NETNS"
}

network_up() {
  machine network_namespace
  in_netns bash -euo pipefail -s "$BRIDGE" "$SERVICE_CIDR" "$MAIN_IP" "${NODE_IP[@]}" <<'INSIDE'
bridge=$1 services=$2
shift 2
ip link set lo up
if ! ip link show "$bridge" >/dev/null 2>&1; then ip link add "$bridge" type bridge; fi
ip link set "$bridge" up
for address; do ip address replace "$address/16" dev "$bridge"; done
# Service addresses exist only as NAT rules; without a route the kernel would
# refuse them before the rules are seen. There is no default route on purpose:
# an address outside fails at once instead of hanging.
ip route replace "$services" dev "$bridge"
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
# Two nodes, their pods and the tests' own daemons watch more than the usual 128 places of one user.
instances=/proc/sys/fs/inotify/max_user_instances
(($(cat $instances) >= 1024)) || echo 1024 >$instances
INSIDE
}
