#!/bin/sh
# Matches the dependencies with RustSec's advisories, where its database can be had: part of
# scripts/deny.sh (make lint), and alone with STRICT_ADVISORIES=1 in CI's audit job (make audit).
#
# ADVISORY_DB=/path uses a clone of the database that is on the machine. With STRICT_ADVISORIES=1 it
# is a failure that the database cannot be had or is stale, else a line says SKIPPED.
set -eu
cd "$(dirname "$0")/.."

scripts/need-cargo-deny.sh
PATH="$PWD/target/tools/bin:$PATH"

database=https://github.com/RustSec/advisory-db
# Where cargo-deny keeps its clone: `db-path` in deny.toml, and a name made from the URL.
clone="$PWD/target/advisories/advisory-db-3157b0e258782691"

if [ -n "${ADVISORY_DB:-}" ]; then
    rm -rf "$clone"
    git clone --quiet "$ADVISORY_DB" "$clone"
    changed=$(git -C "$clone" show -s --format=%cI HEAD)
    # cargo-deny takes the time of this file for when the database was fetched, and refuses one that is
    # older than 90 days. Where it has to be sure, that is when the last change was made.
    touch "$clone/.git/FETCH_HEAD"
    if [ "${STRICT_ADVISORIES:-}" = 1 ]; then
        touch -d "$changed" "$clone/.git/FETCH_HEAD"
    fi
    echo "advisories: those of ${changed%T*}, from $ADVISORY_DB" >&2
    exec cargo deny --offline check --hide-inclusion-graph advisories
fi
if GIT_TERMINAL_PROMPT=0 timeout 20 git ls-remote --quiet --exit-code "$database" HEAD >/dev/null 2>&1; then
    exec cargo deny check --hide-inclusion-graph advisories
fi
if [ "${STRICT_ADVISORIES:-}" = 1 ]; then
    echo "advisories: $database is out of reach; set ADVISORY_DB to a clone of it" >&2
    exit 1
fi
echo "SKIPPED: known vulnerabilities are not looked for, since $database is out of reach (ADVISORY_DB=/path to a clone)" >&2
