#!/bin/sh
# Tests the Helm chart with the real helm: make helm-test. Brings its own tools.
#
#   RENAME_WORKER_BIN=path   the program that must accept what the chart renders; built unless said
#
# Without cargo the tests that ask the program are skipped, and say so.
set -eu
cd "$(dirname "$0")/.."

scripts/chart-tools.py
if [ -z "${RENAME_WORKER_BIN:-}" ] && command -v cargo >/dev/null; then
    cargo build --quiet --locked --bin rename-worker
    export RENAME_WORKER_BIN="${CARGO_TARGET_DIR:-target}/debug/rename-worker"
fi
python3 -m unittest discover -s tests/helm
