#!/bin/sh
# The store tests start Redis servers of their own, so a redis-server binary has to be there.
# Installs the Debian package where that is allowed; otherwise says the one command to run.
set -eu

command -v redis-server >/dev/null && exit 0

install="apt-get install --yes --no-install-recommends redis-server"
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "the tests need redis-server; run:  sudo $install" >&2
    exit 1
fi
echo "installing redis-server for the tests"
$as_root apt-get update -qq || true  # an old package list may do
# runlevel 1: the package does not start a service, nor take a port
$as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive $install >/dev/null || {
    echo "redis-server could not be installed; run:  sudo $install" >&2
    exit 1
}
command -v redis-server >/dev/null || {
    echo "redis-server is installed but not on the PATH" >&2
    exit 1
}
