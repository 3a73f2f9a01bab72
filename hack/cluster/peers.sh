#!/usr/bin/env bash
# Builds the peers (versions.sh) from Go modules into a cache outside the
# repository, each once: a later run builds only what is missing.
#
#   peers.sh [GROUP|PEER]...   groups: cluster, images, clients (all three by default), signing
#   peers.sh path              prints the folder with the binaries, builds nothing
#   peers.sh key GROUP         prints a key of the group's versions
#
# The cache: $KUBECTL_BUILD_CACHE, or kubectl-build in the user's cache folder.
#   peers/store/NAME-VERSION-KEY/  one peer; complete as soon as it exists
#   peers/bin-KEY/                 links to the binaries of this versions.sh
# Go's own caches grow to 25 GB here, so they live in a temporary folder that is
# deleted at the end.
set -euo pipefail
SELF=peers
. "$(dirname -- "$0")/lib.sh"
. "$HERE/versions.sh"

PEERS_DIR=$CACHE/peers
STORE=$PEERS_DIR/store
export GOWORK=off

# store_of NAME: where the peer lives; the key covers everything that shapes it.
store_of() {
  local n=$1 key
  key=$({
    echo "${VERSION[$n]}|${PKGS[$n]}|${TAGS[$n]:-}|${LDFLAGS[$n]:-}|${CGO[$n]:-0}|${REQUIRE[$n]:-}|${NAMES[$n]:-}"
    [[ -z ${SOURCE[$n]:-} ]] || (cd "$HERE/${SOURCE[$n]}" && find . -type f | LC_ALL=C sort | xargs cat)
  } | sha256sum | cut -c1-10)
  echo "$STORE/$n-${VERSION[$n]}-$key"
}

# set_key [GROUP]: of everything, or of a group.
set_key() {
  local n
  for n in "${ORDER[@]}"; do
    if [[ -z ${1:-} || ${GROUP[$n]} == "$1" ]]; then basename "$(store_of "$n")"; fi
  done | sha256sum | cut -c1-12
}

# prepare NAME: the peer's own small module, so that dependency trees do not
# fight one another; resolves and downloads everything it needs.
prepare() {
  local n=$1 dir=$WORK/src/$1 m
  # `set -e` does not hold in a function whose result is tested: hence `return`.
  rm -rf "$dir" && mkdir -p "$dir" && cd "$dir" || return
  if [[ -n ${SOURCE[$n]:-} ]]; then
    cp -R "$HERE/${SOURCE[$n]}/." . || return
  else
    go mod init "peer/$n" || return
    for m in ${REQUIRE[$n]:-}; do go mod edit -require="$m" || return; done
    local p pkgs=()
    for p in ${PKGS[$n]}; do pkgs+=("$p@${VERSION[$n]}"); done
    go get -tool "${pkgs[@]}" || return
  fi
  # shellcheck disable=SC2086  # package lists are meant to split
  CGO_ENABLED=${CGO[$n]:-0} go list -deps -tags "${TAGS[$n]:-}" ${PKGS[$n]} >/dev/null
}

# compile NAME: all of the peer's binaries, stripped, into the given folder.
compile() {
  local n=$1 out=$2
  cd "$WORK/src/$n" || return
  # shellcheck disable=SC2086
  CGO_ENABLED=${CGO[$n]:-0} go build -trimpath -buildvcs=false -tags "${TAGS[$n]:-}" \
    -ldflags "-s -w ${LDFLAGS[$n]:-}" -o "$out/bin/${NAMES[$n]:-}" ${PKGS[$n]}
}

# prepare_all NAME...: downloads run ahead of the compiler. Leaves one marker
# per peer: ok or failed.
prepare_all() {
  local n
  for n in "$@"; do
    # Once more after a moment: a proxy that stumbles should not cost the run.
    if prepare_logged "$n" || { sleep 5 && prepare_logged "$n"; }; then touch "$WORK/$n.ok"; else touch "$WORK/$n.failed"; fi
  done
}
prepare_logged() { (prepare "$1") >"$LOGS/$1.log" 2>&1; }

link_all() {
  local n f dir
  dir=$PEERS_DIR/bin-$(set_key)
  mkdir -p "$dir"
  for n in "${ORDER[@]}"; do
    for f in "$(store_of "$n")"/bin/*; do
      if [[ -e $f ]]; then ln -sfn "../store/$(basename "$(store_of "$n")")/bin/${f##*/}" "$dir/${f##*/}"; fi
    done
  done
  if [[ -e $dir/cosign ]]; then ln -sfn cosign "$dir/cosign3"; fi
}

# build NAME: takes the peer's lock, so two runs never build the same one, and
# moves the finished folder into place in one step.
build() {
  local n=$1 store start=$SECONDS
  store=$(store_of "$n")
  exec 8>"$STORE/.$n.lock"
  if ! flock -n 8; then
    say "$n ${VERSION[$n]}: another run is building it, waiting"
    flock 8
  fi
  if [[ ! -d $store ]]; then
    say "$n ${VERSION[$n]}: building ($((++count)) of $total)"
    while [[ ! -e $WORK/$n.ok && ! -e $WORK/$n.failed ]]; do sleep 0.3; done
    local tmp=$WORK/out/$n
    mkdir -p "$tmp/bin"
    if [[ -e $WORK/$n.failed ]] || ! (compile "$n" "$tmp") >>"$LOGS/$n.log" 2>&1; then
      tail -n 30 "$LOGS/$n.log" >&2
      die "$n ${VERSION[$n]} did not build (log: $LOGS/$n.log)"
    fi
    mv -T "$tmp" "$store"
    say "$n ${VERSION[$n]}: done in $((SECONDS - start)) s"
  fi
  exec 8>&-
  link_all
}

cleanup() {
  local status=$?
  if [[ -n ${PREPARE:-} ]]; then kill -- -"$PREPARE" 2>/dev/null || true; fi
  if [[ -n ${WORK:-} ]]; then
    chmod -R u+w "$WORK" 2>/dev/null || true # Go's module files are read-only
    rm -rf "$WORK" 2>/dev/null || { sleep 1; rm -rf "$WORK"; }
  fi
  exit "$status"
}

# Folders of runs that were killed: theirs is the lock that nobody holds, not
# even a download that outlived its run.
sweep() {
  local old
  for old in "$PEERS_DIR"/work.*; do
    [[ -d $old ]] || continue
    if flock -n "$old" true; then
      chmod -R u+w "$old" && rm -rf "$old" || say "could not remove $old"
    fi
  done
}

main() {
  if [[ ${1:-} == path ]]; then
    echo "$PEERS_DIR/bin-$(set_key)"
    return
  elif [[ ${1:-} == key ]]; then
    set_key "$2"
    return
  fi
  local wanted=() missing=() n w
  (($#)) || set -- cluster images clients
  for n in "${ORDER[@]}"; do
    for w in "$@"; do
      if [[ $w == "$n" || $w == "${GROUP[$n]}" ]]; then wanted+=("$n"); fi
    done
  done
  ((${#wanted[@]})) || die "nothing called '$*': groups are cluster, images, clients, signing"
  mkdir -p "$STORE"
  for n in "${wanted[@]}"; do
    [[ -d $(store_of "$n") ]] || missing+=("$n")
  done
  if ((${#missing[@]} == 0)); then
    link_all
    say "all ${#wanted[@]} are in $PEERS_DIR/bin-$(set_key)"
    return
  fi

  need_go
  need_packages flock=util-linux gcc=gcc /usr/include/seccomp.h=libseccomp-dev pkg-config=pkg-config \
    /usr/include/stdio.h=libc6-dev
  sweep
  LOGS=$PEERS_DIR/logs
  WORK=$(mktemp -d "$PEERS_DIR/work.XXXXXX")
  trap cleanup EXIT
  trap 'exit 130' INT TERM
  exec 7<"$WORK" && flock 7 # held until this process ends; see sweep
  mkdir -p "$LOGS" "$WORK/src" "$WORK/out"
  export GOMODCACHE=$WORK/mod GOCACHE=$WORK/build GOTMPDIR=$WORK
  total=${#missing[@]} count=0
  say "$total of ${#wanted[@]} to build from Go modules: ${missing[*]}"
  set -m # the downloads get a process group of their own, to be ended with us
  prepare_all "${missing[@]}" &
  PREPARE=$!
  set +m
  for n in "${missing[@]}"; do build "$n"; done
  PREPARE=
  say "all ${#wanted[@]} are in $PEERS_DIR/bin-$(set_key)"
}
main "$@"
