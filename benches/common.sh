# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
# What the two measuring scripts share. To be sourced from the project's root.

source pipelines/setup.sh
camvault_need_rust "$PWD"
cargo build --locked --release --bins --lib --example camera
target=${CARGO_TARGET_DIR:-$PWD/target}
camvault_environment "$target" release
PATH=$target/release:$PATH

work=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# background LOG PATTERN COMMAND...: starts a server and waits for its line; its pid is in $started.
background() {
    local log=$1 pattern=$2
    shift 2
    "$@" >"$log" 2>&1 &
    started=$!
    pids+=("$started")
    for _ in $(seq 300); do
        grep -q "$pattern" "$log" && return 0
        kill -0 "$started" 2>/dev/null || break
        sleep 0.1
    done
    cat "$log" >&2
    die "$1 did not start"
}

# cpu_of PID: user and system seconds a process has used by now.
cpu_of() {
    awk -v hz="$(getconf CLK_TCK)" '{ sub(/^.*\) /, ""); print ($12 + $13) / hz }' "/proc/$1/stat"
}

# cpu COMMAND...: runs it; prints the CPU seconds of it and its children.
cpu() {
    local TIMEFORMAT='%3U %3S'
    { time "$@" >"$work/command.log" 2>&1; } 2>"$work/cpu" || { cat "$work/command.log" >&2 && return 1; }
    awk '{ print $1 + $2 }' "$work/cpu"
}

calc() { awk "BEGIN { printf \"%.3f\", $1 }"; }
