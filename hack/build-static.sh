#!/usr/bin/env bash
# Builds the release binary: static on Linux, so that it runs in any pod. `--print` only says where it is.
# With FEATURES (such as pkcs11, which loads libraries) it is an ordinary one.
set -euo pipefail
cd "$(dirname "$0")/.."
target="$(rustc -vV | sed -n 's/^host: //p')"
binary="${CARGO_TARGET_DIR:-$PWD/target}/$target/release/kubectl-build"
if [ "${1:-}" = --print ]; then
  echo "$binary"
  exit
fi
# Panics end the process and symbols are stripped: nobody could read the tables for unwinding, a tenth of the binary.
flags="${RUSTFLAGS:-} -C force-unwind-tables=no"
if [ -n "${FEATURES:-}" ]; then
  RUSTFLAGS="$flags" cargo build --locked --release --target "$target" --features "$FEATURES"
  ls -l "$binary"
  exit
fi
case "$target" in
  # glibc's own resolver is part of the static library since 2.34, so names resolve without shared objects.
  *-linux-*) flags="$flags -C target-feature=+crt-static -C relocation-model=static" ;;
esac
# A named target keeps these flags away from build scripts and procedural macros.
RUSTFLAGS="$flags" cargo build --locked --release --target "$target"
ls -l "$binary"
