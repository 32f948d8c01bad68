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
