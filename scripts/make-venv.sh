#!/usr/bin/env bash
# Makes .venv from requirements/dev.lock with nothing but python3 and pip. Called by make, which passes the stamp to touch.
# PYTHON=/path/to/python3.12 chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=$1

# Settings that would send packages elsewhere.
unset PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

is_fit() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

pick_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if is_fit "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  {
    echo "jobwarden needs Python 3.11 or later; tried: ${PYTHON:-python3 python3.13 python3.12 python3.11}."
    echo "Debian 12, Ubuntu 24.04 and later: apt-get install python3 python3-venv"
    echo "Elsewhere: https://www.python.org/downloads/ or your package manager; then make PYTHON=/path/to/python3.x ..."
  } >&2
  return 1
}

# Debian ships Python without ensurepip; venv needs it.
want_ensurepip() {
  local python=$1 package
  if "$python" -c 'import ensurepip, venv' 2>/dev/null; then return; fi
  package=$("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info.minor)')
  if command -v apt-get >/dev/null && as_root true 2>/dev/null; then
    echo "installing $package: $python cannot make virtual environments without it"
    as_root apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$package" >/dev/null
  else
    echo "$python cannot make virtual environments: its ensurepip is missing. On Debian and Ubuntu: sudo apt-get install $package" >&2
    return 1
  fi
}

if [ -e .venv ] && ! is_fit .venv/bin/python; then
  echo ".venv has no Python 3.11 or later that works; making it anew"
  rm -rf .venv
fi
if [ ! -e .venv ]; then
  python=$(pick_python)
  want_ensurepip "$python"
  echo "making .venv with $("$python" --version)"
  "$python" -m venv .venv || {
    rm -rf .venv # half a virtual environment would look like a whole one next time
    exit 1
  }
fi

echo "installing the locked packages (requirements/dev.lock, checked by hash; half a minute)"
.venv/bin/python -m pip install -qq --require-hashes -r requirements/dev.lock
.venv/bin/python -m pip install -qq --no-deps --no-build-isolation --editable .
touch "$stamp"
echo ".venv is ready"
