#!/usr/bin/env bash
# Does faults to real servers under load, and says for each what clients see, what the operator sees, and what
# is lost: kill -9, SIGSTOP, cut and slow links, full disks, no descriptors, a clock that jumps, a log that
# nobody reads, SIGTERM. Fails where that is not what docs/reliability.md says.
#
#   scripts/chaos.sh                   all of them, in three minutes
#   scripts/chaos.sh kill cut          some of them; --help lists them
#   scripts/chaos.sh --short           some of them with fewer clients, within a minute
#   scripts/chaos.sh --show restart    a restart under 5,000 clients
#   scripts/chaos.sh --show crowd      15,000 who come to a server with 5,000 places
#   scripts/chaos.sh --show node       10,000 clients of a node that is killed: --clients 10000 --every-ms 30000
#   scripts/chaos.sh --cluster         nodes that share a Redis, by seeds: --seed, --runs, --faults and so on
#
# Needs Linux, Python 3 and Node 20; for full disks that get space again also root, for the clock libfaketime, which
# is unpacked below the target directory where apt-get has it. Builds the release binary unless --binary names one.
# --cluster needs redis-server, and the Python clients that scripts/test.sh third-party installs.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(cargo metadata --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
program=scripts.chaos.faults
if [[ ${1-} == --show ]]; then
    program=scripts.chaos.show
    shift
fi
python=python3
if [[ ${1-} == --cluster ]]; then
    program=scripts.chaos.cluster
    [[ ! -x $target/third-party/python/bin/python ]] || python=$target/third-party/python/bin/python
    shift
fi
binary=()
if [[ " $* " != *" --binary"* && " $* " != *" --help "* ]]; then
    cargo build --release --bin rusty_socks
    binary=(--binary "$target/release/rusty_socks")
fi

# Unpacked, not installed: nobody has to be root.
if [[ $program == scripts.chaos.faults && -z ${LIBFAKETIME-} ]]; then
    home=$target/third-party/faketime
    if [[ " $* " != *" --short "* && ! -d $home/usr ]] && command -v apt-get >/dev/null; then
        mkdir -p "$home"
        (cd "$home" && apt-get download -q libfaketime && dpkg-deb -x libfaketime_*.deb .) >/dev/null 2>&1 || true
    fi
    LIBFAKETIME=$(find "$home/usr" -name 'libfaketimeMT.so.1' 2>/dev/null | head -n 1 || true)
    export LIBFAKETIME
fi
exec "$python" -B -m "$program" ${binary[@]+"${binary[@]}"} "$@"
