#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""A client written from docs/protocol.md alone: downloads, decrypts and verifies one recording.

    download.py IDENTITY camvault://HOST:PORT/NAME OUT

writes one line per access unit to OUT: track, pts, dts, duration, flags, SHA-256 of its bytes.
Needs python3-cryptography and python3-cbor2.
"""
import base64, hashlib, hmac, os, struct, sys, time, urllib.parse, urllib.request, zlib

import cbor2
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def sha256(data):
    return hashlib.sha256(data).digest()


def mac(key, data):
    return hmac.digest(key, data, "sha256")


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def ctr(key, data, block=bytes(16)):
    return Cipher(algorithms.AES(key), modes.CTR(block)).encryptor().update(data)


# BLAKE3, from its specification: slow, but nothing to install.
IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
MIX = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]


def compress(chaining, block, length, counter, flags):
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = list(chaining) + IV[:4] + [counter & 0xFFFFFFFF, counter >> 32, length, flags]
    for turn in range(7):
        for i, (a, b, c, d) in enumerate(MIX):
            for word, r1, r2 in ((m[2 * i], 16, 12), (m[2 * i + 1], 8, 7)):
                v[a] = (v[a] + v[b] + word) & 0xFFFFFFFF
                x = v[d] ^ v[a]
                v[d] = (x >> r1 | x << (32 - r1)) & 0xFFFFFFFF
                v[c] = (v[c] + v[d]) & 0xFFFFFFFF
                x = v[b] ^ v[c]
                v[b] = (x >> r2 | x << (32 - r2)) & 0xFFFFFFFF
        m = [m[i] for i in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)] + [v[i + 8] ^ chaining[i] for i in range(8)]


def subtree(data, counter, root):
    """Chaining value of a subtree, or its 32-byte hash where it is the whole."""
    if len(data) <= 1024:
        chaining, blocks = IV, [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
        for i, block in enumerate(blocks):
            last = i == len(blocks) - 1
            flags = (i == 0) | last << 1 | (last and root) << 3
            chaining = compress(chaining, block, len(block), counter, flags)[:8]
    else:
        chunks = (len(data) - 1) // 1024
        left = 1 << (chunks.bit_length() - 1)
        pair = subtree(data[: left * 1024], counter, False) + subtree(data[left * 1024 :], counter + left, False)
        chaining = compress(IV, struct.pack("<16I", *pair), 64, 0, 4 | root << 3)[:8]
    return struct.pack("<8I", *chaining) if root else chaining


def blake3(data):
    return subtree(data, 0, True)


class Identity:
    def __init__(self, path):
        line = next(l for l in open(path) if l.startswith("CAMVAULT-IDENTITY-1 "))
        text = line.split()[1]
        self.secret = base64.b64decode(text + "=" * (-len(text) % 4))
        self.sign_key = Ed25519PrivateKey.from_private_bytes(self.derive("sign"))
        self.agree_key = X25519PrivateKey.from_private_bytes(self.derive("agree"))
        self.public = self.sign_key.public_key().public_bytes(*RAW)

    def derive(self, info):
        return HKDF(hashes.SHA256(), 32, b"camvault identity v1", info.encode()).derive(self.secret)

    def recording(self, name):
        rid = mac(self.derive("names"), name.encode())[:16]
        return rid, mac(self.derive("recordings"), rid)

    def hpke_open(self, info, sealed):
        """RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM."""
        def extract(suite, salt, label, ikm):
            return mac(salt or bytes(32), b"HPKE-v1" + suite + label + ikm)

        def expand(suite, prk, label, info, length):
            info, out, block, i = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info, b"", b"", 1
            while len(out) < length:
                block = mac(prk, block + info + bytes([i]))
                out, i = out + block, i + 1
            return out[:length]

        enc, sealed = sealed[:32], sealed[32:]
        kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
        dh = self.agree_key.exchange(X25519PublicKey.from_public_bytes(enc))
        own = self.agree_key.public_key().public_bytes(*RAW)
        shared = expand(kem, extract(kem, b"", b"eae_prk", dh), b"shared_secret", enc + own, 32)
        context = b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
        secret = extract(suite, shared, b"secret", b"")
        key = expand(suite, secret, b"key", context, 32)
        nonce = expand(suite, secret, b"base_nonce", context, 12)
        return AESGCM(key).decrypt(nonce, sealed, b"")


class Vault:
    def __init__(self, base, identity):
        self.base, self.identity = base, identity
        info = cbor2.loads(urllib.request.urlopen(base + "/v1/vault").read())
        assert info[0] == 1, "version"
        self.storage = info.get(1) or base

    def request(self, method, url, body=b""):
        parts = urllib.parse.urlsplit(url)
        digest = "sha-256=:%s:" % base64.b64encode(sha256(body)).decode()
        key = base64.urlsafe_b64encode(self.identity.public).decode().rstrip("=")
        covered = '("@method" "@authority" "@path" "@query" "content-digest")'
        nonce = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        params = '%s;created=%d;nonce="%s";keyid="%s";alg="ed25519"' % (covered, time.time(), nonce, key)
        text = "\n".join([
            '"@method": ' + method, '"@authority": ' + parts.netloc.lower(), '"@path": ' + parts.path,
            '"@query": ?' + parts.query, '"content-digest": ' + digest, '"@signature-params": ' + params])
        signature = base64.b64encode(self.identity.sign_key.sign(text.encode())).decode()
        headers = {"Content-Digest": digest, "Signature-Input": "sig1=" + params,
                   "Signature": "sig1=:%s:" % signature, "Content-Type": "application/cbor"}
        return urllib.request.urlopen(urllib.request.Request(url, body or None, headers, method=method)).read()

    def call(self, method, path, body=None):
        return cbor2.loads(self.request(method, self.base + path, b"" if body is None else cbor2.dumps(body)))


def unseal(key, context, sealed):
    return AESGCM(key).decrypt(sealed[:12], sealed[12:], context)


def open_chunks(vault, path_keys, leaf, wanted):
    """Clear bytes of stored chunks, fetched and checked."""
    refs = [{0: sha256(s[0]), 1: s[1]} for s in wanted]
    opened = vault.call("POST", "/v1/open", {0: refs})
    assert all(opened[0]), "a chunk is not held"
    get = {0: opened[1], 1: [{0: s[1], 1: o[5]} for s, o in zip(wanted, opened[0])]}
    body = vault.request("POST", vault.storage + "/v1/blobs/get", cbor2.dumps(get))
    out = []
    for stored, entry in zip(wanted, opened[0]):
        length = struct.unpack(">I", body[:4])[0]
        assert length == stored[2], "length"
        c1, body = body[4 : 4 + length], body[4 + length :]
        assert blake3(c1) == stored[1], "d1"
        up = next(up for up in range(33) if (2**32 + leaf) >> up == entry[2])
        gk = ctr(path_keys[32 * up : 32 * up + 32], entry[3], entry[0])
        data_key = xor(ctr(gk, entry[1], entry[0]), stored[0])
        chunk = ctr(data_key, c1)
        assert sha256(chunk + data_key) == entry[4], "C3"
        assert stored[3] or sha256(chunk) == stored[0], "K"
        out.append(chunk)
    assert not body, "bytes after the last blob"
    return out


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        assert self.at + n <= len(self.data), "ends too early"
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value


def join(items, envelope):
    out = b""
    envelope = Bytes(envelope)
    assert envelope.varint() == len(items), "items"
    for item in items:
        out += envelope.take(envelope.varint())
        kind = envelope.take(1)[0]
        header = b""
        if kind == 7:
            header = envelope.take(7)
            header += b"" if header[1] & 1 else envelope.take(2)
        zeros = envelope.varint()
        if kind in (1, 2):
            out += b"\0\0\1" if kind == 1 else b"\0\0\0\1"
        elif 3 <= kind <= 6:
            out += (len(item) + zeros).to_bytes(kind - 2, "big")
        elif kind == 7:
            length = len(header) + len(item)
            bits = int.from_bytes(header[3:6], "big") | length << 5
            out += header[:3] + bits.to_bytes(3, "big") + header[6:]
        out += item + bytes(zeros)
    return out + envelope.take(envelope.varint()), envelope.at


def envelopes(data, count):
    """The envelope records of a chunk's units."""
    reader, last, out = Bytes(data), None, []
    for _ in range(count):
        if reader.take(1) == b"\1":
            start = reader.at
            for _ in range(reader.varint()):
                reader.take(reader.varint())
                kind = reader.take(1)[0]
                if kind == 7:
                    header = reader.take(7)
                    reader.take(0 if header[1] & 1 else 2)
                reader.varint()
            reader.take(reader.varint())
            last = data[start : reader.at]
        out.append(last)
    assert reader.at == len(data), "bytes after the last envelope"
    return out


def sum_up(column):
    last, out = 0, []
    for difference in column:
        if difference is not None:
            last = (last + difference) % 2**64
        out.append(None if difference is None else last)
    return out


def main(identity, url, out):
    identity = Identity(identity)
    parts = urllib.parse.urlsplit(url)
    vault = Vault("http://" + parts.netloc, identity)
    me = vault.call("GET", "/v1/me")
    path_keys = identity.hpke_open(b"camvault path keys v1", me[1])
    rid, key = identity.recording(urllib.parse.unquote(parts.path[1:]))
    path = "/v1/recordings/" + rid.hex()
    recording = vault.call("GET", path + "?from=0")
    summary = cbor2.loads(unseal(key, b"camvault summary v1" + rid, recording[1]))
    print(summary)
    first = recording[3]
    previous, lines = bytes(32) if first == 0 else None, []
    for seq, sealed_head in enumerate(recording[2], first):
        place = rid + seq.to_bytes(8, "big")
        head = cbor2.loads(unseal(key, b"camvault head v1" + place, sealed_head))
        sealed = vault.call("GET", "%s/segments/%d" % (path, seq))[0]
        assert previous in (None, head[7]) and head[6] == sha256(sealed), "chain"
        previous = head[6]
        manifest = cbor2.loads(zlib.decompress(unseal(key, b"camvault manifest v1" + place, sealed)))
        for track in manifest[3]:
            apart = [c[2][1][0] for c in track[4] if c[2][0] == 1]
            chunks = open_chunks(vault, path_keys, me[0], [c[0] for c in track[4]] + apart)
            contents, apart = chunks[: len(track[4])], iter(chunks[len(track[4]) :])
            frames = []
            for chunk in track[4]:
                inline = chunk[2][1][0] if chunk[2][0] == 0 else next(apart)
                frames += envelopes(inline, chunk[1]) if track[1] == 0 else []
            stream, units = Bytes(b"".join(contents)), track[5]
            for i, length in enumerate(units[0]):
                record = Bytes(stream.take(length))
                if track[1] == 0:
                    items = [record.take(record.varint()) for _ in range(record.varint())]
                    assert record.at == length, "bytes after the last item"
                    unit, used = join(items, frames[i])
                    assert used == len(frames[i])
                else:
                    unit = record.data
                times = [sum_up(units[2])[i], sum_up(units[3])[i], units[4][i]]
                lines.append(" ".join(map(str, [track[0], *times, units[1][i], sha256(unit).hex()])))
            assert stream.at == len(stream.data), "content after the last unit"
    with open(out, "w") as file:
        file.write("\n".join(lines) + "\n")
    print(len(lines), "access units, all verified")


if __name__ == "__main__":
    assert blake3(b"").hex().startswith("af1349b9f5f9a1a6")
    main(*sys.argv[1:])
