#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${1:-}" = --help ]; then
    echo "Usage: benches/recorders.sh [SECONDS]
Six cameras, each recorded by six recorders that join and leave at other times and write MP4, fragmented
MP4, MKV and TS. All 36 files of up to SECONDS (60) are put into one vault. Prints the deduplication ratio
beside the best possible one (every camera's content once, nothing else): to reach 98 % of it. What counts
as stored is blobs and manifests; also without manifests."
    exit
fi
seconds=${1:-60}
source benches/common.sh

say "Six cameras"
sources=(mandelbrot=size=1280x720 testsrc2=size=1280x720 "life=size=640x360:mold=10:ratio=0.1:seed=3:death_color=#C83232"
    cellauto=size=640x360:rule=110:seed=7 "mandelbrot=size=1280x720:start_x=-0.5:start_y=0.6" gradients=size=1280x720:seed=5)
for i in "${!sources[@]}"; do
    # Noise, as a sensor has it.
    ffmpeg -loglevel error -f lavfi -i "${sources[$i]}:rate=25" -t "$seconds" -vf "noise=alls=6:allf=t,format=yuv420p" \
        -c:v libx264 -preset superfast -b:v 2M -maxrate 2M -bufsize 2M -g 50 -threads 2 "$work/camera$i.mp4"
done

vault_for() { # NAME: a fresh vault in $work/NAME; its URL in $vault
    background "$work/$1.log" '^listening on' camvault serve --data "$work/$1" --listen 127.0.0.1:0
    vault=$(sed -n 's/^listening on //p' "$work/$1.log")
}
put() { # OWNER FILE
    [ -e "$work/$1.id" ] || camvault keygen --out "$work/$1.id" >/dev/null
    camvault enroll --vault "$vault" --identity "$work/$1.id" >/dev/null
    camvault put --json --identity "$work/$1.id" "$2" "camvault://${vault#*://}/$(basename "$2" | tr . -)" >/dev/null
}
member() { camvault stats "$vault" --json | sed "s/.*\"$1\":\([0-9]*\).*/\1/"; }

say "The best possible: every camera once"
vault_for best
for i in "${!sources[@]}"; do put best "$work/camera$i.mp4"; done
best=$(member bytes_stored)

say "Thirty-six recorders"
vault_for all
RANDOM=1
for i in "${!sources[@]}"; do
    for r in 0 1 2 3 4 5; do
        from=$((RANDOM % (seconds / 4))) to=$((seconds - RANDOM % (seconds / 4)))
        # Together they have all of it.
        [ "$r" = 0 ] && from=0
        [ "$r" = 1 ] && to=$seconds
        case $r in
            0 | 3) file=recorder$i-$r.mp4 more=() ;;
            1) file=recorder$i-$r.mp4 more=(-movflags frag_keyframe+empty_moov) ;;
            2 | 4) file=recorder$i-$r.mkv more=() ;;
            5) file=recorder$i-$r.ts more=() ;;
        esac
        ffmpeg -loglevel error -ss "$from" -to "$to" -i "$work/camera$i.mp4" -c copy "${more[@]}" "$work/$file"
        put "recorder$r" "$work/$file"
    done
done
logical=$(member bytes_logical) stored=$(member bytes_stored) manifests=$(member bytes_manifests)
echo "36 recordings, $logical bytes of content; stored: $stored bytes of blobs, $manifests of manifests; best: $best"
echo "ratio $(calc "$logical / ($stored + $manifests)"), $(calc "100 * $best / ($stored + $manifests)") % of the best ($(calc "$logical / $best"))"
echo "without manifests: ratio $(calc "$logical / $stored"), $(calc "100 * $best / $stored") % of the best"
