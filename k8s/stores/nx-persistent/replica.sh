#!/bin/sh
# Entrypoint of the replica: copies the primary once, then streams from it.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA"
  # A copy that broke off half-way would keep pg_basebackup from starting again.
  find "$PGDATA" -mindepth 1 -delete
  export PGPASSWORD="$REPLICATION_PASSWORD"
  until pg_basebackup -D "$PGDATA" -R -X stream -c fast \
    -d "host=$PRIMARY_HOST port=${PRIMARY_PORT:-5432} user=${REPLICATION_USER:-replicator}"; do
    echo "waiting for the primary $PRIMARY_HOST"
    sleep 2
  done
  unset PGPASSWORD
  chmod 700 "$PGDATA"
fi

exec docker-entrypoint.sh "$@"
