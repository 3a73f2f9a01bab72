# A node: a mount namespace with its own /run, /var/log, /var/lib/containerd,
# /var/lib/kubelet and /var/lib/cni, and in it a containerd and a kubelet at
# their usual paths. Sourced by up.sh.
# shellcheck shell=bash

# node_namespace NODE: makes the mount namespace and keeps it by a bind mount.
# Two nodes' mounts never meet, the machine sees none of them, and all of them
# go with the namespace.
node_namespace() {
  local node=$1 root=$STATE/$1
  if ! mountpoint -q "$MOUNTS"; then
    mkdir -p "$MOUNTS"
    mount --bind "$MOUNTS" "$MOUNTS"
    mount --make-private "$MOUNTS" # a namespace's file cannot lie on a shared mount
  fi
  [[ -e $MOUNTS/$node ]] || touch "$MOUNTS/$node"
  if mountpoint -q "$MOUNTS/$node"; then return; fi
  say "making node $node"
  rm -rf "$root/run" # as after a boot; a killed run may have left sockets there
  # These folders stay behind, empty: they are only places to mount on.
  mkdir -p /var/lib/{containerd,kubelet,cni} "$root"/{run/netns,log,containerd,kubelet,cni}
  unshare --mount="$MOUNTS/$node" --propagation private bash -euo pipefail -s "$root" <<'INSIDE'
root=$1
# Copies of namespaces' files would keep those of other clusters alive.
awk '$2 ~ "^/run/netns" { print $2 }' /proc/mounts | sort -r | while read -r m; do umount -l "$m"; done
mount --bind "$root/run" /run
mount --bind "$root/log" /var/log # kubelets delete logs of pods that they don't know
for dir in containerd kubelet cni; do mount --bind "$root/$dir" "/var/lib/$dir"; done
# Pods may ask for Bidirectional propagation; it ends at this namespace.
mount --make-rshared /
INSIDE
}

# node_config NODE: containerd's, CNI's and the kubelet's files.
node_config() {
  local node=$1 dir=$STATE/$1/etc
  local pods=${NODE_PODS[$1]%.0/24}
  mkdir -p "$dir/cni"
  cat >"$dir/containerd.toml" <<TOML
version = 3
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/pause:dev"
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "$STATE/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE a sandbox fails with "can't get final child's PID
  # from pipe: EOF" when its OOM score is lowered.
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["$PEERS"]
    conf_dir = "$dir/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "$PEERS/runc"
      SystemdCgroup = false
TOML
  cat >"$dir/cni/pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "$BRIDGE", "hairpinMode": true,
   "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}], "ranges": [[
     {"subnet": "$POD_CIDR", "rangeStart": "$pods.2", "rangeEnd": "$pods.254", "gateway": "$MAIN_IP"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  printf 'nameserver %s\n' "$MAIN_IP" >"$dir/resolv.conf"
  local port=$((10248 + 100 * ${2:-0}))
  cat >"$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: ${NODE_IP[$node]}
healthzPort: $port
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
clusterDNS: [$MAIN_IP]
clusterDomain: cluster.local
resolvConf: $dir/resolv.conf
# The machine is shared with everything else on it: cgroups below our own, no
# evictions for its disk or memory, no image garbage collection.
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP/$node
enforceNodeAllocatable: []
failSwapOn: false
failCgroupV1: false
localStorageCapacityIsolation: false
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
# Tests delete pods and wait for them.
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
# Or that a node without its kubelet counts as lost, after 30 s (control.sh).
nodeLeaseDurationSeconds: 16
YAML
}

# node_cgroup NODE: the pods' processes can be found under it when every other
# trace of them is lost.
node_cgroup() {
  local tree group file
  awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts | while read -r tree; do
    for group in "$CGROUP" "$CGROUP/$1"; do
      mkdir -p "$tree/$group" 2>/dev/null || continue
      # cpuset of cgroup v1: a new group has no processors until it is told.
      for file in cpuset.cpus cpuset.mems; do
        if [[ -e $tree/$file && ! -e $tree/cgroup.controllers ]]; then cat "$tree/$file" >"$tree/$group/$file"; fi
      done
    done
  done
}

node_ctr() { # NODE ARGS...
  local node=$1
  shift
  "$PEERS/ctr" --address "$STATE/$node/run/containerd/containerd.sock" -n k8s.io "$@"
}

# containerd leads: the images go in while the API server starts.
node_containerd() {
  local node=$1
  spawn "containerd-$node" "$node" -- env PATH="$PEERS:$PATH" "$PEERS/containerd" --config "$STATE/$node/etc/containerd.toml"
}

node_kubelet() {
  local node=$1
  spawn "kubelet-$node" "$node" -- env PATH="$PEERS:$PATH" "$PEERS/kubelet" --config "$STATE/$node/etc/kubelet.yaml" \
    --kubeconfig "$STATE/$node.kubeconfig" --hostname-override "$node" --node-ip "${NODE_IP[$node]}"
}

node_ready() {
  [[ $(kubectl get node "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null) == True ]]
}
