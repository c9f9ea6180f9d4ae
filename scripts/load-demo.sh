#!/usr/bin/env bash
# The story of a full server, in one command: a small server, some people inside, and a crowd at the
# door. Builds the release binary, starts a server of its own on a free port, and stops it at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

# Small numbers, so that every line of the tables can be checked by hand.
MAX_CONN=50
MAX_QUEUED=20
QUEUE_TIMEOUT=3
REGULARS=30
VISITORS=10
CROWD=200

# How long anything is waited for, in seconds, before the demo gives up.
DEADLINE=20

work=$(mktemp -d)
pids=()

# Ends what this script has started, and nothing else. The clients come first (they were started last).
clean_up() {
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

say() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'load-demo: %s\n' "$*" >&2
    [[ -s $work/server.log ]] && tail -n 20 "$work/server.log" >&2
    exit 1
}

# Repeats a command until it succeeds.
wait_for() {
    local what=$1 end=$((SECONDS + DEADLINE))
    shift
    until "$@"; do
        kill -0 "$server" 2>/dev/null || fail "the server has ended while waiting for $what"
        ((SECONDS < end)) || fail "no $what within $DEADLINE s"
        sleep 0.05
    done
}

# What the server says of itself at a route; silent when it does not answer.
ask() { curl --silent --fail --max-time 2 "http://127.0.0.1:$port$1"; }
healthy() { ask /health >/dev/null; }
inside_are() { [[ $(figure active_connections) == "$1" ]]; }

# One number out of /stats. Python reads JSON on every machine that has it; the demo needs no other tool.
figure() {
    ask /stats | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

for tool in curl python3; do
    command -v "$tool" >/dev/null || fail "this demo needs $tool"
done

say "Building the release binary"
cargo build --release --bin rusty_socks
binary=${CARGO_TARGET_DIR:-target}/release/rusty_socks

# A port that was free a moment ago; if somebody takes it meanwhile, the server says so and we end.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=ws://127.0.0.1:$port/ws

say "A server for $MAX_CONN at once; $MAX_QUEUED may wait in line, for $QUEUE_TIMEOUT s; the rest are turned away"
RUSTY_SOCKS_HOST=127.0.0.1 RUSTY_SOCKS_PORT=$port RUSTY_SOCKS_MAX_CONN=$MAX_CONN \
    RUSTY_SOCKS_MAX_QUEUED_TASKS=$MAX_QUEUED RUSTY_SOCKS_QUEUE_TIMEOUT=$QUEUE_TIMEOUT \
    "$binary" >"$work/server.log" 2>&1 &
server=$!
pids+=("$server")
wait_for "answer from /health" healthy

say "$REGULARS regulars come in and stay; each says something every second"
"$binary" load "$url" -c "$REGULARS" --hold 60 --message '{"sender":"regular","content":"still here"}' \
    --every 1 >"$work/regulars" 2>/dev/null &
regulars=$!
pids+=("$regulars")
wait_for "regulars inside" inside_are "$REGULARS"

say "$VISITORS visitors come in; they will leave after two seconds"
"$binary" load "$url" -c "$VISITORS" --hold 2 >"$work/visitors" 2>/dev/null &
pids+=("$!")
wait_for "visitors inside" inside_are $((REGULARS + VISITORS))

free=$((MAX_CONN - REGULARS - VISITORS))
say "A crowd of $CROWD comes at once. To be expected:
   $free are served at once: so many places are free.
   $MAX_QUEUED wait in line. $VISITORS of them are served when the visitors leave;
   the other $((MAX_QUEUED - VISITORS)) are told 503 after $QUEUE_TIMEOUT s.
   $((CROWD - free - MAX_QUEUED)) are told 503 at once, with a Retry-After."
refused=$((CROWD - free - VISITORS))
crowd_exit=0
"$binary" load "$url" -c "$CROWD" --hold 5 --expect-refused "$refused" || crowd_exit=$?

say "What the server counted (/stats, rejected by reason)"
ask /stats | python3 -c '
import json, sys
stats = json.load(sys.stdin)
print("rejected_total", stats["rejected_total"])
for reason, count in stats["rejected"].items():
    print(f"  {reason:32} {count}")'

say "And the regulars? They talked on all the while, and none was closed by the server"
kill -INT "$regulars"
regulars_exit=0
wait "$regulars" || regulars_exit=$?
cat "$work/regulars"

if ((crowd_exit != 0)); then
    fail "the crowd met with something else than was to be expected (exit code $crowd_exit)"
fi
if ((regulars_exit != 0)) || ! grep -Eq '^closed by the server while held +0$' "$work/regulars"; then
    fail "a regular was disturbed"
fi
say "Done: everybody was served, or told plainly to come back later"
