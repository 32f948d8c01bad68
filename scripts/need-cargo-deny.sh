#!/bin/sh
# Sees to it that cargo-deny is there. Without it on the machine it is built once into target/tools,
# unoptimised, since it runs for a second: 1 min 45 s of CPU time, against 3 min 50 s optimised.
set -eu
cd "$(dirname "$0")/.."

# The version that the settings in deny.toml were written for.
version=0.20.2
tools="$PWD/target/tools"
PATH="$tools/bin:$PATH"

if ! command -v cargo-deny >/dev/null; then
    echo "building cargo-deny into target/tools, a minute or two, once" >&2
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$tools/build" cargo install --quiet --debug --locked --root "$tools" \
        --version "$version" cargo-deny
    rm -rf "$tools/build"
fi
