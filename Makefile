# kubectl-build: what a person or CI runs. `make help` lists the targets.

SHELL := bash
PROVIDER ?= local
CARGO ?= cargo
PREFIX ?= $(HOME)/.local
# pkcs11, piv: keys on tokens and security keys; the binary then needs libraries and is not static.
export FEATURES ?=
export CLIPPY_CONF_DIR := $(CURDIR)/hack

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: check
check: fmt clippy unit docs deny protos-check ## Fast checks: format, lints, unit tests, docs, licences and advisories, generated code

.PHONY: fmt
fmt:
	$(CARGO) fmt --check -- --config-path hack

.PHONY: clippy
clippy:
	$(CARGO) clippy --locked --all-targets -- -D warnings

.PHONY: unit
unit:
	$(CARGO) test --locked --lib

.PHONY: docs
docs:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --no-deps

.PHONY: deny
deny: ## Licences, advisories and banned crates
	hack/deny.sh

.PHONY: protos
protos: ## Regenerate src/pb from proto/
	UPDATE_PROTOS=1 $(CARGO) test --locked --test protos

.PHONY: protos-check
protos-check:
	$(CARGO) test --locked --test protos

.PHONY: cluster
cluster: ## Start a real cluster with BuildKit and registries (PROVIDER=kind where Docker runs)
	PROVIDER=$(PROVIDER) hack/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## Stop it and leave nothing behind
	PROVIDER=$(PROVIDER) hack/cluster/down.sh

.PHONY: signing-services
signing-services: ## Start Fulcio, Rekor and a timestamp authority beside the cluster
	hack/cluster/signing.sh

.PHONY: peers
peers: ## Build the peers that the cluster and the tests need
	hack/cluster/peers.sh

.PHONY: kms-peers
kms-peers: ## Install the key services that the tests start
	hack/cluster/kms-peers.sh

.PHONY: test
test: ## Everything that CI runs, the tests against the real cluster included
	PROVIDER=$(PROVIDER) hack/test.sh

.PHONY: test-cluster
test-cluster: ## What the local provider promises: repairs itself, leaves nothing (a cluster of its own, two minutes)
	hack/cluster/test-local.sh

.PHONY: demo
demo: ## Build, push, sign and verify the hello image on a cluster of its own
	PROVIDER=$(PROVIDER) hack/demo.sh

.PHONY: fuzz
fuzz: ## Feed the parsers what they choke on (TIME seconds each, 30; TARGETS chooses)
	hack/fuzz/run.sh

.PHONY: bench
bench: ## Compare with buildctl, buildx and cosign, side by side
	hack/bench.sh

.PHONY: build
build: ## The release binary
	hack/build-static.sh

.PHONY: install
install: build ## Install kubectl-build and kubectl-buildkit into PREFIX/bin
	install -D -m 0755 "$$(hack/build-static.sh --print)" $(PREFIX)/bin/kubectl-build
	ln -sf kubectl-build $(PREFIX)/bin/kubectl-buildkit
