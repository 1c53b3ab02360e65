#!/bin/sh
# Run once by the PostgreSQL image on the primary, after initdb: a role for the replica, a role and database for the
# application, and the right to stream.
set -eu

app_user=${APP_USER:-app}
replication_user=${REPLICATION_USER:-replicator}

psql -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
  -v app_user="$app_user" -v app_database="${APP_DATABASE:-$app_user}" -v app_options="${APP_OPTIONS:-}" \
  -v replication_user="$replication_user" \
  -v app_password="$APP_PASSWORD" -v replication_password="$REPLICATION_PASSWORD" <<'SQL'
SET password_encryption = 'scram-sha-256';
CREATE ROLE :"replication_user" REPLICATION LOGIN PASSWORD :'replication_password';
CREATE ROLE :"app_user" LOGIN :app_options PASSWORD :'app_password';
CREATE DATABASE :"app_database" OWNER :"app_user";
SQL

# The image lets everyone in by SCRAM, but "all" does not cover replication connections.
echo "host replication $replication_user all scram-sha-256" >>"$PGDATA/pg_hba.conf"
