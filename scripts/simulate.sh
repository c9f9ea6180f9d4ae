#!/usr/bin/env bash
# Runs whole servers with all their clients from seeds, and looks for broken promises.
#
#   scripts/simulate.sh                      new seeds for 10 minutes, in release
#   scripts/simulate.sh --minutes 300        for 5 hours, and until the run that is under way ends
#   scripts/simulate.sh --clients 5000       crowds of this size; 8 to 1,000 otherwise
#   scripts/simulate.sh --cluster yes        several servers and their Redises, which lose nothing;
#                                            `lossy` with all that can go wrong
#   scripts/simulate.sh --cluster yes --shards 2     so many Redises; one to three otherwise
#   scripts/simulate.sh --seed 7 [--clients 20] [--steps 4000] [--until-step 585]
#                                            one seed again, as it failed
#   scripts/simulate.sh --planted [NAME]     builds the server with each planted bug, or with one,
#                                            and fails when the simulator does not find it
#
# Prints seed, steps, simulated time and findings of each run; ends with 1 at the first finding.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A planted bug must be found within so many steps of so many seeds, with so many clients.
PLANTED_STEPS=1500
PLANTED_SEEDS=60
PLANTED_CLIENTS=20

# And one of many servers within so many; without it these keep every promise.
PLANTED_CLUSTER_SEEDS=8

planted() {
    local copy=target/planted found=0 missed=0 patch name kind seeds file files out began
    mkdir -p "$copy"
    git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
        [[ -f $file ]] || continue
        # What has not changed keeps its time, so that it is not built again.
        cmp -s "$file" "$copy/$file" || { mkdir -p "$copy/$(dirname "$file")"; cp "$file" "$copy/$file"; }
    done
    for patch in crates/testing/planted/*.patch; do
        name=$(basename "$patch" .patch)
        [[ -z ${1-} || $1 == "$name" ]] || continue
        files=$(sed -n 's,^+++ b/,,p' "$patch")
        out=$copy/$name.out
        if ! patch -s -p1 -F3 --no-backup-if-mismatch -d "$copy" < "$patch" > "$out"; then
            echo "MISSED $name: the patch does not apply any more"
            missed=$((missed + 1))
        elif ! (cd "$copy" && CARGO_TARGET_DIR=build cargo build -q -p rusty_socks_testing --bin simulate) 2>> "$out"; then
            echo "MISSED $name: does not build, see $out"
            missed=$((missed + 1))
        else
            began=$SECONDS
            kind=no seeds=$PLANTED_SEEDS
            [[ $name != cluster-* ]] || kind=yes seeds=$PLANTED_CLUSTER_SEEDS
            if "$copy/build/debug/simulate" --cluster "$kind" --seed 1 --seeds "$seeds" \
                --steps "$PLANTED_STEPS" --clients "$PLANTED_CLIENTS" > "$out" 2>&1; then
                echo "MISSED $name: $seeds seeds found nothing"
                missed=$((missed + 1))
            else
                found=$((found + 1))
                echo "found $name in $((SECONDS - began)) s, seed $(grep -c '^seed' "$out"): $(grep -m1 -E '^BROKEN|panicked' "$out")"
            fi
        fi
        for file in $files; do cp "$file" "$copy/$file"; touch "$copy/$file"; done
    done
    echo "$found found, $missed missed"
    [[ $missed == 0 && $found -gt 0 ]]
}

case ${1-} in
    -h | --help) sed -n '2,16{s/^# \{0,1\}//;p;}' scripts/simulate.sh; exit 0 ;;
    --planted) planted "${2-}"; exit ;;
    '') set -- --minutes 10 ;;
esac
[[ "$*" == *--seed* || "$*" == *--minutes* ]] || set -- "$@" --minutes 10
cargo build -q --release -p rusty_socks_testing --bin simulate
exec target/release/simulate "$@"
