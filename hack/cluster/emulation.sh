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
  if [[ ! -e $BINFMT/register ]]; then
    mount -t binfmt_misc binfmt_misc "$BINFMT" || die "the kernel has no binfmt_misc: no QEMU for other architectures"
    touch "$CACHE/clusters/.binfmt"
  fi
  for arch in "${EMULATED[@]}"; do
    touch "$CACHE/clusters/.$arch"
    [[ ! -e $BINFMT/qemu-$arch ]] || echo -1 >"$BINFMT/qemu-$arch"
    printf '%s' ":qemu-$arch:M::${ELF_MAGIC[$arch]}:$ELF_MASK:/usr/bin/qemu-$arch-static:CF" >"$BINFMT/register"
  done
  emulation_ready || die "QEMU could not be registered with binfmt_misc"
}

emulation_down() {
  local arch
  for arch in "${EMULATED[@]}"; do
    if [[ -e $CACHE/clusters/.$arch && -e $BINFMT/qemu-$arch ]]; then echo -1 >"$BINFMT/qemu-$arch"; fi
    rm -f "$CACHE/clusters/.$arch"
  done
  if [[ -e $CACHE/clusters/.binfmt ]]; then umount "$BINFMT"; fi
  rm -f "$CACHE/clusters/.binfmt"
}
