# shellcheck shell=bash
# Words to the user, and who we may be. Sourced by every script; it does nothing by itself.

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
# Downloaded tools (Python venvs) live with the other build products.
tools_dir=${CARGO_TARGET_DIR:-$repo/target}/tools

say() { printf '%s\n' "$*" >&2; }
step() { printf '\n== %s\n' "$*" >&2; }
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [ "$(id -u)" -eq 0 ]; }

# Runs a command as root: directly, or by sudo where that asks for no password. Fails where neither is to be had.
as_root() {
  if is_root; then
    "$@"
  elif have sudo && sudo -n true 2>/dev/null; then
    sudo -n "$@"
  else
    return 1
  fi
}

can_install() { have apt-get && as_root true; }
