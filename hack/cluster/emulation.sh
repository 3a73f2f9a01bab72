# QEMU for programs of other architectures, for every process of this machine:
# the kernel's binfmt_misc opens the interpreter once, here (flag F), so pods and
# RUN steps need not have it. What the first cluster made of it the last one ends.
# Sourced by up.sh and down.sh.
# shellcheck shell=bash

BINFMT=/proc/sys/fs/binfmt_misc
# Only what the tests build for.
EMULATED=(aarch64)
# ELF headers: 64 bit, little endian, executable or shared object, machine 183.
declare -A ELF_MAGIC=([aarch64]='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00')
ELF_MASK='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'

# registered NAME: it opens its interpreter at once.
registered() { grep -qs '^flags:.*F' "$BINFMT/$1" && grep -qs '^enabled' "$BINFMT/$1"; }

emulation_up() {
  local arch
  touch "$MACHINE/clusters/$ID"
  for arch in "${EMULATED[@]}"; do
    # Whoever registered it, with whichever QEMU.
    if registered "qemu-$arch" || registered "kubectl-build-$arch"; then continue; fi
    need_packages "/usr/bin/qemu-$arch-static=qemu-user-static"
    if [[ ! -e $BINFMT/register ]]; then
      mount -t binfmt_misc binfmt_misc "$BINFMT" || die "the kernel has no binfmt_misc: no QEMU for other architectures"
      touch "$MACHINE/binfmt"
    fi
    # Somebody's own, which a container could not use, stays: the latest comes first.
    printf '%s' ":kubectl-build-$arch:M::${ELF_MAGIC[$arch]}:$ELF_MASK:/usr/bin/qemu-$arch-static:CF" >"$BINFMT/register"
    registered "kubectl-build-$arch" || die "QEMU could not be registered with binfmt_misc"
  done
}

emulation_down() {
  local arch
  for arch in "${EMULATED[@]}"; do
    if [[ -e $BINFMT/kubectl-build-$arch ]]; then echo -1 >"$BINFMT/kubectl-build-$arch"; fi
  done
  if [[ -e $MACHINE/binfmt ]]; then umount "$BINFMT" || say "$BINFMT stays mounted"; fi
  rm -f "$MACHINE/binfmt"
}
