#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${1:-}" = --help ]; then
    echo "Usage: [BLOBS=s3://BUCKET/PREFIX] benches/engines.sh [MIB]
       benches/engines.sh --metadata [TAGS]
The first: what the engines behind a vault cost, end to end: camvault put --unit cdc of MIB (256) MiB of random bytes,
and camvault get of them, in MB/s and CPU seconds per GB (10^9 bytes) of client and server. Blobs are in a
directory and, if BLOBS is given, in that bucket; the variables of the S3 service (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) come from the environment. What is stored there is forgotten again.
The second: what engines for metadata carry with TAGS (1000000) chunks in them: look-ups and durable commits of
100 chunks a second, of 1, 4 and 16 clients, and bytes on disk: embedded, PostgreSQL, PostgreSQL with a synchronous
standby on the same machine. It installs PostgreSQL if it is missing; 10000000 take an hour or so."
    exit
fi
source benches/common.sh

if [ "${1:-}" = --metadata ]; then
    source pipelines/engines.sh
    camvault_install postgresql
    cargo build --locked --release --example engines_measure
    # The databases' user has to get through.
    chmod 711 "$work"
    end_databases() {
        for dir in "$work"/database*; do stop_database "$dir"; done
        cleanup
    }
    trap end_databases EXIT
    measure() {
        say "$1"
        "$target/release/examples/engines_measure" --metadata "$2" --tags "$tags"
    }
    tags=${2:-1000000}
    measure embedded "$work/embedded"
    for name in PostgreSQL "PostgreSQL with a synchronous standby"; do
        port=$(free_port)
        start_database "$work/database" "$port"
        if [[ $name == *standby ]]; then
            start_standby "$work/database-standby" "$(free_port)" "$work/database" "$port"
        fi
        measure "$name" "postgres://camvault@127.0.0.1:$port/vault"
        stop_database "$work/database"
    done
    exit
fi
mib=${1:-256}

say "$mib MiB of random bytes"
head -c "${mib}M" /dev/urandom >"$work/file"
sync

# timed COMMAND…: sets seconds, and the CPU seconds of client and server.
timed() {
    local before start
    before=$(cpu_of "$started") start=$EPOCHREALTIME
    client=$(cpu "$@")
    seconds=$(calc "$EPOCHREALTIME - $start") server=$(calc "$(cpu_of "$started") - $before")
}

per_gb() { calc "$1 * 1e9 / ($mib * 1048576)"; }

row() {
    printf '%-12s %-4s %7s MB/s   CPU s/GB: client %6s, server %6s\n' "$1" "$2" \
        "$(calc "$mib * 1.048576 / $seconds")" "$(per_gb "$client")" "$(per_gb "$server")"
}

# engine NAME ARGUMENT…: a server with these arguments, filled, read and emptied.
engine() {
    local name=$1 dir=$work/$1 vault file
    background "$work/$name.log" '^listening on' camvault serve --data "$dir" --listen 127.0.0.1:0 --grace 0 \
        --collect-every 1 "${@:2}"
    vault=$(sed -n 's/^listening on //p' "$work/$name.log")
    camvault keygen --out "$work/$name.id" >/dev/null
    camvault enroll --vault "$vault" --identity "$work/$name.id" >/dev/null
    file=camvault://${vault#*://}/file
    timed camvault put --unit cdc --identity "$work/$name.id" "$work/file" "$file"
    row "$name" put
    timed camvault get --identity "$work/$name.id" "$file" --out "$work/back"
    row "$name" get
    cmp "$work/file" "$work/back"
    rm "$work/back"
    camvault forget --identity "$work/$name.id" "$file" >/dev/null
    until camvault stats --json "$vault" | grep -q '"blobs": *0'; do sleep 1; done
    kill "$started" && wait "$started" || true
}

engine directory
if [ -n "${BLOBS:-}" ]; then
    engine bucket --blobs "$BLOBS"
fi
