#!/usr/bin/env bash
# Measures kubectl-build beside buildctl, buildx and cosign on the cluster of `make cluster`, and prints a table.
# Nothing is asserted about time. KB_BENCH_ROUNDS=N sets the rounds of every case; KB_BENCH_CASES="noop files"
# chooses cases: noop files huge cold sign index platforms help.
set -euo pipefail
SELF=bench
. "$(dirname -- "$0")/cluster/lib.sh"
cd "$REPO"

need_packages python3=python3 /usr/bin/time=time /usr/bin/strace=strace
# A shell that has sourced the cluster's env file measures there.
if [[ -z ${CLUSTER_PROVIDER:-} ]]; then
  hack/cluster/up.sh
  # shellcheck disable=SC1091
  . target/cluster/env
fi
hack/cluster/signing.sh
set -a
# shellcheck disable=SC1091
. target/cluster/signing-env
set +a
KUBECTL_BUILD_BIN=${KUBECTL_BUILD_BIN:-}
if [[ -z $KUBECTL_BUILD_BIN ]]; then
  hack/build-static.sh
  KUBECTL_BUILD_BIN=$(hack/build-static.sh --print)
fi
export KUBECTL_BUILD_BIN
# shellcheck disable=SC2086  # a command prefix, or nothing
exec $CLUSTER_RUN python3 hack/bench.py "$@"
