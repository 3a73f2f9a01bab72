# Which peers there are, at which versions, and how each is built.
# A newer tag is taken only after a full test run with it. Sourced by peers.sh.
# shellcheck shell=bash disable=SC2034

KUBE=v1.34.4          # the last minor that takes a cgroup v1 machine without argument
KUBE_STAGING=v0.34.4  # k8s.io/kubernetes asks for these modules at v0.0.0
ETCD=v3.6.8
CONTAINERD=v2.4.2
RUNC=v1.4.3
CNI=v1.9.1
COREDNS=v1.12.4
BUILDKIT=v0.33.1
ROOTLESSKIT=v2.3.6
REGISTRY_VERSION=v3.1.1
CRANE=v0.21.6
COSIGN3=v3.1.3
COSIGN2=v2.6.5
BUILDX=v0.37.2
FULCIO=v1.8.8
REKOR_TILES=v2.3.0
TIMESTAMP=v2.0.3
POLICY_CONTROLLER=v0.13.1

KUBE_STAGING_MODULES=(api apiextensions-apiserver apimachinery apiserver cli-runtime client-go
  cloud-provider cluster-bootstrap code-generator component-base component-helpers
  controller-manager cri-api cri-client csi-translation-lib dynamic-resource-allocation
  endpointslice externaljwt kms kube-aggregator kube-controller-manager kube-proxy
  kube-scheduler kubectl kubelet metrics mount-utils pod-security-admission sample-apiserver)

# One entry per peer, in the order in which the cluster needs them.
#   PKGS    main packages, all of one module version
#   NAMES   the binaries' names where go's own choice is not the wanted one
ORDER=()
declare -A GROUP VERSION PKGS NAMES TAGS LDFLAGS CGO REQUIRE SOURCE

peer() { # NAME GROUP VERSION PKG...
  local name=$1
  ORDER+=("$name") GROUP[$name]=$2 VERSION[$name]=$3
  shift 3
  PKGS[$name]=$*
}

# Our own helper programs; built first since they are small. SOURCE is a folder
# beside this file; the cache key holds a hash of its content. A change of them
# needs new images but no new cluster.
peer rigtools images v0 ./rigtool ./pause
SOURCE[rigtools]=rigtools

kv=k8s.io/component-base/version
peer kube cluster $KUBE k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,kubectl}
LDFLAGS[kube]="-X $kv.gitVersion=$KUBE -X $kv.gitMajor=1 -X $kv.gitMinor=34 -X $kv.gitTreeState=clean"
REQUIRE[kube]=$(printf "k8s.io/%s@$KUBE_STAGING " "${KUBE_STAGING_MODULES[@]}")

peer etcd cluster $ETCD go.etcd.io/etcd/server/v3
NAMES[etcd]=etcd

peer containerd cluster $CONTAINERD github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}
LDFLAGS[containerd]="-X github.com/containerd/containerd/v2/version.Version=$CONTAINERD"

peer runc cluster $RUNC github.com/opencontainers/runc
TAGS[runc]="seccomp netgo osusergo" CGO[runc]=1 LDFLAGS[runc]="-extldflags -static"

peer cni cluster $CNI github.com/containernetworking/plugins/plugins/{main/bridge,main/loopback,ipam/host-local,meta/portmap}

# CoreDNS is made for being built with a chosen list of plugins; ours is in
# its folder, and leaves out the cloud providers' SDKs.
peer coredns cluster $COREDNS .
SOURCE[coredns]=coredns

peer buildkit cluster $BUILDKIT github.com/moby/buildkit/cmd/{buildkitd,buildctl}
TAGS[buildkit]="osusergo netgo static_build seccomp"
LDFLAGS[buildkit]="-X github.com/moby/buildkit/version.Version=$BUILDKIT"

peer registry cluster $REGISTRY_VERSION github.com/distribution/distribution/v3/cmd/registry
LDFLAGS[registry]="-X github.com/distribution/distribution/v3/version.version=$REGISTRY_VERSION"

peer crane cluster $CRANE github.com/google/go-containerregistry/cmd/crane
LDFLAGS[crane]="-X github.com/google/go-containerregistry/cmd/crane/cmd.Version=$CRANE"

# Goes into an image only.
peer rootlesskit images $ROOTLESSKIT github.com/rootless-containers/rootlesskit/v2/cmd/rootlesskit

cv=sigs.k8s.io/release-utils/version
peer cosign3 clients $COSIGN3 github.com/sigstore/cosign/v3/cmd/cosign
NAMES[cosign3]=cosign LDFLAGS[cosign3]="-X $cv.gitVersion=$COSIGN3"
peer cosign2 clients $COSIGN2 github.com/sigstore/cosign/v2/cmd/cosign
NAMES[cosign2]=cosign2 LDFLAGS[cosign2]="-X $cv.gitVersion=$COSIGN2"
peer buildx clients $BUILDX github.com/docker/buildx/cmd/buildx
LDFLAGS[buildx]="-X github.com/docker/buildx/version.Version=$BUILDX"

# Signing services and verifiers, for the keyless tests only.
peer fulcio signing $FULCIO github.com/sigstore/fulcio
peer rekor-tiles signing $REKOR_TILES github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix
NAMES[rekor-tiles]=rekor-server-posix
peer timestamp signing $TIMESTAMP github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server
peer policy-tester signing $POLICY_CONTROLLER github.com/sigstore/policy-controller/cmd/tester
NAMES[policy-tester]=policy-tester
unset kv cv
