#!/bin/sh
# Checks licences, bans and sources of all dependencies, and known vulnerabilities where the
# advisory database can be had: make lint.
set -eu
cd "$(dirname "$0")/.."

scripts/need-cargo-deny.sh
PATH="$PWD/target/tools/bin:$PATH"
cargo deny check --hide-inclusion-graph licenses bans sources
scripts/advisories.sh
