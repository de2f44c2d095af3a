# Shortcuts. Each one is a line or two over cargo and hack/.
.DEFAULT_GOAL := help
.PHONY: help demo test chaos-lite large tenant-attack viewers launcher-long interop contract lint bench fleet generate image need-cargo
ARGS ?=

help: ## show this
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: need-cargo ## run Writ on a control plane and an sshd of its own, with four executions (ARGS=--once, ARGS=--kubeconfig=PATH)
	@echo '==> compiling writ (1 to 3 minutes the first time) ...' >&2
	@cargo build --locked --quiet --bin writ --example lab
	@cargo run --locked --quiet --example lab -- demo $(ARGS)

# Most tests wait for a server and not for a processor, so four run for each processor. The tests of a file share
# nothing but a control plane.
test: export RUST_TEST_THREADS ?= $(shell echo $$((4 * $$(getconf _NPROCESSORS_ONLN))))
test: need-cargo ## all tests: unit, architecture, and on a real control plane and sshd (ARGS=name of a test)
	@cargo test --locked --quiet --doc $(ARGS)
	cargo test --locked --tests $(ARGS)

chaos-lite: need-cargo ## 200 times kill -9, 200 connection resets, 500 commands, then a check of every record (about 25 minutes)
	WRIT_CHAOS_KILLS=200 WRIT_CHAOS_RESETS=200 WRIT_CHAOS_RUNS=500 \
		cargo test --locked --test cluster -- --nocapture --test-threads=1 chaos:: $(ARGS)

large: need-cargo ## a store with the largest objects, and the memory of writ serve next to it (about 10 minutes, 4 GB)
	WRIT_TEST_LARGE=1 cargo test --locked --test cluster -- --nocapture --test-threads=1 large:: $(ARGS)

tenant-attack: need-cargo ## a tenant attacks another namespace for an hour; prints the waiting times of the others (ATTACK=3600)
	WRIT_TENANT_ATTACK_SECONDS=$(or $(ATTACK),3600) \
		cargo test --locked --test cluster -- --nocapture --test-threads=1 tenant:: $(ARGS)

viewers: need-cargo ## 20 viewers of 64 MiB that come and go at random; each reads the same bytes (about 2 minutes)
	WRIT_VIEWERS=20 WRIT_VIEWER_MIB=64 \
		cargo test --locked --test cluster -- --nocapture --test-threads=1 gateway::viewers:: $(ARGS)

launcher-long: need-cargo ## the launcher attacked, raced, cut at every offset, killed (about an hour; ATTACK=600 RACES=2000 KILLS=128)
	WRIT_ATTACK_SECONDS=$(or $(ATTACK),600) WRIT_LAUNCHER_RACES=$(or $(RACES),2000) WRIT_LAUNCHER_RACERS=50 \
		WRIT_LAUNCHER_KILLS=$(or $(KILLS),128) WRIT_LAUNCHER_OUTPUTS=2000 WRIT_LAUNCHER_EVERY_OFFSET=1 \
		cargo test --locked --test launcher -- --nocapture untrusted:: fence::of_many whole:: killed:: $(ARGS)

interop: need-cargo ## SSH servers and login shells that need more packages: asyncssh, newer OpenSSH, mksh, ksh, tcsh, fish, sudo-rs (as root, on Debian)
	cargo test --locked --test cluster -- --ignored interop:: run_as:: $(ARGS)

contract: need-cargo ## the gateway of the demo from outside: HTTP, WebSockets, its OpenAPI document (about 5 minutes; needs Python 3.10; ARGS=-k a_test)
	@cargo build --locked --quiet --bin writ --example lab
	@hack/contract $(ARGS)

lint: need-cargo ## format, wording, clippy, layers, CRDs, dependencies, shell scripts
	@hack/lint

bench: need-cargo ## duration of decisions (docs/benchmarks.md), cost of the engine (docs/performance.md)
	cargo bench --locked --bench policy
	cargo bench --locked --bench engine -- $(ARGS)

fleet: need-cargo ## good machines next to bad ones, queues that become reachable, idle connections, probing (about 20 minutes; ARGS=one of them)
	cargo bench --locked --bench fleet -- $(ARGS)

generate: need-cargo ## write the generated files: crds/ and docs/reference.md from src/api, docs/openapi.json from src/gateway, deploy/ from charts/writ
	cargo run --locked --quiet --bin crdgen -- write
	WRIT_WRITE=1 cargo test --locked --quiet --test openapi
	hack/deploy

image: need-cargo ## build the tree of the Containerfile without a container engine, and run it with the chart's arguments (as root)
	hack/image

need-cargo:
	@command -v cargo >/dev/null || { echo 'error: there is no cargo: install Rust from https://rustup.rs' >&2; exit 1; }
