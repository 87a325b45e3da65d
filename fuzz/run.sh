#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Usage: fuzz/run.sh [SECONDS [TARGET...]]: every target, or those named, for so long each (120).
# Wants cargo-fuzz (cargo install --locked cargo-fuzz); Rust's stable toolchain will do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export RUSTC_BOOTSTRAP=1
seconds=${1:-120}
shift || true
targets=("$@")
[ "$#" -gt 0 ] || mapfile -t targets < <(cargo fuzz list)
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "seeds/$target"
    cargo fuzz run -s none "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1
done
