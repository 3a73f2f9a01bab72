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
leave() {
  if [ -n "${CI:-}" ]; then
    PROVIDER="$PROVIDER" hack/cluster/down.sh
    cargo clean --locked --quiet --package kubectl-build || true
    cargo clean --locked --quiet --package kubectl-build --release --target "$(rustc -vV | sed -n 's/^host: //p')" || true
  fi
}
trap leave EXIT

step "peers and cluster"
PROVIDER="$PROVIDER" hack/cluster/up.sh
hack/cluster/kms-peers.sh
# shellcheck disable=SC1091
source target/cluster/env
if [ "$PROVIDER" = local ]; then hack/cluster/signing.sh; fi

step "format, lints, documentation, licences"
cargo fmt --check -- --config-path hack
cargo clippy --locked --all-targets --quiet -- -D warnings
RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --quiet
hack/deny.sh

step "unit tests"
cargo test --locked --lib

step "the binary that users get"
hack/build-static.sh
KUBECTL_BUILD_BIN="$(hack/build-static.sh --print)"
export KUBECTL_BUILD_BIN

step "tests against real peers"
cargo test --locked --no-run --test '*' --quiet
# Two lanes at once, since most suites wait more than they work; what the second has to say comes when it is done.
# The test that stops a kubelet takes a node from everyone, so it runs alone, last.
alone=with_its_kubelet_stopped_its_silence_is_told
first=(multiarch main_job cluster)
second=()
for suite in integration/*.rs; do
  suite="$(basename "$suite" .rs)"
  case " ${first[*]} " in *" $suite "*) ;; *) second+=("$suite") ;; esac
done
suites() {
  # shellcheck disable=SC2086  # CLUSTER_RUN is a command prefix
  ${CLUSTER_RUN:-} cargo test --locked --no-fail-fast "${@/#/--test=}" -- --include-ignored "--skip=$alone" "--test-threads=${TEST_THREADS:-2}"
}
words="$(mktemp)"
suites "${second[@]}" >"$words" 2>&1 &
lane=$!
failed=0
suites "${first[@]}" || failed=1
wait "$lane" || failed=1
cat "$words"
rm "$words"
[ "$failed" = 0 ] || exit 1
# shellcheck disable=SC2086  # CLUSTER_RUN is a command prefix
${CLUSTER_RUN:-} cargo test --locked --test interrupt -- --include-ignored "pod::$alone" --exact

step "keys on a PKCS#11 token, by a build that can load its library"
env -u KUBECTL_BUILD_BIN cargo test --locked --features pkcs11 --test pkcs11 -- --include-ignored

step "the demo"
hack/demo.sh

if [ -x hack/cluster/test-kind.sh ]; then
  step "the kind provider, with stand-ins for kind and docker"
  hack/cluster/test-kind.sh
fi
