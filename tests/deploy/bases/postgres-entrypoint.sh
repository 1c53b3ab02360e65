#!/bin/sh
# Makes a cluster on the first start, with POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, POSTGRES_INITDB_ARGS and the
# scripts of /docker-entrypoint-initdb.d, and runs PostgreSQL, never as root.
set -eu

if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
  chown postgres: "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
fi

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
  chmod 700 "$PGDATA"
  superuser=${POSTGRES_USER:-postgres}
  secret=$(mktemp)
  printf '%s\n' "${POSTGRES_PASSWORD:?}" >"$secret"
  # shellcheck disable=SC2086 # several options
  initdb -D "$PGDATA" -U "$superuser" --pwfile="$secret" ${POSTGRES_INITDB_ARGS:-}
  rm -f "$secret"
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=''" start
  if [ "${POSTGRES_DB:-postgres}" != postgres ]; then createdb -U "$superuser" "$POSTGRES_DB"; fi
  for script in /docker-entrypoint-initdb.d/*.sh; do
    if [ -f "$script" ]; then sh "$script"; fi
  done
  pg_ctl -D "$PGDATA" -w -m fast stop
fi

exec "$@"
