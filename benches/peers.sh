#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${1:-}" = --help ]; then
    echo "Usage: benches/peers.sh [PICTURE...]
Marks pictures (without any: a generated one of 1920x1080) with 128 bits by camvault, blind-watermark and
invisible-watermark (PyPI) at equal PSNR as far as these can be set to it, attacks them all in the same
way, and prints wrong bits and pictures per second. ImageHash beside: how far the same attacks move a
perceptual hash. Needs ffmpeg, cargo, python3 with venv; installs the rest into target/peers."
    exit
fi
source pipelines/setup.sh
camvault_need_rust "$PWD"
cargo build --locked --release --example evaluate
target=${CARGO_TARGET_DIR:-$PWD/target}
work=$target/peers
mkdir -p "$work"
if [ ! -x "$work/venv/bin/python" ]; then
    python3 -m venv "$work/venv"
    # In this order: blind-watermark wants the OpenCV that needs a desktop's libraries, the headless
    # one lies over it. invisible-watermark asks for torch, which only its rivaGan uses.
    "$work/venv/bin/pip" install --quiet numpy PyWavelets ImageHash 'blind-watermark==0.4.4'
    "$work/venv/bin/pip" install --quiet --no-deps 'invisible-watermark==0.2.0'
    "$work/venv/bin/pip" uninstall --quiet --yes opencv-python
    "$work/venv/bin/pip" install --quiet opencv-python-headless
fi
pictures=("$@")
if [ $# = 0 ]; then
    ffmpeg -v error -y -f lavfi -i "gradients=s=1920x1080:seed=1:nb_colors=6" \
        -vf "noise=alls=8:all_seed=1,gblur=0.7" -frames:v 1 "$work/gradients.png"
    pictures=("$work/gradients.png")
fi
# One thread each.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OPENCV_NUM_THREADS=1
exec "$work/venv/bin/python" benches/peers.py "$target/release/examples/evaluate" "$work" "${pictures[@]}"
