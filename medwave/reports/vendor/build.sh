#!/usr/bin/env bash
# Rebuild three.min.js and niivue.min.js from the npm packages; needs node and npm, writes into this folder only.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp "$here"/*.entry.js "$here"/*.stub.js "$work/"
cd "$work"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent three@0.187.0 @niivue/niivue@0.69.0 esbuild@0.28.2
bundle() { # name, global name, heading, further flags
  npx esbuild "$1.entry.js" --bundle --minify --format=iife --global-name="$2" --target=es2020 --legal-comments=none \
    --charset=ascii --banner:js="/*! $3
$(cat "$here/$1.LICENSE.txt")
*/" --outfile="$here/$1.min.js" "${@:4}"
}
cp node_modules/three/LICENSE "$here/three.LICENSE.txt"
bundle three THREE 'three.js 0.187.0, npm package "three"'
# NiiVue's package carries no text of its licence: it is kept here, with those of the packages that the bundle holds
{
  echo 'NiiVue 0.69.0, npm package "@niivue/niivue"'; echo; cat "$here/niivue.BSD-2-Clause.txt"
  for package in @lukeed/uuid @ungap/structured-clone array-equal fflate gl-matrix nifti-reader-js; do
    echo; echo "---"; echo "$package $(node -p "require('./node_modules/$package/package.json').version")"; echo
    cat node_modules/"$package"/[Ll][Ii][Cc][Ee][Nn][Ss][Ee]*
  done
} | tr -d '\r' | sed 's/[[:space:]]*$//' > "$here/niivue.LICENSE.txt"
bundle niivue niivue 'NiiVue, without Zarr' --alias:zarrita=./zarrita.stub.js
