.DEFAULT_GOAL := help

.PHONY: help
help: ## List what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-16s %s\n", $$1, $$2 }'

.PHONY: dashboard
dashboard: ## Print the Grafana dashboard anew from its script
	python3 scripts/dashboard.py > helm/rename-worker/dashboards/rename-worker.json

.PHONY: rules-test
rules-test: ## Check and test the Prometheus rules (brings promtool when root and missing)
	scripts/rules-test.sh

.PHONY: schemas
schemas: ## Write schemas/, docs/settings.md and examples/rename-worker.toml anew from the code
	UPDATE_GENERATED=1 cargo test --lib committed
