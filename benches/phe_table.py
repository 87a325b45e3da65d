# SPDX-License-Identifier: MPL-2.0
"""Cost of one coefficient under python-paillier (PyPI `phe` with gmpy2), beside benches/homomorphic.rs.

    phe_table.py BITS CRITERION

CRITERION is the folder of criterion's results. Times are CPU time of one thread."""

import json
import pathlib
import sys
import time

import gmpy2  # noqa: F401 - phe is many times slower without it, and then says nothing
from phe import paillier
from phe.util import HAVE_GMP

COEFFICIENTS = 1024


def seconds(work, least=2.0):
    """CPU seconds of one call: the least of five means."""
    times, start = [], time.thread_time()
    work()
    count = max(1, int(least / 5 / max(time.thread_time() - start, 1e-6)))
    for _ in range(5):
        start = time.thread_time()
        for _ in range(count):
            work()
        times.append((time.thread_time() - start) / count)
    return min(times)


def ours(folder, group, name):
    """Seconds of an iteration, and what an iteration holds; None if it was not measured."""
    for path in folder.glob("**/new/benchmark.json"):
        about = json.loads(path.read_text())
        if (about["group_id"], about["function_id"]) == (group, name):
            estimate = json.loads(path.with_name("estimates.json").read_text())
            return estimate["median"]["point_estimate"] / 1e9, (about["throughput"] or {}).get("Elements", 1)
    return None


def main():
    bits, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    assert HAVE_GMP, "phe does not use gmpy2"
    public, secret = paillier.generate_paillier_keypair(n_length=bits)
    one = public.encrypt(1)
    # A coefficient of the owner: encrypt, and the ticket's bit added; of the cloud: decrypt.
    rows = [
        ("phe + gmpy2, owner: encrypt, add", seconds(lambda: public.encrypt(-1234) + one) * COEFFICIENTS),
        ("phe + gmpy2, cloud: decrypt", seconds(lambda: secret.decrypt(one)) * COEFFICIENTS),
    ]
    frames = [("frames", f"{side}, one coefficient a ciphertext") for side in ("owner", "cloud")]
    for side in ("owner, short exponent", "owner, full exponent", "cloud"):
        frames += [("frames", f"{side}, {engine}") for engine in ("eight side by side", "portable")]
    for group, name in frames:
        if found := ours(folder, group, name):
            rows.append((f"{group}: {name}", found[0] / found[1]))
    print(f"1024 coefficients of a 1080p frame, {bits} bits, CPU time of one thread")
    print(f"{'':52} {'ms a frame':>12} {'frames/s':>10} {'times as fast as phe':>21}")
    for name, each in rows:
        base = rows[1][1] if "cloud" in name else rows[0][1]
        print(f"{name:52} {1e3 * each:12.3f} {1 / each:10.2f} {base / each:21.1f}")
    print("\nAll 162,000 candidates of a 1080p frame")
    for path in sorted(folder.glob("**/new/benchmark.json")):
        about = json.loads(path.read_text())
        if about["group_id"] == "oblivious":
            each = ours(folder, about["group_id"], about["function_id"])[0]
            base = rows["cloud" in about["function_id"]][1] * 162_000 / COEFFICIENTS
            note = "" if "segment" in about["function_id"] else f"{base / each:21.0f}"
            print(f"{about['function_id']:52} {1e3 * each:12.3f} {1 / each:10.2f} {note}")


main()
