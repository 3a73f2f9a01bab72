#!/usr/bin/env bash
# Starts the signing services beside the running cluster, or finds them well:
# Fulcio (a certificate authority of its own, no CT log), Rekor v2 and an
# RFC 3161 timestamp authority; the cluster's API server is the token issuer, and
# people log in at an OpenID Connect provider.
# Beside them an emulator of Fulcio with a certificate log and of Rekor v1.
# They run in the cluster's network namespace (with kind on this machine), on the
# address that pods reach too, and end with the cluster (`make cluster-down`).
# Writes target/cluster/signing-env.
set -euo pipefail
SELF=signing
. "$(dirname -- "$0")/lib.sh"
ENV_FILE=$REPO/target/cluster/env
[[ -e $ENV_FILE ]] || die "no cluster: $ENV_FILE is not there; start one with 'make cluster'"
. "$HERE/local.sh"
. "$ENV_FILE"
# The cluster may be another checkout's whose target/cluster this one links to.
LOGS=$CLUSTER_LOGS STATE=${CLUSTER_LOGS%/logs} NETNS_FILE=${CLUSTER_RUN#nsenter --net=}
PIDS=$STATE/pids
[[ -n $NETNS_FILE ]] || in_netns() { "$@"; }
DIR=$STATE/signing

FULCIO_URL=http://$CLIENT_ADDRESS:5555
REKOR_URL=http://$CLIENT_ADDRESS:5611
TSA_URL=http://$CLIENT_ADDRESS:5610/api/v1/timestamp
EMULATOR_URL=http://$CLIENT_ADDRESS:5630
EMULATOR_ROOT=$DIR/emulator-root.json
OIDC_ISSUER=$APISERVER
# A second issuer, for tokens that no API server makes: tests serve it themselves, with this key.
TEST_ISSUER=http://$CLIENT_ADDRESS:5621
TEST_ISSUER_KEY=$DIR/issuer.pem
# Where people log in: a certified OpenID Connect provider.
LOGIN_ISSUER=http://$CLIENT_ADDRESS:5622
TRUSTED_ROOT=$DIR/trusted-root.json
SIGNING_CONFIG=$DIR/signing-config.json
START=2026-01-01T00:00:00Z
TUF=7.0.1 SECURESYSTEMSLIB=1.6.0

answers() { [[ $(in_netns curl -s -o /dev/null -w '%{http_code}' --max-time 3 "$1") == 200 ]]; }
fulcio_ready() { answers "$FULCIO_URL/api/v2/trustBundle"; }
rekor_ready() { answers "$REKOR_URL/healthz"; }
login_ready() { answers "$LOGIN_ISSUER/.well-known/openid-configuration"; }
timestamp_ready() { answers "$TSA_URL/certchain"; }

emulator_ready() { [[ -e $EMULATOR_ROOT ]] && answers "$EMULATOR_URL/api/v1/log"; }

# npm's packages for the emulator, in a folder of the cache that is named after what it holds.
emulator_install() {
  local log=$LOGS/emulator-npm.log
  emulator=$CACHE/emulator/$(cat "$HERE"/emulator/* | sha256sum | cut -c1-10)
  [[ ! -e $emulator/complete ]] || return 0
  need_packages node=nodejs npm=npm
  say "installing the emulator of Rekor v1"
  rm -rf "$emulator"
  mkdir -p "$emulator"
  cp "$HERE"/emulator/* "$emulator"
  (cd "$emulator" && npm ci --no-audit --no-fund --ignore-scripts) >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; die "npm could not install the emulator (log: $log)"; }
  touch "$emulator/complete"
}

# python-tuf in a folder likewise, for tests that make repositories.
tuf_install() {
  local folder log=$LOGS/tuf-pip.log
  folder=$CACHE/tuf/$({ echo "$TUF $SECURESYSTEMSLIB"; cat "$HERE/tuf/repository.py"; } | sha256sum | cut -c1-10)
  if [[ ! -e $folder/complete ]]; then
    need_packages python3=python3
    python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
    say "installing python-tuf $TUF"
    rm -rf "$folder"
    mkdir -p "$CACHE/tuf"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir "tuf==$TUF" \
      "securesystemslib[crypto]==$SECURESYSTEMSLIB" >"$log" 2>&1 ||
      { tail -n 20 "$log" >&2; die "pip could not install python-tuf (log: $log)"; }
    install -m 0755 "$HERE/tuf/repository.py" "$folder/bin/repository.py"
    printf '#!/bin/sh\nexec "%s/bin/python" "%s/bin/repository.py" "$@"\n' "$folder" "$folder" >"$folder/bin/tuf-repository"
    chmod 0755 "$folder/bin/tuf-repository"
    touch "$folder/complete"
  fi
  ln -sfn "$folder/bin/tuf-repository" "$PEERS/tuf-repository"
}

keys() {
  (
    umask 077
    mkdir -p "$DIR/rekor"
    cd "$DIR"
    openssl rand -hex 16 >fulcio.password
    openssl ecparam -name prime256v1 -genkey -noout -out fulcio.plain
    openssl pkcs8 -topk8 -v2 aes-256-cbc -in fulcio.plain -out fulcio.key -passout file:fulcio.password
    openssl req -x509 -new -key fulcio.plain -subj '/O=local/CN=fulcio-root' -days 3650 -out fulcio.crt \
      -addext basicConstraints=critical,CA:TRUE,pathlen:1 -addext keyUsage=critical,keyCertSign,cRLSign
    rm fulcio.plain
    openssl genpkey -algorithm ed25519 -out rekor.key
    openssl pkey -in rekor.key -pubout -out rekor.pub
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out issuer.pem
  ) >"$LOGS/signing-keys.log" 2>&1 || { tail -n 20 "$LOGS/signing-keys.log" >&2; die "openssl failed"; }
  touch "$DIR/complete"
}

services_start() {
  spawn oidc-provider -- node "$OIDC_DIR/provider.js" "$LOGIN_ISSUER"
  # Issuers: the cluster, whose tokens name service accounts, and the tests'.
  cat >"$DIR/fulcio.yaml" <<YAML
oidc-issuers:
  $OIDC_ISSUER: {issuer-url: "$OIDC_ISSUER", client-id: sigstore, type: kubernetes}
  $TEST_ISSUER: {issuer-url: "$TEST_ISSUER", client-id: sigstore, type: email}
  $LOGIN_ISSUER: {issuer-url: "$LOGIN_ISSUER", client-id: sigstore, type: email}
YAML
  spawn fulcio -- env SSL_CERT_FILE="$CLUSTER_CA" "$PEERS/fulcio" serve --host "$CLIENT_ADDRESS" --port 5555 \
    --grpc-host 127.0.0.1 --grpc-port 5554 --metrics-port 5557 --config-path "$DIR/fulcio.yaml" --ct-log-url= \
    --ca fileca --fileca-cert "$DIR/fulcio.crt" --fileca-key "$DIR/fulcio.key" \
    --fileca-key-passwd "$(cat "$DIR/fulcio.password")" --fileca-watch=false
  spawn rekor -- "$PEERS/rekor-server-posix" serve --http-address "$CLIENT_ADDRESS" --http-port 5611 \
    --grpc-address 127.0.0.1 --grpc-port 5612 --http-metrics-port 5613 --hostname "$CLIENT_ADDRESS" \
    --storage-dir "$DIR/rekor" --signer-filepath "$DIR/rekor.key" --checkpoint-interval 1s
  # Its key lives in its memory: each start has a chain of its own.
  alive timestamp-server || rm -f "$TRUSTED_ROOT"
  spawn timestamp-server -- "$PEERS/timestamp-server" serve --host "$CLIENT_ADDRESS" --port 5610 \
    --timestamp-signer memory --disable-ntp-monitoring
  alive emulator || rm -f "$EMULATOR_ROOT"
  spawn emulator -- node "$emulator/server.js" "$CLIENT_ADDRESS" 5630 "$EMULATOR_ROOT"
  until_ok 30 "the OpenID Connect provider" login_ready || { tail -n 5 "$LOGS/oidc-provider.log" >&2; exit 1; }
  until_ok 30 Fulcio fulcio_ready || { tail -n 5 "$LOGS/fulcio.log" >&2; exit 1; }
  until_ok 30 Rekor rekor_ready || { tail -n 5 "$LOGS/rekor.log" >&2; exit 1; }
  until_ok 30 "the timestamp authority" timestamp_ready || { tail -n 5 "$LOGS/timestamp-server.log" >&2; exit 1; }
  until_ok 30 "the emulator" emulator_ready || { tail -n 5 "$LOGS/emulator.log" >&2; exit 1; }
}

# What clients trust and where they go, in the formats of sigstore.
documents() {
  [[ ! -e $TRUSTED_ROOT ]] || return 0
  in_netns curl -sf --max-time 5 "$TSA_URL/certchain" >"$DIR/timestamp.pem"
  "$PEERS/cosign" trusted-root create --out "$TRUSTED_ROOT" \
    --fulcio="url=$FULCIO_URL,certificate-chain=$DIR/fulcio.crt" \
    --rekor="url=$REKOR_URL,public-key=$DIR/rekor.pub,start-time=$START,origin=$CLIENT_ADDRESS" \
    --tsa="url=$TSA_URL,certificate-chain=$DIR/timestamp.pem"
  "$PEERS/cosign" signing-config create --out "$SIGNING_CONFIG" \
    --fulcio="url=$FULCIO_URL,api-version=1,start-time=$START,operator=local" \
    --oidc-provider="url=$OIDC_ISSUER,api-version=1,start-time=$START,operator=local" \
    --rekor="url=$REKOR_URL,api-version=2,start-time=$START,operator=local" --rekor-config=ANY \
    --tsa="url=$TSA_URL,api-version=1,start-time=$START,operator=local" --tsa-config=ANY
}

write_env() {
  local name
  {
    echo "# Made by hack/cluster/signing.sh; source it from a shell."
    for name in FULCIO_URL REKOR_URL TSA_URL EMULATOR_URL EMULATOR_ROOT OIDC_ISSUER LOGIN_ISSUER TEST_ISSUER TEST_ISSUER_KEY TRUSTED_ROOT SIGNING_CONFIG; do
      printf 'export %s=%s\n' "$name" "${!name@Q}"
    done
  } >"$REPO/target/cluster/.signing-env.$$"
  mv "$REPO/target/cluster/.signing-env.$$" "$REPO/target/cluster/signing-env"
}

[[ -z $NETNS_FILE ]] || ((EUID == 0)) ||
  die "the services run in the cluster's network namespace, which needs root: run it with sudo"
need_packages openssl=openssl curl=curl nsenter=util-linux faketime=faketime
"$HERE/peers.sh" fulcio rekor-tiles timestamp cosign3
# kind's folder of peers holds links to them.
built=$("$HERE/peers.sh" path)
for peer in fulcio rekor-server-posix timestamp-server; do
  [[ -e $PEERS/$peer ]] || ln -sfn "$built/$peer" "$PEERS/$peer"
done
OIDC_DIR=$("$HERE/oidc-peer.sh")
lock 600
[[ -e $DIR/complete ]] || keys
emulator_install
tuf_install
services_start
documents
write_env
say "ready: source $REPO/target/cluster/signing-env"
