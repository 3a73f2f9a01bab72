# QEMU for programs of other architectures, for every process of this machine:
# the kernel's binfmt_misc opens the interpreter once, here (flag F), so pods and
# RUN steps need not have it. Left in place by `down`: it is the machine's, not a
# cluster's. Sourced by up.sh.
# shellcheck shell=bash

BINFMT=/proc/sys/fs/binfmt_misc
# Only what the tests build for.
EMULATED=(aarch64)
# ELF headers: 64 bit, little endian, executable or shared object, machine 183.
declare -A ELF_MAGIC=([aarch64]='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00')
ELF_MASK='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'

emulation_ready() {
  local arch
  for arch in "${EMULATED[@]}"; do
    # Whoever registered it, with whichever QEMU.
    grep -qs '^flags:.*F' "$BINFMT/qemu-$arch" && grep -qs '^enabled' "$BINFMT/qemu-$arch" || return 1
  done
}

emulation_up() {
  local arch
  emulation_ready && return
  need_packages /usr/bin/qemu-aarch64-static=qemu-user-static
  [[ -e $BINFMT/register ]] || mount -t binfmt_misc binfmt_misc "$BINFMT" ||
    die "the kernel has no binfmt_misc: no QEMU for other architectures"
  for arch in "${EMULATED[@]}"; do
    [[ ! -e $BINFMT/qemu-$arch ]] || echo -1 >"$BINFMT/qemu-$arch"
    printf '%s' ":qemu-$arch:M::${ELF_MAGIC[$arch]}:$ELF_MASK:/usr/bin/qemu-$arch-static:CF" >"$BINFMT/register"
  done
  emulation_ready || die "QEMU could not be registered with binfmt_misc"
}
