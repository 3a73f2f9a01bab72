#!/usr/bin/env bash
# Builds, pushes and signs the hello image, and lets cosign 3 and cosign 2 verify it.
# Without KUBECONFIG on a cluster that it starts itself (PROVIDER=local or kind, see hack/cluster/up.sh). With
# KUBECONFIG on that cluster, and then REGISTRY must name a registry that both the cluster and this machine reach.
set -euo pipefail
SELF=demo
. "$(dirname -- "$0")/cluster/lib.sh"
cd "$REPO"

step() { printf '\n==> %s\n' "$*"; }

if [[ -z ${KUBECONFIG:-} ]]; then
  step "starting a cluster with registries (hack/cluster/up.sh)"
  CLUSTER_ONLY=1 PROVIDER=${PROVIDER:-local} hack/cluster/up.sh
  # shellcheck disable=SC1091
  . target/cluster/env
elif [[ -z ${REGISTRY:-} ]]; then
  die "KUBECONFIG is set, so REGISTRY must say where to push: make demo REGISTRY=registry.example.com/me
(or unset KUBECONFIG to run on a cluster that the demo starts itself)"
fi
# Our own cluster says so in its env file; its first registry speaks plain HTTP.
registry_flags=()
if [[ -n ${CLUSTER_PROVIDER:-} ]]; then
  export KUBECTL_BUILD_BUILDER_IMAGE=$BUILDKIT_IMAGE
  registry_flags=(--registry-http "$REGISTRY")
fi
# A command prefix: our cluster and its registries live in a network namespace.
read -ra run <<<"${CLUSTER_RUN:-}"
image=$REGISTRY/hello:demo

binary=${KUBECTL_BUILD_BIN:-}
if [[ -z $binary ]]; then
  step "building kubectl-build (hack/build-static.sh)"
  command -v cargo >/dev/null || die "cargo is missing: install Rust from https://rustup.rs"
  hack/build-static.sh
  binary=$(hack/build-static.sh --print)
fi

step "cosign 3 and cosign 2 (hack/cluster/peers.sh)"
hack/cluster/peers.sh cosign3 cosign2
peers=$(hack/cluster/peers.sh path)

# What stays afterwards for the lines that are printed at the end, made anew by every run.
work=$REPO/target/demo
rm -rf "$work"
mkdir -p "$work"/{bin,cosign2}
ln -s "$binary" "$work/bin/kubectl-build"
ln -s "$binary" "$work/bin/kubectl-buildkit"
ln -s "$peers/cosign" "$work/bin/cosign"
ln -s "$peers/cosign2" "$work/cosign2/cosign"
export PATH=$work/bin:$PATH COSIGN_PASSWORD=demo
cp -R integration/fixtures/hello "$work/hello"
cd "$work"

step "a throw-away key: cosign generate-key-pair"
cosign generate-key-pair

build=(kubectl-build -t "$image" --push --sign --cosign-key cosign.key "${registry_flags[@]}" hello)
step "${build[*]}"
report=$work/report
"${run[@]}" "${build[@]}" 2> >(tee "$report" >&2) | tee "$work/pushed"
digest=$(sed -n 's/.*@//p' "$work/pushed")
[[ -n $digest ]] || die "the build printed no digest"

# The line that the build printed for this generation of cosign.
printed_line() { sed -n "s/^verify with $1: //p" "$report"; }

verify() { # GENERATION FOLDER
  local line
  line=$(printed_line "$1")
  [[ -n $line ]] || die "the build printed no line for $1"
  step "$("$2/cosign" version --json | sed -n 's/.*"gitVersion": *"\([^"]*\)".*/cosign \1/p') verifies"
  printf '$ %s\n' "$line"
  PATH=$2:$PATH "${run[@]}" bash -c "$line" >verified.json
  # A verifier that checked another image would be no proof.
  grep -q "$digest" verified.json || die "$1 verified something else than $digest"
  head -c 2000 verified.json
  echo
}
# The report's last lines come through tee.
for _ in {1..50}; do
  if grep -q '^verify with cosign 2' "$report"; then break; fi
  sleep 0.1
done
verify "cosign 3" "$work/bin"
verify "cosign 2" "$work/cosign2"

step "done: $image is pushed and signed as $digest"
echo "To repeat it by hand:"
echo
if ((${#run[@]})); then printf '  %s\n' "${run[*]} bash   # a shell in the cluster's network"; fi
printf '  %s\n' "cd $work" "export PATH=$work/bin:\$PATH KUBECONFIG=$KUBECONFIG COSIGN_PASSWORD=demo"
if [[ -n ${CLUSTER_PROVIDER:-} ]]; then printf '  %s\n' "export KUBECTL_BUILD_BUILDER_IMAGE=$BUILDKIT_IMAGE"; fi
printf '  %s\n' "${build[*]}" "$(printed_line "cosign 3")" "export PATH=$work/cosign2:\$PATH" "$(printed_line "cosign 2")"
echo
echo "The builder stays for the next build: \`kubectl buildkit rm\` removes it."
if [[ -n ${CLUSTER_PROVIDER:-} ]]; then echo "The cluster stays up: \`make cluster-down\` removes it."; fi
