# How to use this: `make help`. Whatever a target needs beyond Rust, a C compiler and Python it brings
# itself, or says what is missing.

.DEFAULT_GOAL := help

# The RabbitMQ release that the demo and the tests start: 3.10, 4.0 or 4.3. Unless said, 4.0 in Docker
# and whatever the machine has elsewhere.
ifdef RABBITMQ
export RABBITMQ
endif

.PHONY: help
help: ## List what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-16s %s\n", $$1, $$2 }'
	@echo
	@echo 'RABBITMQ=3.10, 4.0 or 4.3 chooses the release to start: make test RABBITMQ=3.10'
	@echo 'RENAME_WORKER_TEST_AMQP_URL=amqp://… uses a running RabbitMQ instead of starting one'

.PHONY: demo
demo: ## See it work: a throw-away RabbitMQ, a stand-in for Dintero, 1,000 requests, under 20 s
	cargo run --quiet --locked -- demo

.PHONY: test
test: ## Run all tests against a real RabbitMQ, found or started
	cargo test --locked

.PHONY: mutants
mutants: ## Break the core in ten ways: the simulation must notice each (two minutes)
	scripts/mutants.py

.PHONY: check
check: lint test fuzz-short faults mutants rules-test dashboard-test helm-test compose-check image-check ## What CI runs

.PHONY: lint
lint: ## Format, clippy, documentation, licences and bans; warnings are errors
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked --all-targets --all-features -- -D warnings
	cargo clippy --locked --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --locked --quiet --no-deps --document-private-items
	scripts/deny.sh

.PHONY: audit
audit: ## Match the dependencies with RustSec's advisories; fails where the database cannot be had
	STRICT_ADVISORIES=1 scripts/advisories.sh

.PHONY: fuzz
fuzz: ## Fuzz each target for 10 minutes (FUZZ_SECONDS=n; FUZZ="frames urls" chooses); 40 minutes in all
	scripts/fuzz.py $(or $(FUZZ_SECONDS),600) $(FUZZ)

.PHONY: fuzz-short
fuzz-short: ## The same for 20 seconds each, two at a time
	scripts/fuzz.py 20

.PHONY: fuzz-amqp
fuzz-amqp: ## Throw 200,000 random messages at a worker (minutes); FUZZ_MESSAGES=n, FUZZ_SEED=n
	cargo test --locked --test it fuzz:: -- --ignored --nocapture

.PHONY: bench
bench: ## Measure what a message costs, beside the least correct loop (minutes; a release build)
	cargo bench --bench cost

.PHONY: bench-letters
bench-letters: ## Measure the review of 100,000 dead letters: time and memory (minutes; a release build)
	cargo bench --bench letters

.PHONY: docs
docs: ## Build the code's documentation: target/doc/rename_worker/index.html
	cargo doc --locked --no-deps --document-private-items

.PHONY: dashboard
dashboard: ## Print the Grafana dashboard anew from its script
	python3 scripts/dashboard.py > helm/rename-worker/dashboards/rename-worker.json

.PHONY: rules-test
rules-test: ## Check the metrics, check and test the Prometheus rules and the dashboard's queries (brings Prometheus when root and missing)
	scripts/need-prometheus.sh
	scripts/chart-tools.py
	awk 'body; /^---$$/ && ++n == 2 { body = 1 }' src/telemetry/metrics/snapshots/*every_series*.snap | promtool check metrics
	promtool check rules helm/rename-worker/rules/*.yaml
	promtool test rules tests/rules/*.yaml
	python3 -m unittest discover -s tests/rules

.PHONY: dashboard-test
dashboard-test: ## Show that every panel has data: a real Prometheus, worker and RabbitMQ, one minute
	scripts/need-prometheus.sh
	cargo test --locked --test it dashboard_data -- --ignored --nocapture

.PHONY: schemas
schemas: ## Write schemas/, docs/settings.md, docs/metrics.md and examples/rename-worker.toml anew from the code
	UPDATE_GENERATED=1 cargo test --lib committed

.PHONY: helm-test
helm-test: ## Test the Helm chart with the real helm (brings its tools into target/tools)
	scripts/helm-test.sh

.PHONY: helm-readme
helm-readme: ## Write the table of values in the chart's README anew
	scripts/helm-readme.py

.PHONY: image
image: ## Build the container image: a static binary on nothing at all
	scripts/image.sh

.PHONY: image-test
image-test: image ## Build the image and try it, hardened as in the cluster
	python3 -m unittest discover -s tests/image -p test_image.py

.PHONY: image-check
image-check: ## The same where it can be had: Docker, and Rust's standard library for musl
	@if ! docker version >/dev/null 2>&1; then echo 'SKIPPED: the image is not tested, since no Docker runs here'; \
	elif ! rustup target add "$$(uname -m)-unknown-linux-musl" >/dev/null 2>&1; then \
		echo 'SKIPPED: the image is not tested, since rustup cannot fetch the musl target'; \
	else $(MAKE) --no-print-directory image-test; fi

.PHONY: compose-check
compose-check: ## Check compose.yaml, the Dockerfile's context, and what they name
	scripts/chart-tools.py
	python3 -m unittest discover -s tests/image -p 'test_co*.py'

.PHONY: upgrade-test
upgrade-test: ## Upgrade a real 0.1.0 installation by the commands of docs/upgrading.md (wants Docker; builds 0.1.0 once; minutes)
	cargo build --locked
	python3 -m venv target/upgrade/python && target/upgrade/python/bin/pip install --quiet pika==1.4.4
	target/upgrade/python/bin/python tests/upgrade/test_upgrade.py

.PHONY: faults
faults: ## Kill, cut and restart everything under load (a minute or two); FAULTS=long, FAULTS_SEED=n
	cargo test --locked --test it faults:: -- --ignored --nocapture
