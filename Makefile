# What a contributor does daily. Minutes are of a machine with 2 cores: the first time / later.
# CONTRIBUTING.md says what each tier proves and how long it may take.
SHELL := bash
ENV := scripts/env
.DEFAULT_GOAL := help
.PHONY: help run build release check fmt clippy unit test pytest bench bench-large bench-warehouse bench-generated proto deny

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## The bundled sample at 600x, with its live page (8 min / seconds)
	cargo run --release

build: ## The release binary (8 min / seconds)
	cargo build --release --locked -p clickstream

# The second binary has the failpoints compiled in: tests/test_kill.py kills it there.
release: build
	cargo build --release --locked -p clickstream --features failpoints --bin clickstream-failpoints

check: fmt clippy unit ## Quick: format, lints, Rust tests; embedded broker only (15 min / 3 min)

fmt:
	cargo fmt --all --check

clippy:
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p clickstream --no-default-features --locked -- -D warnings

unit:
	cargo test --workspace --locked

# One after the other: each step is named when it fails, and pytest's line comes last.
test: ## Everything, with what it needs installed into a cache folder (55 min / 25 min)
	$(ENV)
	$(ENV) $(MAKE) check
	$(ENV) $(MAKE) deny
	$(ENV) $(MAKE) release
	$(ENV) scripts/minio install || test -z "$$CI"
	$(ENV) scripts/bigquery install || test -z "$$CI"
	$(ENV) scripts/googlesql install || test -z "$$CI"
	$(ENV) scripts/kafka install
	$(ENV) $(MAKE) kafka-unit
	$(ENV) $(MAKE) pytest

pytest: ## Only the tests around the built binaries: oracle, end to end, bad input, kills, Kafka, clouds (20 min)
	$(ENV) python -m pytest --numprocesses 2 --dist loadfile tests

# A folder and ports of its own; the cluster goes whatever the tests say. Of the whole workspace, so that
# what was compiled for `unit` is used.
.PHONY: kafka-unit kafka-kills bench-kafka bench-restart
kafka-unit: ## The broker's conformance suite on a real Apache Kafka, which it starts and ends (2 min)
	$(ENV) bash -euc 'dir=$$CLICKSTREAM_CACHE/kafka-unit; trap "scripts/kafka kill --dir $$dir" EXIT; \
	    address=$$(scripts/kafka start --port 19292 --fresh --dir "$$dir"); \
	    CLICKSTREAM_KAFKA=$$address cargo test --workspace --locked --features broker/conformance --test kafka -- $(ONLY)'

kafka-kills: ## 120 deaths of the parts and of the broker on Kafka, a full disk, one of three brokers killed (15 min); make test has a short form of the first
	$(ENV) python -m pytest tests/test_kafka_kill.py tests/test_kafka_faults.py --kafka-kills 120 --fault-passes 58 --broken-brokers

bench-kafka: release-for-bench ## The whole pipeline through Kafka, beside its bare traffic, Spark and Kafka's own producer (10 min; Spark is fetched first)
	$(ENV) python bench/kafka.py --passes 250

bench-restart: release-for-bench ## From the start after kill -9 to the first commit: each part on Kafka, all on the embedded broker (3 min)
	$(ENV) python bench/restart.py

bench: release-for-bench ## 4.4 million events flat out three times, beside DuckDB's batch (2 min)
	$(ENV) python bench/run.py --passes 250 --runs 3

bench-large: release-for-bench ## The same over 42 million (5 min, 6 GB of cache, as much again while it runs)
	$(ENV) python bench/run.py --passes 2435

bench-warehouse: release-for-bench ## Rows a second into a Storage Write API on loopback, and how fresh (1 min)
	$(ENV) python bench/warehouse.py

bench-generated: release-for-bench ## 67 million generated rows flat out, and how near they and October's come to the real ones (10 min, 7 GB of cache)
	$(ENV) python bench/generated.py

bench-replay: release-for-bench ## The schedule's errors at 10,000 events/s, evenness at 100,000, going on deep in a .gz, the producer alone (5 min)
	$(ENV) python bench/replay.py

.PHONY: release-for-bench bench-replay
release-for-bench:
	$(ENV) $(MAKE) build

proto: ## Writes records/src/generated again from records/proto (2 min / seconds)
	cd records/codegen && cargo run --locked

deny: ## Licences, banned crates and sources of all dependencies (seconds; CI installs cargo-deny first, 6 min)
	@if [[ -n "$${CI:-}" ]] && ! cargo deny --version >/dev/null 2>&1; then \
	    cargo install --quiet --locked --root "$$CLICKSTREAM_CACHE/tools" cargo-deny; \
	fi
	@if [[ -n "$${CI:-}" ]] || cargo deny --version >/dev/null 2>&1; then \
	    cargo deny check --hide-inclusion-graph licenses bans sources; \
	else \
	    echo "SKIPPED: cargo-deny is not installed (cargo install --locked cargo-deny); licences, bans and sources were NOT checked" >&2; \
	fi
