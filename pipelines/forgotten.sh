#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=setup.sh
source pipelines/setup.sh

usage() {
    cat <<'END'
Usage: ./pipelines/forgotten.sh [--footage FILE | --camera rtsp://…] [--seconds N] [--out DIR]

The right to be forgotten, with four parties in four processes: an owner's live RTSP camera is marked
so that the owner never sees the bits and the cloud never sees an unmarked frame; the cloud archives
it in its own vault; the owner gets its original back, bit for bit; the owner has it forgotten; a clip
that leaked all the same, re-encoded, smaller and shorter, is brought to the third party, which names
the contract it leaked from and signs the verdict; a judge checks that with a public key alone.

  --footage FILE  the camera plays this file (H.264, H.265, MJPEG) instead of a generated street
  --camera URL    this camera instead (H.264)
  --seconds N     length of the recording (default 15)
  --out DIR       where everything goes (default out/forgotten)
END
}

footage= camera= seconds=15 out=$root/out/forgotten
parse_options "$@"

camvault_build "$root"
rm -rf "$out" && mkdir -p "$out"

say "A third party; a cloud with a gateway and a vault of its own; an owner"
start_server "$out" ttp --role ttp
ttp=$url
start_server "$out" cloud --role metadata,storage --grace 0
vault=$url
start_server "$out" gateway --role gateway --sealed-listen 127.0.0.1:0 --ttp "$ttp" --vault "$vault" \
    --encoder lossless
gateway=$url
sealed=$(sed -n 's/^sealed streams on .*://p' "$out/gateway.log")
echo "third party: $ttp   cloud: gateway $gateway, sealed streams on port $sealed, vault $vault"
camvault keygen --out "$out/owner.id" >"$out/owner.public"
export CAMVAULT_IDENTITY=$out/owner.id

say "A contract, signed by all three"
# --loss 0: what comes back is to be the camera's picture, bit for bit.
camvault contract --gateway "$gateway" --name "front door" --ticket 5 --loss 0 --out "$out/door.contract" \
    --json >"$out/contract.json"
public=$(json ttp <"$out/contract.json")
echo "contract $(json id <"$out/contract.json")"

if [ -z "$camera" ]; then
    say "A camera"
    start_camera "$out" "$footage" --size 640x360 --fps 15 --gop 30 --bitrate 1000
fi
echo "camera: $camera"

say "The owner marks it live, for $seconds s; a copy of the original stays for comparison"
begun=$(date +%s%N)
timeout --foreground --signal=INT "$seconds" gst-launch-1.0 -e \
    rtspsrc location="$camera" protocols=tcp latency=200 ! decodebin ! videoconvert \
    ! video/x-raw,format=I420 ! phashtag ! tee name=t \
    t. ! queue max-size-bytes=0 ! y4menc ! filesink location="$out/original.y4m" \
    t. ! queue max-size-bytes=0 ! dmqimmark name=mark ttp="$ttp" contract="$out/door.contract" \
    ! tcpclientsink host=127.0.0.1 port="$sealed" \
    >"$out/owner.log" 2>&1 || true
grep -q 'Got EOS' "$out/owner.log" || { cat "$out/owner.log" >&2 && die "the owner's pipeline failed"; }
echo "it took $((($(date +%s%N) - begun) / 1000000)) ms"

say "What the cloud has archived"
for _ in $(seq 100); do
    camvault retrieve "$gateway" --contract "$out/door.contract" --list --json >"$out/archives.json"
    grep -q '"live": *false' "$out/archives.json" && break
    sleep 0.3
done
camvault retrieve "$gateway" --contract "$out/door.contract" --list
archive=$(sed -n 's/.*"name": *"\([^"]*\)".*/\1/p' "$out/archives.json" | head -n1)

say "The owner gets its original back"
camvault retrieve "$gateway" --contract "$out/door.contract" --exact --out "$out/retrieved.y4m"
# A frame is the same, whatever the header of the file says about it.
frames() { ffmpeg -v error -i "$1" -map 0:v -f framemd5 - | grep -v '^#' | awk '{print $NF}'; }
frames "$out/original.y4m" >"$out/original.md5"
frames "$out/retrieved.y4m" >"$out/retrieved.md5"
retrieved=$(wc -l <"$out/retrieved.md5")
equal=$(comm -12 <(sort "$out/original.md5") <(sort "$out/retrieved.md5") | wc -l)
echo "$retrieved frames came back, $equal of them are the original's, bit for bit"
[ "$retrieved" -gt 0 ] && [ "$equal" = "$retrieved" ] || die "the original did not come back"

say "Somebody at the cloud keeps a copy, and publishes four seconds of it, smaller and re-encoded"
CAMVAULT_IDENTITY=$out/gateway/gateway/gateway.identity gst-launch-1.0 -q \
    dedupsrc uri="camvault://${vault#*://}/$archive" ! h264parse ! matroskamux \
    ! filesink location="$out/kept.mkv"
ffmpeg -v error -y -ss 3 -i "$out/kept.mkv" -t 4 -an -vf scale=iw*3/4:-2 \
    -c:v libx264 -preset veryfast -crf 28 "$out/leak.mp4"

say "The owner has the footage forgotten"
camvault forget --contract "$out/door.contract" --gateway "$gateway" --receipt "$out/forgotten.receipt"
if camvault retrieve "$gateway" --contract "$out/door.contract" --list 2>/dev/null; then
    die "the gateway still has it"
fi
left=$(camvault stats "$vault" --json | json bytes_stored)
echo "bytes left in the cloud's vault: $left"

say "The leak is brought to the third party"
camvault arbitrate "$out/leak.mp4" --ttp "$ttp" --out "$out/verdict"

say "A judge checks the verdict with the third party's public identity alone"
camvault verdict check "$out/verdict/verdict.signed" --ttp-id "$public" \
    --contract "$out/door.contract" --file "$out/leak.mp4"

say "Footage that was never marked leads to nobody"
ffmpeg -v error -y -ss 3 -i "$out/original.y4m" -t 4 -c:v libx264 -crf 28 "$out/innocent.mp4"
if camvault arbitrate "$out/innocent.mp4" --ttp "$ttp" --out "$out/innocent" >"$out/innocent.log"; then
    die "an innocent was accused"
fi
sed -n 1,3p "$out/innocent.log"

say "Pictures"
picture() { ffmpeg -v error -y -i "$1" -vf 'select=eq(n\,60)' -frames:v 1 "$out/$2.png"; }
picture "$out/retrieved.y4m" original
picture "$out/kept.mkv" marked
ffmpeg -v error -y -i "$out/original.png" -i "$out/marked.png" -filter_complex \
    "[0]format=gray[a];[1]format=gray[b];[a][b]blend=all_expr='clip(abs(A-B)*12,0,255)'" \
    -frames:v 1 "$out/difference.png"
echo "the same frame before and after, and the difference times 12"

say "Done"
bytes() { stat --format=%s "$1"; }
printf '%-44s %s\n' \
    "frames recorded, marked and archived" "$retrieved" \
    "of them back bit for bit" "$equal" \
    "bytes of the lossless archive" "$(bytes "$out/kept.mkv")" \
    "bytes of the leak" "$(bytes "$out/leak.mp4")" \
    "bytes left at the cloud after forgetting" "$left" \
    "verdict: leaked from contract" "$(json leak <"$out/verdict/verdict.json" | sed "s/.*'contract': '\([0-9a-f]*\)'.*/\1/" | head -c 16)…" \
    "report" "$out/verdict/report.html" \
    "pictures" "$out/original.png $out/marked.png $out/difference.png"
