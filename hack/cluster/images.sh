# The cluster's images, assembled from the peers and files of this machine:
# nothing is pulled. Each is an OCI layout folder and a tar of it for
# containerd. Sourced by up.sh and kind.sh.
# shellcheck shell=bash

PAUSE_IMAGE=localhost/pause:dev
BASE_IMAGE=localhost/base:dev
BUILDKIT_IMAGE=localhost/buildkit:dev
BUILDKIT_ROOTLESS_IMAGE=localhost/buildkit-rootless:dev
REGISTRY_IMAGE=localhost/registry:dev
TOOLS_IMAGE=localhost/tools:dev
IMAGE_NAMES=(pause base buildkit buildkit-rootless registry tools)

images_packages() {
  # A statically linked busybox has no working name resolution: it crashes on
  # the first `wget NAME`.
  if [[ -e /bin/busybox ]] && ! ldd /bin/busybox >/dev/null 2>&1; then install_packages busybox; fi
  need_packages /bin/busybox=busybox git=git /usr/lib/git-core/git-remote-http=git curl=curl \
    /etc/ssl/certs/ca-certificates.crt=ca-certificates /usr/bin/newuidmap=uidmap setcap=libcap2-bin
}

# The folder of these images; the key covers the peers, this recipe and the
# versions of what is copied from the machine.
images_dir() {
  local key
  key=$({
    echo "$PEERS"
    cat "$HERE/images.sh"
    stat -Lc '%n %s %Y' /bin/busybox /usr/bin/git /usr/bin/curl /usr/bin/newuidmap /etc/ssl/certs/ca-certificates.crt 2>/dev/null || true
  } | sha256sum | cut -c1-12)
  echo "$CACHE/images/$key"
}

# with_libs ROOT FILE...: copies each file and the shared libraries it asks for,
# all to the paths that they have here.
with_libs() {
  local root=$1 file lib
  shift
  for file; do
    install -D "$file" "$root$file"
    # ldd fails on what is static or a script; neither needs more.
    { ldd "$file" 2>/dev/null || true; } | grep -o '/[^ )]*' | while read -r lib; do
      [[ -e $root$lib ]] || install -D "$(readlink -f "$lib")" "$root$lib"
    done
  done
}

# busybox_root ROOT: a small userland with the official image's layout.
busybox_root() {
  local root=$1 applet
  mkdir -p "$root"/{bin,sbin,etc,dev,proc,sys,root,var,usr/bin,usr/sbin,tmp,home}
  chmod 1777 "$root/tmp"
  chmod 700 "$root/root"
  with_libs "$root" /bin/busybox
  for applet in $(/bin/busybox --list); do
    [[ $applet == busybox ]] || ln -s /bin/busybox "$root/bin/$applet"
  done
  ln -s /bin/busybox "$root/usr/bin/env"
  printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
  printf 'root:x:0:\ntty:x:5:\nuser:x:1000:\nnobody:x:65534:\n' >"$root/etc/group"
  printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
}

certificates() { install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"; }

pause_root() { install -D "$PEERS/pause" "$1/pause"; }
base_root() { busybox_root "$1"; }
registry_root() {
  busybox_root "$1"
  certificates "$1"
  install "$PEERS/registry" "$1/bin/registry"
}
tools_root() {
  busybox_root "$1"
  certificates "$1"
  with_libs "$1" /usr/bin/curl
  install "$PEERS/crane" "$1/usr/bin/crane"
}
buildkit_root() {
  busybox_root "$1"
  certificates "$1"
  install -D "$PEERS/buildkitd" "$1/usr/bin/buildkitd"
  install "$PEERS/buildctl" "$1/usr/bin/buildctl"
  install "$PEERS/runc" "$1/usr/bin/buildkit-runc"
  # git contexts: git itself, its https helper, and the scripts of submodules.
  with_libs "$1" /usr/bin/git /usr/lib/git-core/git-remote-http
  ln -s git-remote-http "$1/usr/lib/git-core/git-remote-https"
  ln -s /usr/bin/git "$1/usr/lib/git-core/git"
  local script
  for script in git-submodule git-sh-setup git-sh-i18n; do
    if [[ -e /usr/lib/git-core/$script ]]; then install "/usr/lib/git-core/$script" "$1/usr/lib/git-core/"; fi
  done
  mkdir -p "$1/usr/share/git-core/templates" "$1/var/lib/buildkit" "$1/run/buildkit"
}

# As upstream's rootless image: user 1000, everything below rootlesskit. The
# image tool makes root own all files, hence the folders open to everyone.
buildkit-rootless_root() {
  buildkit_root "$1"
  install "$PEERS/rootlesskit" "$1/usr/bin/rootlesskit"
  with_libs "$1" /usr/bin/newuidmap /usr/bin/newgidmap
  # Being setuid root is not enough in a pod: root without CAP_SYS_ADMIN may not
  # write another user's map. With the one capability they stay that user.
  chmod u-s "$1/usr/bin/newuidmap" "$1/usr/bin/newgidmap"
  setcap cap_setuid+ep "$1/usr/bin/newuidmap"
  setcap cap_setgid+ep "$1/usr/bin/newgidmap"
  echo user:100000:65536 >"$1/etc/subuid"
  echo user:100000:65536 >"$1/etc/subgid"
  sed -i 's|:/home:|:/home/user:|' "$1/etc/passwd"
  mkdir -p "$1"/home/user/.local/{tmp,share/buildkit} "$1/run/user/1000/buildkit"
  chmod 777 "$1"/home/user{,/.local,/.local/tmp,/.local/share,/.local/share/buildkit} "$1"/run/user/1000{,/buildkit}
}

image_flags() {
  local path=--env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  case $1 in
    pause) echo --entrypoint /pause --user 65535:65535 ;;
    base | tools) echo "$path" --cmd sh ;;
    registry) echo "$path" --entrypoint registry --cmd serve --cmd /etc/distribution/config.yml ;;
    buildkit-rootless)
      echo "$path" --env=HOME=/home/user --env=USER=user --env=XDG_RUNTIME_DIR=/run/user/1000 \
        --env=TMPDIR=/home/user/.local/tmp --env=BUILDKIT_HOST=unix:///run/user/1000/buildkit/buildkitd.sock \
        --user 1000:1000 --entrypoint rootlesskit --entrypoint buildkitd
      ;;
    buildkit) echo "$path" --entrypoint buildkitd ;;
  esac
}

# images_build: what is missing of them; sets IMAGES.
images_build() {
  IMAGES=$(images_dir)
  [[ -d $IMAGES ]] && return
  images_packages
  IMAGES=$(images_dir)
  say "assembling images: ${IMAGE_NAMES[*]}"
  local work name
  mkdir -p "$CACHE/images"
  find "$CACHE/images" -maxdepth 1 -name 'work.*' -mmin +60 -exec rm -rf {} + # of killed runs
  work=$(mktemp -d "$CACHE/images/work.XXXXXX")
  for name in "${IMAGE_NAMES[@]}"; do
    mkdir -p "$work/root/$name"
    "${name}_root" "$work/root/$name"
    # shellcheck disable=SC2046
    "$PEERS/rigtool" image $(image_flags "$name") "$work/root/$name" "localhost/$name:dev" "$work/out/$name"
    tar -C "$work/out/$name" -cf "$work/out/$name.tar" .
  done
  mv -T "$work/out" "$IMAGES" 2>/dev/null || [[ -d $IMAGES ]] # another run may have been faster
  rm -rf "$work"
}

# images_import NODE: what the node's containerd lacks.
images_import() {
  local node=$1 name have
  until_ok 30 "containerd of $node" node_ctr "$node" version || { tail -n 20 "$LOGS/containerd-$node.log" >&2; exit 1; }
  have=$(node_ctr "$node" images ls -q 2>/dev/null)
  [[ $(cat "$STATE/$node/images" 2>/dev/null) == "$IMAGES" ]] || have=
  for name in "${IMAGE_NAMES[@]}"; do
    if ! grep -qx "localhost/$name:dev" <<<"$have"; then
      node_ctr "$node" images import "$IMAGES/$name.tar" >>"$LOGS/images.log" 2>&1 ||
        { tail -n 5 "$LOGS/images.log" >&2; die "image $name could not be loaded into $node"; }
    fi
  done
  echo "$IMAGES" >"$STATE/$node/images"
}
