#!/usr/bin/env bash
# Runs kind.sh against recording stand-ins of docker, kind, kubectl and curl:
# no container runs. It checks which calls are made, in which order, and the env
# file; it says nothing about whether kind would accept them.
set -euo pipefail
here=$(cd -- "$(dirname -- "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "kind provider, against STAND-INS for docker, kind, kubectl and curl (nothing is really started)"

mkdir -p "$work/repo/hack" "$work/bin" "$work/peers" "$work/state"
cp -R "$here" "$work/repo/hack/cluster"
export PATH=$work/bin:$PATH CALLS=$work/calls FAKE=$work/state KUBECTL_BUILD_CACHE=$work/cache PROVIDER=kind
: >"$CALLS"

# stand_in FILE: a script that records its call and then runs what is on stdin.
stand_in() {
  {
    echo '#!/usr/bin/env bash'
    # shellcheck disable=SC2016
    echo 'echo "${0##*/} $*" >>"$CALLS"'
    cat
  } >"$1"
  chmod +x "$1"
}
stand_in "$work/bin/kind" <<'SH'
case "$*" in
  "get clusters") cat "$FAKE/clusters" 2>/dev/null ;;
  "create cluster"*) cat >"$FAKE/config"; while [[ $1 != --name ]]; do shift; done; echo "$2" >"$FAKE/clusters" ;;
  "get kubeconfig"*) echo "kind: Config" ;;
  "get nodes"*) printf '%s\n' "$4-worker" "$4-control-plane" ;;
  "delete cluster"*) rm "$FAKE/clusters" ;;
esac
exit 0
SH
stand_in "$work/bin/docker" <<'SH'
case "$1" in
  ps) grep -x "$(sed 's/.*name=^\(.*\)\$.*/\1/' <<<"$*")" "$FAKE/containers" 2>/dev/null ;;
  run) while [[ $# != 0 && $1 != --name ]]; do shift; done; [[ $# == 0 ]] || echo "$2" >>"$FAKE/containers" ;;
  inspect) case "${*: -1}" in *-plain) echo 172.18.0.4 ;; *-tls) echo 172.18.0.5 ;; *) echo 172.18.0.6 ;; esac ;;
  image) exit 1 ;;
  network) printf 'fc00:f853:ccd:e793::1\n172.18.0.1\n\n' ;;
  rm) sed -i "/^${*: -1}\$/d" "$FAKE/containers" ;;
esac
exit 0
SH
stand_in "$work/bin/kubectl" <<'SH'
case "$*" in
  *"apply -f -"*) cat >"$FAKE/applied" ;;
  *cluster.server*) echo https://127.0.0.1:40001 ;;
  *certificate-authority-data*) echo dGVzdA== ;;
  *dry-run=client*) echo "# $*" ;;
esac
SH
stand_in "$work/bin/curl" <<<'printf 200'
stand_in "$work/repo/hack/cluster/peers.sh" <<SH
if [[ \${1:-} == path ]]; then echo "$work/peers"; fi
SH
stand_in "$work/peers/crane" <<<'[[ $1 != digest ]]'
stand_in "$work/peers/rigtool" <<<'echo "$2:hash"'
stand_in "$work/repo/hack/cluster/oidc-peer.sh" <<<"echo $work/oidc"
stand_in "$work/peers/fulcio" <<<'exec sleep 300'
for service in rekor-server-posix timestamp-server cosign; do stand_in "$work/peers/$service" <<<true; done
stand_in "$work/bin/npm" <<<true
stand_in "$work/bin/faketime" <<<true
stand_in "$work/bin/node" <<<'case $1 in */server.js) touch "$4" ;; esac'
stand_in "$work/bin/python3" <<'SH'
if [[ $2 == venv ]]; then mkdir -p "$3/bin" && printf '#!/bin/sh\n' >"$3/bin/pip" && chmod +x "$3/bin/pip"; fi
SH

passed=0 failed=0
check() { # WHAT COMMAND...
  if "${@:2}"; then
    passed=$((passed + 1)) && echo "ok: $1"
  else
    failed=$((failed + 1)) && echo "FAILED: $1"
  fi
}
called() { grep -qE -- "$1" "$CALLS"; }
never() { ! called "$1"; }
count() { [[ $(grep -cE -- "$2" "$CALLS") == "$1" ]]; }
before() { # FIRST SECOND: the first such call is made before the other
  local a b
  a=$(grep -nE -m1 -- "$1" "$CALLS" | cut -d: -f1)
  b=$(grep -nE -m1 -- "$2" "$CALLS" | cut -d: -f1)
  [[ -n $a && -n $b && $a -lt $b ]]
}
has() { grep -qE -- "$2" "$1"; }
# The values as a shell gets them by sourcing the file.
value() { # shellcheck disable=SC1091
  (. "$work/repo/target/cluster/env" && [[ ${!1} == "$2" ]])
}

"$work/repo/hack/cluster/up.sh"
name=$(cat "$work/state/clusters")
check "one cluster is made, named after the checkout" count 1 "^kind create cluster --name kubectl-build-[0-9a-f]{8} --image kindest/node:v[0-9.]+ "
check "two nodes" has "$work/state/config" 'role: control-plane.*role: worker'
check "no image is 'latest'" never ':latest'
check "both nodes take pods" called '^kubectl .*taint nodes --all'
check "three registries on kind's network" count 3 '^docker run .*--network kind'
check "images are loaded into the nodes" count 5 "^kind load docker-image --name $name "
check "the builder's image is pulled before it is loaded" before '^docker pull .*moby/buildkit' '^kind load .*moby/buildkit'
check "nodes are told how to reach the registries" count 2 '^docker cp .*certs.d/\. '
check "the base image goes to the plain registry" called '^crane copy --insecure busybox:[0-9.]+ 172.18.0.4:5000/base:busybox'
check "the registry Service has its fixed address" has "$work/state/applied" 'clusterIP: 10.96.0.50'
check "the applied registry is a pinned image" has "$work/state/applied" 'image: registry:[0-9]'
# Which binaries were asked for, by versions.sh; kubectl is the user's own.
built=$(
  . "$here/versions.sh"
  asked=" $(sed -n 's/^peers.sh \(.*rigtools.*\)/\1/p' "$CALLS" | head -n 1) "
  echo kubectl
  # Made for every provider, by test.sh.
  sed -n 's|^ln -sfn .*"$bin/\(.*\)"$|\1|p' "$here/kms-peers.sh"
  sed -n 's|^ *ln -sfn .*"$PEERS/\([a-z-]*\)"$|\1|p' "$here/signing.sh"
  for n in "${ORDER[@]}"; do
    if [[ $asked == *" $n "* || $asked == *" ${GROUP[$n]} "* ]]; then echo "${NAMES[$n]:-$(basename -a ${PKGS[$n]})}"; fi
  done
)
wanted=$(grep -rhoE 'peer\("[a-z0-9-]+"\)' "$here/../../integration" | cut -d'"' -f2 | sort -u)
check "tests ask for peers" has <(echo "$wanted") '^buildkitd$'
for binary in $wanted; do check "the tests' peer $binary is built" has <(echo "$built") "^$binary\$"; done
check "Kubernetes itself is not built" never '^peers.sh .*(kube|cluster)'
check "CLIENT_ADDRESS is the machine's on kind's network" value CLIENT_ADDRESS 172.18.0.1
check "CLUSTER_RUN is empty" value CLUSTER_RUN ""
check "CLUSTER_PROVIDER is kind" value CLUSTER_PROVIDER kind
check "REGISTRY" value REGISTRY 172.18.0.4:5000
check "REGISTRY_TLS" value REGISTRY_TLS 172.18.0.5:5000
check "REGISTRY_REFERRERS" value REGISTRY_REFERRERS 172.18.0.6:5000
check "REGISTRY_SVC" value REGISTRY_SVC registry.registry.svc.cluster.local:5000
check "BUILDKIT_IMAGE" value BUILDKIT_IMAGE moby/buildkit:v0.33.1
check "CLUSTER_NODES" value CLUSTER_NODES "$name-control-plane $name-worker"
check "APISERVER" value APISERVER https://127.0.0.1:40001
openssl x509 -in "$work"/cache/clusters/*/pki/registry-tls.crt -noout -ext subjectAltName >"$work/san"
check "the TLS registry's certificate names its address" has "$work/san" 'IP Address:172\.18\.0\.5,'
check "every variable of the local provider is there" \
  diff <(sed -n 's/^export \([A-Z_]*\)=.*/\1/p' "$work/repo/target/cluster/env") \
  <(bash -c '. "$1/env.sh"; printf "%s\n" "${ENV_NAMES[@]}"' - "$here")

: >"$CALLS"
"$work/repo/hack/cluster/signing.sh"
port=$(sed -n 's/.*apiServerPort: \([0-9]*\).*/\1/p' "$work/state/config")
check "tokens name an issuer that this machine reaches" has "$work/state/config" "service-account-issuer: \"https://127.0.0.1:$port\""
check "Fulcio runs on this machine, where pods reach it" called '^fulcio serve --host 172.18.0.1 '
check "Fulcio believes the API server" has "$(echo "$work"/cache/clusters/*/signing/fulcio.yaml)" 'https://127.0.0.1:40001: .*type: kubernetes'
check "the signing services' addresses are written" has "$work/repo/target/cluster/signing-env" 'FULCIO_URL=.http://172.18.0.1:5555'
read -r fulcio _ <"$(echo "$work"/cache/clusters/*/pids/fulcio.pid)"
check "Fulcio runs" kill -0 "$fulcio"

: >"$CALLS"
"$work/repo/hack/cluster/up.sh"
check "a second up makes no cluster" never '^kind create'
check "a second up makes no container" never '^docker run'
check "a second up starts stopped containers" count 3 '^docker start '

: >"$CALLS"
"$work/repo/hack/cluster/signal.sh" STOP kubelet "$name-worker"
check "a kubelet is signalled inside its node" called "^docker exec $name-worker pkill -STOP -x kubelet"

: >"$CALLS"
"$work/repo/hack/cluster/down.sh"
check "down removes the containers" count 3 '^docker rm -f -v '
check "down deletes the cluster" called "^kind delete cluster --name $name"
ended() { [[ ! -e /proc/$1 ]] || grep -q "^State:.Z" "/proc/$1/status"; }
check "down ends the signing services" ended "$fulcio"
check "down removes the env file" test ! -e "$work/repo/target/cluster"
check "down removes the state" test ! -e "$work"/cache/clusters/"${name#kubectl-build-}"

echo "stand-ins only: kind itself was not run"
echo "$passed passed, $failed failed"
((failed == 0))
