#!/bin/sh
# Brings prometheus and promtool where they are missing and may be installed; the service that comes
# along in Debian's package is left off.
set -eu
if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "prometheus or promtool is missing; install Prometheus, or run this as root on Debian" >&2
    exit 1
fi
apt-get install --yes --quiet --no-install-recommends prometheus >&2
if command -v systemctl >/dev/null; then
    systemctl disable --now --quiet prometheus 2>/dev/null || true
fi
