#!/usr/bin/env bash
# Installs the programs that the tests run beside us, on Debian and Ubuntu. Arguments: tiers of the list below.
# Without root, without apt, or without a network it says what is missing and succeeds: those tests then skip, and say so.
# Starts and enables no service that it brings.
set -euo pipefail

# tier  program                      package                      unit                         what for
list='
  test  prometheus                   prometheus                   prometheus                   the server that scrapes us end to end
  test  promtool                     prometheus                   prometheus                   lints the exposition and the rules
  test  unshare                      util-linux                   -                            private PID and mount namespaces
  test  setpriv                      util-linux                   -                            processes of other users
  test  postgres                     postgresql                   postgresql                   private servers that are frozen, locked and stopped
  test  mariadbd                     mariadb-server-core          -                            the same; the core has no service and no data directory
  test  pgbouncer                    pgbouncer                    pgbouncer                    a pooler between us and PostgreSQL
  test  redis-server                 redis-server                 redis-server                 private servers, as above
  test  faketime                     faketime                     -                            a server whose clock differs from ours
  bench prometheus-process-exporter  prometheus-process-exporter  prometheus-process-exporter  what we are measured against
'

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # Debian keeps daemons there, and not on every user's PATH
for folder in /usr/lib/postgresql/*/bin; do PATH+=:$folder; done # PostgreSQL's are on nobody's PATH
policy=/usr/sbin/policy-rc.d
clusters=/etc/postgresql-common/createcluster.conf
tiers=" ${*:-test} "

packages=() units=()
while read -r tier program package unit _; do
  if [[ -z $tier || $tiers != *" $tier "* ]] || command -v "$program" >/dev/null; then continue; fi
  if [[ " ${packages[*]-} " == *" $package "* ]]; then continue; fi
  packages+=("$package")
  if [[ $unit != - ]]; then units+=("$unit"); fi
done <<<"$list"

if [[ ${#packages[@]} -eq 0 ]]; then exit 0; fi

go_on_without() {
  echo "not installed: ${packages[*]} ($1); the tests that need them are skipped"
  exit 0
}

if ! command -v apt-get >/dev/null; then go_on_without "no apt-get here: install them your own way"; fi
root=()
if [[ $(id -u) -ne 0 ]]; then
  if ! sudo -n true 2>/dev/null; then go_on_without "as root: apt-get install --no-install-recommends ${packages[*]}"; fi
  root=(sudo -n)
fi

echo "installing ${packages[*]} (for the tests; no service is started or enabled)"

# Debian starts what it installs, unless this file forbids it. One that is there already is not ours to judge or to remove.
if [[ ! -e $policy ]]; then
  trap '"${root[@]}" rm -f "$policy"' EXIT
  printf '#!/bin/sh\n# Put here for a moment by jobwarden, scripts/system-packages.sh.\nexit 101\n' |
    "${root[@]}" tee "$policy" >/dev/null
  "${root[@]}" chmod 755 "$policy"
fi

# Debian makes a database cluster with PostgreSQL, unless this file forbids it. The package keeps a file that is there.
if [[ " ${packages[*]} " == *" postgresql "* && ! -e $clusters ]]; then
  echo "no database cluster is made with PostgreSQL: $clusters forbids it from now on"
  "${root[@]}" mkdir -p "${clusters%/*}"
  printf '# Put here by jobwarden, scripts/system-packages.sh: the tests make servers of their own.\ncreate_main_cluster = false\n' |
    "${root[@]}" tee "$clusters" >/dev/null
fi

install() {
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
    --no-install-recommends install "${packages[@]}" </dev/null >"$log" 2>&1
}

log=$(mktemp)
if ! install && ! { "${root[@]}" apt-get -qq -o DPkg::Lock::Timeout=120 update </dev/null >"$log" 2>&1 && install; }; then
  tail -n 5 "$log" >&2
  rm -f "$log"
  go_on_without "apt-get failed, see above"
fi
rm -f "$log"

# We brought these units, so nobody relies on them: they stay off at the next boot, too.
for unit in "${units[@]}"; do
  if command -v systemctl >/dev/null; then
    "${root[@]}" systemctl --quiet disable "$unit.service" >/dev/null 2>&1 || echo "could not disable $unit.service" >&2
  elif command -v update-rc.d >/dev/null; then
    "${root[@]}" update-rc.d "$unit" disable >/dev/null 2>&1 || echo "could not disable $unit" >&2
  fi
done
