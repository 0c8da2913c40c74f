"""Read audio files, and check that they are whole."""

from __future__ import annotations

import functools
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from compat.contract.errors import CompatError
from compat.inputs import mpeg

AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".sph", ".aif", ".aiff")
"""Endings by which audio files are found where no list names them."""
LONGEST = 6 * 3600.0
"""Seconds of the longest recording that is read, because the samples are held in memory."""
TOLERANCE = 0.25
"""Seconds by which the length of a recording may differ from its manifest's. MP3 encoders add
silence, and decoders differ in how much of it they leave out."""
SLACK = 0.01
"""Seconds by which a WAV file may be shorter than its header promises, because some programs count
the header's own bytes too."""
LOUDEST = 100.0
"""Largest sample that is accepted, where 1 is full scale."""


class CorpusError(CompatError):
    """A corpus cannot be used; the message names the file, the line and the remedy."""


# Audio -------------------------------------------------------------------------------------------


def read_audio(
    path: Path, rate: int, offset: float = 0.0, seconds: float | None = None, channels: int = 1
) -> np.ndarray:
    """Read an audio file as float32 at a sampling rate in hertz.

    The result has the decoded length, which may differ a little from the one in the header.

    Args:
        path: a file in any format that libsndfile reads.
        rate: sampling rate of the result, in hertz.
        offset: where to begin, in seconds.
        seconds: seconds to read; None for the rest of the file.
        channels: channels of the result. If the file has another number, each of them holds the
            mean of the file's channels.

    Returns:
        (samples,) for one channel, else (channels, samples).

    Raises:
        CorpusError: the file is missing, is no audio, breaks off before the end that its header
            promises, is longer than :data:`LONGEST`, or holds no samples, none that are finite, or
            some that are larger than :data:`LOUDEST`.
    """
    if not path.is_file():
        raise CorpusError(f"audio file {path} is missing: restore it, or correct the manifest.")
    parts: list[np.ndarray] = []
    with _decoding(path, parts) as file:
        found = int(file.samplerate)
        length = _frames(path, file)
        first = round(offset * found)
        wanted = _LIMITLESS if seconds is None else round(seconds * found)
        decoded = 0
        if file.skip(first, length):
            # Read in blocks, because a meeting has many channels and only their mean is kept.
            for block in file.blocks_of(wanted):
                kept = block.copy() if channels == block.shape[1] > 1 else block.mean(1, np.float32)
                parts.append(kept)
                decoded += len(block)
                _not_too_long(path, decoded / found)
        known = length if length is not None and file.format not in _INEXACT else 0
        if first + decoded < min(first + wanted, known):
            _whole(path, known, first + decoded, found)
    audio = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if not len(audio) or not np.isfinite(audio).all():
        raise CorpusError(f"audio file {path} holds no usable samples: restore it.")
    peak = float(np.abs(audio).max())
    if peak > LOUDEST:
        raise CorpusError(
            f"audio file {path} has samples of {peak:g}, and full scale is 1: restore it, or "
            "divide them by the full scale that they were written for (32768 of 16 bits)."
        )
    if found != rate:
        import soxr

        audio = soxr.resample(audio, found, rate).astype(np.float32)
    if channels == 1:
        return audio
    return np.ascontiguousarray(np.broadcast_to(audio.T, (channels, len(audio))))


_LIMITLESS = 1 << 62
"""Frames from which a length is unknown: libsndfile returns as many if a header has no length."""
_BLOCK = 1 << 13
"""Frames that are decoded at once. An error's place in a file is known to within one block."""
_PIPED = (1 << 31, 1 << 32)
"""Bytes, roughly, that a header promises if its program wrote to a pipe and knew no length."""
_INEXACT = ("MP3", "OGG")
"""Formats whose headers hold no exact length: it is estimated, or read from the file's end."""


@functools.cache
def _stream_class() -> type[Any]:
    """Return a class of audio files that are read from front to back.

    soundfile's own ``SoundFile`` seeks after every read. GSM 6.10 cannot seek, and an MP3 continues
    at another sample afterwards. Its ``blocks`` returns uninitialised memory where libsndfile
    decodes less than the header promises. The class is made on first use, because only then is
    soundfile imported.
    """
    import soundfile

    class Stream(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

        def skip(self, frames: int, length: int | None) -> bool:
            """Go to a frame; return False if the file ends before it, at ``length`` frames."""
            if length is not None and frames >= length:
                return False
            exact = length is not None and super().seekable() and self.format != "MP3"
            if frames and exact:
                self.seek(frames)
            elif frames:
                return sum(map(len, self.blocks_of(frames))) == frames
            return True

        def blocks_of(self, frames: int) -> Iterator[np.ndarray]:
            """Yield blocks of float32 (frames, channels), up to ``frames`` or the file's end."""
            while frames > 0:
                block = self.read(min(_BLOCK, frames), dtype="float32", always_2d=True)
                if not len(block):
                    return
                frames -= len(block)
                yield block

    return Stream


@contextmanager
def _decoding(path: Path, parts: Sequence[np.ndarray] = ()) -> Iterator[Any]:
    """Open an audio file, and turn every error into one that says how far it was decoded.

    ``parts`` is the list to which the caller adds the decoded blocks.
    """
    import soundfile

    try:
        with _stream_class()(path) as file:
            rate, frames = int(file.samplerate), int(file.frames)
            yield file
    except (soundfile.LibsndfileError, RuntimeError, MemoryError) as error:
        decoded, where = sum(map(len, parts)), ""
        if decoded:
            where = f", which breaks off after {decoded / rate:.2f} s of {frames / rate:.2f} s"
        raise CorpusError(
            f"cannot read audio file {path}{where}: {error} Convert it to WAV or FLAC, or "
            "restore it."
        ) from error


def _frames(path: Path, file: Any) -> int | None:
    """Return the number of frames of an open file; None where only decoding can tell.

    Raises:
        CorpusError: the file is cut short, it is too long, or libsndfile would leave out its end.
    """
    frames, rate = int(file.frames), int(file.samplerate)
    if frames >= _LIMITLESS:
        return None
    if file.format == "MP3":
        counted = mpeg.count_samples(path)
        if counted > frames + TOLERANCE * rate:
            raise CorpusError(
                f"audio file {path} lasts {counted / rate:.2f} s, of which only "
                f"{frames / rate:.2f} s can be read, as its header does not say how long it is: "
                "convert it to WAV or FLAC."
            )
        frames = min(frames, counted or frames)
    _not_too_long(path, frames / rate)
    _whole(path, _promised(path, file), frames, rate)
    return frames


def _whole(path: Path, promised: float, held: float, rate: int) -> None:
    """Refuse a file that holds fewer frames than its header promises."""
    if promised > held + SLACK * rate:
        raise CorpusError(
            f"audio file {path} is cut short: its header promises {promised / rate:.2f} s, and it "
            f"holds {held / rate:.2f} s. Restore it."
        )


def _promised(path: Path, file: Any) -> float:
    """Return the frames that a header promises, if they are more than the file holds; else 0.

    libsndfile corrects the number silently. For WAV, RF64, W64, AIFF and AU its notes hold the
    promised bytes and the bytes that it found; for SPHERE the header is read here.
    """
    if file.format == "NIST":
        with path.open("rb") as opened:
            count = re.search(rb"sample_count -i (\d+)", opened.read(1024))
        return float(count[1]) if count else 0.0
    notes = file.extra_info
    size = re.search(
        r"^\s*(?:data|SSND|Data [Ss]ize)\s*: (\d+)\b(?: \(should be (\d+)\))?", notes, re.M
    )
    whole = re.search(r"^Length : (\d+)$", notes, re.M)
    if not size or not whole:
        return 0.0
    promised, held = int(size[1]), int(size[2] or whole[1])
    piped = any(abs(promised - limit) < 1 << 17 for limit in _PIPED)
    if promised <= held or not held or piped:
        return 0.0
    return float(file.frames * promised / held)


def _not_too_long(path: Path, seconds: float) -> None:
    if seconds > LONGEST:
        raise CorpusError(
            f"audio file {path} is {seconds / 3600:.1f} hours long: cut it into recordings of "
            f"{LONGEST / 3600:.0f} hours at most."
        )


def audio_seconds(path: Path) -> float:
    """Return the length of an audio file in seconds.

    The file is decoded only where its header has no length.

    Raises:
        CorpusError: as :func:`read_audio`.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):  # Opening a pipe may wait for ever.
        raise CorpusError(f"audio file {path} is no regular file: restore it.")
    return _audio_seconds(path, facts.st_mtime_ns, facts.st_size)


# A manifest may cut one file into many recordings, so lengths are cached. Time and size are part of
# the key, since a file may change.
@functools.lru_cache(maxsize=1024)
def _audio_seconds(path: Path, changed: int, size: int) -> float:  # noqa: ARG001
    with _decoding(path) as file:
        frames = _frames(path, file)
        if frames is None:
            frames = sum(map(len, file.blocks_of(round((LONGEST + 1) * file.samplerate))))
        seconds = frames / float(file.samplerate)
    _not_too_long(path, seconds)
    return seconds
