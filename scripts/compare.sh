#!/usr/bin/env bash
# Measures Rusty Socks against its peers: each server on one core, the driver on another, in alternating
# order, over several rounds. Writes docs/benchmarks.md. How the figures are made: benches/compare/README.md.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: scripts/compare.sh            measures everything and writes docs/benchmarks.md and its plots
       scripts/compare.sh --quick    a little of everything in two minutes or so; writes to target/compare/quick
       scripts/compare.sh --report   writes the documents again from the last run's figures
It needs Linux, at least two cores, and Python 3.10; Node and npm for two of the peers.

Settings, all from the environment:
  ROUNDS=3          rounds; the tables have their medians
  MEASURE_SECONDS=2 how long each echo, rooms and fan-out is measured, after a warm-up
  SERVERS="rusty tokio tokio-forward tokio-tuned fastwebsockets axum ws uwebsockets floor rusty-2 tokio-2"
                    -2 is with two threads
  WORKS="echo:128:1:64 …"    echo:BYTES:IN_FLIGHT:CONNECTIONS, rooms:ROOMS:MEMBERS:IN_FLIGHT_IN_EACH,
                    paced:ROOMS:MEMBERS:PUBLISHES_A_SECOND, fanout:MEMBERS, idle:CONNECTIONS,
                    chat-idle:CONNECTIONS, presence:MEMBERS
  HOLD=15000        connections to hold on four workers while /health is asked; 0 leaves it out
  OUT=docs          where benchmarks.md and benchmarks/*.svg are written
  SERVER_CORE=0 DRIVER_CORE=1
  TWO_CORES=0       what servers with two threads are pinned to, such as 0,2; one core unless told
USAGE
}

root=$(cd "$(dirname "$0")/.." && pwd)
# A path given relative to where the script was called must hold after the cd.
[[ -z ${CARGO_TARGET_DIR:-} ]] || export CARGO_TARGET_DIR="$(realpath -m "$CARGO_TARGET_DIR")"
[[ -z ${OUT:-} ]] || OUT=$(realpath -m "$OUT")
cd "$root"
work_dir=${CARGO_TARGET_DIR:-$root/target}/compare
server_bin=${CARGO_TARGET_DIR:-$root/target}/release
peer_bin=${CARGO_TARGET_DIR:-$root/benches/compare/target}/release
results=$work_dir/results.jsonl
machine=$work_dir/machine.json
out=${OUT:-docs}

report() { python3 benches/compare/report "$@"; }

every_server="rusty tokio tokio-forward tokio-tuned fastwebsockets axum ws uwebsockets floor rusty-2 tokio-2"
every_work="echo:128:1:64 echo:128:16:64 echo:1024:1:200 echo:65536:1:16 rooms:100:10:1 paced:100:10:2000
    fanout:1000 fanout:5000 idle:8000 chat-idle:8000 presence:1000"
case "${1:-}" in
    '') ;;
    --quick)
        # So little that it only shows that all of it works.
        : "${ROUNDS:=1}" "${MEASURE_SECONDS:=1}" "${HOLD:=0}"
        every_work="echo:128:16:16 rooms:20:5:1 paced:20:5:500 fanout:200 idle:500 chat-idle:500 presence:100"
        work_dir+=/quick
        results=$work_dir/results.jsonl
        machine=$work_dir/machine.json
        out=${OUT:-$work_dir}
        ;;
    --report) report write "$results" "$machine" "$out"; exit ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

rounds=${ROUNDS:-3}
seconds=${MEASURE_SECONDS:-2}
hold=${HOLD:-15000}
server_core=${SERVER_CORE:-0}
driver_core=${DRIVER_CORE:-1}
two_cores=${TWO_CORES:-$server_core}
read -rd '' -a servers <<<"${SERVERS:-$every_server}" || true
read -rd '' -a works <<<"${WORKS:-$every_work}" || true

die() {
    echo "compare: $*" >&2
    exit 1
}

[[ $(uname -s) == Linux ]] || die "this needs Linux, for taskset and /proc"
command -v taskset >/dev/null || die "this needs taskset (util-linux)"
command -v python3 >/dev/null || die "this needs python3, for the report"
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "ROUNDS=$rounds is no number of rounds"
taskset -c "$server_core" true 2>/dev/null || die "there is no core $server_core for the server"
taskset -c "$driver_core" true 2>/dev/null || die "there is no core $driver_core for the driver"
taskset -c "$two_cores" true 2>/dev/null || die "TWO_CORES=$two_cores: there are no such cores"
[[ $server_core != "$driver_core" ]] || die "server and driver on one core would measure each other"

# Thousands of connections need as many descriptors, on both sides.
ulimit -n "$(ulimit -Hn)"

# ---- The servers. A new peer is a branch in the next four functions and a name in SERVERS. ----

# Whether server $1 can do work $2. Variants of a server only do what they are a variant for.
suits() {
    case $1:$2 in
        rusty:*) return 0 ;;
        *:chat-idle:* | *:presence:*) return 1 ;;
        *-2:echo:*:16:* | *-2:rooms:* | *-2:fanout:1000) return 0 ;;
        *-2:*) return 1 ;;
        tokio-forward:echo:*) return 0 ;;
        tokio-forward:*) return 1 ;;
        floor:rooms:* | floor:paced:*) return 1 ;;
        *) return 0 ;;
    esac
}

# Sets `command` to server $1, doing work of kind $2 on port $3.
server_command() {
    local mode=echo cores=$server_core
    [[ $2 != fanout ]] || mode=broadcast
    [[ $2 != rooms && $2 != paced ]] || mode=rooms
    [[ $1 != *-2 ]] || cores=$two_cores
    local tokio=("$peer_bin/echo_tokio_tungstenite" --port "$3" --mode "$mode")
    case $1 in
        rusty | rusty-2)
            local threads=${workers:-1}
            [[ $1 != rusty-2 ]] || threads=2
            command=(env RUSTY_SOCKS_HOST=127.0.0.1 "RUSTY_SOCKS_PORT=$3" RUSTY_SOCKS_ECHO=true
                "RUSTY_SOCKS_THREAD_POOL_SIZE=$threads" RUSTY_SOCKS_MAX_CONN=20000 RUSTY_SOCKS_LOG=warn
                "$server_bin/rusty_socks")
            ;;
        # As most programs write it.
        tokio) command=("${tokio[@]}") ;;
        tokio-2) command=("${tokio[@]}" --threads 2) ;;
        # As the crate's own example writes it.
        tokio-forward) command=("${tokio[@]}" --echo-style forward) ;;
        # As somebody writes it who knows what its read buffer costs.
        tokio-tuned) command=("${tokio[@]}" --echo-style forward --read-buffer 4096) ;;
        fastwebsockets) command=("$peer_bin/echo_fastwebsockets" --port "$3" --mode "$mode") ;;
        axum) command=("$peer_bin/echo_axum" --port "$3" --mode "$mode") ;;
        ws | uwebsockets) command=(node "benches/compare/npm/$1.mjs" "$3" "$mode") ;;
        floor) command=("$peer_bin/echo_epoll" --port "$3" --mode "$mode") ;;
        *) die "there is no server named $1" ;;
    esac
    command=(taskset -c "$cores" "${command[@]}")
}

# Sets `flags` to where and how the driver reaches server $1 for work of kind $2 on port $3.
driver_flags() {
    case $1:$2 in
        rusty*:echo | rusty*:idle) flags=(--url "ws://127.0.0.1:$3/echo") ;;
        rusty*:fanout) flags=(--url "ws://127.0.0.1:$3/ws" --protocol chat) ;;
        rusty*:*) flags=(--url "ws://127.0.0.1:$3/ws") ;;
        floor:fanout) flags=(--url "tcp://127.0.0.1:$3/" --protocol tcp) ;;
        floor:*) flags=(--url "tcp://127.0.0.1:$3/" --raw) ;;
        *:fanout) flags=(--url "ws://127.0.0.1:$3/" --protocol raw) ;;
        *) flags=(--url "ws://127.0.0.1:$3/") ;;
    esac
}

# Builds or installs server $1. Fails if that cannot be done, having said why.
prepare() {
    local bin
    case $1 in
        rusty*) cargo build --release --locked --quiet --bin rusty_socks; return ;;
        tokio*) bin=echo_tokio_tungstenite ;;
        floor) bin=echo_epoll ;;
        ws | uwebsockets)
            command -v node >/dev/null && command -v npm >/dev/null || { echo "there is no node or npm"; return 1; }
            # Without scripts: what ships prebuilt needs none, and nothing else shall run.
            (cd benches/compare/npm &&
                { [[ -d node_modules/$1 ]] ||
                    npm install --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error; } &&
                node --input-type=module --eval "await import('$1')")
            return
            ;;
        *) bin=echo_$1 ;;
    esac
    cargo build --release --locked --quiet --manifest-path benches/compare/Cargo.toml --bin "$bin"
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

# Starts server $1 for work of kind $2 and returns once it accepts connections. Sets `port`, `server_pid`
# and `command`.
start_server() {
    # A fresh port each time, below the range that clients are given: no old connection is in the way.
    port=$next_port
    next_port=$((next_port + 1))
    server_command "$1" "$2" "$port"
    # `taskset` and `env` become the server, so that this is its pid.
    "${command[@]}" >"$log" 2>&1 &
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

# A command as a reader would type it: no path of this machine, and no port that was free by chance.
shown() {
    local text="$*"
    text=${text//"$server_bin/"/}
    text=${text//"$peer_bin/"/}
    text=${text//"$port"/PORT}
    echo "${text//--pid $server_pid/--pid PID}"
}

# Has the driver do work $2 to server $1 in round $3, and appends what it reports to the results.
measure() {
    local kind first second third flags line drive
    IFS=: read -r kind first second third <<<"$2"
    start_server "$1" "$kind" || return 1
    driver_flags "$1" "$kind" "$port"
    case $kind in
        echo) flags+=(--size "$first" --depth "$second" --connections "$third" --seconds "$seconds") ;;
        rooms) flags+=(--rooms "$first" --members "$second" --window "$third" --size 128 --seconds "$seconds") ;;
        paced) flags+=(--rooms "$first" --members "$second" --rate "$third" --size 128 --seconds "$seconds") ;;
        fanout) flags+=(--members "$first" --size 128 --count 1000000 --warmup 20 --seconds "$seconds") ;;
        idle | chat-idle) flags+=(--connections "$first") ;;
        presence) flags+=(--members "$first") ;;
        hold) flags=(--health "http://127.0.0.1:$port/health" --connections "$first" --seconds 10) ;;
        *) die "there is no work named $kind" ;;
    esac
    local name=$kind
    [[ $kind != paced ]] || name=rooms
    [[ $kind != chat-idle ]] || name=idle
    [[ $kind == hold ]] || flags+=(--pid "$server_pid")
    drive=(taskset -c "$driver_core" "$peer_bin/drive" "$name" "${flags[@]}" --json)
    line=$("${drive[@]}") || { cat "$log" >&2; stop_server; return 1; }
    printf '{"round":%d,"work":"%s","server":"%s","server_command":"%s","driver_command":"%s","report":%s}\n' \
        "$3" "$2" "$1" "$(shown "${command[@]}")" "$(shown "${drive[@]}")" "$line" >>"$results"
    stop_server
}

# As `measure`, and if it fails says so and counts it, and goes on.
try() {
    local began=$SECONDS
    if measure "$@"; then
        printf '  %-18s %-15s %3d s\n' "$2" "$1" "$((SECONDS - began))" >&2
    else
        echo "compare: $2 failed with $1" >&2
        printf '{"round":%d,"work":"%s","server":"%s","failed":true}\n' "$3" "$2" "$1" >>"$results"
        failures=$((failures + 1))
    fi
}

mkdir -p "$work_dir"
log=$work_dir/server.log
: >"$results"
failures=0

echo "building" >&2
cargo build --release --locked --quiet --manifest-path benches/compare/Cargo.toml --bin drive
present=()
for server in "${servers[@]}"; do
    if why=$(prepare "$server" 2>&1); then
        present+=("$server")
    else
        echo "compare: leaving out $server, which cannot be built or installed: ${why:-no reason given}" >&2
    fi
done
((${#present[@]} > 0)) || die "there is no server to measure"
report machine "servers=$server_core" "servers with two threads=$two_cores" "driver=$driver_core" >"$machine" ||
    die "python3 cannot describe this machine; it has to be 3.10 or newer"

for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    # Every other round backwards: what drifts with time then falls on all servers alike.
    order=("${present[@]}")
    if ((round % 2 == 0)); then
        order=()
        for server in "${present[@]}"; do order=("$server" "${order[@]}"); done
    fi
    for work in "${works[@]}"; do
        for server in "${order[@]}"; do
            ! suits "$server" "$work" || try "$server" "$work" "$round"
        done
    done
done
if ((hold > 0)) && [[ " ${present[*]} " == *" rusty "* ]]; then
    workers=4 try rusty "hold:$hold" 1
fi

report write "$results" "$machine" "$out"
echo "every measurement: $results" >&2
((failures == 0)) || die "$failures measurements failed; what failed is said above"
