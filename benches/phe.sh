#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# The paper's Paillier, one coefficient to a ciphertext, by python-paillier (PyPI `phe` with gmpy2) and
# by ourselves, beside `packed` and `oblivious`, in one run on one core. BITS=2048 for another modulus
# than 3072 bits.
set -euo pipefail
cd "$(dirname "$0")/.."
source pipelines/setup.sh
camvault_need_rust "$PWD"
bits=${BITS:-3072}
target=${CARGO_TARGET_DIR:-$PWD/target}
work=$target/phe
mkdir -p "$work"
if [ ! -x "$work/venv/bin/python" ]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet 'phe==1.5.0' gmpy2
fi
rm -rf "$work/criterion"
CRITERION_HOME=$work/criterion CAMVAULT_BENCH_BITS=$bits \
    cargo bench --locked --bench homomorphic -- --noplot --warm-up-time 1 --measurement-time 2 '^(frames|oblivious)/' >"$work/log" 2>&1 ||
    { cat "$work/log" >&2 && exit 1; }
exec "$work/venv/bin/python" benches/phe_table.py "$bits" "$work/criterion"
