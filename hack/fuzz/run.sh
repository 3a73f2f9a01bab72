#!/usr/bin/env bash
# Fuzzes what reads the bytes of others, TIME seconds (30) for each target, beginning with the seeds; TARGETS names
# some of them. What a target chokes on lies in hack/fuzz/artifacts. With a nightly toolchain the address sanitizer
# watches; without one the stable compiler does without it. The first build takes a quarter of an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")"

version=0.13.1
tools="${KUBECTL_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-build}/tools"
if ! command -v cargo-fuzz >/dev/null && [ ! -x "$tools/bin/cargo-fuzz" ]; then
  echo "fuzz: installing cargo-fuzz $version into $tools"
  CARGO_TARGET_DIR="$tools/build" cargo install --quiet --locked --root "$tools" "cargo-fuzz@$version"
  rm -rf "$tools/build"
fi
PATH="$PATH:$tools/bin"

toolchain=+stable sanitizer=none
if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
  toolchain=+nightly sanitizer=address
else
  export RUSTC_BOOTSTRAP=1
fi
sanitizer="${SANITIZER:-$sanitizer}"
options=(--fuzz-dir . --sanitizer "$sanitizer" --codegen-units 16)
# The same versions as the product's.
cp ../../Cargo.lock Cargo.lock
host="$(rustc -vV | sed -n 's/^host: //p')"
cargo "$toolchain" fuzz build "${options[@]}" --target "$host"
failed=()
for target in ${TARGETS:-$(cargo "$toolchain" fuzz list --fuzz-dir .)}; do
  printf '\n==> %s\n' "$target"
  mkdir -p "corpus/$target" "artifacts/$target"
  # What is found goes into the first folder; the seeds stay as they are. Not by `cargo fuzz run`, which looks again
  # whether there is something to build.
  ASAN_OPTIONS="detect_odr_violation=0" "${CARGO_TARGET_DIR:-target}/$host/release/$target" "corpus/$target" "seeds/$target" -artifact_prefix="artifacts/$target/" \
    -max_total_time="${TIME:-30}" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 || failed+=("$target")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "fuzz: these choked: ${failed[*]}; see hack/fuzz/artifacts" >&2
  exit 1
fi
