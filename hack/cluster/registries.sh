# Four registries: plain HTTP, TLS with htpasswd, one behind a Service that only
# pods can resolve, and one with the referrers API (distribution has none).
# All of them allow deletion. Sourced by up.sh.
# shellcheck shell=bash

# registry_config ADDRESS STORAGE SECRET-DIRECTORY: distribution's configuration;
# with a directory of tls.crt, tls.key and htpasswd it asks for TLS and a login.
registry_config() {
  cat <<YAML
version: 0.1
log: {level: info, accesslog: {disabled: false}}
storage:
  filesystem: {rootdirectory: $2}
  delete: {enabled: true}
http:
  addr: $1
  secret: kubectl-build
YAML
  [[ -z ${3:-} ]] || cat <<YAML
  tls: {certificate: $3/tls.crt, key: $3/tls.key}
auth:
  htpasswd: {realm: registry, path: $3/htpasswd}
YAML
}

registries_start() {
  local dir=$STATE/registry
  mkdir -p "$dir/tls/secret"
  cp "$PKI/registry-tls.crt" "$dir/tls/secret/tls.crt"
  cp "$PKI/registry-tls.key" "$dir/tls/secret/tls.key"
  cp "$PKI/htpasswd" "$dir/tls/secret/htpasswd"
  registry_config "$REGISTRY" "$dir/plain/data" >"$dir/plain.yml"
  registry_config "$REGISTRY_TLS" "$dir/tls/data" "$dir/tls/secret" >"$dir/tls.yml"
  spawn registry-plain -- env OTEL_TRACES_EXPORTER=none "$PEERS/registry" serve "$dir/plain.yml"
  spawn registry-tls -- env OTEL_TRACES_EXPORTER=none "$PEERS/registry" serve "$dir/tls.yml"
  spawn registry-referrers -- "$PEERS/rigtool" referrers "$REGISTRY_REFERRERS"
}

# The registry in the cluster, and a pod beside it with curl and crane, which
# sees it as pods do.
registry_service_apply() {
  local dir=$STATE/registry
  registry_config :5000 /data /secret >"$dir/svc.yml"
  {
    kubectl create namespace registry --dry-run=client -o yaml
    echo ---
    kubectl -n registry create configmap registry --from-file=config.yml="$dir/svc.yml" --dry-run=client -o yaml
    echo ---
    kubectl -n registry create configmap registry-ca --from-file=ca.crt="$PKI/registry-svc.crt" --dry-run=client -o yaml
    echo ---
    kubectl -n registry create secret generic registry --from-file=tls.crt="$PKI/registry-svc.crt" \
      --from-file=tls.key="$PKI/registry-svc.key" --from-file=htpasswd="$PKI/htpasswd" --dry-run=client -o yaml
    cat <<YAML
---
apiVersion: v1
kind: Service
metadata: {name: registry, namespace: registry}
spec:
  clusterIP: $REGISTRY_SVC_IP
  selector: {app: registry}
  ports: [{port: 5000}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: registry, namespace: registry}
spec:
  selector: {matchLabels: {app: registry}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: registry}}
    spec:
      containers:
      - name: registry
        image: $REGISTRY_IMAGE
        imagePullPolicy: IfNotPresent
        env: [{name: OTEL_TRACES_EXPORTER, value: none}]
        ports: [{containerPort: 5000}]
        readinessProbe: {tcpSocket: {port: 5000}, periodSeconds: 1}
        volumeMounts:
        - {name: config, mountPath: /etc/distribution}
        - {name: secret, mountPath: /secret}
        - {name: data, mountPath: /data}
      volumes:
      - {name: config, configMap: {name: registry}}
      - {name: secret, secret: {secretName: registry}}
      - {name: data, emptyDir: {}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: tools, namespace: registry}
spec:
  selector: {matchLabels: {app: tools}}
  template:
    metadata: {labels: {app: tools}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: tools
        image: $TOOLS_IMAGE
        imagePullPolicy: IfNotPresent
        command: [sleep, "2147483647"]
        volumeMounts: [{name: ca, mountPath: /etc/registry}]
      volumes:
      - {name: ca, configMap: {name: registry-ca}}
YAML
  } | kubectl apply -f - >/dev/null
}

registry_answers() { # URL [CURL-OPTION...]
  [[ $(in_netns curl -s -o /dev/null -w '%{http_code}' --max-time 3 "${@:2}" "$1/v2/") == 200 ]]
}

registries_ready() {
  registry_answers "http://$REGISTRY" &&
    registry_answers "http://$REGISTRY_REFERRERS" &&
    registry_answers "https://$REGISTRY_TLS" --cacert "$PKI/registry-ca.crt" -u "$REGISTRY_USER:$REGISTRY_PASSWORD"
}

registry_service_ready() {
  local deployment
  for deployment in registry tools; do
    [[ $(kubectl -n registry get deployment "$deployment" -o 'jsonpath={.status.readyReplicas}' 2>/dev/null) == 1 ]] || return 1
  done
  registry_answers "https://$REGISTRY_SVC" --resolve "$REGISTRY_SVC:$REGISTRY_SVC_IP" \
    --cacert "$PKI/registry-svc.crt" -u "$REGISTRY_USER:$REGISTRY_PASSWORD"
}

# A base image that Dockerfiles of tests can name.
base_push() {
  BASE_REF=$REGISTRY/base:busybox
  if ! in_netns "$PEERS/crane" digest --insecure "$BASE_REF" >/dev/null 2>&1; then
    in_netns "$PEERS/crane" push --insecure "$IMAGES/base" "$BASE_REF" >>"$LOGS/images.log" 2>&1 ||
      { tail -n 5 "$LOGS/images.log" >&2; die "the base image could not be pushed to $REGISTRY"; }
  fi
}

# hosts_files DIRECTORY: how a node's containerd reaches the registries, under
# $STATE/certs.d; DIRECTORY is where the node finds the authorities' files.
hosts_files() {
  local host
  for host in "$REGISTRY" "$REGISTRY_REFERRERS"; do
    mkdir -p "$STATE/certs.d/$host"
    printf 'server = "http://%s"\n[host."http://%s"]\n  capabilities = ["pull", "resolve"]\n' "$host" "$host" \
      >"$STATE/certs.d/$host/hosts.toml"
  done
  mkdir -p "$STATE/certs.d/$REGISTRY_TLS" "$STATE/certs.d/$REGISTRY_SVC"
  printf 'server = "https://%s"\nca = "%s/registry-ca.crt"\n' "$REGISTRY_TLS" "$1" >"$STATE/certs.d/$REGISTRY_TLS/hosts.toml"
  # Nodes do not use the cluster's DNS: they get the Service's address.
  printf 'server = "https://%s:5000"\nca = "%s/registry-svc.crt"\n' "$REGISTRY_SVC_IP" "$1" >"$STATE/certs.d/$REGISTRY_SVC/hosts.toml"
}
