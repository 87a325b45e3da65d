#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${1:-}" = --help ]; then
    echo "Usage: [BLOBS=s3://BUCKET/PREFIX] benches/engines.sh [MIB]
What the engines behind a vault cost, end to end: camvault put --unit cdc of MIB (256) MiB of random bytes,
and camvault get of them, in MB/s and CPU seconds per GB (10^9 bytes) of client and server. Blobs are in a
directory and, if BLOBS is given, in that bucket; the variables of the S3 service (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) come from the environment. What is stored there is forgotten again."
    exit
fi
mib=${1:-256}
source benches/common.sh

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
