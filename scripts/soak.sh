#!/usr/bin/env bash
# A server with everything on, for a while: TLS, tokens that end and are renewed, hooks and events,
# compression, presence, history, cuts and resumes, restarts with a snapshot, reloads, the server API,
# the access log. Fails if anything grows, or a message is lost, doubled or out of order.
#
#   scripts/soak.sh              30 minutes, at about a third of a core
#   scripts/soak.sh 10           so many minutes; growth is not judged in fewer than six
#
# Needs Python 3, Node 20, openssl and Linux; builds the release binary. Leaves samples, log and verdict in
# target/soak, and the picture in docs/reliability/soak.svg where 30 minutes or more were asked for.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-30}
if [[ ! $minutes =~ ^[1-9][0-9]*$ ]]; then
    sed -n '2,11{s/^# \{0,1\}//;p;}' "$0"
    exit 2
fi
cargo build --release --bin rusty_socks
target=$(cargo metadata --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
# The clients that ask for compression; where scripts/test.sh has it.
clients=$target/third-party/node
if [[ ! -d $clients/node_modules/ws ]]; then
    mkdir -p "$clients"
    npm install --prefix "$clients" --no-save --no-audit --no-fund --loglevel=error ws@8
fi
plot=()
if ((minutes >= 30)); then plot=(--plot docs/reliability/soak.svg); fi
exec python3 -B -m scripts.chaos.soak "$minutes" --binary "$target/release/rusty_socks" \
    --modules "$clients/node_modules" ${plot[@]+"${plot[@]}"}
