#!/usr/bin/env bash
# Runs the scripts that docker/compose.yaml gives to the PostgreSQL image, on throw-away clusters of this machine: the
# primary's init script, the replica's entrypoint (with a stand-in for the image's own), and a row that must arrive.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/../../scripts/lib/common.sh"
. "$here/../../scripts/lib/setup.sh"
. "$here/../../scripts/lib/cluster.sh"

main() {
  ensure_postgres
  trap cluster_end EXIT
  trap 'exit 130' INT TERM HUP
  cluster_begin pgweir-compose
  cluster_start_primary
  # Its name is taken by the helper, which made a role like it; the init script is to make its own.
  psql_at "$primary_port" postgres -qc 'DROP ROLE replicator'
  stand_in_for_the_image

  run_unprivileged env PATH="$cluster_dir/bin:$PG_BIN:$PATH" PGDATA="$cluster_dir/primary" \
    PGHOST=127.0.0.1 PGPORT="$primary_port" PGPASSWORD="$cluster_password" \
    APP_OPTIONS=CREATEDB APP_PASSWORD="it's app" REPLICATION_PASSWORD=replicator sh "$cluster_dir/bin/primary.sh" >/dev/null
  psql_at "$primary_port" postgres -qc 'SELECT pg_reload_conf()' >/dev/null

  replica_port=$(free_port '')
  run_unprivileged mkdir -m 700 "$cluster_dir/replica"
  # What an interrupted first copy leaves behind.
  run_unprivileged touch "$cluster_dir/replica/backup_label"
  start_process replica env PATH="$cluster_dir/bin:$PG_BIN:$PATH" PGDATA="$cluster_dir/replica" PRIMARY_HOST=127.0.0.1 \
    PRIMARY_PORT="$primary_port" REPLICATION_PASSWORD=replicator sh "$cluster_dir/bin/replica.sh" \
    postgres -D "$cluster_dir/replica" -c "port=$replica_port"

  PGPASSWORD="it's app" "$PG_BIN/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$primary_port" -U app -d app \
    -c 'CREATE TABLE arrives (id int)' -c 'INSERT INTO arrives VALUES (1)'
  await "the row on the replica" row_arrives || fail_with_log replica "$cluster_dir/replica.log"
  echo "ok     docker/initdb: the replica follows the primary"
}

stand_in_for_the_image() {
  run_unprivileged mkdir "$cluster_dir/bin"
  install -m 755 -- "$repo/docker/initdb/primary.sh" "$repo/docker/initdb/replica.sh" "$cluster_dir/bin/"
  printf '#!/bin/sh\nexec "$@"\n' >"$cluster_dir/bin/docker-entrypoint.sh"
  chmod 755 "$cluster_dir/bin/docker-entrypoint.sh"
}

row_arrives() {
  [ "$(PGPASSWORD="it's app" "$PG_BIN/psql" -X -At -h 127.0.0.1 -p "$replica_port" -U app -d app \
    -c 'SELECT count(*) FROM arrives WHERE pg_is_in_recovery()')" = 1 ]
}

main "$@"
