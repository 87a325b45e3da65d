#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# CPU time of elements on 1080p I420 frames, beside that of videoconvert to NV12 and of reading and
# writing the frames, in one run. Each is a pipeline description; the source's own time is taken off.
#
#     benches/video.sh [DESCRIPTION...]
#     FRAMES=3000 RUNS=5 benches/video.sh 'phashtag interval=0' 'dmqimmark watermark=…'

set -euo pipefail
cd "$(dirname "$0")/.."
source benches/common.sh

frames=${FRAMES:-1500}
runs=${RUNS:-5}
reference='videoconvert n-threads=1 ! video/x-raw,format=NV12'
[ $# -gt 0 ] || set -- phashtag 'phashtag interval=500000000' 'phashtag interval=0'

# seconds DESCRIPTION: CPU of a run; the source's picture stays the same, so that it costs little.
seconds() {
    # shellcheck disable=SC2086 # a description is many words
    cpu gst-launch-1.0 -q videotestsrc pattern=white num-buffers="$frames" \
        ! video/x-raw,format=I420,width=1920,height=1080,framerate=30/1 ! $1 ! fakesink
}

# Rounds over all of them, and the least of each: other processes make a run slower, never faster.
elements=(identity "$reference" "$@")
least=()
for _ in $(seq "$runs"); do
    for i in "${!elements[@]}"; do
        now=$(seconds "${elements[$i]}")
        least[i]=$(awk "BEGIN { a = $now; b = ${least[$i]:-1e9}; print (a < b ? a : b) }")
    done
done

printf '%d frames of 1080p I420 at 30/s; least of %d runs\n' "$frames" "$runs"
printf '%-60s %14s %12s\n' element 'µs a frame' 'of convert'
for i in "${!elements[@]}"; do
    awk -v name="${elements[$i]}" -v t="${least[$i]}" -v base="${least[0]}" -v ref="${least[1]}" -v n="$frames" \
        'BEGIN { own = t - base; printf "%-58s %14.1f %10.1f %%\n", name, 1e6 * own / n, 100 * own / (ref - base) }'
done
