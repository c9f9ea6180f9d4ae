#!/usr/bin/env bash
# Autobahn's cases against the server and against a client, compared with the pinned verdicts.
#
#   scripts/conformance.sh                     what CI runs: all of the server side with a context for each
#                                              client, the compressed cases again without, the client side
#   scripts/conformance.sh --mode shared       the server side alone, all 517, with RUSTY_SOCKS_COMPRESSION=shared
#   scripts/conformance.sh --mode dedicated -i '12.1.*' -i 7.5.1      some cases of it
#   scripts/conformance.sh --client            the client side alone
#   scripts/conformance.sh --update            pins what comes out (with -i: of those cases); read the diff
#   scripts/conformance.sh --binary PATH ...   with a server that is built already
#   WSTEST=/path/to/wstest scripts/conformance.sh ...      the server side by the reference suite, on Python 2.7
#
# Needs Rust and Python 3.10 or newer; the suite is installed below the target directory. Ends only what
# it started. docs/conformance.md has the outcome and what it means.
set -euo pipefail

SUITE='kosoku==0.1.0'

# What differs between the two modes; everything else has passed in the first.
COMPRESSED=(-i '12.1.*' -i '13.*')

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."
pins=tests/conformance

main() {
    local mode='' client=no include=() update=() binary=''
    while (($#)); do
        case $1 in
            --mode) mode=$(value "$@"); shift ;;
            --client) client=yes ;;
            -i | --include) include+=(-i "$(value "$@")"); shift ;;
            --update) update=(--update) ;;
            --binary) binary=$(value "$@"); shift ;;
            -h | --help) usage; exit 0 ;;
            *) fault "there is no '$1'; see --help" ;;
        esac
        shift
    done
    case $mode in '' | dedicated | shared) ;; *) fault "--mode is dedicated or shared, not '$mode'" ;; esac
    [[ $client == no || -z $mode ]] || fault '--client and --mode are two runs'
    if [[ $client == no && -z $mode ]] && ((${#include[@]})); then
        fault '-i wants --mode or --client: which of the runs'
    fi
    find_target
    install_suite

    local failed=no
    if [[ $client == no ]]; then
        [[ -n $binary ]] || build_server
        if [[ -n $mode ]]; then
            server_side "$mode" ${include[@]+"${include[@]}"} ${update[@]+"${update[@]}"} || failed=yes
        else
            server_side dedicated ${update[@]+"${update[@]}"} || failed=yes
            # The verdicts are the same in both modes, so the first run has pinned these.
            server_side shared "${COMPRESSED[@]}" || failed=yes
        fi
    fi
    if [[ -z $mode ]]; then
        client_side ${include[@]+"${include[@]}"} ${update[@]+"${update[@]}"} || failed=yes
    fi
    echo "conformance took ${SECONDS} s"
    [[ $failed == no ]]
}

usage() { sed -n '2,/^set/{/^#/{s/^# \{0,1\}//;p;};}' "$here/conformance.sh"; }

fault() {
    echo "conformance.sh: $*" >&2
    exit 2
}

value() {
    (($# > 1)) || fault "$1 wants a value"
    printf '%s' "$2"
}

# Where cargo builds to, whoever decided that.
find_target() {
    local metadata
    metadata=$(cargo metadata --no-deps --format-version 1)
    target=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])' <<<"$metadata")
    home=$target/conformance
    mkdir -p "$home"
}

install_suite() {
    local stamp=$home/suite/installed
    kosoku=$home/suite/bin/kosoku
    [[ -x $kosoku && $(cat "$stamp" 2>/dev/null) == "$SUITE" ]] && return
    rm -rf "$home/suite"
    if python3 -m venv "$home/suite"; then
        "$home/suite/bin/python" -m pip install --disable-pip-version-check --quiet "$SUITE"
    else
        # Debian packs venv apart from Python, and root is not ours to ask for.
        echo 'no venv here (on Debian: apt-get install python3-venv); trying pip alone'
        rm -rf "$home/suite"
        python3 -m pip install --disable-pip-version-check --quiet --target "$home/suite/lib" "$SUITE"
        mkdir -p "$home/suite/bin"
        printf '#!/bin/sh\nPYTHONPATH="%s" exec python3 "%s" "$@"\n' \
            "$home/suite/lib" "$home/suite/lib/bin/kosoku" >"$kosoku"
        chmod +x "$kosoku"
    fi
    printf '%s' "$SUITE" >"$stamp"
}

# As it ships. In debug the large compressed cases take minutes each.
build_server() {
    cargo build --release --bin rusty_socks
    binary=$target/release/rusty_socks
}

server_side() {
    local mode=$1 suite=() name=server-$1
    shift
    if [[ -n ${WSTEST-} ]]; then
        suite=(--wstest "$WSTEST")
        name+=-wstest
    fi
    play --title "server, $mode${suite:+, by wstest}" --pins "$pins/expected.json" --reports "$home/$name" \
        --server "$binary" --mode "$mode" ${suite[@]+"${suite[@]}"} "$@"
}

client_side() {
    cargo build --example conformance_client
    play --title client --pins "$pins/expected-client.json" --reports "$home/client" \
        --client "$target/debug/examples/conformance_client" "$@"
}

# Not in the foreground, so that a signal is heard while it runs and can be passed on.
play() {
    PYTHONDONTWRITEBYTECODE=1 python3 "$pins/run.py" --kosoku "$kosoku" "$@" &
    playing=$!
    local code=0
    wait "$playing" || code=$?
    playing=
    return "$code"
}

playing=
interrupted() {
    if [[ -n $playing ]]; then
        kill -TERM "$playing" 2>/dev/null || true
        wait "$playing" || true
    fi
    exit 130
}
trap interrupted INT TERM

main "$@"
