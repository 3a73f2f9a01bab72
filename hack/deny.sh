#!/usr/bin/env bash
# Checks licences, bans and sources against hack/deny.toml; advisories too, where their database can be reached.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
tools="${KUBECTL_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-build}/tools"
deny="$(command -v cargo-deny || true)"
if [ -z "$deny" ]; then
  deny="$tools/bin/cargo-deny"
  if [ ! -x "$deny" ]; then
    echo "deny: installing cargo-deny $version into $tools"
    CARGO_TARGET_DIR="$tools/build" cargo install --quiet --locked --root "$tools" "cargo-deny@$version"
    rm -rf "$tools/build"
  fi
fi

"$deny" --locked --config hack/deny.toml check licenses bans sources

# The advisories are a git repository elsewhere; without a way there that is said, and not taken for a pass.
if timeout 120 "$deny" --locked --config hack/deny.toml fetch db >/dev/null 2>&1; then
  "$deny" --locked --config hack/deny.toml check advisories
else
  echo "deny: NOT CHECKED: the advisory database cannot be reached from here"
fi
