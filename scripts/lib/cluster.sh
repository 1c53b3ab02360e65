# shellcheck shell=bash
# A throw-away PostgreSQL primary with one streaming replica, SCRAM everywhere, on free ports, as an unprivileged user.
# Needs common.sh and PG_BIN. Every process is ended by its own pid.
#
#   cluster_begin PREFIX          makes $cluster_dir; root hands it to an unprivileged user
#   cluster_start_primary         sets $primary_port; superuser postgres, password $cluster_password
#   cluster_start_replica         sets $replica_port; returns when it streams
#   run_unprivileged COMMAND...   runs a command as the cluster's user
#   start_process NAME COMMAND... the same in the background, its pid kept under NAME, its output in NAME.log
#   cluster_end                   stops every process of $cluster_dir and removes it

cluster_dir=
cluster_password=
primary_port=
replica_port=
unprivileged=()
chosen_ports=" "

cluster_begin() {
  cluster_dir=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX")
  : >"$cluster_dir/pids"
  cluster_password=$(random_word)
  if is_root; then
    local user=nobody
    if id postgres >/dev/null 2>&1; then user=postgres; fi
    unprivileged=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups --)
    chown -R "$user" "$cluster_dir"
    borrow_postgres
  fi
}

cluster_start_primary() {
  local data=$cluster_dir/primary
  primary_port=$(free_port '')
  note_port "$primary_port"
  printf '%s\n' "$cluster_password" | run_unprivileged tee "$cluster_dir/password" >/dev/null
  local options=(--username=postgres --auth=scram-sha-256 --pwfile="$cluster_dir/password"
    --encoding=UTF8 --locale=C --no-sync)
  # Checksums are on by default from PostgreSQL 18, which brought the option to turn them off.
  if [ "$(postgres_major)" -ge 18 ]; then options+=(--no-data-checksums); fi
  run_unprivileged "$PG_BIN/initdb" -D "$data" "${options[@]}" >"$cluster_dir/initdb.log" 2>&1 ||
    fail_with_log initdb "$cluster_dir/initdb.log"
  postgres_conf "$primary_port" | run_unprivileged tee -a "$data/postgresql.conf" >/dev/null
  start_process primary "$PG_BIN/postgres" -D "$data"
  await_postgres primary "$primary_port"
  psql_at "$primary_port" postgres -q -c "CREATE ROLE replicator REPLICATION LOGIN PASSWORD '$cluster_password'"
}

cluster_start_replica() {
  local data=$cluster_dir/replica
  replica_port=$(free_port '')
  note_port "$replica_port"
  run_unprivileged "$PG_BIN/pg_basebackup" -D "$data" -R -X stream -c fast -C -S replica --no-sync \
    -d "host=127.0.0.1 port=$primary_port user=replicator password=$cluster_password" \
    >"$cluster_dir/basebackup.log" 2>&1 || fail_with_log pg_basebackup "$cluster_dir/basebackup.log"
  printf 'port = %s\n' "$replica_port" | run_unprivileged tee -a "$data/postgresql.conf" >/dev/null
  start_process replica "$PG_BIN/postgres" -D "$data"
  await_postgres replica "$replica_port"
  await "a streaming replica" streams
}

cluster_end() {
  [ -n "$cluster_dir" ] || return 0
  local pid name
  # Newest first: what was started last depends on what was started before it.
  while read -r pid name; do
    stop_process "$pid" || say "$name (pid $pid) does not end"
  done < <(tac -- "$cluster_dir/pids" 2>/dev/null)
  case $cluster_dir in
    */*.??????) rm -rf -- "$cluster_dir" ;;
  esac
  cluster_dir=
}

# From / because the unprivileged user may not enter the folder that root stands in.
run_unprivileged() { (cd / && exec "${unprivileged[@]}" "$@"); }

# In a session of its own, so that Ctrl-C reaches this script alone, which then ends the rest in order.
start_process() {
  local name=$1
  shift
  (cd / && exec setsid "${unprivileged[@]}" "$@") </dev/null >"$cluster_dir/$name.log" 2>&1 &
  printf '%s %s\n' "$!" "$name" >>"$cluster_dir/pids"
}

process_pid() { awk -v name="$1" '$2 == name {pid = $1} END {print pid}' "$cluster_dir/pids"; }

process_runs() { kill -0 "$(process_pid "$1")" 2>/dev/null; }

# psql_at PORT DATABASE ARGUMENT...: psql as the superuser of the throw-away cluster.
psql_at() {
  local port=$1 database=$2
  shift 2
  PGPASSWORD=$cluster_password "$PG_BIN/psql" -X -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U postgres -d "$database" "$@"
}

# free_port WANTED: WANTED where it is not empty and nobody listens on it, else one below the range that the kernel hands out by itself.
free_port() {
  local port=$1
  while [ -z "$port" ] || [[ $chosen_ports == *" $port "* ]] || listens "$port"; do
    port=$((20000 + RANDOM % 12000))
  done
  printf '%s\n' "$port"
}

note_port() { chosen_ports+="$1 "; }

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

random_word() { od -An -N12 -tx1 /dev/urandom | tr -d ' \n'; }

# await WHAT COMMAND...: until COMMAND succeeds, half a minute at most.
await() {
  local what=$1 tries
  shift
  for ((tries = 0; tries < 300; tries++)); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  say "waited in vain for $what"
  return 1
}

# helpers -------------------------------------------------------------------------------------------------------------

postgres_major() { "$PG_BIN/postgres" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/'; }

postgres_conf() {
  cat <<CONF
listen_addresses = '127.0.0.1'
port = $1
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
hot_standby = on
hot_standby_feedback = on
max_connections = 100
shared_buffers = 128MB
# Thrown away at the end: nothing has to survive a crash.
fsync = off
full_page_writes = off
max_wal_size = 2GB
CONF
}

await_postgres() {
  local name=$1 port=$2
  await "PostgreSQL ($name)" "$PG_BIN/pg_isready" -q -h 127.0.0.1 -p "$port" || fail_with_log "$name" "$cluster_dir/$name.log"
}

streams() {
  [ "$(psql_at "$primary_port" postgres -Atc "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")" = 1 ]
}

fail_with_log() {
  tail -n 15 -- "$2" >&2 || true
  die "$1 failed"
}

# Only a process whose command line names our folder is ours; a pid alone may have been handed on.
stop_process() {
  local pid=$1 signal tries
  for signal in INT QUIT KILL; do
    for ((tries = 0; tries < 40; tries++)); do
      grep -qsF -- "$cluster_dir" "/proc/$pid/cmdline" || return 0
      if [ "$tries" -eq 0 ]; then kill "-$signal" "$pid" 2>/dev/null || return 0; fi
      sleep 0.1
    done
  done
  return 1
}

# Programs out of a wheel may lie where only root can go (a checkout in /root): then the cluster's user gets a copy.
borrow_postgres() {
  run_unprivileged test -x "$PG_BIN/postgres" && return 0
  cp -R -- "$(dirname -- "$PG_BIN")" "$cluster_dir/postgresql"
  chmod -R a+rX "$cluster_dir/postgresql"
  PG_BIN=$cluster_dir/postgresql/bin
}
