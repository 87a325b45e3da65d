#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=setup.sh
source pipelines/setup.sh
# shellcheck source=engines.sh
source pipelines/engines.sh
# shellcheck source=ceph.sh
source pipelines/ceph.sh

usage() {
    cat <<'END_OF_USAGE'
Usage: ./pipelines/failover.sh [--cameras N] [--fps N] [--segment N] [--seconds N]
                               [--storage moto|ceph] [--seed N] [--out DIR]

Parts of a vault die while cameras record. Two camvault servers share a PostgreSQL database with a
synchronous standby, and a bucket. N recorders, two at each camera and one of these at each server,
record live, with spools. Meanwhile, at random times and in random order:

  - a server is killed (SIGKILL) and started again after some seconds;
  - the database's primary is killed with all its processes, and some seconds later the standby is
    promoted. The dead one comes back as a new standby;
  - the S3 service is frozen (SIGSTOP) and goes on after some seconds. It takes connections
    meanwhile and does not answer. It is not killed, because moto keeps its objects in memory. With
    --storage ceph one of three storage daemons is killed (SIGKILL), and started again.

A recorder has one address. While its server is away its footage waits in its spool; behind a balancer
(deploy/haproxy.cfg) it would be sent to the other one. In the end every recording is verified and
fetched from the server that did not record it, and compared with what the camera sent.

  --cameras N   recorders (default 10)
  --fps N       frames a second of each camera (default 15); two cores carry 100 recorders with 5
  --segment N   seconds of a segment (default 2, so that pauses show; 60 is what recorders do by themselves)
  --seconds N   length of the recording (default 75); each of the three happens once in each minute
  --storage …   the S3 service: moto (default), or ceph, a cluster of three by Debian's packages
  --seed N      of times and order (default: another one each time; it is printed)
  --out DIR     where spools, logs and footage go (default out/failover)
END_OF_USAGE
}

cameras=10 fps=15 segment=2 seconds=75 storage=moto seed=$((10#$(date +%N) % 32768)) out=$root/out/failover
while [ $# -gt 0 ]; do
    case $1 in
        --cameras) cameras=${2:?--cameras needs a number} && shift ;;
        --fps) fps=${2:?--fps needs a number} && shift ;;
        --segment) segment=${2:?--segment needs a number} && shift ;;
        --seconds) seconds=${2:?--seconds needs a number} && shift ;;
        --storage) storage=${2:?--storage needs a name} && shift ;;
        --seed) seed=${2:?--seed needs a number} && shift ;;
        --out) out=$(realpath --canonicalize-missing "${2:?--out needs a folder}") && shift ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && die "unknown argument: $1" ;;
    esac
    shift
done
[ "$cameras" -ge 1 ] && [ "$seconds" -ge 60 ] || die "at least one camera and 60 seconds"

camvault_build "$root"
case $storage in
    moto) camvault_install postgresql python3-venv procps && camvault_moto "$target" ;;
    ceph) camvault_install postgresql procps openssl ceph-{mon,mgr,osd,common} radosgw ;;
    *) usage >&2 && die "unknown storage: $storage" ;;
esac
rm -rf "$out" && mkdir -p "$out/spool" "$out/camera" "$out/fetched"
# The databases' user has to get through.
work=$(mktemp -d) && chmod 711 "$work"
# Called by the trap.
# shellcheck disable=SC2317
end_failover() {
    [ -z "${bucket:-}" ] || kill -CONT "$bucket" 2>/dev/null || true
    end_all
    stop_ceph "$work/ceph"
    stop_database "$work/one"
    stop_database "$work/two"
    rm -rf "$work"
}
trap end_failover EXIT

now() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
# seconds_of MS: with one digit.
seconds_of() { printf '%d.%d' $(($1 / 1000)) $(($1 % 1000 / 100)); }

say "A database with a synchronous standby, a bucket, two servers"
primary=one standby=two
declare -A port=([one]=$(free_port) [two]=$(free_port) [s3]=$(free_port) [1]=$(free_port) [2]=$(free_port))
start_database "$work/one" "${port[one]}"
start_standby "$work/two" "${port[two]}" "$work/one" "${port[one]}"
if [ "$storage" = ceph ]; then
    start_ceph "$work/ceph" "${port[s3]}"
else
    start_bucket "$out/s3.log" "${port[s3]}"
fi
declare -A server
# serve NUMBER: the server of this number, new or again.
serve() {
    : >"$out/server$1.log"
    camvault serve --role metadata,storage --data "$out/server$1" --secrets "$out/secrets" \
        --listen "127.0.0.1:${port[$1]}" \
        --metadata "postgres://camvault@127.0.0.1:${port[one]},127.0.0.1:${port[two]}/vault" \
        --blobs s3://vault --s3-endpoint "http://127.0.0.1:${port[s3]}" >"$out/server$1.log" 2>&1 &
    server[$1]=$!
    pids+=($!)
    wait_for "$out/server$1.log" '^listening on' "$!"
}
serve 1 && serve 2
for owner in 1 2; do
    camvault keygen --out "$out/owner$owner.id" >/dev/null
    camvault enroll --vault "http://127.0.0.1:${port[$owner]}" --identity "$out/owner$owner.id"
done

# Whether the servers can work, once a second.
watch_servers() {
    while sleep 1; do
        for number in 1 2; do
            code=$(curl --silent --max-time 2 --output /dev/null --write-out '%{http_code}' \
                "http://127.0.0.1:${port[$number]}/healthz" || true)
            echo "$(now) $number $code"
        done
    done
}
watch_servers >"$out/health.log" &
pids+=($!)

say "$cameras recorders for $seconds s"
frames=$((seconds * fps))
pipeline=()
for recorder in $(seq "$cameras"); do
    camera=$(((recorder + 1) / 2)) at=$((2 - recorder % 2))
    if [ "$at" = 1 ]; then
        pipeline+=(videotestsrc is-live=true pattern=zone-plate kx2=$((9 + camera)) ky2=$((7 + camera))
            kt=$((3 + camera % 11)) num-buffers="$frames" ! "video/x-raw,width=320,height=240,framerate=$fps/1"
            ! x264enc tune=zerolatency speed-preset=ultrafast threads=1 bitrate=400 key-int-max=$((2 * fps)) ! h264parse
            ! "video/x-h264,stream-format=byte-stream,alignment=au" ! tee name="camera$camera"
            "camera$camera." ! queue ! filesink location="$out/camera/$camera.h264")
    fi
    pipeline+=("camera$camera." ! queue ! rcededuppay ! dedupsink name="recorder$recorder"
        uri="camvault://127.0.0.1:${port[$at]}/camera$camera" identity="$out/owner$at.id"
        spool-dir="$out/spool/$recorder" segment-duration="$((segment * 1000000000))")
done
stdbuf --output=L gst-launch-1.0 -e -m "${pipeline[@]}" \
    > >(while IFS= read -r line; do echo "$(now) $line"; done >"$out/recorders.log") 2>&1 &
recorders=$!
pids+=("$recorders")
wait_for "$out/recorders.log" camvault-segment "$recorders"
begun=$(now)

recorders_failed() {
    local status=0
    wait "$recorders" || status=$?
    grep -m5 ERROR "$out/recorders.log" >&2 || tail -n20 "$out/recorders.log" >&2
    die "the recorders have ended with status $status: $out/recorders.log"
}

events=()
# event SINCE TEXT: notes it, and says it.
event() {
    events+=("$(seconds_of $(($1 - begun))) s: $2")
    echo "${events[-1]}"
}
# away FROM TO: sleeps for so many seconds.
away() { sleep $(($1 + RANDOM % ($2 - $1 + 1))).$((RANDOM % 10)); }

a_server_dies() {
    local number=$((1 + RANDOM % 2)) at
    at=$(now)
    { kill -KILL "${server[$number]}" && wait "${server[$number]}"; } 2>/dev/null || true
    away 3 7
    serve "$number"
    event "$at" "server $number killed, listening again after $(seconds_of $(($(now) - at))) s"
}

the_database_dies() {
    local at dead=$primary
    at=$(now)
    kill_database "$work/$primary"
    away 2 4
    promote "$work/$standby"
    primary=$standby standby=$dead
    event "$at" "primary of the database killed, its standby promoted after $(seconds_of $(($(now) - at))) s"
    sleep 2
    at=$(now)
    start_standby "$work/$standby" "${port[$standby]}" "$work/$primary" "${port[$primary]}"
    event "$at" "the dead one is a new standby, after $(seconds_of $(($(now) - at))) s"
}

the_storage_fails() {
    local at number=$((RANDOM % 3))
    at=$(now)
    if [ "$storage" = ceph ]; then
        kill_osd "$work/ceph" "$number"
        away 4 8
        start_osd "$work/ceph" "$number"
        event "$at" "storage daemon $number killed, back after $(seconds_of $(($(now) - at))) s"
        return
    fi
    kill -STOP "$bucket"
    away 4 8
    kill -CONT "$bucket"
    event "$at" "S3 service frozen for $(seconds_of $(($(now) - at))) s"
}

say "What happens, seed $seed (seconds since the first segment)"
RANDOM=$seed
rounds=$((seconds / 60))
# In the end recorders need time to bring what waits in their spools; on one machine they share it.
slot=$(((seconds - 18 - cameras / 4) * 1000 / (3 * rounds)))
number=0
for _ in $(seq "$rounds"); do
    all=(a_server_dies the_database_dies the_storage_fails)
    while [ ${#all[@]} -gt 0 ]; do
        chosen=$((RANDOM % ${#all[@]}))
        happens=${all[$chosen]}
        unset "all[$chosen]" && all=("${all[@]}")
        from=$((begun + 3000 + number * slot + RANDOM % (slot / 4)))
        while [ "$(now)" -lt "$from" ]; do sleep 0.1; done
        kill -0 "$recorders" 2>/dev/null || recorders_failed
        "$happens"
        number=$((number + 1))
    done
done
wait "$recorders" || recorders_failed
ended=$(now)
echo "the recorders have ended, $(seconds_of $((ended - begun))) s after the first segment"

say "Every recording, from the server that did not record it"
whole=0 lost=0 waiting=0 acknowledged=0 rows=()
# longest PATTERN TAKE: the longest time between two lines of the recorders' log that match.
longest() {
    awk -v pattern="$1" '$0 ~ pattern { if (last && $1 - last > most) most = $1 - last; last = $1 }
        END { print most + 0 }' "$out/recorders.log"
}
for recorder in $(seq "$cameras"); do
    camera=$(((recorder + 1) / 2)) at=$((2 - recorder % 2))
    url=camvault://127.0.0.1:${port[$((3 - at))]}/camera$camera
    camvault verify --json --identity "$out/owner$at.id" "$url" >"$out/verified.json" ||
        { cat "$out/verified.json" >&2 && die "$url does not verify"; }
    gst-launch-1.0 -q dedupsrc uri="$url" identity="$out/owner$at.id" \
        ! filesink location="$out/fetched/$recorder.h264"
    told=$(grep -c "\"recorder$recorder\" (element): camvault-segment" "$out/recorders.log")
    [ "$told" -le "$(json segments <"$out/verified.json")" ] || die "$url lacks acknowledged segments"
    [ "$(json suspect <"$out/verified.json")" = 0 ] || die "$url is damaged"
    units=$(json units <"$out/verified.json")
    same=no
    if cmp --quiet "$out/camera/$camera.h264" "$out/fetched/$recorder.h264"; then
        same=yes whole=$((whole + 1))
    fi
    acknowledged=$((acknowledged + told))
    if [ -n "$(find "$out/spool/$recorder" -name '*.spool' -print -quit)" ]; then
        waiting=$((waiting + frames - units))
    else
        lost=$((lost + frames - units))
    fi
    pause=$(longest "\"recorder$recorder\" .element.: camvault-segment")
    rows+=("$(printf '%8s %7s %9s %8s %6s %8s %14s s' "$recorder" "$at" "$told" "$frames" \
        "$((frames - units))" "$same" "$(seconds_of "$pause")")")
done
# Uploads without a registration are left for an hour: recorders may be about to register them.
camvault scrub --json "http://127.0.0.1:${port[1]}" >"$out/scrub.json" ||
    { cat "$out/scrub.json" >&2 && die "the scrub found blobs missing or damaged"; }
mended=$(json counts_mended <"$out/scrub.json")
# listed KEY: how many the scrub names.
listed() {
    python3 -c 'import json, sys; print(len(json.load(sys.stdin)[sys.argv[1]]))' "$1" <"$out/scrub.json"
}

say "What happened, seed $seed"
printf '%s\n' "${events[@]}"

say "Recorders (those with the longest time between two acknowledged segments, which are $segment s long)"
printf '%8s %7s %9s %8s %6s %8s %16s\n' recorder server segments frames lost "the same" "longest pause"
printf '%s\n' "${rows[@]}" | sort --reverse --numeric-sort --key=7 | head -n10

say "All"
# unable NUMBER: the longest time from the first answer of a server that was not 200 to the next that was.
unable() {
    awk -v number="$1" '$2 == number && $3 != 200 && !since { since = $1 }
        $2 == number && $3 == 200 && since { if ($1 - since > most) most = $1 - since; since = 0 }
        END { print most + 0 }' "$out/health.log"
}
printf '%-68s %s\n' \
    "recorders, frames of each" "$cameras, $frames" \
    "segments acknowledged, all of them verified" "$acknowledged" \
    "frames lost" "$lost" \
    "frames that wait in spools for their recorders to be started again" "$waiting" \
    "recordings fetched that are the camera's stream, byte for byte" "$whole" \
    "blobs missing, blobs damaged, counts wrong" \
    "$(listed missing), $(listed damaged), $mended" \
    "longest time that server 1 said it cannot work (/healthz)" "$(seconds_of "$(unable 1)") s" \
    "longest time that server 2 said it cannot work" "$(seconds_of "$(unable 2)") s"
[ "$lost" = 0 ] && [ "$mended" = 0 ] || die "something was lost"
[ "$waiting" = 0 ] || die "the servers could not keep up: fewer cameras, or more --seconds"
[ "$whole" = "$cameras" ] || die "footage is not what the cameras sent"
echo "Nothing was lost."
