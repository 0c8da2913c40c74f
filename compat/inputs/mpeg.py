"""Count the samples of an MP3 file, frame by frame.

libsndfile takes the length from the Xing header. Without one it guesses the length from the file's
size and its first frame, which is right for a constant bit rate only. The guess for a variable bit
rate may be twice or half the true length, and libsndfile reads no further than the guess.
"""

from __future__ import annotations

import mmap
from pathlib import Path

_KILOBITS = {
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates of layer III in kbit/s, by version of MPEG (ISO/IEC 11172-3, 13818-3)."""
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""Sampling rates in Hz by a header's two version bits (3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5)."""


def count_samples(path: Path) -> int:
    """Return the number of samples per channel in the whole frames of an MP3 file.

    It includes the silence that encoders add at both ends, about two frames. It is 0 where no frame
    of layer III is found.
    """
    if not path.stat().st_size:
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _count(data)


def _count(data: mmap.mmap) -> int:
    samples, at = 0, _after_tag(data)
    while 0 <= at < len(data) - 3:
        header = data[at : at + 4]
        length, held = _frame(header)
        following = data[at + length : at + length + 4]
        # A frame counts only if another follows: a lone header may be bytes of a picture.
        if length and at + length <= len(data) and _alike(header, following):
            first = data[at : at + length] if not samples else b""
            # The first frame may be a Xing header, which holds no audio.
            samples += 0 if b"Xing" in first or b"Info" in first else held
            at += length
        else:
            at = data.find(b"\xff", at + 1)
    return samples


def _after_tag(data: mmap.mmap) -> int:
    """Return the position behind an ID3v2 tag at the beginning; its size has seven bits a byte."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _frame(header: bytes) -> tuple[int, int]:
    """Return the bytes and samples of the frame with this header; zeros if it is no header."""
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    kilobits, rate = header[2] >> 4, header[2] >> 2 & 3
    synchronised = header[0] == 0xFF and header[1] >> 5 == 7
    if not synchronised or version == 1 or layer != 1 or kilobits in (0, 15) or rate == 3:
        return 0, 0
    samples = 1152 if version == 3 else 576
    bits = _KILOBITS[1 if version == 3 else 2][kilobits - 1] * 1000
    padding = header[2] >> 1 & 1
    return samples // 8 * bits // _RATES[version][rate] + padding, samples


def _alike(header: bytes, following: bytes) -> bool:
    """Whether the following bytes are a frame of the same kind, a tag, or the end of the file."""
    if len(following) < 4 or following[:3] in (b"TAG", b"ID3", b"APE"):
        return True
    same_rate = header[2] & 0x0C == following[2] & 0x0C
    return header[1] & 0xFE == following[1] & 0xFE and header[0] == following[0] and same_rate
