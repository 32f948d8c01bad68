#!/bin/sh
# Checks and tests the Prometheus rules. Brings promtool where it is missing and may be installed;
# the Prometheus service that comes along in Debian's package is left off.
set -eu
cd "$(dirname "$0")/.."

if ! command -v promtool >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "promtool is missing; install Prometheus (it is part of it), or run this as root on Debian" >&2
        exit 1
    fi
    apt-get install --yes --quiet --no-install-recommends prometheus >&2
    if command -v systemctl >/dev/null; then
        systemctl disable --now --quiet prometheus 2>/dev/null || true
    fi
fi

promtool check rules helm/rename-worker/rules/*.yaml
promtool test rules tests/rules/*.yaml
