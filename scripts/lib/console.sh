# shellcheck shell=bash
# Reads the pooler's console (SHOW STATS, POOLS, HOSTS) into plain shell variables. Needs PG_BIN.
#
#   console_sample PORT DATABASE   fills the map `sample` (see below) and the list `hosts`; fails when nobody answers
#
# sample: xacts queries clients_active clients_waiting maxwait servers servers_active servers_idle, and for every
# host in `hosts` ("address:port"): role:HOST state:HOST reads:HOST writes:HOST servers:HOST. Columns are found by name.
# A console without SHOW HOSTS leaves `hosts` empty.

declare -A sample=()
hosts=()

console_sample() {
  local text key value
  text=$(console_show "$1" | console_numbers "$2") || return 1
  [ -n "$text" ] || return 1
  sample=()
  hosts=()
  while read -r key value; do
    sample[$key]=$value
    if [[ $key == role:* ]]; then hosts+=("${key#role:}"); fi
  done <<<"$text"
}

# helpers -------------------------------------------------------------------------------------------------------------

# PGPASSWORD and PGUSER come from the caller. SHOW HOSTS is last because a console may not know it.
console_show() {
  "$PG_BIN/psql" -X -q -A -F '|' -P footer=off -h 127.0.0.1 -p "$1" -d pgbouncer \
    -c '\echo @stats' -c 'SHOW STATS' -c '\echo @pools' -c 'SHOW POOLS' \
    -c '\echo @hosts' -c 'SHOW HOSTS' 2>/dev/null || true
}

console_numbers() {
  awk -F '|' -v database="$1" '
    /^@/ { table = substr($0, 2); header = 1; next }
    header { delete column; for (i = 1; i <= NF; i++) column[$i] = i; header = 0; next }
    $column["database"] != database { next }
    table == "stats" { xacts += field("total_xact_count"); queries += field("total_query_count"); seen = 1 }
    table == "pools" {
      active += field("cl_active"); waiting += field("cl_waiting")
      sv_active += field("sv_active"); sv_idle += field("sv_idle")
      sv_other += field("sv_used") + field("sv_tested") + field("sv_login")
      wait = field("maxwait") + field("maxwait_us") / 1e6
      if (wait > maxwait) maxwait = wait
    }
    table == "hosts" {
      host = $column["host"] ":" $column["port"]
      print "role:" host, $column["role"]; print "state:" host, $column["state"]
      print "reads:" host, field("reads"); print "writes:" host, field("writes")
      print "servers:" host, field("servers")
    }
    END {
      if (!seen) exit
      printf "xacts %d\nqueries %d\nclients_active %d\nclients_waiting %d\nmaxwait %.3f\n", xacts, queries, active, waiting, maxwait
      printf "servers %d\nservers_active %d\nservers_idle %d\n", sv_active + sv_idle + sv_other, sv_active, sv_idle
    }
    function field(name) { return name in column ? $column[name] + 0 : 0 }'
}
