#!/bin/sh
# Install what the web columns need: pinned npm packages, and the Chromium that is inside one.
set -eu

web=$(dirname "$0")/../compat/runtimes/web
if ! command -v npm >/dev/null 2>&1; then
    echo "No npm was found. Install Node.js 18 or newer, then run make browsers again:" >&2
    echo "  Debian, Ubuntu: apt install nodejs npm    macOS: brew install node" >&2
    exit 1
fi
npm ci --prefix "$web" --ignore-scripts --no-audit --no-fund
mkdir -p "$web/browser"
# The package unpacks its browser into the folder for temporary files.
TMPDIR=$(cd "$web/browser" && pwd) node "$web/unpack.mjs"
