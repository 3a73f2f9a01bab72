# The control plane: etcd, kube-apiserver, kube-controller-manager,
# kube-scheduler, kube-proxy and CoreDNS. Sourced by up.sh.
# shellcheck shell=bash

control_start() {
  spawn etcd -- "$PEERS/etcd" --name local --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster local=http://127.0.0.1:2380
  # The issuer is an address that both client and pods reach, since keyless
  # signing takes the cluster's own tokens; --service-account-jwks-uri keeps the
  # discovery document on the same address.
  spawn apiserver -- "$PEERS/kube-apiserver" --etcd-servers http://127.0.0.1:2379 \
    --bind-address 0.0.0.0 --secure-port 6443 --advertise-address "$MAIN_IP" \
    --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
    --cert-dir "$STATE/apiserver" --client-ca-file "$PKI/ca.crt" --token-auth-file "$PKI/tokens.csv" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
    --service-cluster-ip-range "$SERVICE_CIDR" --kubelet-preferred-address-types InternalIP \
    --service-account-key-file "$PKI/service-accounts.key" \
    --service-account-signing-key-file "$PKI/service-accounts.key" \
    --service-account-issuer "$APISERVER" --service-account-jwks-uri "$APISERVER/openid/v1/jwks"
  spawn controller-manager -- "$PEERS/kube-controller-manager" --kubeconfig "$STATE/controller-manager.kubeconfig" \
    --leader-elect=false --use-service-account-credentials --bind-address 127.0.0.1 \
    --node-monitor-grace-period 30s \
    --root-ca-file "$PKI/ca.crt" --service-account-private-key-file "$PKI/service-accounts.key" \
    --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key"
  spawn scheduler -- "$PEERS/kube-scheduler" --kubeconfig "$STATE/scheduler.kubeconfig" \
    --leader-elect=false --bind-address 127.0.0.1
}

apiserver_ready() { kubectl get --raw /readyz; }

# What needs the API server to be there.
control_finish() {
  until_ok 90 "the API server" apiserver_ready || { tail -n 5 "$LOGS/apiserver.log" >&2; exit 1; }
  kubectl apply -f - >/dev/null <<'YAML'
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: system:coredns}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: system:coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: system:coredns}
---
# Lets verifiers read the token issuer's keys without a token.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: anonymous-issuer-discovery}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:service-account-issuer-discovery}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: system:unauthenticated}
YAML
  cat >"$STATE/Corefile" <<COREFILE
.:53 {
  bind $MAIN_IP
  errors
  health 127.0.0.1:8080
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $STATE/coredns.kubeconfig local
    ttl 5
  }
  cache 5
}
COREFILE
  spawn coredns -- "$PEERS/coredns" -conf "$STATE/Corefile"
}

# kube-proxy asks once for its node and starts only slowly without.
proxy_start() {
  until_ok 60 "node ${NODES[0]} to register" kubectl get node "${NODES[0]}" || exit 1
  # Masquerading everything brings replies back through the NAT even where
  # bridged packets do not pass iptables. conntrack's settings cannot be written
  # in a namespace, hence the zeros.
  spawn kube-proxy -- "$PEERS/kube-proxy" --kubeconfig "$STATE/proxy.kubeconfig" --proxy-mode iptables \
    --cluster-cidr "$POD_CIDR" --masquerade-all --hostname-override "${NODES[0]}" \
    --healthz-bind-address 127.0.0.1:10256 --metrics-bind-address 127.0.0.1:10249 \
    --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
}
