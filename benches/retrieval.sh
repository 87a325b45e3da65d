#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# What marking and taking the mark out again costs in quality over the codec alone: a clip is
# archived by a gateway with x264 at several qualities, retrieved, and compared with the original;
# beside it the same clip through the same encoder without a mark.
#
#     [LOSS=N] ./benches/retrieval.sh [CLIP]      default: a generated street
#
# LOSS is what the contract lets the sealed stream lose beside that: 0, so that nothing else is in the
# figures.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=../pipelines/setup.sh
source pipelines/setup.sh
clip=${1:+$(realpath "$1")}
camvault_build "$root"
out=$(mktemp -d)
trap 'end_all; [ -n "${KEEP:-}" ] || rm -rf "$out"' EXIT
camvault keygen --out "$out/owner.id" >/dev/null
export CAMVAULT_IDENTITY=$out/owner.id
source=(videotestsrc pattern=ball num-buffers=150 ! 'video/x-raw,format=I420,width=1280,height=720,framerate=25/1')
if [ -n "$clip" ]; then
    source=(filesrc location="$clip" ! decodebin ! videoconvert ! 'video/x-raw,format=I420')
fi
gst-launch-1.0 -q "${source[@]}" ! identity eos-after=151 ! avenc_ffv1 ! matroskamux ! filesink location="$out/raw.mkv"

# psnr FILE: of its luma, against the original's, frame by frame.
psnr() {
    ffmpeg -v info -i "$1" -i "$out/raw.mkv" -lavfi '[0]settb=1/1000,setpts=N[a];[1]settb=1/1000,setpts=N[b];[a][b]psnr=shortest=1' -f null - 2>&1 |
        sed -n 's/.*PSNR y:\([0-9.inf]*\).*/\1/p'
}
start_server "$out" vault --role metadata,storage,ttp
vault=$url
printf '%-6s %12s %12s %8s\n' x264 'codec, dB' 'retrieved' loss
for crf in qual:23 qual:28 quant:8 quant:12 quant:16 quant:20 quant:23 quant:28; do
    # qual: constant rate factor; quant: constant quantiser, without adaptive quantisation.
    encoder="x264enc speed-preset=veryfast pass=${crf%:*} quantizer=${crf#*:} ! h264parse"
    start_server "$out" "gateway$crf" --role gateway --sealed-listen 127.0.0.1:0 --ttp "$vault" \
        --vault "$vault" --encoder "$encoder" --paillier-bits 2048
    sealed=$(sed -n 's/^sealed streams on .*://p' "$out/gateway$crf.log")
    camvault contract --gateway "$url" --name x --ticket 60 --loss "${LOSS:-0}" --out "$out/$crf.contract" >/dev/null
    gst-launch-1.0 -q filesrc location="$out/raw.mkv" ! decodebin ! videoconvert ! video/x-raw,format=I420 \
        ! dmqimmark ttp="$vault" contract="$out/$crf.contract" ! tcpclientsink host=127.0.0.1 port="$sealed"
    for _ in $(seq 300); do
        camvault retrieve "$url" --contract "$out/$crf.contract" --list --json >"$out/list" 2>/dev/null || true
        grep -q '"live": *false' "$out/list" && break
        sleep 0.2
    done
    camvault retrieve "$url" --contract "$out/$crf.contract" --out "$out/$crf.y4m" >/dev/null
    # shellcheck disable=SC2086
    gst-launch-1.0 -q filesrc location="$out/raw.mkv" ! decodebin ! videoconvert ! video/x-raw,format=I420 \
        ! $encoder ! matroskamux ! filesink location="$out/$crf.mkv"
    plain=$(psnr "$out/$crf.mkv")
    ours=$(psnr "$out/$crf.y4m")
    printf '%-6s %12s %12s %8s\n' "$crf" "$plain" "$ours" "$(python3 -c "print(round($plain - $ours, 3))")"
done
