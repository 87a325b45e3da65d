#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# A camera of 1080p25 H.264 at its own pace through decoder, phashtag and dmqimmark with a contract, all
# on one core, beside a third party and a gateway that made the contract on another: whether it keeps
# up, and the CPU time of each element (each has a streaming thread of its own).
#
#     benches/live.sh [VIDEO...]          # enlarged to 1080p; without any: a generated scene with noise
#     SECONDS_LONG=10 MODE=oblivious benches/live.sh

set -euo pipefail
cd "$(dirname "$0")/.."
source benches/common.sh

long=${SECONDS_LONG:-10}
mode=${MODE:-oblivious}
core=${CORE:-0}
other=${OTHER_CORE:-1}
port=${PORT:-17420}

background "$work/ttp.log" '^listening on' \
    taskset -c "$other" camvault serve --role ttp --data "$work/ttp" --listen 127.0.0.1:0
ttp=$(sed -n 's/^listening on //p' "$work/ttp.log" | head -1)
background "$work/vault.log" '^listening on' \
    taskset -c "$other" camvault serve --role metadata --role storage --role gateway --ttp "$ttp" \
    --data "$work/vault" --listen "127.0.0.1:$port" --sealed-listen 127.0.0.1:0
gateway=http://127.0.0.1:$port
camvault keygen --out "$work/owner.id" >/dev/null
camvault contract --gateway "$gateway" --ttp "$ttp" --name camera --identity "$work/owner.id" \
    --out "$work/camera.contract" >/dev/null

# tasks PID: name and CPU seconds of each thread.
tasks() {
    local task
    for task in /proc/"$1"/task/*; do
        awk -v name="$(cat "$task/comm" 2>/dev/null)" -v hz="$(getconf CLK_TCK)" \
            '{ sub(/^.*\) /, ""); print name, ($12 + $13) / hz }' "$task/stat" 2>/dev/null || true
    done
}

measure() { # NAME, then ffmpeg's input
    local name=$1
    shift
    ffmpeg -loglevel error -y "$@" -t "$long" -vf "scale=1920:1080,fps=25,format=yuv420p" -an \
        -c:v libx264 -preset veryfast -crf 23 -g 50 -bf 0 "$work/live.mp4"
    local bytes
    bytes=$(stat -c %s "$work/live.mp4")
    taskset -c "$core" gst-launch-1.0 filesrc location="$work/live.mp4" ! qtdemux ! h264parse \
        ! identity sync=true ! avdec_h264 max-threads=1 ! videoconvert n-threads=1 \
        ! video/x-raw,format=I420 ! queue name=q-phash ! phashtag ! queue name=q-mark \
        ! dmqimmark mode="$mode" ttp="$ttp" contract="$work/camera.contract" identity="$work/owner.id" \
        ! queue name=q-sink ! filesink location="$work/live.sealed" >"$work/launch.log" 2>&1 &
    local pid=$!
    pids+=("$pid")
    # The last reading counts: threads take their times with them.
    while kill -0 "$pid" 2>/dev/null; do
        tasks "$pid" >"$work/now" 2>/dev/null || true
        [ -s "$work/now" ] && mv "$work/now" "$work/tasks"
        sleep 0.1
    done
    wait "$pid" || { cat "$work/launch.log" >&2 && return 1; }
    printf '\n%s: %s s of 1080p25 (%s kbit/s of H.264), %s\n' "$name" "$long" \
        "$(calc "$bytes * 8 / 1000 / $long")" "$(grep -o 'Execution ended after.*' "$work/launch.log")"
    printf 'sealed: %s Mbit/s\n' "$(calc "$(stat -c %s "$work/live.sealed") * 8 / 1e6 / $long")"
    awk -v long="$long" '
        { name = $1; $1 = ""; sum[name] += $2; all += $2 }
        END {
            label["qtdemux0:sink"] = "reading, decoding (avdec_h264)"
            label["q-phash:src"] = "phashtag"
            label["q-mark:src"] = "dmqimmark"
            label["q-sink:src"] = "filesink"
            for (name in label) {
                printf "%-34s %6.2f CPU s  %6.2f ms a frame\n", label[name], sum[name], 1000 * sum[name] / long / 25
                rest += sum[name]
            }
            printf "%-34s %6.2f CPU s\n", "all other threads", all - rest
            printf "%-34s %6.2f CPU s  %5.1f %% of the core\n", "together", all, 100 * all / long
        }' "$work/tasks"
}

if [ $# = 0 ]; then
    measure generated -f lavfi -i "testsrc2=s=1920x1080:r=25,noise=alls=6:allf=t"
fi
for video in "$@"; do
    measure "$(basename "$video")" -stream_loop -1 -i "$video"
done
