#!/bin/sh
# ensure_debian.sh PACKAGE BINARY: installs the Debian package if BINARY is not on the PATH and
# installing is allowed; otherwise prints the command to run, and fails.
set -eu
package=$1 binary=$2

command -v "$binary" >/dev/null && exit 0

install="apt-get install --yes --no-install-recommends $package"
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "the tests need $binary; run:  sudo $install" >&2
    exit 1
fi
command -v apt-get >/dev/null || {
    echo "the tests need $binary; install it with this system's package manager" >&2
    exit 1
}
echo "installing $package for the tests"
$as_root apt-get update -qq || true  # an outdated package list may be enough
# runlevel 1: a package with a daemon does not start it, which would take its port
$as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive $install >/dev/null || {
    echo "$package could not be installed; run:  sudo $install" >&2
    exit 1
}
command -v "$binary" >/dev/null || {
    echo "$package is installed, but $binary is not on the PATH" >&2
    exit 1
}
