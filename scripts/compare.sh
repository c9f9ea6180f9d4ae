#!/usr/bin/env bash
# Measures Rusty Socks against its peers: each server on one core, the driver on another, in alternating
# order, over several rounds. Prints medians. How the figures are made: benches/compare/README.md.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: scripts/compare.sh            (Linux, at least two cores)

Settings, all from the environment:
  ROUNDS=3          rounds; the table has their medians
  MEASURE_SECONDS=3 how long each echo is measured, after a second of warm-up
  SERVERS="rusty tokio tokio-forward tokio-tuned floor"
  WORKS="echo:128:1:64 echo:128:16:64 echo:1024:1:200 echo:65536:1:16 idle:8000 fanout:1000"
                    echo:BYTES:IN_FLIGHT:CONNECTIONS, idle:CONNECTIONS, fanout:MEMBERS
  HOLD=15000        connections to hold on four workers while /health is asked; 0 leaves it out
  SERVER_CORE=0 DRIVER_CORE=1
USAGE
}
case "${1:-}" in
    '') ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

rounds=${ROUNDS:-3}
seconds=${MEASURE_SECONDS:-3}
hold=${HOLD:-15000}
server_core=${SERVER_CORE:-0}
driver_core=${DRIVER_CORE:-1}
read -ra servers <<<"${SERVERS:-rusty tokio tokio-forward tokio-tuned floor}"
read -ra works <<<"${WORKS:-echo:128:1:64 echo:128:16:64 echo:1024:1:200 echo:65536:1:16 idle:8000 fanout:1000}"

die() {
    echo "compare: $*" >&2
    exit 1
}

[[ $(uname -s) == Linux ]] || die "this needs Linux, for taskset and /proc"
command -v taskset >/dev/null || die "this needs taskset (util-linux)"
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "ROUNDS=$rounds is no number of rounds"
taskset -c "$server_core" true 2>/dev/null || die "there is no core $server_core for the server"
taskset -c "$driver_core" true 2>/dev/null || die "there is no core $driver_core for the driver"
[[ $server_core != "$driver_core" ]] || die "server and driver on one core would measure each other"

# Thousands of connections need as many descriptors, on both sides.
ulimit -n "$(ulimit -Hn)"

# A path given relative to where the script was called must hold after the cd.
[[ -z ${CARGO_TARGET_DIR:-} ]] || CARGO_TARGET_DIR=$(realpath -m "$CARGO_TARGET_DIR")
cd "$(dirname "$0")/.."
root=$PWD
server_bin=${CARGO_TARGET_DIR:-$root/target}/release
peer_bin=${CARGO_TARGET_DIR:-$root/benches/compare/target}/release
[[ -z ${CARGO_TARGET_DIR:-} ]] || export CARGO_TARGET_DIR

has_server() { [[ " ${servers[*]} " == *" $1 "* ]]; }

# ---- The servers. A new peer is a branch in each of these two functions and a name in SERVERS. ----

# Replaces this shell by server $1, doing work $2 (echo, idle or fanout) on port $3.
exec_server() {
    local mode=echo pinned=(taskset -c "$server_core")
    [[ $2 != fanout ]] || mode=broadcast
    case $1 in
        rusty)
            export RUSTY_SOCKS_HOST=127.0.0.1 RUSTY_SOCKS_PORT=$3 RUSTY_SOCKS_ECHO=true
            export RUSTY_SOCKS_THREAD_POOL_SIZE=${workers:-1} RUSTY_SOCKS_MAX_CONN=20000
            export RUSTY_SOCKS_LOG=warn
            exec "${pinned[@]}" "$server_bin/rusty_socks"
            ;;
        # As most programs write it.
        tokio) exec "${pinned[@]}" "$peer_bin/echo_tokio_tungstenite" --port "$3" --mode "$mode" ;;
        # As the crate's own example writes it.
        tokio-forward)
            exec "${pinned[@]}" "$peer_bin/echo_tokio_tungstenite" --port "$3" --mode "$mode" \
                --echo-style forward
            ;;
        # As somebody writes it who knows what its read buffer costs.
        tokio-tuned)
            exec "${pinned[@]}" "$peer_bin/echo_tokio_tungstenite" --port "$3" --mode "$mode" \
                --echo-style forward --read-buffer 4096
            ;;
        floor) exec "${pinned[@]}" "$peer_bin/echo_epoll" --port "$3" --mode "$mode" ;;
        *) die "there is no server named $1" ;;
    esac
}

# Sets `flags` to where and how the driver reaches server $1 for work $2 on port $3.
driver_flags() {
    case $1 in
        rusty)
            case $2 in
                echo) flags=(--url "ws://127.0.0.1:$3/echo") ;;
                idle) flags=(--url "ws://127.0.0.1:$3/ws") ;;
                fanout) flags=(--url "ws://127.0.0.1:$3/ws" --protocol chat) ;;
            esac
            ;;
        floor)
            flags=(--url "tcp://127.0.0.1:$3/" --raw)
            [[ $2 != fanout ]] || flags=(--url "tcp://127.0.0.1:$3/" --protocol tcp)
            ;;
        *)
            flags=(--url "ws://127.0.0.1:$3/")
            [[ $2 != fanout ]] || flags+=(--protocol raw)
            ;;
    esac
}

# ---- Starting and stopping. Nothing is ever killed but the one server this script has running. ----

server_pid=
next_port=$((20000 + RANDOM % 8000))
port=

stop_server() {
    [[ -n $server_pid ]] || return 0
    local pid=$server_pid deadline=$((SECONDS + 10))
    server_pid=
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        if ((SECONDS > deadline)); then
            echo "compare: the server with pid $pid did not end by itself" >&2
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.05
    done
    wait "$pid" 2>/dev/null || true
}
trap stop_server EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Starts server $1 for work $2 and returns once it accepts connections. Sets `port` and `server_pid`.
start_server() {
    # A fresh port each time, below the range that clients are given: no old connection is in the way.
    port=$next_port
    next_port=$((next_port + 1))
    (exec_server "$1" "$2" "$port") >"$log" 2>&1 &
    server_pid=$!
    local deadline=$((SECONDS + 10))
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        if ! kill -0 "$server_pid" 2>/dev/null; then
            cat "$log" >&2
            server_pid=
            return 1
        fi
        if ((SECONDS > deadline)); then
            echo "compare: $1 does not accept connections after 10 s" >&2
            cat "$log" >&2
            stop_server
            return 1
        fi
        sleep 0.05
    done
}

# ---- Measuring ----

# The number that field $2 has in the one-line JSON object $1, or nothing.
field() { sed -n "s/.*\"$2\":\([0-9.]*\).*/\1/p" <<<"$1"; }

# Has the driver do work $2 to server $1, and appends the figures to the results.
measure() {
    local kind size depth connections flags line value
    IFS=: read -r kind size depth connections <<<"$2"
    start_server "$1" "$kind" || return 1
    driver_flags "$1" "$kind" "$port"
    case $kind in
        echo)
            flags+=(--size "$size" --depth "$depth" --connections "$connections" --seconds "$seconds")
            ;;
        # In these the first number is how many.
        idle) flags+=(--connections "$size") ;;
        fanout) flags+=(--members "$size" --size 128) ;;
        *) die "there is no work named $kind" ;;
    esac
    line=$(taskset -c "$driver_core" "$peer_bin/drive" "$kind" "${flags[@]}" --pid "$server_pid" --json) ||
        { stop_server; return 1; }
    stop_server
    case $kind in
        echo) value=$(field "$line" cpu_us_per_message) ;;
        idle) value=$(field "$line" kib_per_connection) ;;
        fanout) value=$(field "$line" cpu_us_per_delivery) ;;
    esac
    # Memory may shrink while the crowd comes in, but then the run says nothing.
    [[ -n $value ]] || { echo "compare: no figure in $line" >&2; return 1; }
    printf '%s\t%s\t%s\t%s\t%s\n' "$2" "$1" "$value" \
        "$(field "$line" server_busy)" "$(field "$line" driver_busy)" >>"$results"
    printf '  %-16s %-14s %10.2f\n' "$2" "$1" "$value" >&2
}

# The table: for each work and server the median over the rounds, and what it is to the others' medians.
print_table() {
    awk -F '\t' -v works="${works[*]}" -v servers="${servers[*]}" '
        function sort(values, n,    i, j, held) {
            for (i = 2; i <= n; i++) {
                held = values[i]
                for (j = i - 1; j >= 1 && values[j] > held; j--) values[j + 1] = values[j]
                values[j + 1] = held
            }
        }
        function median(text,    values, n) {
            n = split(text, values, " ")
            if (n == 0) return ""
            for (i = 1; i <= n; i++) values[i] += 0
            sort(values, n)
            least = values[1]; most = values[n]
            return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
        }
        function ratio(a, b) { return (a == "" || b == "" || b == 0) ? "-" : sprintf("%.2f", a / b) }
        function label(work,    part) {
            split(work, part, ":")
            if (part[1] == "echo")
                return sprintf("echo %s B, %s in flight x %s: CPU us per message", part[2], part[3], part[4])
            if (part[1] == "idle") return sprintf("idle, %s connections: RSS KiB each", part[2])
            return sprintf("fan-out of 128 B to %s members: CPU us per delivery", part[2])
        }
        {
            figures[$1, $2] = figures[$1, $2] " " $3
            server_busy[$1, $2] = server_busy[$1, $2] " " $4
            driver_busy[$1, $2] = driver_busy[$1, $2] " " $5
        }
        END {
            work_count = split(works, work, " ")
            server_count = split(servers, server, " ")
            for (w = 1; w <= work_count; w++) {
                printf "\n%s\n", label(work[w])
                printf "  %-14s %9s %17s %8s %8s %12s %12s\n", "server", "median", "least-most", "x tokio", "x floor", "server busy", "driver busy"
                tokio = median(figures[work[w], "tokio"])
                floor = median(figures[work[w], "floor"])
                for (s = 1; s <= server_count; s++) {
                    key = work[w] SUBSEP server[s]
                    busy = median(server_busy[key]); driving = median(driver_busy[key])
                    figure = median(figures[key])
                    if (figure == "") { printf "  %-14s %9s\n", server[s], "failed"; continue }
                    printf "  %-14s %9.2f %17s %8s %8s %12s %12s\n", server[s], figure,
                        sprintf("%.2f-%.2f", least, most), ratio(figure, tokio), ratio(figure, floor),
                        busy == "" ? "-" : sprintf("%.2f", busy), driving == "" ? "-" : sprintf("%.2f", driving)
                    if (busy != "" && busy < 0.85) idle_seen = 1
                }
            }
            if (idle_seen)
                print "\nA server less than 0.85 busy was not saturated: the driver was slower, or something else ran."
        }
    ' "$results"
}

echo "building" >&2
cargo build --release --locked --quiet --manifest-path benches/compare/Cargo.toml
! has_server rusty || cargo build --release --locked --quiet --bin rusty_socks

results=$peer_bin/compare.tsv
log=$peer_bin/compare.server.log
: >"$results"
failures=0

for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    # Every other round backwards: what drifts with time then falls on all servers alike.
    order=("${servers[@]}")
    if ((round % 2 == 0)); then
        order=()
        for server in "${servers[@]}"; do order=("$server" "${order[@]}"); done
    fi
    for work in "${works[@]}"; do
        for server in "${order[@]}"; do
            if ! measure "$server" "$work"; then
                echo "compare: $work failed with $server" >&2
                failures=$((failures + 1))
            fi
        done
    done
done

print_table
if ((hold > 0)) && has_server rusty; then
    echo
    if workers=4 start_server rusty idle &&
        taskset -c "$driver_core" "$peer_bin/drive" hold --connections "$hold" --seconds 10 \
            --health "http://127.0.0.1:$port/health"; then
        stop_server
    else
        echo "compare: holding $hold connections failed" >&2
        failures=$((failures + 1))
    fi
fi

echo
echo "every round's figures: $results"
if ((failures > 0)); then
    die "$failures measurements failed; what failed is said above"
fi
