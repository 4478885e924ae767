# The commands of this repository. `make help` lists them; `make run` and `make test` are the two a newcomer needs.
#
# Each installs what it needs through tools/bootstrap first. Tools that are built from source, and CI's build, live in
# the cache folder, outside the clone.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test lint coverage bench fuzz simulate clean

CACHE := $(or $(CAIRN_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cairn)
TARGET := $(or $(CARGO_TARGET_DIR),target)
SECONDS ?= 60
SEEDS ?= 100000

# desync and the cargo tools that tools/bootstrap built.
export PATH := $(CACHE)/bin:$(PATH)

# Before cargo: where tools/rocksdb keeps the library that `cairnd` links.
WITH_ROCKSDB := eval "$$(tools/rocksdb env)";

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ## installs what is missing, builds release, starts the server on ./data and prints what to try
	@tools/bootstrap run
	$(WITH_ROCKSDB) cargo build --release --locked -p cairnd -p cairn
	exec $(TARGET)/release/cairnd

test: ## installs what the tests need and runs all of them; with COVERAGE=1 as `make coverage` does
	@tools/bootstrap $(if $(COVERAGE),coverage,test)
	$(if $(COVERAGE),tools/coverage,tools/test)

lint: ## formatting, warnings, missing docs, licences and dependencies, secrets, links in the docs
	@tools/bootstrap lint
	cargo fmt --all --check
	$(WITH_ROCKSDB) cargo clippy --workspace --all-targets --locked -- -D warnings
	$(WITH_ROCKSDB) RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	cargo deny --locked check --hide-inclusion-graph bans licenses sources
ifdef ADVISORIES
	cargo deny --locked check advisories
else
	@echo "lint: known vulnerabilities not looked up: with network access to their database, make lint ADVISORIES=1"
endif
	tools/secret-scan

coverage: ## the tests, instrumented; fails where a crate has less than 80 % of its lines covered
	@tools/bootstrap coverage
	tools/coverage

bench: ## cairn, casync, desync and nginx on the same work, as a table
	@tools/bootstrap bench
	$(WITH_ROCKSDB) cargo build --release --locked -p cairnd -p cairn -p cairn-benches
	$(TARGET)/release/cairn-benches $(ARGS)

fuzz: ## every decoder, each for SECONDS=60
	@tools/bootstrap fuzz
	tools/fuzz $(SECONDS)

simulate: ## packs, and the collector over them, on a simulated disk: SEEDS=100000 of each from FIRST_SEED=0 on
	@tools/bootstrap test
	SEEDS=$(SEEDS) cargo test --locked -p cairn-store --lib sim::seeds::no_seed -- --nocapture
	$(WITH_ROCKSDB) SEEDS=$(SEEDS) cargo test --locked -p cairn-index --lib sim::no_seed -- --nocapture

clean: ## removes what was built here (not ./data)
	cargo clean
