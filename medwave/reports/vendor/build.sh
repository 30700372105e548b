#!/usr/bin/env bash
# Rebuild three.min.js and its licence text from the npm package; needs node and npm, writes into this folder only.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp "$here/three.entry.js" "$work/"
cd "$work"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent three@0.187.0 esbuild@0.28.2
licence="$(cat node_modules/three/LICENSE)"
npx esbuild three.entry.js --bundle --minify --format=iife --global-name=THREE --target=es2020 --legal-comments=none \
  --charset=ascii --banner:js="/*! three.js 0.187.0, npm package \"three\"
$licence
*/" --outfile="$here/three.min.js"
cp node_modules/three/LICENSE "$here/three.LICENSE.txt"
