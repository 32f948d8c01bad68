#!/bin/sh
# Stands before rustc where the fuzz targets are built (scripts/fuzz.py): our own crates count which
# branches an input takes, and what it was compared with, so that libFuzzer learns from each input.
# The options are those of cargo-fuzz, and rustc's stable ones; the libraries stay as they are.
set -eu

case "$*" in
*"--crate-name rename_worker "* | *" fuzz_targets/"* | *"--crate-name rename_worker_fuzz "*)
    exec "$@" -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$@" ;;
esac
