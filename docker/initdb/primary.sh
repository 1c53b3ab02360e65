#!/bin/sh
# Run once by the PostgreSQL image on the primary, after initdb: a role for the replica, a role and database for the
# application, and the right to stream.
set -eu

psql -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
  -v app_password="$APP_PASSWORD" -v replication_password="$REPLICATION_PASSWORD" <<'SQL'
SET password_encryption = 'scram-sha-256';
CREATE ROLE replicator REPLICATION LOGIN PASSWORD :'replication_password';
CREATE ROLE app LOGIN PASSWORD :'app_password';
CREATE DATABASE app OWNER app;
SQL

# The image lets everyone in by SCRAM, but "all" does not cover replication connections.
echo 'host replication replicator all scram-sha-256' >>"$PGDATA/pg_hba.conf"
