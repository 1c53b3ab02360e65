#!/usr/bin/env bash
# Builds docker/Dockerfile with a Docker engine and runs the image in front of real PostgreSQL servers: every file of
# config/ and both compose files, a statement by psql through each, until the engine calls it healthy; read-only and
# without capabilities, and as a user that nobody has named. Removes what it has made.
#
#   tests/deploy/image.sh       some five minutes, as root of a Debian machine or where an engine runs
#
# Where no engine runs, Debian's is installed and one started aside; where no registry can be reached the images to build
# on are made by debootstrap (scripts/lib/docker.sh). DOCKER_BUILDKIT=0 or 1 chooses the builder. Where no engine can be
# had it says SKIPPED and succeeds.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/../../scripts/lib/common.sh"
. "$here/../../scripts/lib/setup.sh"
. "$here/../../scripts/lib/docker.sh"

run=pgweir-image-$$
image=pgweir:image-test-$$
# The name that the compose files use, and the image that had it before.
compose_image=pgweir:local
compose_image_before=
project_file=
compose=()
app_password="app+/="
strict=(--read-only --cap-drop ALL --security-opt no-new-privileges)

main() {
  trap finish EXIT
  trap 'exit 130' INT TERM HUP
  if ! engine_begin; then
    echo "SKIPPED: the image is not built: no Docker engine, and none that could be started here"
    return 0
  fi
  ensure_image rust:1-slim-bookworm rust
  ensure_image postgres:17-alpine postgres
  ensure_image postgres:15-alpine postgres

  build
  contents
  servers
  local file
  for file in "$repo"/config/*; do
    config_file "$file"
  done
  authorities
  compose_files
}

finish() {
  local status=$?
  trap - EXIT
  if [ -n "$project_file" ]; then compose_down || true; fi
  local made
  if have docker && docker info >/dev/null 2>&1; then
    made=$(docker ps --all --quiet --filter "label=$run")
    # shellcheck disable=SC2086 # one word per container
    if [ -n "$made" ]; then docker rm --force --volumes $made >/dev/null || true; fi
    docker network rm "$run" >/dev/null 2>&1 || true
    if [ -n "$compose_image_before" ]; then
      docker tag "$compose_image_before" "$compose_image" || true
    else
      docker image rm "$compose_image" >/dev/null 2>&1 || true
    fi
    docker image rm --force "$image" "$image-build" >/dev/null 2>&1 || true
  fi
  engine_end
  exit "$status"
}

# The image -----------------------------------------------------------------------------------------------------------

build() {
  say "building the image, a release build"
  local start=$SECONDS
  # The first stage has a name only so that it can be removed again.
  logged docker build --network=host -f "$repo/docker/Dockerfile" --target build -t "$image-build" "$repo" ||
    die "docker/Dockerfile does not build"
  logged docker build --network=host -f "$repo/docker/Dockerfile" -t "$image" "$repo" ||
    die "docker/Dockerfile does not build"
  local size
  size=$(docker image inspect --format '{{.Size}}' "$image")
  ok "docker/Dockerfile: $(awk -v size="$size" 'BEGIN {printf "%.2f", size / 1e6}') MB in $((SECONDS - start)) s"
  [ "$size" -lt 12000000 ] || die "the image was 8 MB once"
  compose_image_before=$(docker image inspect --format '{{.Id}}' "$compose_image" 2>/dev/null || true)
  docker tag "$image" "$compose_image"
}

contents() {
  local container list
  container=$(docker create --label "$run" "$image")
  list=$(docker export "$container" | tar --numeric-owner -tvf - | awk '{print $1, $2, $6}')
  docker rm "$container" >/dev/null
  local wanted
  for wanted in "drwxrwxrwt 0/0 run/pgbouncer/" "drwxrwxrwt 0/0 var/log/pgbouncer/" "drwxrwxrwt 0/0 tmp/" \
    "drwxr-xr-x 0/0 run/" "drwxr-xr-x 0/0 etc/pgbouncer/" "-rw-r--r-- 0/0 etc/ssl/certs/ca-certificates.crt"; do
    grep -qxF -- "$wanted" <<<"$list" || die "the image has no \"$wanted\" but"$'\n'"$list"
  done
  if grep -E '/(sh|bash|busybox|apt|dpkg)$' <<<"$list"; then die "the image has a shell"; fi
  ok "the image: owners and modes of its directories, authorities, no shell"
}

# Configurations ------------------------------------------------------------------------------------------------------

# A primary by all the names that files of config/ have for one, and two replicas.
servers() {
  say "starting a primary and two replicas"
  local work=$engine_dir/servers primary=$repo/docker/initdb/primary.sh replica=$repo/docker/initdb/replica.sh
  mkdir "$work"
  certificates "$work"
  printf '"app" "%s"\n"postgres" "console"\n' "$app_password" >"$work/userlist.txt"
  docker network create "$run" >/dev/null
  start pg-1 --network "$run" --network-alias pg-1 \
    --network-alias nx-postgresql-primary.nx-persistent.svc.cluster.local \
    --env POSTGRES_PASSWORD=postgres --env "APP_PASSWORD=$app_password" --env REPLICATION_PASSWORD=replicator \
    --volume "$primary:/docker-entrypoint-initdb.d/primary.sh:ro" --volume "$work/tls:/tls:ro" \
    --volume "$work/tls.sh:/docker-entrypoint-initdb.d/tls.sh:ro" postgres:17-alpine
  local name
  for name in pg-2 pg-3; do
    start "$name" --network "$run" --network-alias "$name" --user postgres --entrypoint sh \
      --env PRIMARY_HOST=pg-1 --env REPLICATION_PASSWORD=replicator \
      --volume "$replica:/replica.sh:ro" postgres:17-alpine /replica.sh postgres
  done
  for name in pg-1 pg-2 pg-3; do
    # By TCP: the first start of the primary, which runs the scripts, listens on its Unix socket only.
    within 60 "$name" docker exec "$run-$name" pg_isready -q -h 127.0.0.1 -U postgres || fail "$name"
  done
  docker exec "$run-pg-1" psql -q -U postgres -c 'CREATE DATABASE nx_seller_core OWNER app'
}

# An authority and a certificate for pg-1, and the script that gives it to the server.
certificates() {
  local tls=$1/tls
  have openssl || ensure_packages openssl || die "no openssl"
  mkdir "$tls"
  logged openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=authority of $run" \
    -keyout "$tls/ca.key" -out "$tls/ca.crt"
  logged openssl req -newkey rsa:2048 -nodes -subj /CN=pg-1 -keyout "$tls/server.key" -out "$tls/server.csr"
  printf 'subjectAltName = DNS:pg-1\n' >"$tls/server.ext"
  logged openssl x509 -req -days 2 -in "$tls/server.csr" -CA "$tls/ca.crt" -CAkey "$tls/ca.key" -CAcreateserial \
    -extfile "$tls/server.ext" -out "$tls/server.crt"
  chmod 644 "$tls"/*.key
  cat >"$1/tls.sh" <<'SH'
#!/bin/sh
set -eu
cp /tls/server.crt /tls/server.key "$PGDATA"
chmod 600 "$PGDATA/server.key"
echo "ssl = on" >>"$PGDATA/postgresql.conf"
SH
}

# config_file FILE: in the image as it is, as strict as a cluster can be, and as OpenShift runs it.
config_file() {
  local file=$1 name=${1##*/} databases target=/etc/pgbouncer/pgbouncer.ini arguments=() writable=()
  case $name in
    pgbouncer.ini) databases="app postgres" ;;
    read-write-split.ini) databases=app ;;
    kubernetes.ini) databases=nx_seller_core ;;
    pgweir.toml)
      databases="app reports"
      # Named by an argument, which is all that the health check can know it by.
      target=/etc/pgbouncer/pgweir.toml arguments=("$target")
      ;;
    *) die "config/$name is not known here: say which databases it has" ;;
  esac
  if grep -q '^logfile' "$file"; then writable=(--tmpfs /run/pgbouncer --tmpfs /var/log/pgbouncer); fi
  local mounts=(--volume "$file:$target:ro" --volume "$engine_dir/servers/userlist.txt:/etc/pgbouncer/userlist.txt:ro")
  pooler "config/$name" "$databases" "${mounts[@]}" "$image" "${arguments[@]}"
  pooler "config/$name, read-only, no capabilities" "$databases" "${strict[@]}" "${writable[@]}" "${mounts[@]}" \
    "$image" "${arguments[@]}"
  pooler "config/$name, as an arbitrary user of group 0" "$databases" --user 1000680000:0 --cap-drop ALL \
    --security-opt no-new-privileges "${mounts[@]}" "$image" "${arguments[@]}"
}

# pooler WHAT DATABASES OPTION... IMAGE ARGUMENT...: it shares the primary's network, so that 127.0.0.1 is both.
pooler() {
  local what=$1 databases=$2 database answer
  shift 2
  start pooler --network "container:$run-pg-1" --health-interval 1s "$@"
  within 30 "$what to be healthy" is_healthy "$run-pooler" || fail pooler
  for database in $databases; do
    answer=$(psql_by_pooler app "$database" 'SELECT current_database()') || fail pooler
    [ "$answer" = "$database" ] || [ "$database $answer" = "reports app" ] || die "$what: $database is $answer"
  done
  if [[ $what == *pgbouncer.ini* ]]; then
    PGPASSWORD=console psql_by_pooler postgres pgbouncer 'SHOW VERSION' | grep -q pgweir || fail pooler
  fi
  answer=$(docker exec "$run-pooler" pg_isready -h localhost) || fail pooler
  [ "$answer" = "localhost:6432 - accepting connections" ] || die "$what: pg_isready says $answer"
  docker exec "$run-pooler" pg_isready -q || die "$what: pg_isready fails"
  docker exec "$run-pooler" pgbouncer --version | grep -q pgweir || die "$what: no pgbouncer"
  docker stop --time 10 "$run-pooler" >/dev/null
  answer=$(docker inspect --format '{{.State.ExitCode}}' "$run-pooler")
  [ "$answer" = 0 ] || fail pooler
  docker rm "$run-pooler" >/dev/null
  ok "$what: healthy, $databases"
}

# sslmode=verify-full without a file of authorities: those of the image, or of whoever mounts others over them.
authorities() {
  local bundle=/etc/ssl/certs/ca-certificates.crt
  local options=(--network "container:$run-pg-1" "${strict[@]}" --env "PGBOUNCER_DSN_0=app=host=pg-1 port=5432"
    --env "PGBOUNCER_USERLIST=\"app\" \"$app_password\"" --env PGBOUNCER_SERVER_TLS_SSLMODE=verify-full)
  start pooler "${options[@]}" "$image"
  within 30 "a refused certificate" psql_is_refused || fail pooler
  docker logs "$run-pooler" 2>&1 | grep -q 'certificate verify failed' || fail pooler
  docker rm --force "$run-pooler" >/dev/null
  ok "sslmode=verify-full: the image's authorities do not know the server's"
  pooler "sslmode=verify-full, authorities mounted" app "${options[@]:2}" \
    --volume "$engine_dir/servers/tls/ca.crt:$bundle:ro" "$image"
}

psql_is_refused() {
  docker exec "$run-pooler" pg_isready -q && ! psql_by_pooler app app 'SELECT 1'
}

# psql_by_pooler USER DATABASE SQL
psql_by_pooler() {
  docker exec --env "PGPASSWORD=${PGPASSWORD:-$app_password}" --env PGCONNECT_TIMEOUT=5 "$run-pg-1" \
    timeout 10 psql -XAtq -h 127.0.0.1 -p 6432 -U "$1" -d "$2" -c "$3"
}

# Compose files -------------------------------------------------------------------------------------------------------

compose_files() {
  have docker-compose || docker compose version >/dev/null 2>&1 || ensure_packages docker-compose || true
  if have docker-compose; then with_compose docker-compose; fi
  if docker compose version >/dev/null 2>&1; then with_compose docker compose; fi
  if [ ${#compose[@]} -eq 0 ]; then echo "SKIPPED: the compose files: no docker-compose"; fi
}

with_compose() {
  compose=("$@")
  compose_up docker/compose.yaml
  asks "$compose_asked" postgres-primary pgweir app app app
  # As the machine sees it.
  printf 'GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n' | by_tcp 9127 15 | grep -q '^HTTP/1.1 200' || fail_compose
  printf '\0\0\0\10\4\322\26\57' | by_tcp 6432 1 | grep -q '^[NS]' || fail_compose
  compose_down

  export POSTGRES_PASSWORD="postgres+/=" FHIR_PASSWORD="fhir+/=" FHIR_REPLICA_PASSWORD="replica+/="
  compose_up docker/fhir/compose.yaml
  asks "$compose_asked" postgres-fhir pgbouncer-fhir fhir fhirdb "$FHIR_PASSWORD"
  compose_down
}

compose_up() {
  project_file=$repo/$1
  compose_asked="$1 by ${compose[*]}"
  logged "${compose[@]}" -p "$run" -f "$project_file" up -d --no-build || die "$compose_asked does not start"
  within 120 "$compose_asked to be healthy" all_healthy || fail_compose
}

compose_down() {
  logged "${compose[@]}" -p "$run" -f "$project_file" down --volumes --timeout 10
  project_file=
}

# asks WHAT SERVICE HOST USER DATABASE PASSWORD: from a service, by the pooler, what is to be written and read.
asks() {
  local what=$1 service=$2 host=$3 user=$4 database=$5 password=$6
  local ask=("${compose[@]}" -p "$run" -f "$project_file" exec -T -e "PGPASSWORD=$password" -e PGCONNECT_TIMEOUT=5
    "$service" psql -XAtq -v ON_ERROR_STOP=1 -h "$host" -p 6432 -U "$user" -d "$database")
  "${ask[@]}" -c 'CREATE TABLE arrives (id int)' -c 'INSERT INTO arrives VALUES (1)' </dev/null || fail_compose
  within 30 "a read from the replica" reads_from_replica || fail_compose
  ok "$what: healthy, writes on the primary, reads from the replica"
}

# Which server a statement runs on is a question to the primary, unless the statement says otherwise.
reads_from_replica() {
  local read='/* pgweir: replica */ SELECT id, pg_is_in_recovery() FROM arrives'
  [ "$("${ask[@]}" -c "$read" </dev/null)" = "1|t" ]
}

all_healthy() {
  local containers container
  containers=$(project_containers)
  [ -n "$containers" ] || return 1
  for container in $containers; do
    is_healthy "$container" || return 1
  done
}

project_containers() { docker ps --all --quiet --filter "label=com.docker.compose.project=$run"; }

fail_compose() {
  local container
  for container in $(project_containers); do
    docker inspect --format '{{.Name}}: {{.State.Status}}, {{.State.Health.Status}}' "$container" >&2
    docker logs --tail 10 "$container" >&2
  done
  die "$compose_asked failed"
}

# by_tcp PORT BYTES: sends standard input, prints the answer's first bytes.
by_tcp() (
  exec 3<>"/dev/tcp/127.0.0.1/$1"
  cat >&3
  timeout 5 head -c "$2" <&3
)

# helpers -------------------------------------------------------------------------------------------------------------

ok() { echo "ok     $*"; }

# start NAME OPTION... IMAGE ARGUMENT...
start() {
  local name=$1
  shift
  docker run --detach --label "$run" --name "$run-$name" "$@" >/dev/null || die "$name does not start"
}

is_healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; }

# within SECONDS WHAT COMMAND...
within() {
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  while [ "$SECONDS" -lt "$limit" ]; do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.2
  done
  say "waited in vain for $what"
  return 1
}

fail() {
  docker logs --tail 20 "$run-$1" >&2 || true
  docker inspect --format '{{json .State}}' "$run-$1" >&2 || true
  die "$run-$1 failed"
}

main "$@"
