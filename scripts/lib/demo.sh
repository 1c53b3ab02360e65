# shellcheck shell=bash
# The parts of scripts/demo: database, pooler, load, live display, summary. Needs the other pieces, and from the script
# $exe, $clients, $seconds, $keep; sets $port and $http_port.

demo_password=
loads=()
load_failed=
peak_waiting=0
peak_servers=0
drawn_lines=0
declare -A before=()

make_database() {
  demo_password=$(random_word)
  psql_at "$primary_port" postgres -q -c "CREATE ROLE demo LOGIN PASSWORD '$demo_password'" -c "CREATE DATABASE demo OWNER demo"
  PGPASSWORD=$demo_password "$PG_BIN/pgbench" -i -q -I dtGvp -s 20 -h 127.0.0.1 -p "$primary_port" -U demo demo \
    >"$cluster_dir/fill.log" 2>&1 || fail_with_log "pgbench -i" "$cluster_dir/fill.log"
  await "the replica to catch up" caught_up || die "the replica does not catch up"
}

start_pooler() {
  port=$(free_port 6432)
  note_port "$port"
  http_port=$(free_port 9127)
  note_port "$http_port"
  if [ "$port" != 6432 ]; then say "port 6432 is taken"; fi
  printf '"demo" "%s"\n"postgres" "%s"\n' "$demo_password" "$cluster_password" |
    run_unprivileged tee "$cluster_dir/userlist.txt" >/dev/null
  pooler_ini | run_unprivileged tee "$cluster_dir/pgweir.ini" >/dev/null
  # A copy, because the unprivileged user may not reach into the checkout.
  install -m 755 -- "$exe" "$cluster_dir/${exe##*/}"
  start_process pooler "$cluster_dir/${exe##*/}" "$cluster_dir/pgweir.ini"
  await "the pooler" pooler_answers_or_died || true
  psql_pooled -Atc 'SELECT 1' >/dev/null 2>&1 || fail_with_log "${exe##*/}" "$cluster_dir/pooler.log"
}

# Most clients look single rows up with prepared statements; the rest runs transactions of several statements in the
# simple protocol. Not the other way round: pgbench prepares with a blocking call, and a thread of it that blocks for a
# queued client while others of its clients hold all servers in open transactions waits for ever, under any pooler.
start_load() {
  write_scripts
  local transactions=$(((clients + 2) / 3))
  if [ "$clients" -gt "$transactions" ]; then
    start_pgbench selects prepared $((clients - transactions)) -f "$cluster_dir/select.sql"
    # It prepares client after client; behind the queue of the others that would take longer than the whole run.
    sleep 1
  fi
  start_pgbench transactions simple "$transactions" -f "$cluster_dir/report.sql@1" -f "$cluster_dir/tpcb.sql@2"
}

watch_load() {
  local started=$EPOCHREALTIME pause=2
  if [ -t 1 ]; then
    pause=1
    printf '\033[?25l'
  fi
  while load_runs && [ $((${EPOCHREALTIME%.*} - ${started%.*})) -lt $((seconds + 30)) ]; do
    if console; then show_sample "$started"; fi
    sleep "$pause"
  done
  if [ -t 1 ]; then printf '\033[?25h'; fi
  local load
  for load in "${loads[@]}"; do
    if process_runs "$load"; then
      say "FAILED: $load does not come to its end"
      stop_process "$(process_pid "$load")" || true
    fi
    wait "$(process_pid "$load")" || load_failed=1
  done
  # The last word of the counters, when no client is left.
  console || say "the console does not answer"
}

# Prints the table; fails when the load did not run cleanly or went to the wrong host.
summary() {
  printf '\n%s\n' "== summary: $clients clients, 20 server connections a pool, $seconds s"
  local load wrong=
  total_of transactions "${sample[xacts]:-0}"
  total_of queries "${sample[queries]:-0}"
  printf '%-34s %12s\n' "most clients queued at once" "$peak_waiting" "most server connections" "$peak_servers"
  if [ "$peak_servers" -gt 0 ]; then
    printf '%-34s %12s\n' "clients per server connection" "$(ratio "$clients" "$peak_servers")"
  fi
  show_latencies
  printf '%-34s %9s kB\n' "memory of ${exe##*/}, most" "$(awk '/^VmHWM/ {print $2}' "/proc/$(process_pid pooler)/status" 2>/dev/null || echo '?')"
  show_hosts
  show_metrics
  hosts_are_right || wrong=1
  if [ -n "$load_failed" ]; then
    for load in "${loads[@]}"; do grep -iE 'error|fatal|aborted' "$cluster_dir/$load.log" | head -n 5 || true; done
    say "FAILED: the load saw errors"
    wrong=1
  fi
  [ "${sample[xacts]:-0}" -gt 0 ] || wrong=1
  finished=1
  [ -z "$wrong" ]
}

next_steps() {
  printf '\n'
  if [ -n "$keep" ]; then
    echo "Everything stays up until: scripts/demo --stop    (configuration and logs: $cluster_dir)"
  else
    echo "With scripts/demo --keep everything stays up, to try (passwords are new each time):"
  fi
  cat <<TEXT
  PGPASSWORD=$demo_password psql -h 127.0.0.1 -p $port -U demo demo    # SQL through the pooler
  PGPASSWORD=$cluster_password psql -h 127.0.0.1 -p $port -U postgres pgbouncer -c 'SHOW POOLS'    # the console
  curl http://127.0.0.1:$http_port/metrics    # for Prometheus
TEXT
}

# set-up helpers ------------------------------------------------------------------------------------------------------

pooler_ini() {
  # PGWEIR_EXE may be PgBouncer, to compare: it knows one host and none of our own settings.
  case ${exe##*/} in
    pgbouncer*) printf '[databases]\ndemo = host=127.0.0.1 port=%s dbname=demo\n' "$primary_port" ;;
    *) printf '[databases]\ndemo = host=127.0.0.1,127.0.0.1 port=%s,%s dbname=demo read_write_split=1\n' "$primary_port" "$replica_port" ;;
  esac
  cat <<INI

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $cluster_dir/userlist.txt
admin_users = postgres
stats_users = demo
pool_mode = transaction
default_pool_size = 20
max_client_conn = $((clients + 50))
max_prepared_statements = 200
logfile = $cluster_dir/pgweir.log
pidfile = $cluster_dir/pgweir.pid
INI
  case ${exe##*/} in
    pgbouncer*) ;;
    *) printf 'http_listen_addr = 127.0.0.1\nhttp_port = %s\n' "$http_port" ;;
  esac
}

pooler_answers_or_died() { ! process_runs pooler || psql_pooled -Atc 'SELECT 1'; }

psql_pooled() { PGPASSWORD=$demo_password "$PG_BIN/psql" -X -h 127.0.0.1 -p "$port" -U demo -d demo "$@"; }

console() { PGUSER=postgres PGPASSWORD=$cluster_password console_sample "$port" demo; }

caught_up() {
  [ "$(psql_at "$primary_port" postgres -Atc 'SELECT replay_lsn >= pg_current_wal_lsn() FROM pg_stat_replication')" = t ]
}

write_scripts() {
  local dir=$cluster_dir
  run_unprivileged tee "$dir/select.sql" >/dev/null <<'SQL'
\set aid random(1, 100000 * :scale)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
SQL
  run_unprivileged tee "$dir/report.sql" >/dev/null <<'SQL'
\set bid random(1, :scale)
/* pgweir: replica */ BEGIN READ ONLY;
SELECT count(*), sum(tbalance) FROM pgbench_tellers WHERE bid = :bid;
SELECT bbalance FROM pgbench_branches WHERE bid = :bid;
COMMIT;
SQL
  run_unprivileged tee "$dir/tpcb.sql" >/dev/null <<'SQL'
\set aid random(1, 100000 * :scale)
\set bid random(1, :scale)
\set tid random(1, 10 * :scale)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
COMMIT;
SQL
}

# start_pgbench NAME PROTOCOL CLIENTS SCRIPT-OPTION...
start_pgbench() {
  local name=load-$1 protocol=$2 count=$3
  shift 3
  loads+=("$name")
  PGPASSWORD=$demo_password start_process "$name" "$PG_BIN/pgbench" -n -M "$protocol" -c "$count" -T "$seconds" \
    -D scale=20 -j 2 "$@" -h 127.0.0.1 -p "$port" -U demo demo
}

load_runs() {
  local load
  for load in "${loads[@]}"; do
    if process_runs "$load"; then return 0; fi
  done
  return 1
}

# display helpers -----------------------------------------------------------------------------------------------------

show_sample() {
  local now=$EPOCHREALTIME servers host line
  local active=${sample[clients_active]} waiting=${sample[clients_waiting]}
  servers=${sample[servers]}
  peak_servers=$((servers > peak_servers ? servers : peak_servers))
  peak_waiting=$((waiting > peak_waiting ? waiting : peak_waiting))
  local time tps
  time=$(awk -v a="$1" -v b="$now" 'BEGIN {printf "%.0f", b - a}')
  tps=$(rate xacts "$now")
  if [ -t 1 ]; then
    local lines=()
    lines+=("$(printf '  %-14s %s of %s s' time "$time" "$seconds")")
    lines+=("$(printf '  %-14s %-6s in a transaction %s' clients $((active + waiting)) "$active")")
    lines+=("$(printf '  %-14s %-6s oldest waits %s s' queue "$waiting" "${sample[maxwait]}")")
    lines+=("$(printf '  %-14s %-6s active %s, idle %s' servers "$servers" "${sample[servers_active]}" "${sample[servers_idle]}")")
    lines+=("$(printf '  %-14s %-6s total %s' transactions/s "$tps" "${sample[xacts]}")")
    for host in "${hosts[@]}"; do
      lines+=("$(printf '  %-14s %-22s reads/s %-8s writes/s %-8s servers %s' "${sample[role:$host]}" "$host" \
        "$(rate "reads:$host" "$now")" "$(rate "writes:$host" "$now")" "${sample[servers:$host]}")")
    done
    if [ "$drawn_lines" -gt 0 ]; then printf '\033[%sA\033[J' "$drawn_lines"; fi
    printf '%s\n' "${lines[@]}"
    drawn_lines=${#lines[@]}
  else
    line="$time s: clients $((active + waiting)), queue $waiting, servers $servers, transactions/s $tps"
    for host in "${hosts[@]}"; do
      line+=", ${sample[role:$host]} reads/s $(rate "reads:$host" "$now") writes/s $(rate "writes:$host" "$now")"
    done
    printf '%s\n' "$line"
  fi
  remember "$now"
}

# rate KEY NOW: per second since the last sample.
rate() {
  awk -v new="${sample[$1]:-0}" -v old="${before[$1]:-0}" -v now="$2" -v then="${before[time]:-0}" \
    'BEGIN {if (then == 0) print "-"; else printf "%.0f\n", (new - old) / (now - then)}'
}

# of WHAT HOST: one number of a host.
of() { printf '%s\n' "${sample[$1:$2]:-0}"; }

remember() {
  local key
  for key in "${!sample[@]}"; do before[$key]=${sample[$key]}; done
  before[time]=$1
}

# summary helpers -----------------------------------------------------------------------------------------------------

total_of() { printf '%-34s %12s %12.0f /s\n' "$1" "$2" "$(ratio "$2" "$seconds")"; }

ratio() { awk -v a="$1" -v b="$2" 'BEGIN {if (b == 0) print "-"; else printf "%.1f\n", a / b}'; }

percent() { awk -v a="$1" -v b="$2" 'BEGIN {if (b == 0) print "-"; else printf "%.1f %%\n", 100 * a / b}'; }

show_latencies() {
  local load
  for load in "${loads[@]}"; do
    awk -v name="latency, ${load#load-}" '/^latency average/ {printf "%-34s %9s ms\n", name, $4}' "$cluster_dir/$load.log"
  done
}

# By the pooler's count; where it keeps none, by PostgreSQL's.
show_hosts() {
  local host reads=0 writes=0
  if [ ${#hosts[@]} -eq 0 ]; then
    printf '%-34s %12s\n' "committed on the primary" "$(commits "$primary_port")" "committed on the replica" "$(commits "$replica_port")"
    return
  fi
  for host in "${hosts[@]}"; do
    reads=$((reads + $(of reads "$host")))
    writes=$((writes + $(of writes "$host")))
  done
  printf '\n%-34s %12s %8s %12s %8s %18s\n' host reads share writes share "PostgreSQL counts"
  for host in "${hosts[@]}"; do
    printf '%-34s %12s %8s %12s %8s %18s\n' "$host ${sample[role:$host]}" \
      "${sample[reads:$host]}" "$(percent "${sample[reads:$host]}" "$reads")" \
      "${sample[writes:$host]}" "$(percent "${sample[writes:$host]}" "$writes")" "$(commits "${host##*:}")"
  done
}

commits() { psql_at "$1" postgres -Atc "SELECT xact_commit FROM pg_stat_database WHERE datname = 'demo'" 2>/dev/null || echo '?'; }

show_metrics() {
  local count
  count=$(http_get "$http_port" /metrics 2>/dev/null | grep -cE '^(pgbouncer|pgweir)_' || true)
  printf '\n%-34s %12s samples\n' "http://127.0.0.1:$http_port/metrics" "$count"
}

http_get() {
  local stream
  exec {stream}<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' "$2" >&"$stream"
  timeout 3 cat <&"$stream"
  exec {stream}>&-
}

# The point of the split: no write may be counted on a replica, and reads must reach it.
hosts_are_right() {
  local host replica_reads=0 right=0
  [ ${#hosts[@]} -gt 0 ] || return 0
  for host in "${hosts[@]}"; do
    [ "${sample[role:$host]}" = replica ] || continue
    replica_reads=$((replica_reads + $(of reads "$host")))
    if [ "$(of writes "$host")" -gt 0 ]; then
      say "FAILED: writes went to the replica $host"
      right=1
    fi
  done
  if [ "$replica_reads" -eq 0 ]; then
    say "FAILED: no read went to a replica"
    right=1
  fi
  return "$right"
}
