#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${1:-}" = --help ]; then
    echo "Usage: benches/record.sh [SECONDS [ROUNDS]]
CPU of the process that records one 1080p camera at 4 Mbit/s: ... ! rcededuppay ! dedupsink beside
... ! splitmuxsink, in turn, SECONDS (60) each, ROUNDS (3) times; and the CPU of the vault.
The ratio is to be at most 1.10."
    exit
fi
seconds=${1:-60} rounds=${2:-3}
source benches/common.sh

say "A camera that plays 1080p25 at 4 Mbit/s"
ffmpeg -loglevel error -f lavfi -i mandelbrot=size=1920x1080:rate=25 -t 20 -pix_fmt yuv420p -c:v libx264 \
    -preset veryfast -tune zerolatency -x264-params nal-hrd=cbr:filler=0 \
    -b:v 4M -minrate 4M -maxrate 4M -bufsize 4M -g 50 -threads 2 "$work/camera.mp4"
background "$work/camera.log" ^READY "$target/release/examples/camera" --listen 127.0.0.1:0 --footage "$work/camera.mp4"
camera=$(sed -n '/^rtsp:/p' "$work/camera.log")
background "$work/vault.log" '^listening on' camvault serve --data "$work/vault" --listen 127.0.0.1:0
vault=$(sed -n 's/^listening on //p' "$work/vault.log") vault_pid=$started
camvault keygen --out "$work/id" >/dev/null
camvault enroll --vault "$vault" --identity "$work/id" >/dev/null

# --foreground: else timeout sends the signal twice, and the second kills before the end of stream.
record() { # SINK...
    timeout --foreground --signal=INT "$seconds" gst-launch-1.0 -e rtspsrc location="$camera" protocols=tcp \
        ! rtph264depay ! h264parse ! "$@" || [ $? = 124 ]
    grep -q 'Got EOS' "$work/command.log"
}
say "Recording, $rounds times $seconds s each"
ours=0 peers=0 vaults=0
for round in $(seq "$rounds"); do
    peer=$(cpu record splitmuxsink location="$work/split-$round-%03d.mp4" max-size-time=60000000000)
    before=$(cpu_of "$vault_pid")
    our=$(cpu record rcededuppay ! dedupsink identity="$work/id" uri="camvault://${vault#*://}/round$round")
    server=$(calc "$(cpu_of "$vault_pid") - $before")
    echo "round $round: splitmuxsink $peer s, dedupsink $our s (vault $server s), ratio $(calc "$our / $peer")"
    ours=$(calc "$ours + $our") peers=$(calc "$peers + $peer") vaults=$(calc "$vaults + $server")
done
echo "all: dedupsink / splitmuxsink = $(calc "$ours / $peers"); vault / splitmuxsink = $(calc "$vaults / $peers")"
camvault stats "$vault"
