#!/usr/bin/env bash
# Pins every dependency, with hashes, for Python 3.11 and later. Arguments go to uv, e.g. --upgrade.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v uv >/dev/null; then
  echo "make lock: uv is not installed (only this command needs it): pipx install uv" >&2
  exit 1
fi

compile() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-config \
    --custom-compile-command 'make lock' "$@" pyproject.toml
}

# What users run: every driver. Then the same versions with the tools on top, so that tests prove what users get.
drivers=(--extra postgres --extra mysql --extra redis)
compile "${drivers[@]}" --output-file requirements/run.lock "$@"
compile "${drivers[@]}" --extra dev --constraint requirements/run.lock --output-file requirements/dev.lock "$@"
echo "requirements/run.lock and requirements/dev.lock are fresh"
