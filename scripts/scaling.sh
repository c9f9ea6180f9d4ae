#!/usr/bin/env bash
# Measures what a connection, a message and a room cost as there are more and more of them, and writes
# docs/scaling.md: the laws that were found, what they predict, and what breaks first.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: scripts/scaling.sh            measures everything, in ten minutes or so, and writes docs/scaling.md and its plots
       scripts/scaling.sh --quick    a little of everything from unoptimized builds; writes to target/scaling/quick
       scripts/scaling.sh --report   writes the page again from the last run's figures
It needs Linux, two cores that nothing else uses, Python 3.10, and `ulimit -Hn` above 19,300 for the last rung.

Settings, all from the environment:
  ROUNDS=3            rounds; figures are medians
  MEASURE_SECONDS=1   how long each echo, fan-out and so on is measured, after a warm-up
  ONLY=""             some works alone, such as "memory-chat members workers"
  OUT=docs            where scaling.md and scaling/*.svg are written
  SERVER_CORE=0 DRIVER_CORE=1
  TWO_CORES=""        two cores for two workers, such as 0,2, where there are that many; left out unless told
USAGE
}

root=$(cd "$(dirname "$0")/.." && pwd)
# A path given relative to where the script was called must hold after the cd.
[[ -z ${CARGO_TARGET_DIR:-} ]] || export CARGO_TARGET_DIR="$(realpath -m "$CARGO_TARGET_DIR")"
[[ -z ${OUT:-} ]] || OUT=$(realpath -m "$OUT")
cd "$root"
work_dir=${CARGO_TARGET_DIR:-$root/target}/scaling
out=${OUT:-docs}
built=release
profile=release

write_page() { python3 benches/compare/report scaling "$work_dir/results.jsonl" "$work_dir/machine.json" "$out"; }

case "${1:-}" in
    '') ;;
    --quick)
        export QUICK=1
        # Nothing is built for it alone that takes long.
        built=debug
        profile=dev
        work_dir+=/quick
        out=${OUT:-$work_dir}
        ;;
    --report) write_page; exit ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

die() {
    echo "scaling: $*" >&2
    exit 1
}

[[ $(uname -s) == Linux ]] || die "this needs Linux, for taskset and /proc"
command -v taskset >/dev/null || die "this needs taskset (util-linux)"
command -v python3 >/dev/null || die "this needs python3"
for cores in "${SERVER_CORE:-0}" "${DRIVER_CORE:-1}" ${TWO_CORES:-}; do
    taskset -c "$cores" true 2>/dev/null || die "there is no core $cores"
done
[[ ${SERVER_CORE:-0} != "${DRIVER_CORE:-1}" ]] || die "server and driver on one core would measure each other"

# Thousands of connections need as many descriptors, on both sides.
ulimit -n "$(ulimit -Hn)"

echo "building" >&2
cargo build --profile $profile --locked --quiet --bin rusty_socks
cargo build --profile $profile --locked --quiet --manifest-path benches/compare/Cargo.toml --bin drive
export SERVER_BIN="${CARGO_TARGET_DIR:-$root/target}/$built/rusty_socks"
export DRIVE_BIN="${CARGO_TARGET_DIR:-$root/benches/compare/target}/$built/drive"

mkdir -p "$work_dir"
failed=0
python3 benches/compare/report measure "$work_dir" || failed=1
write_page
echo "every measurement: $work_dir/results.jsonl" >&2
((failed == 0)) || die "some measurements failed; which is said above"
