#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=setup.sh
source pipelines/setup.sh

usage() {
    cat <<'END'
Usage: ./pipelines/quickstart.sh [--footage FILE | --camera rtsp://…] [--seconds N] [--out DIR]

Records one RTSP camera with two independent recorders that join at different times, each with an
owner of its own; shows that the footage is stored once, encrypted; plays, verifies and exports it;
then one owner forgets its recording and the other's still plays.

  --footage FILE  the camera plays this file (H.264, H.265, MJPEG) instead of a generated street
  --camera URL    record this camera instead (H.264)
  --seconds N     length of the recording (default 20)
  --out DIR       where to put the vault, the MP4 and the picture (default out/)
END
}

footage= camera= seconds=20 out=$root/out
parse_options "$@"

camvault_build "$root"

rm -rf "$out" && mkdir -p "$out"
say "A vault, and two owners"
start_server "$out" vault --grace 0
vault=$url
address=${vault#*://}
echo "vault: $vault, data in $out/vault"
for owner in anna ben; do
    camvault keygen --out "$out/$owner.id"
    camvault enroll --vault "$vault" --identity "$out/$owner.id"
done

if [ -z "$camera" ]; then
    say "A camera"
    start_camera "$out" "$footage"
fi
echo "camera: $camera"

# record OWNER TRANSPORT SECONDS
record() {
    timeout --foreground --signal=INT "$3" gst-launch-1.0 -e \
        rtspsrc location="$camera" protocols="$2" latency=200 add-reference-timestamp-meta=true \
        ! parsebin ! rcededuppay \
        ! dedupsink uri="camvault://$address/street" identity="$out/$1.id" segment-duration=5000000000 \
        >"$out/$1.log" 2>&1 || true
    grep -q 'Got EOS' "$out/$1.log" || { cat "$out/$1.log" >&2 && die "the recorder of $1 failed"; }
}
say "Two recorders: anna over TCP; ben, 3.3 s later, over UDP ($seconds s)"
record anna tcp "$seconds" &
anna=$!
sleep 3.3
record ben udp "$((seconds - 5))" &
ben=$!
wait "$anna" "$ben"

say "What each of them has"
for owner in anna ben; do
    echo "$owner:"
    camvault ls "$vault" --identity "$out/$owner.id"
done
say "What is stored"
camvault stats "$vault"

say "Played back, verified, exported"
camvault verify "camvault://$address/street" --identity "$out/anna.id"
camvault get "camvault://$address/street" --identity "$out/anna.id" --out "$out/street.mp4"
CAMVAULT_IDENTITY=$out/ben.id timeout 120 gst-launch-1.0 -q \
    uridecodebin uri="camvault://$address/street" ! fakesink sync=false
echo "ben's recording decodes to its end, straight from the vault"
gst-launch-1.0 -q filesrc location="$out/street.mp4" ! decodebin ! videoconvert \
    ! jpegenc ! multifilesink location="$out/street.jpg"
echo "a still picture (the last one): $out/street.jpg"

say "Is anything readable in the vault's files?"
if grep -rlaq -e street -e camvault:// "$out/vault/blobs" "$out/vault/metadata" 2>/dev/null; then
    die "the name of the recording is readable in the vault"
fi
echo "no: neither the name of the recording nor a picture"

say "anna forgets, ben's recording still plays"
before=$(camvault stats "$vault" --json | json bytes_stored)
camvault forget "camvault://$address/street" --identity "$out/anna.id"
camvault verify "camvault://$address/street" --identity "$out/ben.id"
if camvault verify "camvault://$address/street" --identity "$out/anna.id"; then
    die "anna can still read what she forgot"
fi
after=$(camvault stats "$vault" --json | json bytes_stored)
echo "stored before: $before bytes, after: $after bytes (what only anna had is gone)"

say "Done. Look at:  $out/street.mp4  $out/street.jpg"
