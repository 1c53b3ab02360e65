# shellcheck shell=bash
# A Docker engine, and images to build on where no registry is to be had. Needs common.sh and setup.sh.
#
#   engine_begin             an engine that runs, else one of our own; fails where there can be none
#   ensure_image NAME BASE   pulls NAME, else makes it of tests/deploy/bases/BASE.Dockerfile, if it is not there
#   engine_end               removes the images that were made or pulled, and stops our own engine

engine_dir=
engine_pid=
engine_images=()

engine_begin() {
  # Not /tmp, which may be kept in memory: our own engine takes some gigabytes.
  engine_dir=$(mktemp -d "${TMPDIR:-/var/tmp}/pgweir-docker.XXXXXX")
  have docker && docker info >/dev/null 2>&1 && return 0
  is_root || return 1
  ensure_packages docker.io || return 1
  # Debian 13 has the client in a package of its own.
  have docker || ensure_packages docker-cli || return 1
  # Where there is a service manager, the package has started it.
  docker info >/dev/null 2>&1 && return 0
  have dockerd || return 1
  own_engine
}

engine_end() {
  [ -n "$engine_dir" ] || return 0
  if [ ${#engine_images[@]} -gt 0 ]; then docker image rm --force "${engine_images[@]}" >/dev/null 2>&1 || true; fi
  if [ -n "$engine_pid" ]; then
    kill "$engine_pid" 2>/dev/null || true
    wait "$engine_pid" 2>/dev/null || true
    # The network of the machine, which the classic builder has given to containers.
    umount "$engine_dir/run/netns/"* 2>/dev/null || true
  fi
  case $engine_dir in
    */pgweir-docker.??????) rm -rf --one-file-system -- "$engine_dir" ;;
  esac
  engine_dir=
}

ensure_image() {
  local name=$1 base=$2
  docker image inspect "$name" >/dev/null 2>&1 && return 0
  if timeout 300 docker pull --quiet "$name" >/dev/null 2>&1; then
    engine_images+=("$name")
    return 0
  fi
  debian_image
  if ! docker image inspect "pgweir-base:$base" >/dev/null 2>&1; then
    say "making a base: $base"
    ensure_packages ca-certificates || die "no ca-certificates"
    mkdir -p "$engine_dir/bases"
    cp -- "$repo/tests/deploy/bases/"* /etc/ssl/certs/ca-certificates.crt "$engine_dir/bases/"
    logged docker build --network=host -f "$engine_dir/bases/$base.Dockerfile" -t "pgweir-base:$base" "$engine_dir/bases"
    engine_images=("pgweir-base:$base" "${engine_images[@]}")
  fi
  docker tag "pgweir-base:$base" "$name"
  engine_images=("$name" "${engine_images[@]}")
}

# logged COMMAND...: its output is of interest only if it fails.
logged() {
  "$@" >"$engine_dir/log" 2>&1 </dev/null && return 0
  tail -n 40 -- "$engine_dir/log" >&2
  return 1
}

# helpers -------------------------------------------------------------------------------------------------------------

# Debian 12, made by debootstrap.
debian_image() {
  docker image inspect pgweir-base:bookworm >/dev/null 2>&1 && return 0
  say "making a base: bookworm"
  ensure_packages debootstrap debian-archive-keyring || die "no debootstrap to make images with, and no registry"
  logged as_root debootstrap --variant=minbase bookworm "$engine_dir/bookworm" http://deb.debian.org/debian ||
    die "debootstrap failed"
  as_root tar -C "$engine_dir/bookworm" -c . | docker import - pgweir-base:bookworm >/dev/null
  as_root rm -rf --one-file-system -- "$engine_dir/bookworm"
  engine_images+=(pgweir-base:bookworm)
}

# It keeps to its folder: no bridge, no packet filter rules, no forwarding. Containers reach each other on networks of
# their own, and builds the outside on the machine's.
own_engine() {
  say "no engine runs here: starting one in $engine_dir"
  export DOCKER_HOST=unix://$engine_dir/socket
  # In a session of its own, so that Ctrl-C reaches the script alone, which then ends it.
  setsid dockerd --host "$DOCKER_HOST" --data-root "$engine_dir/data" --exec-root "$engine_dir/run" \
    --pidfile "$engine_dir/pid" --bridge none --iptables=false --ip-forward=false --ip-masq=false \
    >"$engine_dir/dockerd.log" 2>&1 </dev/null &
  engine_pid=$!
  local tries
  for ((tries = 0; tries < 300; tries++)); do
    docker info >/dev/null 2>&1 && return 0
    kill -0 "$engine_pid" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 5 -- "$engine_dir/dockerd.log" >&2
  return 1
}
