#!/bin/sh
# Builds the image from a binary compiled here: make image.
#
#   IMAGE=name:tag   what to call it; rename-worker:<version> unless said
#
# The binary is static, by Rust's musl target (rustup fetches its standard library once), so the
# image needs no libc and no resolver of its own. The only C in it is ring's, which any C compiler
# builds; musl-gcc is taken where there is one.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
image=${IMAGE:-rename-worker:$version}
target=$(uname -m)-unknown-linux-musl
context=target/image

if ! rustup target list --installed | grep -qx "$target"; then
    rustup target add "$target" || {
        echo "image: Rust's standard library for $target can't be fetched; build the Dockerfile instead" >&2
        exit 1
    }
fi

revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
created=$(git show --no-patch --format=%cI HEAD 2>/dev/null || echo 1970-01-01T00:00:00Z)
if [ -n "$(git status --porcelain --untracked-files=no 2>/dev/null)" ]; then
    revision=$revision-dirty
fi

env "CC_$(echo "$target" | tr - _)=$(command -v musl-gcc || echo cc)" RENAME_WORKER_REVISION="$revision" \
    cargo build --release --locked --target "$target" --bin rename-worker

rm -rf "$context"
mkdir -p "$context"
cp "${CARGO_TARGET_DIR:-target}/$target/release/rename-worker" "$context/"
# The symbols stay in the binary beside it, for whoever reads a core dump.
strip "$context/rename-worker"
for roots in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    [ -f "$roots" ] && cp "$roots" "$context/ca-certificates.crt" && break
done
[ -f "$context/ca-certificates.crt" ] || {
    echo "image: no CA roots found; install the package ca-certificates" >&2
    exit 1
}

# The Dockerfile's other stages need a registry; the old builder stops at the one asked for, which
# is what an engine without buildx has. (Its notice of being old goes to standard error.)
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
docker build --quiet --file Dockerfile --target prebuilt --tag "$image" \
    --build-arg VERSION="$version" --build-arg REVISION="$revision" --build-arg CREATED="$created" \
    "$context" >/dev/null
echo "$image: $(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%.1f MB", $1 / 1000000}'), revision $revision"
