#!/usr/bin/env bash
# Runs every fuzz target for a while and tells what came of it, from any directory.
#
#   scripts/fuzz.sh              each target for 60 s, two at a time
#   scripts/fuzz.sh 600          each for 600 s
#   scripts/fuzz.sh 60 frames    only these targets
#
# Fails when a target does. Needs Rust with a nightly toolchain; cargo-fuzz is installed below the target
# directory if it is missing. The corpora grow below fuzz/corpus, which is not committed; what is, is
# fuzz/seeds, written by fuzz/seeds.py.
set -euo pipefail

AT_A_TIME=2

# What one input may cost before that counts as a failure.
MEMORY_MIB_MAX=4096
INPUT_SECONDS_MAX=10
INPUT_BYTES_MAX=4096

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../fuzz"

case ${1-} in -h | --help) sed -n '2,10{s/^# \{0,1\}//;p;}' "$here/fuzz.sh"; exit 0 ;; esac
seconds=${1:-60}
if [[ ! $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo "fuzz.sh: '$seconds' is no number of seconds" >&2
    exit 2
fi
shift $(($# > 0))

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo 'fuzz.sh: needs a nightly toolchain: rustup toolchain install nightly' >&2
    exit 1
fi
tools=$here/../target/tools
PATH=$tools/bin:$PATH
if ! command -v cargo-fuzz >/dev/null; then
    cargo install cargo-fuzz --quiet --root "$tools"
fi

all=$(cargo +nightly fuzz list --fuzz-dir .)
targets=("$@")
((${#targets[@]})) || read -r -d '' -a targets <<<"$all" || true
for target in "${targets[@]}"; do
    if ! grep -qx -- "$target" <<<"$all"; then
        echo "fuzz.sh: there is no target '$target'; the targets are:" $all >&2
        exit 2
    fi
done
cargo +nightly fuzz build --fuzz-dir .

# The target `config` writes a file for each input.
[[ -d /dev/shm ]] && export TMPDIR=/dev/shm

logs=$here/../target/fuzz-logs
mkdir -p "$logs"

# One target in the background. libFuzzer ends with 0 when its time is over and nothing was found.
run() {
    local target=$1
    mkdir -p "corpus/$target" "artifacts/$target"
    cargo +nightly fuzz run --fuzz-dir . "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb="$MEMORY_MIB_MAX" -timeout="$INPUT_SECONDS_MAX" \
        -max_len="$INPUT_BYTES_MAX" -print_final_stats=1 >"$logs/$target.log" 2>&1
}

# How often it ran and how much it reached, from the last lines of its log that say so.
tell() {
    local target=$1 result=$2 log=$logs/$1.log executions coverage
    executions=$(awk '/^stat::number_of_executed_units:/ { n = $2 } END { print n + 0 }' "$log")
    coverage=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1 || true)
    printf '%-12s %-7s %12s executions   %s\n' "$target" "$result" "$executions" "${coverage:-cov: ?}"
    [[ $result == ok ]] && return
    grep -E 'panicked at|^SUMMARY|Test unit written' -A 2 "$log" | sed 's/^/   | /' | head -n 20
    echo "   log: $log"
}

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
failed=()
for ((first = 0; first < ${#targets[@]}; first += AT_A_TIME)); do
    batch=("${targets[@]:first:AT_A_TIME}") pids=()
    for target in "${batch[@]}"; do
        run "$target" &
        pids+=($!)
    done
    for index in "${!batch[@]}"; do
        if wait "${pids[index]}"; then
            tell "${batch[index]}" ok
        else
            failed+=("${batch[index]}")
            tell "${batch[index]}" FAILED
        fi
    done
done
if ((${#failed[@]})); then
    echo "FAILED: ${failed[*]}"
    exit 1
fi
echo "all good: ${#targets[@]} targets, $seconds s each"
