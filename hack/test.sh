#!/usr/bin/env bash
# Everything that CI runs: fast checks, then the real peers. Prints what it does; nothing is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
export CLIPPY_CONF_DIR="$PWD/hack"
PROVIDER="${PROVIDER:-local}"

step() { printf '\n==> %s (%s)\n' "$1" "$(date +%T)"; }

step "rust toolchain"
if ! command -v cargo >/dev/null; then
  echo "cargo is missing: install Rust from https://rustup.rs" >&2
  exit 1
fi
for component in clippy rustfmt; do
  cargo "${component/rust/}" --version >/dev/null 2>&1 || rustup component add "$component"
done

# CI works in a fresh clone each time: what it compiles of others is kept beside the peers, what is ours is not.
if [ -n "${CI:-}" ]; then
  cache="${KUBECTL_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-build}"
  export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/cargo}" CARGO_INCREMENTAL=0
fi
words="$(mktemp -d)"
# What runs beside has a process group of its own, so that all of it can be ended.
set -m
leave() {
  for job in $(jobs -p); do kill -- "-$job" 2>/dev/null || true; done
  wait
  local failed=0
  if [ -n "${CI:-}" ]; then
    if [ "$PROVIDER" = local ]; then
      hack/cluster/test-down.sh "$words/before" || failed=1
    else
      PROVIDER="$PROVIDER" hack/cluster/down.sh || failed=1
    fi
    cargo clean --locked --quiet --package kubectl-build || true
    cargo clean --locked --quiet --package kubectl-build --release --target "$(rustc -vV | sed -n 's/^host: //p')" || true
  fi
  rm -r "$words"
  [ "$failed" = 0 ] || exit 1
}
trap leave EXIT
if [ -n "${CI:-}" ]; then hack/cluster/test-down.sh before "$words/before"; fi

# Two builds: the tests' own loads and links the libraries of tokens; the one that users get is static and cannot.
features=pkcs11,piv
if ! pkg-config --exists libpcsclite 2>/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "libpcsclite-dev and pkg-config are missing: install them" >&2
    exit 1
  fi
  step "libpcsclite-dev"
  wanted="apt-get install -y -q libpcsclite-dev pkg-config"
  $wanted >/dev/null || { apt-get update -q >/dev/null && $wanted >/dev/null; }
fi

step "peers and cluster, which come up beside the checks"
{
  PROVIDER="$PROVIDER" hack/cluster/up.sh
  hack/cluster/kms-peers.sh
  hack/cluster/signing.sh
} &
rig=$!

# Lints keep one processor busy, this one the other.
hack/build-static.sh >"$words/binary" 2>&1 &
binary=$!

step "format, lints, documentation, licences"
cargo fmt --check -- --config-path hack
cargo clippy --locked --all-targets --features "$features" --quiet -- -D warnings
RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --quiet
hack/deny.sh

step "the binary that users get"
built=0
wait "$binary" || built=$?
cat "$words/binary"
# Without the features other code may be unused.
if [ "$built" != 0 ] || grep -q '^warning' "$words/binary"; then exit 1; fi
KUBECTL_BUILD_BIN="$(hack/build-static.sh --print)"
export KUBECTL_BUILD_BIN

step "the tests are built"
cargo test --locked --no-run --lib --test '*' --features "$features" --quiet

step "tests against real peers"
wait "$rig"
# shellcheck disable=SC1091
source target/cluster/env
# Lanes run at once, since most suites wait more than they work; unit tests only work. What needs no node, and comes
# last in its lane, goes on while the test that stops a kubelet, and so takes a node from everyone, runs alone.
alone=with_its_kubelet_stopped_its_silence_is_told
builds=(main_job cluster)
waits=(interrupt multiarch)
first=(keyless)
others=()
for suite in integration/*.rs; do
  suite="$(basename "$suite" .rs)"
  case " ${builds[*]} ${waits[*]} ${first[*]} pkcs11 " in *" $suite "*) ;; *) others+=("$suite") ;; esac
done
suites() { # SUITE...
  # shellcheck disable=SC2086  # CLUSTER_RUN is a command prefix
  ${CLUSTER_RUN:-} cargo test --locked --no-fail-fast --features "$features" "${@/#/--test=}" -- \
    --include-ignored "--skip=$alone" "--test-threads=${TEST_THREADS:-2}"
}
# Keys on tokens are for the build that can load their library, which lies beside the tests.
nodeless() {
  local failed=0
  suites "${first[@]}" || failed=1
  touch "$words/nodeless" # from here on it needs none
  cargo test --locked --lib --features "$features" || failed=1
  suites "${others[@]}" || failed=1
  (unset KUBECTL_BUILD_BIN && suites pkcs11) || failed=1
  return $failed
}
patient() {
  local failed=0
  suites "${waits[@]}" || failed=1
  [ "$PROVIDER" != local ] || hack/cluster/test-local.sh || failed=1
  return $failed
}
patient >"$words/waits" 2>&1 &
waiting=$!
nodeless >"$words/others" 2>&1 &
lane=$!
failed=0
suites "${builds[@]}" || failed=1
wait "$waiting" || failed=1
cat "$words/waits"
until [ -e "$words/nodeless" ]; do sleep 1; done
# shellcheck disable=SC2086  # CLUSTER_RUN is a command prefix
${CLUSTER_RUN:-} cargo test --locked --features "$features" --test interrupt -- --include-ignored "pod::$alone" --exact || failed=1
wait "$lane" || failed=1
cat "$words/others"
[ "$failed" = 0 ]

step "the demo"
# As in a fresh clone: it has to find the cluster, which is up, and the binary, which is built, by itself.
env -u KUBECONFIG -u REGISTRY -u KUBECTL_BUILD_BIN hack/demo.sh

if [ -x hack/cluster/test-kind.sh ]; then
  step "the kind provider, with stand-ins for kind and docker"
  hack/cluster/test-kind.sh
fi
