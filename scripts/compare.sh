#!/usr/bin/env bash
# Measures Rusty Socks against its peers: all servers on one core, the driver on another, in short slices that
# take turns. Writes docs/benchmarks.md. How the figures are made: benches/compare/README.md.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: scripts/compare.sh            measures everything and writes docs/benchmarks.md and its plots
       scripts/compare.sh --quick    a little of everything from unoptimized builds; writes to target/compare/quick
       scripts/compare.sh --report   writes the documents again from the last run's figures
It needs Linux, at least two cores, and Python 3.10; Node and npm for two of the peers.

Settings, all from the environment:
  ROUNDS=3          rounds, each with fresh servers
  SLICES=5          how often in each round the driver goes through all servers with echo, rooms and fan-out
  SLICE_SECONDS=0.4 how long each of those measurements is, after a warm-up
  SERVERS="rusty rusty-raw tokio tokio-forward tokio-tuned fastwebsockets axum ws uwebsockets floor rusty-2 tokio-2"
                    -2 is with two threads
  WORKS="echo:128:1:64 …"    echo:BYTES:IN_FLIGHT:CONNECTIONS, rooms:ROOMS:MEMBERS:IN_FLIGHT_IN_EACH,
                    paced:ROOMS:MEMBERS:PUBLISHES_A_SECOND, fanout:MEMBERS[:BYTES:IN_FLIGHT[:apart]],
                    idle:CONNECTIONS,
                    chat-idle:CONNECTIONS, presence:MEMBERS
  HOLD=15000        connections to hold on four workers while /health is asked; 0 leaves it out
  ASIDES=1          TLS, and servers on one Redis, on cores 0 and 1; 0 leaves them out, as SERVERS and WORKS do
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
built=release
profile=release
results=$work_dir/results.jsonl
machine=$work_dir/machine.json
out=${OUT:-docs}

report() { python3 benches/compare/report "$@"; }

every_server="rusty rusty-raw tokio tokio-forward tokio-tuned fastwebsockets axum ws uwebsockets floor rusty-2 tokio-2"
every_work="echo:128:1:64 echo:128:16:64 echo:1024:1:200 echo:65536:1:16 rooms:100:10:1 paced:100:10:2000
    fanout:1000 fanout:5000 fanout:1000:128:16 fanout:1000:128:16:apart fanout:1000:1024:4 fanout:5000:128:8
    idle:8000 chat-idle:8000 presence:1000"
case "${1:-}" in
    '') ;;
    --quick)
        # So little that it only shows that all of it works, and nothing is built for it alone that takes long.
        built=debug
        profile=dev
        : "${ROUNDS:=1}" "${SLICES:=2}" "${SLICE_SECONDS:=0.2}" "${HOLD:=0}" "${ASIDES:=0}"
        every_work="echo:128:16:16 rooms:20:5:1 paced:20:5:500 fanout:200 idle:500 chat-idle:500 presence:100"
        work_dir+=/quick
        results=$work_dir/results.jsonl
        machine=$work_dir/machine.json
        out=${OUT:-$work_dir}
        ;;
    --report) report benchmarks "$results" "$machine" "$out"; exit ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac
server_bin=${CARGO_TARGET_DIR:-$root/target}/$built
peer_bin=${CARGO_TARGET_DIR:-$root/benches/compare/target}/$built

build() { cargo build --profile $profile --locked --quiet "$@"; }

rounds=${ROUNDS:-3}
slices=${SLICES:-5}
seconds=${SLICE_SECONDS:-0.4}
hold=${HOLD:-15000}
# Not where only a part of all else is asked for.
asides=${ASIDES:-1}
[[ -n ${ASIDES:-} || -z ${SERVERS:-}${WORKS:-} ]] || asides=0
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
[[ $slices =~ ^[1-9][0-9]*$ ]] || die "SLICES=$slices is no number of slices"
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
        rusty-raw:fanout:*:*) return 0 ;;
        rusty-raw:*) return 1 ;;
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
                # What a client may send is not what is compared.
                RUSTY_SOCKS_RATE_MESSAGES=0 RUSTY_SOCKS_RATE_BYTES=0
                "$server_bin/rusty_socks")
            ;;
        rusty-raw) command=("$peer_bin/broadcast_rusty" --port "$3") ;;
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
        rusty-raw:*) flags=(--url "ws://127.0.0.1:$3/" --protocol raw) ;;
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
        rusty-raw) bin=broadcast_rusty ;;
        rusty*) build --bin rusty_socks; return ;;
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
    build --manifest-path benches/compare/Cargo.toml --bin "$bin"
}

# ---- Starting and stopping. Nothing is ever killed but the servers this script has running. ----

declare -A server_pids=() ports=()
next_port=$((20000 + RANDOM % 8000))

stop_server() {
    local pid=${server_pids[$1]:-} deadline=$((SECONDS + 10))
    unset "server_pids[$1]"
    [[ -n $pid ]] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    kill -CONT "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        if ((SECONDS > deadline)); then
            echo "compare: $1 with pid $pid did not end by itself" >&2
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.05
    done
    wait "$pid" 2>/dev/null || true
}

stop_servers() {
    local server
    for server in "${!server_pids[@]}"; do stop_server "$server"; done
}
trap stop_servers EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Starts server $1 for work of kind $2 and returns once it accepts connections.
start_server() {
    # A fresh port each time, below the range that clients are given: no old connection is in the way.
    local port=$next_port deadline=$((SECONDS + 10)) pid
    next_port=$((next_port + 1))
    server_command "$1" "$2" "$port"
    # `taskset` and `env` become the server, so that this is its pid.
    "${command[@]}" >"$logs/$1" 2>&1 &
    pid=$!
    server_pids[$1]=$pid
    ports[$1]=$port
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        if ! kill -0 "$pid" 2>/dev/null || ((SECONDS > deadline)); then
            echo "compare: $1 does not accept connections" >&2
            cat "$logs/$1" >&2
            stop_server "$1"
            return 1
        fi
        sleep 0.05
    done
}

# ---- Measuring ----

# A command of or for server $1 as a reader would type it: no path of this machine, and no port that was free by chance.
shown() {
    local text="${*:2}"
    text=${text//"$server_bin/"/}
    text=${text//"$peer_bin/"/}
    text=${text//"${ports[$1]}"/PORT}
    echo "${text//--pid ${server_pids[$1]}/--pid PID}"
}

# Sets `drive` to what does work $2 to server $1: for a while before it counts and for a while after that.
driver_command() {
    local kind first second third name size window warm=(--warmup "$3" --seconds "$4")
    IFS=: read -r kind first second third <<<"$2"
    driver_flags "$1" "$kind" "${ports[$1]}"
    name=$kind
    case $kind in
        echo) flags+=(--size "$first" --depth "$second" --connections "$third" "${warm[@]}") ;;
        rooms) flags+=(--rooms "$first" --members "$second" --window "$third" --size 128 "${warm[@]}") ;;
        paced)
            name=rooms
            flags+=(--rooms "$first" --members "$second" --rate "$third" --size 128 "${warm[@]}")
            ;;
        fanout)
            size=${second:-128} window=${third%%:*}
            # About what Rusty Socks' chat makes of a message: its floor is to write as much.
            [[ $1 != floor || -z $third ]] || size=$((size + 176))
            flags+=(--members "$first" --size "$size" --window "${window:-1}" "${warm[@]}")
            [[ $third != *:apart ]] || flags+=(--apart)
            ;;
        idle) flags+=(--connections "$first") ;;
        chat-idle)
            name=idle
            flags+=(--connections "$first")
            ;;
        presence) flags+=(--members "$first") ;;
        hold) flags+=(--health "http://127.0.0.1:${ports[$1]}/health" --connections "$first" --seconds 10) ;;
        *) die "there is no work named $kind" ;;
    esac
    [[ $kind == hold ]] || flags+=(--pid "${server_pids[$1]}")
    drive=(taskset -c "$driver_core" "$peer_bin/drive" "$name" "${flags[@]}" --json)
}

# Has the driver do work $2 to server $1 in slice $3, and appends what it reports to the results. If that
# fails, says so, counts it and goes on.
measure() {
    local line
    driver_command "$1" "$2" 0.1 "$seconds"
    if line=$("${drive[@]}"); then
        server_command "$1" "${2%%:*}" "${ports[$1]}"
        printf '{"slice":%d,"work":"%s","server":"%s","server_command":"%s","driver_command":"%s","report":%s}\n' \
            "$3" "$2" "$1" "$(shown "$1" "${command[@]}")" "$(shown "$1" "${drive[@]}")" "$line" >>"$results"
    else
        cat "$logs/$1" >&2
        failed "$@"
    fi
}

failed() {
    echo "compare: $2 failed with $1" >&2
    printf '{"slice":%d,"work":"%s","server":"%s","failed":true}\n' "$3" "$2" "$1" >>"$results"
    failures=$((failures + 1))
}

# Work $1 with all servers at once, of which all but one are halted at any time: some would tidy up their memory
# in a slice that is another's. What drifts within seconds, on a machine that is not ours alone, falls on all alike.
take_turns() {
    local work=$1 round=$2 server slice index number turn=()
    shift 2
    for server in "$@"; do
        if start_server "$server" "${work%%:*}"; then
            turn+=("$server")
            # Until it has compiled what it compiles as it runs, and taken the memory that it takes.
            driver_command "$server" "$work" 0 0.8
            "${drive[@]}" >/dev/null || true
            halt "$server"
        else
            failed "$server" "$work" "$(((round - 1) * slices))"
        fi
    done
    for ((slice = 0; slice < slices; slice++)); do
        number=$(((round - 1) * slices + slice))
        for ((index = 0; index < ${#turn[@]}; index++)); do
            # Every other time backwards, so that nobody always comes after the same.
            server=${turn[number % 2 == 0 ? index : ${#turn[@]} - 1 - index]}
            kill -CONT "${server_pids[$server]}"
            measure "$server" "$work" "$number"
            halt "$server"
        done
    done
    stop_servers
}

halt() {
    # It has connections to close.
    sleep 0.1
    kill -STOP "${server_pids[$1]}"
}

# Work $1 with one server at a time, and with each once: what it takes to be asked for the first time.
one_by_one() {
    local work=$1 round=$2 server
    shift 2
    for server in "$@"; do
        if start_server "$server" "${work%%:*}"; then
            measure "$server" "$work" "$round"
            stop_server "$server"
        else
            failed "$server" "$work" "$round"
        fi
    done
}

mkdir -p "$work_dir"
# Nothing of an earlier run comes onto the page of this one.
rm -f "$work_dir/tls.md" "$work_dir/nodes.md"
logs=$work_dir/servers
mkdir -p "$logs"
: >"$results"
failures=0

echo "building" >&2
build --manifest-path benches/compare/Cargo.toml --bin drive
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
    for work in "${works[@]}"; do
        group=()
        for server in "${present[@]}"; do ! suits "$server" "$work" || group+=("$server"); done
        ((${#group[@]} > 0)) || continue
        began=$SECONDS
        case $work in
            echo:* | rooms:* | paced:* | fanout:*) take_turns "$work" "$round" "${group[@]}" ;;
            *) one_by_one "$work" "$round" "${group[@]}" ;;
        esac
        printf '  %-18s %3d s\n' "$work" "$((SECONDS - began))" >&2
    done
done
if ((hold > 0)) && [[ " ${present[*]} " == *" rusty "* ]]; then
    workers=4 one_by_one "hold:$hold" 1 rusty
fi

# What TLS and a Redis that servers share cost, each beside the same without it.
aside() {
    local name=$1
    shift
    python3 "benches/compare/$name.py" --binary "$server_bin/rusty_socks" --rounds "$rounds" "$@" >"$work_dir/$name.md" ||
        { echo "compare: leaving out $name.py, which failed" >&2; rm -f "$work_dir/$name.md"; }
}
if ((asides)); then
    aside tls --npm benches/compare/npm
    aside nodes
fi

report benchmarks "$results" "$machine" "$out"
echo "every measurement: $results" >&2
((failures == 0)) || die "$failures measurements failed; what failed is said above"
