#!/usr/bin/env bash
# Counts the instructions of every hot path and fails where one has grown since they were written down.
#
#   scripts/perf-gate.sh                       all paths against crates/testing/instructions.toml
#   scripts/perf-gate.sh json.write road.echo  only these
#   scripts/perf-gate.sh --update              writes the file anew: for a commit that says why
#   scripts/perf-gate.sh --strict              fails as well where nothing can be counted or compared
#
# An instruction count does not depend on how busy the machine is, so a small change shows: one build counts
# the same within 0.6 %, and built elsewhere within 1.2 %. It is no time: it knows no cache, no lock that waits and no system call. It
# depends on the compiler, on libc and on what the processor can do. Where these are not those of the file,
# the counts are shown and nothing fails. Needs Rust and Valgrind, which is installed where there is none if
# this is Debian and root; elsewhere without it the script says loudly that it has counted nothing.
set -euo pipefail

# A path that has grown by more fails; one that has shrunk by more asks for the file to be written anew.
PERCENT_MAX=5

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."
file=crates/testing/instructions.toml

main() {
    local update=no strict=no chosen=() argument
    for argument in "$@"; do
        case $argument in
            --update) update=yes ;;
            --strict) strict=yes ;;
            -h | --help) usage; exit 0 ;;
            -*) fault "there is no '$argument'; see --help" ;;
            *) chosen+=("$argument") ;;
        esac
    done
    [[ $update == no ]] || ((${#chosen[@]} == 0)) || fault '--update is for all paths'
    [[ $update == yes || -r $file ]] || fault "there is no $file; --update writes it"
    if ! have_valgrind; then
        loudly 'NOTHING WAS COUNTED: there is no valgrind here'
        [[ $strict == no && $update == no ]]
        exit
    fi
    find_target
    cargo build --release -p rusty_socks_testing --bin replay
    replay=$target/release/replay
    home=$target/perf
    mkdir -p "$home"
    "$replay" list >"$home/paths"
    for argument in ${chosen[@]+"${chosen[@]}"}; do
        cut -f 1 "$home/paths" | grep -qx -- "$argument" || fault "there is no path '$argument'; see $file"
    done
    count ${chosen[@]+"${chosen[@]}"} >"$home/now"
    made_with >"$home/made_with"
    if [[ $update == yes ]]; then
        write_file
        echo "$file is written anew: git diff $file"
        exit
    fi

    local same=yes code=0
    sed -n '/^\[made_with\]/,/^$/{/ = /p;}' "$file" | diff - "$home/made_with" >"$home/made_with.diff" || same=no
    compare "$same" ${chosen[@]+"${chosen[@]}"} || code=$?
    if [[ $same == no ]]; then
        loudly "NOT COMPARABLE: $file was made with something else, so nothing fails" \
            "$(sed -n 's/^</  the file:/p; s/^>/  here:    /p' "$home/made_with.diff")"
        [[ $strict == no ]]
        exit
    fi
    exit "$code"
}

usage() { sed -n '2,/^set/{/^#/{s/^# \{0,1\}//;p;};}' "$here/perf-gate.sh"; }

fault() {
    echo "perf-gate.sh: $*" >&2
    exit 2
}

loudly() { printf '!!! %s\n' "$@"; }

have_valgrind() {
    command -v valgrind >/dev/null && return
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return
    # Beside Valgrind itself, the symbols without which it does not start on Debian.
    local install=(apt-get install -y --no-install-recommends valgrind libc6-dbg)
    export DEBIAN_FRONTEND=noninteractive
    { "${install[@]}" || { apt-get update && "${install[@]}"; }; } >&2 || return
    command -v valgrind >/dev/null
}

# Where cargo builds to, whoever decided that.
find_target() {
    local metadata
    metadata=$(cargo metadata --no-deps --format-version 1)
    target=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])' <<<"$metadata")
}

under_valgrind() {
    local out=$1
    shift
    valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*counted*' --callgrind-out-file="$out" "$@"
}

# What the counts depend on beside the code.
made_with() {
    printf 'rustc = "%s"\n' "$(rustc --version)"
    printf 'valgrind = "%s"\n' "$(valgrind --version)"
    printf 'libc = "%s"\n' "$(getconf GNU_LIBC_VERSION 2>/dev/null || echo 'not glibc')"
    # Asked where it is counted: Valgrind does not know all that the processor does.
    printf 'processor = "%s"\n' "$(under_valgrind /dev/null "$replay" machine 2>/dev/null)"
}

# The paths one after another: name, instructions a unit, the unit. Their profiles stay, to be looked into.
count() {
    local name units unit counted
    while IFS=$'\t' read -r name units unit; do
        (($# == 0)) || [[ " $* " == *" $name "* ]] || continue
        under_valgrind "$home/$name.callgrind" "$replay" "$name" >"$home/$name.log" 2>&1 </dev/null ||
            fault "cannot play $name; see $home/$name.log"
        counted=$(awk '/^totals:/ { print $2 }' "$home/$name.callgrind")
        ((${counted:-0} > 0)) || fault "nothing of $name was counted; see $home/$name.log"
        awk -v name="$name" -v counted="$counted" -v units="$units" -v unit="$unit" \
            'BEGIN { printf "%s\t%.1f\t%s\n", name, counted / units, unit }'
    done <"$home/paths"
}

write_file() {
    {
        echo '# How many instructions each hot path takes for one unit of its work, in user space.'
        echo '# Written by scripts/perf-gate.sh --update, which compares with it in every run of the tests.'
        printf '\n[made_with]\n'
        cat "$home/made_with"
        printf '\n[instructions]\n'
        awk -F '\t' '{ printf "%-24s = %9.1f # %s\n", "\"" $1 "\"", $2, $3 }' "$home/now"
    } >"$home/instructions.toml"
    cp "$home/instructions.toml" "$file"
}

# The table. Fails when a path has grown, or is in one of the two lists alone.
compare() {
    local same=$1
    shift
    sed -n '/^\[instructions\]/,$s/^"\([^"]*\)" *= *\([0-9.]*\).*/\1\t\2/p' "$file" |
        awk -F '\t' -v max="$PERCENT_MAX" -v chosen=" $* " -v same="$same" -v home="$home" -v file="$file" '
            function row(name, before, now, change, note) {
                printf "%-22s %10s %10s %8s  %s\n", name, before, now, change, note
            }
            NR == FNR { before[$1] = $2; next }
            FNR == 1 { row("path", "before", "now", "change", "instructions for each") }
            !($1 in before) { row($1, "-", $2, "", $3 "   NEW"); faults++; next }
            {
                change = 100 * ($2 - before[$1]) / before[$1]
                note = $3
                if (change > max) { note = note "   GREW"; grown = grown " " $1; faults++ }
                if (change < -max) { note = note "   shrank"; shrunk++ }
                row($1, before[$1], $2, sprintf("%+.1f %%", change), note)
                paths++
                delete before[$1]
            }
            END {
                if (chosen ~ /^ *$/) for (name in before) { row(name, before[name], "-", "", "GONE"); faults++ }
                if (same == "no") exit 0
                if (shrunk) printf "!!! %d paths have shrunk by more than %s %%: write that down with scripts/perf-gate.sh --update\n", shrunk, max
                if (grown) {
                    printf "!!! GREW by more than %s %%:%s\n", max, grown
                    split(grown, names, " ")
                    printf "    Where it goes: callgrind_annotate %s/%s.callgrind | head -60\n", home, names[1]
                    printf "    If that is the price of something, commit %s with it: scripts/perf-gate.sh --update\n", file
                } else if (faults) {
                    printf "!!! %s does not have the paths there are: scripts/perf-gate.sh --update\n", file
                } else {
                    printf "%d paths, none more than %s %% above its count\n", paths, max
                }
                exit faults > 0
            }' - "$home/now"
}

main "$@"
