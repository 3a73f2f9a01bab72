# Keys, certificates, tokens and kubeconfigs of the control plane, and the
# registries' certificates. Made once per cluster. Sourced by up.sh.
# shellcheck shell=bash

# certificate NAME CA SUBJECT SAN: a P-256 key and a certificate signed by CA.
certificate() {
  local name=$PKI/$1 ca=$PKI/$2
  openssl ecparam -name prime256v1 -genkey -noout -out "$name.key"
  openssl req -new -key "$name.key" -subj "$3" -out "$name.csr"
  openssl x509 -req -in "$name.csr" -CA "$ca.crt" -CAkey "$ca.key" -CAcreateserial -days 3650 -out "$name.crt" \
    -extfile <(printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=%s\n' "$4")
}

authority() { # NAME CN
  openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/$1.key"
  openssl req -x509 -new -key "$PKI/$1.key" -subj "/CN=$2" -days 3650 -out "$PKI/$1.crt" \
    -addext 'keyUsage=critical,keyCertSign,cRLSign,digitalSignature'
}

# kubeconfig FILE USER: of that user's token.
kubeconfig() {
  local token
  token=$(awk -F, -v u="$2" '$2 == u { print $1 }' "$PKI/tokens.csv")
  (
    umask 077
    cat >"$1" <<YAML
apiVersion: v1
kind: Config
current-context: local
clusters:
- name: local
  cluster:
    server: $APISERVER
    certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
contexts:
- name: local
  context: {cluster: local, user: $2}
users:
- name: $2
  user: {token: $token}
YAML
  )
}

# quietly WHAT COMMAND...: openssl says much, of interest only when it fails.
quietly() {
  "$@" >"$LOGS/pki.log" 2>&1 || { tail -n 20 "$LOGS/pki.log" >&2; die "openssl failed (log: $LOGS/pki.log)"; }
}

pki_control() {
  authority ca kubernetes-ca &&
    certificate apiserver ca /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:${SERVICE_CIDR%.0/*}.1,IP:$MAIN_IP,IP:127.0.0.1" &&
    openssl genrsa -out "$PKI/service-accounts.key" 2048
}

# pki_registries ADDRESS: of the TLS registry, signed by an authority; and of
# the one in the cluster, self-signed as people make them by hand: the
# certificate is its own authority (CA:TRUE).
pki_registries() {
  authority registry-ca registry-ca &&
    certificate registry-tls registry-ca /CN=registry-tls "IP:$1,DNS:localhost" &&
    openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/registry-svc.key" &&
    openssl req -x509 -new -key "$PKI/registry-svc.key" -subj "/CN=${REGISTRY_SVC%:*}" -days 3650 -out "$PKI/registry-svc.crt" \
      -addext "subjectAltName=DNS:${REGISTRY_SVC%:*},DNS:registry.registry.svc,DNS:registry.registry,IP:$REGISTRY_SVC_IP"
}

# token,user,uid,groups
tokens() {
  local user
  for user in admin system:kube-controller-manager system:kube-scheduler system:kube-proxy system:coredns; do
    echo "$(openssl rand -hex 16),$user,$user,$([[ $user != admin ]] || echo system:masters)"
  done
  for user in "${NODES[@]}"; do echo "$(openssl rand -hex 16),system:node:$user,$user,system:nodes"; done
}

pki_up() {
  local node
  if [[ ! -e $PKI/complete ]]; then
    say "making keys and certificates"
    rm -rf "$PKI"
    (umask 077 && mkdir -p "$PKI")
    quietly pki_control
    quietly pki_registries "$MAIN_IP"
    "$PEERS/rigtool" htpasswd "$REGISTRY_USER" "$REGISTRY_PASSWORD" >"$PKI/htpasswd"
    tokens >"$PKI/tokens.csv"
    touch "$PKI/complete"
  fi
  kubeconfig "$STATE/admin.kubeconfig" admin
  kubeconfig "$STATE/controller-manager.kubeconfig" system:kube-controller-manager
  kubeconfig "$STATE/scheduler.kubeconfig" system:kube-scheduler
  kubeconfig "$STATE/proxy.kubeconfig" system:kube-proxy
  kubeconfig "$STATE/coredns.kubeconfig" system:coredns
  for node in "${NODES[@]}"; do kubeconfig "$STATE/$node.kubeconfig" "system:node:$node"; done
}
