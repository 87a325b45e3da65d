# SPDX-License-Identifier: MPL-2.0
"""Other programs' watermarks beside ours: `benches/peers.sh` starts it."""

import os
import random
import subprocess
import sys
import time
import types

# invisible-watermark imports torch for its method rivaGan. The one measured here, dwtDct, is plain
# numpy and OpenCV: an empty module lets the import pass.
sys.modules.setdefault("torch", types.ModuleType("torch"))

import blind_watermark
import cv2
import imagehash
import numpy as np
from imwatermark import WatermarkDecoder, WatermarkEncoder
from PIL import Image

EVALUATE, WORK, PICTURES = sys.argv[1], sys.argv[2], sys.argv[3:]
RANDOM = random.Random(1)
BITS = [RANDOM.getrandbits(1) for _ in range(128)]
WORD = f"{int(''.join(map(str, BITS)), 2):032x}"
blind_watermark.bw_notes.close()
cv2.setNumThreads(1)


def psnr(a, b):
    """Of all three colours: ours changes them alike, others do not."""
    return 10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2))


class Camvault:
    name = "camvault"
    strengths = [None]

    def run(self, *arguments):
        command = [EVALUATE, "picture", *arguments, "--repeat", "20"]
        output = subprocess.run(command, check=True, capture_output=True, text=True)
        word, milliseconds = output.stdout.split()
        return word, float(milliseconds) / 1000

    def embed(self, picture, _):
        plain, marked = (os.path.join(WORK, name) for name in ("in.png", "out.png"))
        cv2.imwrite(plain, picture)
        _, seconds = self.run(plain, marked, "--word", WORD)
        return cv2.imread(marked), seconds

    def extract(self, picture, _):
        file = os.path.join(WORK, "in.png")
        cv2.imwrite(file, picture)
        word, seconds = self.run(file)
        return [int(bit) for bit in f"{int(word, 16):0128b}"], seconds


class Blind:
    name = "blind-watermark 0.4.4"
    # (d1, d2), its two steps; 36 and 20 are its defaults.
    strengths = [(d, d * 20 / 36) for d in (36, 24, 18, 14, 11, 8)]

    def marker(self, strength):
        marker = blind_watermark.WaterMark(password_wm=1, password_img=1, processes=1)
        marker.bwm_core.d1, marker.bwm_core.d2 = strength
        return marker

    def embed(self, picture, strength):
        begin = time.perf_counter()
        marker = self.marker(strength)
        marker.read_img(img=picture)
        marker.read_wm(np.array(BITS, dtype=bool), mode="bit")
        marked = marker.embed()
        seconds = time.perf_counter() - begin
        return np.clip(np.round(marked), 0, 255).astype(np.uint8), seconds

    def extract(self, picture, strength):
        begin = time.perf_counter()
        bits = self.marker(strength).extract(embed_img=picture, wm_shape=128, mode="bit")
        return [int(bit > 0.5) for bit in bits], time.perf_counter() - begin


class Invisible:
    def __init__(self, channel):
        self.name = f"invisible-watermark 0.2.0, dwtDct in {'YU'[channel]}"
        # Its step in one channel; 36 in U is its default.
        steps = (36, 28, 22, 18, 14, 11, 8, 5)
        self.strengths = [[step if c == channel else 0 for c in range(3)] for step in steps]

    def embed(self, picture, strength):
        begin = time.perf_counter()
        encoder = WatermarkEncoder()
        encoder.set_watermark("bits", BITS)
        marked = encoder.encode(picture, "dwtDct", scales=strength)
        return marked, time.perf_counter() - begin

    def extract(self, picture, strength):
        begin = time.perf_counter()
        decoder = WatermarkDecoder("bits", 128)
        bits = decoder.decode(picture, "dwtDct", scales=strength)
        return [int(bit) for bit in bits], time.perf_counter() - begin


def jpeg(quality):
    def attack(picture):
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return cv2.imdecode(data, cv2.IMREAD_COLOR)

    return attack


def noise(sigma):
    def attack(picture):
        changed = picture + np.random.default_rng(1).normal(0, sigma, picture.shape)
        return np.clip(np.round(changed), 0, 255).astype(np.uint8)

    return attack


def x264(crf):
    """A still of ten frames, the last of them."""

    def attack(picture):
        height, width = picture.shape[:2]
        raw = ["-f", "rawvideo", "-pix_fmt", "bgr24"]
        size = ["-s", f"{width}x{height}", "-r", "25"]
        quiet = ["ffmpeg", "-v", "error"]
        encode = ["-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryfast"]
        encode += ["-threads", "1", "-crf", str(crf), "-f", "h264", "-"]
        stream = subprocess.run(
            quiet + raw + size + ["-i", "-"] + encode,
            input=picture.tobytes() * 10,
            check=True,
            capture_output=True,
        ).stdout
        frames = subprocess.run(
            quiet + ["-f", "h264", "-i", "-", *raw, "-"],
            input=stream,
            check=True,
            capture_output=True,
        ).stdout
        last = frames[-picture.nbytes :]
        return np.frombuffer(last, np.uint8).reshape(picture.shape)

    return attack


ATTACKS = {
    "none": lambda picture: picture,
    "JPEG 90": jpeg(90),
    "JPEG 70": jpeg(70),
    "JPEG 50": jpeg(50),
    "JPEG 30": jpeg(30),
    "noise σ 5": noise(5),
    "blur 5×5 σ 1": lambda picture: cv2.GaussianBlur(picture, (5, 5), 1),
    "x264 CRF 28": x264(28),
    "x264 CRF 33": x264(33),
}


def median(values):
    return sorted(values)[len(values) // 2]


def measure(tool, strength, picture, marked, embed_seconds):
    wrong, extract_seconds = [], []
    for attack in ATTACKS.values():
        bits, seconds = tool.extract(attack(marked), strength)
        wrong.append(sum(a != b for a, b in zip(bits, BITS)))
        extract_seconds.append(seconds)
    cells = [f"{100 * errors / 128:.0f}" for errors in wrong]
    cells += [f"{1 / embed_seconds:.3g}", f"{1 / median(extract_seconds):.3g}"]
    print(f"| {tool.name} | {psnr(picture, marked):.1f} | {' | '.join(cells)} |", flush=True)


def main():
    for file in PICTURES:
        picture = cv2.imread(file)
        if picture is None:
            sys.exit(f"{file}: not a picture")
        height, width = picture.shape[:2]
        print(f"\n{os.path.basename(file)}, {width}×{height}: wrong bits in %\n")
        print(f"| | PSNR, dB | {' | '.join(ATTACKS)} | embedded/s | read/s |")
        print("|---" * (len(ATTACKS) + 4) + "|", flush=True)
        marked, seconds = Camvault().embed(picture, None)
        target = psnr(picture, marked)
        measure(Camvault(), None, picture, marked, seconds)
        for tool in (Blind(), Invisible(1), Invisible(0)):
            # As published, and as near to our PSNR as its strength can be set to it.
            strengths = [tool.strengths[0], equal(tool, picture, target)]
            for strength in strengths if strengths[0] != strengths[1] else strengths[:1]:
                attempt, seconds = tool.embed(picture, strength)
                measure(tool, strength, picture, attempt, seconds)
        hashes(picture, marked)


def equal(tool, picture, target):
    """The strength with the PSNR nearest to the target, tried on a piece: whole ones take minutes."""
    height, width = (side // 2 for side in picture.shape[:2])
    piece = picture[height // 2 : height // 2 + height, width // 2 : width // 2 + width].copy()
    distances = [abs(psnr(piece, tool.embed(piece, s)[0]) - target) for s in tool.strengths]
    return tool.strengths[distances.index(min(distances))]


def hashes(picture, marked):
    """ImageHash's phash: bits of 64 that mark and attacks move."""

    def phash(picture):
        return imagehash.phash(Image.fromarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)))

    plain = phash(picture)
    moved = [phash(attack(marked)) - plain for attack in ATTACKS.values()]
    begin = time.perf_counter()
    phash(marked)
    rate = 1 / (time.perf_counter() - begin)
    cells = " | ".join(str(bits) for bits in moved)
    print(f"| ImageHash phash of the marked one, bits of 64 moved | | {cells} | | {rate:.3g} |")


main()
