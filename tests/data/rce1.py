# SPDX-License-Identifier: MPL-2.0
"""Writes rce1.txt with Python's own primitives: pip install blake3 cryptography; python3 rce1.py > rce1.txt"""
import hashlib, hmac
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

chunk, L = b"camvault known answer chunk", bytes(range(32))
K = hashlib.sha256(chunk).digest()
c1 = Cipher(algorithms.AES(L), modes.CTR(bytes(16))).encryptor().update(chunk)
for name, value in [
    ("chunk", chunk), ("L", L), ("K", K), ("t", hashlib.sha256(K).digest()), ("C1", c1),
    ("C2", bytes(a ^ b for a, b in zip(L, K))), ("C3", hashlib.sha256(chunk + L).digest()),
    ("d1", blake3(c1).digest()), ("K_domain", hmac.digest(b"\xd0" * 32, chunk, "sha256")),
]:
    print(name, value.hex())
