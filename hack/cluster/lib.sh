# Shared by every script of hack/cluster: messages, the cache's place, Debian
# packages, and the handling of background processes. Sourced, never run.
# shellcheck shell=bash

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd -- "$HERE/../.." && pwd)
PATH=$PATH:/usr/sbin:/sbin # where a plain user's PATH lacks them
CACHE=${KUBECTL_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-build}

say() { printf '%s: %s\n' "${SELF:-cluster}" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# need_packages COMMAND-OR-FILE=PACKAGE...: installs the packages whose command
# or file is missing when we may, and names them when we may not.
need_packages() {
  local pair thing missing=()
  for pair in "$@"; do
    thing=${pair%%=*}
    case $thing in
      /*) [[ -e $thing ]] || missing+=("${pair#*=}") ;;
      *) command -v "$thing" >/dev/null 2>&1 || missing+=("${pair#*=}") ;;
    esac
  done
  ((${#missing[@]})) || return 0
  install_packages "${missing[@]}"
}

install_packages() {
  if ((EUID != 0)) || ! command -v apt-get >/dev/null 2>&1; then
    die "missing: $* (Debian names). Install them, for example: sudo apt-get install --no-install-recommends $*"
  fi
  say "installing Debian packages: $*"
  local log=${TMPDIR:-/tmp}/kubectl-build-apt.$$.log
  # The package lists are refreshed only when the first try finds them too old.
  export DEBIAN_FRONTEND=noninteractive
  if ! apt-get install -y -qq --no-install-recommends "$@" >"$log" 2>&1; then
    if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } >>"$log" 2>&1; then
      tail -n 15 "$log" >&2
      die "apt-get could not install: $* (log: $log)"
    fi
  fi
  rm -f "$log"
}

# need_go: the peers are ordinary Go modules; nothing here downloads Go itself.
need_go() {
  command -v go >/dev/null 2>&1 || die "Go 1.26 or newer is needed and 'go' is not in PATH"
  local v
  v=$(go env GOVERSION) # go1.26.8
  v=${v#go}
  local major=${v%%.*} rest=${v#*.}
  local minor=${rest%%[!0-9]*}
  ((major > 1 || minor >= 26)) || die "Go 1.26 or newer is needed; 'go' in PATH is $v"
}
