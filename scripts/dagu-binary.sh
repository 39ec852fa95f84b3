#!/usr/bin/env bash
# Brings the Dagu that tests run: 1.30.2 for Linux on x86-64, from its npm package, checked by its SHA-512, into .tools/ (which git
# ignores). It is GPL: tests run it as a program of its own, and it is never shipped. Where it cannot be had this says why and
# succeeds: those tests then skip, and say so.
set -euo pipefail
cd "$(dirname "$0")/.."

package=@dagu-org/dagu-linux-x64
version=1.30.2
sum=64424f955aaf7f44db1329a84ae0e3e4257f4f9858ac2c1a0facc6cbf3b6e28293974145b06c02c76396db40fb0ff0a4f629377f4b193eeb7f3bc4c308a4a47d
folder=.tools/dagu-$version

if [[ -x $folder/dagu ]]; then exit 0; fi

go_on_without() {
  echo "no Dagu $version ($1); the tests that run it are skipped"
  exit 0
}

if [[ $(uname -sm) != "Linux x86_64" ]]; then go_on_without "its package is for Linux on x86-64"; fi

mkdir -p .tools
work=$(mktemp -d .tools/dagu.XXXXXX)
trap 'rm -rf "$work"' EXIT
echo "fetching Dagu $version (18 MB, for the tests)"

# npm knows a site's registry, mirror and certificates; without npm there is its usual address.
with_npm() {
  command -v npm >/dev/null && (cd "$work" && npm pack --silent "$package@$version" >/dev/null) && mv "$work"/*.tgz "$work/package.tgz"
}
with_curl() {
  local registry=${npm_config_registry:-${NPM_CONFIG_REGISTRY:-https://registry.npmjs.org/}}
  command -v curl >/dev/null &&
    curl --fail --silent --show-error --location --retry 2 --max-time 300 --output "$work/package.tgz" \
      "${registry%/}/$package/-/${package#*/}-$version.tgz"
}
with_npm || with_curl || go_on_without "neither npm nor curl could fetch it, see above"

if ! sha512sum --check --status <<<"$sum  $work/package.tgz"; then
  echo "scripts/dagu-binary.sh: what was fetched as $package@$version is another file than the one these tests were written for" >&2
  exit 1
fi
tar -xzf "$work/package.tgz" -C "$work" package/bin/dagu
mkdir -p "$folder"
mv "$work/package/bin/dagu" "$folder/dagu" # a rename: never half a program
