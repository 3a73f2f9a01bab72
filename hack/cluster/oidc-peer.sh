#!/usr/bin/env bash
# Installs the OpenID Connect provider at which tests log in (npm's
# oidc-provider, which is certified) into a folder of the cache, keyed by its
# lock file, and the browser that logs in: Debian's chromium with its driver.
# Prints the folder.
set -euo pipefail
SELF=oidc
. "$(dirname -- "$0")/lib.sh"

key=$(cat "$HERE"/oidc/{package-lock.json,provider.js} | sha256sum | cut -c1-10)
dir=$CACHE/oidc/$key

need_packages node=nodejs npm=npm chromium=chromium chromedriver=chromium-driver
if [[ ! -e $dir/complete ]]; then
  mkdir -p "$CACHE/oidc"
  exec 8>"$CACHE/oidc/.lock"
  flock 8
  if [[ ! -e $dir/complete ]]; then
    say "installing oidc-provider"
    rm -rf "$dir"
    mkdir "$dir"
    cp "$HERE"/oidc/* "$dir"
    log=$CACHE/oidc/npm.log
    npm ci --prefix "$dir" --no-fund --no-audit --ignore-scripts >"$log" 2>&1 ||
      { tail -n 20 "$log" >&2; die "npm could not install the provider (log: $log)"; }
    touch "$dir/complete"
  fi
  exec 8>&-
fi
echo "$dir"
