"""Corpora: every accepted form of an own corpus, and every way in which one can be wrong."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from compat.inputs import audio, stress, text
from compat.inputs import audio as inputs_audio
from compat.inputs.audio import CorpusError, read_audio
from compat.inputs.corpus import Corpus, TestSet, load
from compat.inputs.rttm import read_rttm, read_uem
from compat.models.tasks.diarization import Diarization

RATE = 16_000


def facts_of(test_set: TestSet) -> set[str]:
    """Return which facts that tasks are scored by are known of every recording."""
    return {fact for fact in ("text", "segments", "trials") if test_set.knows(fact)}


def write_audio(path: Path, seconds: float = 2.0, rate: int = RATE, channels: int = 1) -> Path:
    """Write a tone whose pitch depends on the file's name, so that no two are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (200 + sum(path.name.encode()) % 400) * time)
    soundfile.write(path, np.stack([tone * (c + 1) / channels for c in range(channels)], 1), rate)
    return path


def write_text(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    return path


def speaker(name: str, start: float, duration: float, who: str) -> str:
    return f"SPEAKER {name} 1 {start:.3f} {duration:.3f} <NA> <NA> {who} <NA> <NA>"


def only(found: Corpus) -> TestSet:
    (test_set,) = found.sets.values()
    return test_set


# --- manifests -----------------------------------------------------------------------------------


def manifest(folder: Path, **fields: Any) -> Path:
    """Write a recording called a.wav and a manifest of one line; None leaves a field out."""
    write_audio(folder / "a.wav")
    line = {"audio_filepath": "a.wav", "duration": 2.0, "text": "one", **fields}
    write_text(folder / "manifest.jsonl", {k: v for k, v in line.items() if v is not None})
    return folder


def test_text(tmp_path: Path) -> None:
    found = load(manifest(tmp_path))
    assert facts_of(only(found)) == {"text"}
    item = only(found).item(0, RATE)
    assert (item.id, item.text, item.seconds) == (f"{tmp_path.name}-0000", "one", 2.0)
    assert item.audio.dtype == np.float32


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    name = "my data [v 1] (a)"
    found = only(load(manifest(tmp_path / name)))
    assert (found.name, found.item(0, RATE).id) == (name, f"{name}-0000")


def test_a_silent_recording_does_not_spoil_a_text_set(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    lines = [{"audio_filepath": "a.wav", "duration": 2, "text": text} for text in ("one", "")]
    write_text(tmp_path / "manifest.jsonl", *lines)
    assert facts_of(only(load(tmp_path))) == {"text"}
    write_text(tmp_path / "manifest.jsonl", lines[1])
    assert facts_of(only(load(tmp_path))) == set(), "nothing is said in any of them"


def test_nemo_manifest(tmp_path: Path) -> None:
    """The lines that NeMo's diarization recipes write: no text, no duration, RTTM and UEM."""
    for name in ("ab", "cd"):
        write_audio(tmp_path / f"wav/{name}.wav", 3.0)
        write_text(tmp_path / f"rttm/{name}.rttm", speaker(name, 0.5, 1.0, "x"))
        write_text(tmp_path / f"uem/{name}.uem", f"{name} 1 0.0 2.5")
    line = {"offset": 0, "duration": None, "label": "infer", "text": "-", "num_speakers": None}
    paths = [
        {
            "audio_filepath": f"wav/{name}.wav",
            "rttm_filepath": f"rttm/{name}.rttm",
            "uem_filepath": f"uem/{name}.uem",
        }
        for name in ("ab", "cd")
    ]
    write_text(tmp_path / "manifest.jsonl", *({**path, **line} for path in paths))
    found = only(load(tmp_path))
    assert facts_of(found) == {"segments"}
    item = found.item(1, RATE)
    assert item.seconds == 3.0
    assert item.facts["segments"] == [[0.5, 1.5, "x"]]
    assert item.facts["uem"] == [[0.0, 2.5]]
    assert item.facts["segments"] == [[0.5, 1.5, "x"]] and item.facts["uem"] == [[0.0, 2.5]]


def test_one_rttm_for_several_recordings(tmp_path: Path) -> None:
    lines = []
    for name in ("ab", "cd"):
        write_audio(tmp_path / f"{name}.Mix-Headset.wav")
        lines.append(
            {
                "audio_filepath": f"{name}.Mix-Headset.wav",
                "duration": 2.0,
                "rttm_filepath": "all.rttm",
            }
        )
    write_text(tmp_path / "manifest.jsonl", *lines)
    write_text(tmp_path / "all.rttm", speaker("ab", 0, 1, "x"), speaker("cd", 1, 0.5, "y"))
    found = only(load(tmp_path))
    assert [line["segments"] for line in found.lines] == [[[0.0, 1.0, "x"]], [[1.0, 1.5, "y"]]]


def test_inline_segments(tmp_path: Path) -> None:
    segments = [{"start": 0.25, "end": 1.0, "speaker": "x"}, {"start": 1, "end": 1.5}]
    found = only(load(manifest(tmp_path, segments=segments, speaker="y", uem=[[0, 2]])))
    assert facts_of(found) == {"text", "segments"}
    assert found.lines[0]["segments"] == [[0.25, 1.0, "x"], [1.0, 1.5, "y"]]
    assert found.lines[0]["uem"] == [[0.0, 2.0]]


@pytest.mark.parametrize("text", [None, "-"])
def test_what_is_not_known_of_a_recording(tmp_path: Path, text: str | None) -> None:
    """Words that NeMo notes as unknown, no duration, and nulls, are no fault of a manifest."""
    write_audio(tmp_path / "a.wav")
    line = {"audio_filepath": "a.wav", "text": text, "offset": None, "uem": None, "segments": None}
    write_text(tmp_path / "manifest.jsonl", line)
    item = only(load(tmp_path)).item(0, RATE)
    assert facts_of(only(load(tmp_path))) == set()
    assert (item.text, item.seconds, item.facts["duration"]) == ("", 2.0, 2.0)
    write_text(tmp_path / "a.rttm", speaker("a", 0, 1, "x"))
    write_text(tmp_path / "manifest.jsonl", {**line, "rttm_filepath": "a.rttm"})
    assert facts_of(only(load(tmp_path))) == {"segments"}


def test_offset_cuts_a_part_of_a_long_file(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", 6.0, rate=8_000)
    write_text(
        tmp_path / "a.rttm",
        speaker("a", 0, 1.5, "before"),
        speaker("a", 1, 2, "x"),
        speaker("a", 3.5, 2, "y"),
        speaker("a", 5, 1, "after"),
    )
    line = {"audio_filepath": "a.wav", "offset": 2.0, "duration": 2.0, "rttm_filepath": "a.rttm"}
    write_text(tmp_path / "manifest.jsonl", line)
    item = only(load(tmp_path)).item(0, 8_000)
    whole = read_audio(tmp_path / "a.wav", 8_000)
    np.testing.assert_array_equal(item.audio, whole[16_000:32_000])
    assert item.facts["segments"] == [[0.0, 1.0, "x"], [1.5, 2.0, "y"]]


def test_trials(tmp_path: Path) -> None:
    lines = [{"audio_filepath": f"{name}.wav", "duration": 2, "id": name} for name in "abc"]
    for name in "abc":
        write_audio(tmp_path / f"{name}.wav")
    write_text(tmp_path / "manifest.jsonl", *lines)
    write_text(tmp_path / "trials.txt", "1 a.wav b.wav", "0 a.wav c.wav", "", "0 b.wav c.wav")
    found = only(load(tmp_path))
    assert facts_of(found) == {"trials"}
    assert found.trials == (("a", "b", True), ("a", "c", False), ("b", "c", False))
    assert found.item(0, RATE).facts["trials"] == [["b", True], ["c", False]]
    assert "trials" not in found.item(2, RATE).facts
    for bad in ("2 a.wav b.wav", "1 a.wav", "1 a.wav x.wav", "1 a.wav b.wav c.wav"):
        write_text(tmp_path / "trials.txt", "1 a.wav b.wav", bad)
        with pytest.raises(CorpusError, match=r"trials\.txt:2: .*A trial reads: 1 a\.flac"):
            load(tmp_path)


def test_a_mark_and_carriage_returns_of_windows(tmp_path: Path) -> None:
    manifest(tmp_path, rttm_filepath="a.rttm", text=None)
    line = (tmp_path / "manifest.jsonl").read_text().strip()
    (tmp_path / "manifest.jsonl").write_bytes(f"\ufeff{line}\r\n\r\n".encode())
    # Files that were joined have a mark inside as well.
    marked = [f"\ufeff{speaker('a', start, 0.5, 'x')}\r\n" for start in (0, 1)]
    (tmp_path / "a.rttm").write_bytes("".join(marked).encode())
    assert only(load(tmp_path)).lines[0]["segments"] == [[0.0, 0.5, "x"], [1.0, 1.5, "x"]]
    (tmp_path / "a.uem").write_bytes("\ufeffa 1 0 1\r\n\ufeffa 1 1.5 2\r\n".encode())
    assert read_uem(tmp_path / "a.uem") == {"a": [(0.0, 1.0), (1.5, 2.0)]}


BAD_LINES: list[tuple[dict[str, Any], str]] = [
    ({"text": None}, "no 'text'"),
    ({"text": 5}, "must be strings"),
    (
        {"duration": 2000},
        r"duration says 2000 s, and a\.wav lasts 2 s\. .*is this one in milliseconds",
    ),
    ({"duration": 2.3}, r"duration says 2\.3 s, and a\.wav lasts 2 s\. Correct"),
    (
        {"duration": 1.5},
        r'says 1\.5 s, and a\.wav lasts 2 s\. .*"offset": 0 to take the first 1\.5 s',
    ),
    ({"offset": 2.5}, r"the offset is 2\.5 s, and a\.wav lasts 2 s"),
    ({"offset": 1.0}, r"offset and duration end at 3 s, and a\.wav lasts 2 s"),
    ({"offset": 0.5, "duration": 1500}, r"end at 1500\.5 s, .*not milliseconds"),
    ({"audio_filepath": ["a.wav"]}, "must be strings"),
    ({"audio_filepath": "b.wav"}, r"b\.wav is missing: restore it"),
    ({"audio_filepath": "../a.wav"}, "lies outside the corpus: move it inside"),
    ({"audio_filepath": "/etc/hostname"}, "lies outside the corpus: move it inside"),
    ({"audio_filepath": "a\0.wav"}, "names no file"),
    ({"audio_filepath": "a" * 5000}, "names no file"),
    ({"duration": float("nan")}, "make the duration positive"),
    ({"duration": 10**400}, "too large"),
    ({"duration": "long"}, "could not convert"),
    ({"offset": -1}, "offset must not be negative"),
    ({"rttm_filepath": "a.rttm"}, r"rttm_filepath .*a\.rttm is missing: restore it"),
    ({"uem_filepath": "../../a.uem"}, "lies outside the corpus"),
    ({"rttm_filepath": "\0"}, "names no file"),
    ({"segments": [{"start": 0, "end": float("nan")}]}, "no stretch of time"),
    ({"segments": [{"start": 1, "end": 0.5}]}, "no stretch of time"),
    ({"segments": [{"start": -1, "end": 0.5}]}, "no stretch of time"),
    ({"segments": [{"start": 0, "end": float("inf")}]}, "no stretch of time"),
    ({"segments": [{"start": 0}]}, "no 'end'"),
    ({"segments": 5}, "not iterable"),
    ({"duration": -1.0}, "make the duration positive"),
    ({"segments": [[0, 1]]}, "a segment is an object with start"),
    ({"segments": [{"start": 500, "end": 900}]}, "begin at 500 s, and the recording ends at 2 s"),
    ({"uem": [[0, 1], [2]]}, "Correct or remove"),
    ({"id": "../../../tmp/x"}, "cannot be called"),
    ({"id": "a."}, "cannot be called"),
    ({"id": " a"}, "cannot be called"),
    ({"id": "a:b"}, "cannot be called"),
    ({"id": "x" * 200}, "cannot be called"),
]


@pytest.mark.parametrize(("fields", "said"), BAD_LINES)
def test_bad_lines(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(CorpusError, match=said) as raised:
        load(manifest(tmp_path, **fields))
    assert str(tmp_path) in str(raised.value)
    assert "id" in fields or "manifest.jsonl:1" in str(raised.value)


@pytest.mark.parametrize("text", ["[1]", "5", "null", '"a"', "[" * 100_000, "{", '{"a": \ud800}'])
def test_lines_that_are_no_objects(tmp_path: Path, text: str) -> None:
    manifest(tmp_path)
    (tmp_path / "manifest.jsonl").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(CorpusError, match=r"manifest\.jsonl"):
        load(tmp_path)


def test_ids_are_unique_over_all_sets(tmp_path: Path) -> None:
    manifest(tmp_path / "one", id="x")
    manifest(tmp_path / "two", id="x")
    with pytest.raises(CorpusError, match=r"called x, in .*one and .*two: give one of them"):
        load(tmp_path)
    manifest(tmp_path / "two", id="y")
    assert list(load(tmp_path).sets) == ["one", "two"]


def test_an_rttm_of_other_recordings(tmp_path: Path) -> None:
    manifest(tmp_path, rttm_filepath="x.rttm")
    write_text(tmp_path / "x.rttm", speaker("b", 0, 1, "x"), speaker("c", 0, 1, "x"))
    with pytest.raises(CorpusError, match=r"x\.rttm speaks of b, c …, and not of a: correct"):
        load(tmp_path)
    write_text(tmp_path / "x.rttm", speaker("b", 0, 1, "x"))
    assert only(load(tmp_path)).lines[0]["segments"] == [[0.0, 1.0, "x"]], "there is no other one"
    write_text(tmp_path / "x.rttm")
    assert only(load(tmp_path)).lines[0]["segments"] == [], "nobody speaks"


# --- folders of RTTM files -----------------------------------------------------------------------


def ami(folder: Path) -> Path:
    """Lay out two meetings as AMI-diarization-setup and the AMI download do."""
    for name in ("ES2004a", "IS1009b"):
        audio = folder / "amicorpus" / name / "audio"
        for microphone in ("Array1-01", "Headset-0", "Mix-Headset"):
            write_audio(audio / f"{name}.{microphone}.wav")
        lines = [speaker(name, 0.1, 0.5, f"{name[:3]}A"), speaker(name, 0.4, 1.0, f"{name[:3]}B")]
        write_text(folder / "only_words" / "rttms" / "test" / f"{name}.rttm", *lines)
        write_text(folder / "uems" / "test" / f"{name}.uem", f"{name} 1 0.000 1.900")
    return folder


def test_ami(tmp_path: Path) -> None:
    found = only(load(ami(tmp_path)))
    assert facts_of(found) == {"segments"}
    assert [found.identifier(index) for index in (0, 1)] == ["ES2004a", "IS1009b"]
    item = found.item(0, RATE)
    assert item.facts["audio_filepath"] == "amicorpus/ES2004a/audio/ES2004a.Mix-Headset.wav"
    assert item.facts["segments"] == [[0.1, 0.6, "ES2A"], [0.4, 1.4, "ES2B"]]
    assert item.facts["uem"] == [[0.0, 1.9]]
    assert item.seconds == 2.0


def voxconverse(folder: Path) -> Path:
    """Lay out two recordings as VoxConverse does: audio in a folder, RTTM files beside it."""
    for name in ("abjxc", "afjiv"):
        write_audio(folder / "audio" / f"{name}.wav", channels=2, rate=44_100)
        write_text(folder / f"{name}.rttm", speaker(name, 0.0, 1.0, "spk00"))
    return folder


def test_voxconverse(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    write_text(tmp_path / "audio" / "._abjxc.wav", "left by another system")
    found = only(load(voxconverse(tmp_path)))
    items = found.items(RATE)
    assert [item.id for item in items] == ["abjxc", "afjiv"]
    assert [item.seconds for item in items] == [2.0, 2.0]
    assert "uem" not in items[0].facts


def test_one_file_for_all_recordings(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_audio(tmp_path / f"{name}.flac")
    write_text(
        tmp_path / "all.RTTM",
        ";; a comment",
        "SPKR-INFO a 1 <NA> <NA> <NA> unknown x <NA>",
        "LEXEME a 1 0.0 0.2 word lex x 0.9",
        speaker("a", 0, 1, "x"),
        "",
        speaker("b", 0, 1, "x"),
        speaker("a", 1, 0, "x"),
    )
    write_text(tmp_path / "all.uem", ";; a comment", "a 1 0 1", "b 1 0 1", "a 1 1.5 2")
    found = only(load(tmp_path))
    assert [line["uem"] for line in found.lines] == [[[0.0, 1.0], [1.5, 2.0]], [[0.0, 1.0]]]
    assert found.lines[0]["segments"] == [[0.0, 1.0, "x"], [1.0, 1.0, "x"]]


@pytest.mark.parametrize("pipe", ["a.rttm", "a.wav"])
def test_a_pipe_in_place_of_a_file_is_refused(tmp_path: Path, pipe: str) -> None:
    write_audio(tmp_path / "a.wav")
    write_text(tmp_path / "a.rttm", speaker("a", 0, 1, "x"))
    (tmp_path / pipe).unlink()
    os.mkfifo(tmp_path / pipe)
    # A reader that opens it all the same gets something that is neither, and does not wait.
    writer = threading.Thread(target=(tmp_path / pipe).write_text, args=["?"], daemon=True)
    writer.start()
    with pytest.raises(CorpusError, match="is no regular file"):
        load(tmp_path)


def test_an_empty_rttm_says_that_nobody_speaks(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    write_text(tmp_path / "a.rttm")
    assert only(load(tmp_path)).lines[0]["segments"] == []


def test_sets_of_both_forms_side_by_side(tmp_path: Path) -> None:
    manifest(tmp_path / "spoken")
    ami(tmp_path / "meetings")
    found = load(tmp_path)
    assert list(found.sets) == ["meetings", "spoken"]
    assert list(found.choose(("conversations",), "segments")) == ["meetings"]
    assert list(found.choose(("clean",), "text")) == ["spoken"]
    assert found.choose(("trials",), "trials") == {}
    assert found.speech.name == "spoken"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: write_text(f / "x.rttm", "SPEAKER a 1 0.0"), r"x\.rttm:1: no RTTM line .*read"),
        (
            lambda f: write_text(f / "x.rttm", ";; x", "SPEAKER a 1 nan 1 <NA> <NA> x"),
            r"x\.rttm:2: .*no stretch of time",
        ),
        (
            lambda f: write_text(f / "x.rttm", "SPEAKER a 1 inf 1 <NA> <NA> x"),
            r"x\.rttm:1: .*no stretch of time",
        ),
        (
            lambda f: write_text(f / "x.rttm", "SPEAKER a 1 -1 1 <NA> <NA> x"),
            r"x\.rttm:1: .*no stretch of time",
        ),
        (
            lambda f: write_text(f / "x.rttm", "SPEAKER a 1 0 1e400 <NA> <NA> x"),
            r"x\.rttm:1: .*no stretch of time",
        ),
        (
            lambda f: write_text(f / "x.rttm", ";; x", "SPEEKER a 1 0 1 <NA> <NA> x <NA> <NA>"),
            r"x\.rttm:2: .*SPEEKER is none of the types SPEAKER, NOSCORE, SEGMENT",
        ),
        (
            lambda f: write_text(f / "x.rttm", "SPEAKER a 1 x y <NA> <NA> Ann <NA> <NA>"),
            r"x\.rttm:1: .*not where they belong",
        ),
        (
            lambda f: write_text(f / "x.rttm", "SPEAKER a b 1 0 1 speech good Ann Lee 0.5 0.5"),
            r"x\.rttm:1: .*where names hold blanks, write them without, or tabs",
        ),
        (
            lambda f: write_text(f / "x.rttm", speaker("wav/ghost.wav", 0, 1, "x")),
            r"speaks of ghost, of which there is no audio file: add ghost\.wav \(or",
        ),
        (
            lambda f: write_text(f / "x.rttm", *(speaker(f"{n}/a.wav", 0, 1, "x") for n in "pq")),
            r"x\.rttm speaks of p/a\.wav and of q/a\.wav, which both mean a: give",
        ),
        (lambda f: (f / "x.rttm").write_bytes(b"\xff\xfe\0"), "Save it as UTF-8"),
        (
            lambda f: write_text(f / "x.rttm", speaker("ghost", 0, 1, "x")),
            r"x\.rttm speaks of ghost, of which there is no audio file: add ghost\.wav",
        ),
        (
            lambda f: write_text(f / "x.rttm", speaker("abjxc", 0, 1, "x")),
            r"abjxc\.rttm and .*x\.rttm both speak of abjxc: keep one",
        ),
        (
            lambda f: write_text(f / "abjxc.rttm", speaker("abjxc", 2000, 500, "x")),
            r"abjxc\.rttm: segments begin at 2000 s, and the recording ends at 2 s",
        ),
        (
            lambda f: write_audio(f / "raw" / "abjxc.flac"),
            r"speaks of abjxc, which may be .*abjxc\.wav, .*abjxc\.flac: keep one",
        ),
        (lambda f: write_text(f / "x.uem", "abjxc 1 0 2"), "none of them speaks of afjiv. Add"),
        (
            lambda f: write_text(f / "x.uem", "abjxc 1 0 2", "afjiv 1 0 2", "ghost 1 0 2"),
            r"x\.uem speaks of ghost, of which there is no RTTM",
        ),
        (lambda f: write_text(f / "x.uem", "abjxc 1 2 0"), r"x\.uem:1: .*no stretch of time"),
        (lambda f: write_text(f / "x.uem", "abjxc 1 nan 2"), r"x\.uem:1: .*no stretch of time"),
        (lambda f: write_text(f / "x.uem", "abjxc 0 2"), r"x\.uem:1: no UEM line"),
        (lambda f: write_text(f / "x.uem", "abjxc 1 0 2 all"), r"x\.uem:1: no UEM line"),
        (lambda f: write_text(f / "x.uem", ";; nothing"), r"x\.uem is empty"),
        (lambda f: (f / "audio/abjxc.wav").write_bytes(b"no audio"), "cannot read audio file"),
        (lambda f: (f / "audio/abjxc.wav").unlink(), "no audio file: add abjxc.wav"),
    ],
)
def test_bad_folders(tmp_path: Path, change: Callable[[Path], object], said: str) -> None:
    change(voxconverse(tmp_path))
    with pytest.raises(CorpusError, match=said):
        load(tmp_path)


def test_links_out_of_the_corpus_are_refused(tmp_path: Path) -> None:
    outside = write_audio(tmp_path / "elsewhere" / "a.wav")
    inside = tmp_path / "corpus"
    write_text(inside / "a.rttm", speaker("a", 0, 1, "x"))
    try:
        (inside / "a.wav").symlink_to(outside)
    except OSError:
        pytest.skip("this system has no symbolic links")
    with pytest.raises(CorpusError, match=r"a\.wav lies outside the corpus: move it inside"):
        load(inside)


def test_nothing_there(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "a.wav"):
        with pytest.raises(CorpusError, match=r"no manifest\.jsonl in .*A corpus is a folder"):
            load(path)


@pytest.mark.parametrize(
    ("line", "name", "start", "end", "who"),
    [
        ("SPEAKER rec 1 0.5 1 <NA> <NA> Ann", "rec", 0.5, 1.5, "Ann"),
        ("SPEAKER rec 1 0.5 1 <NA> <NA> Ann 0.9", "rec", 0.5, 1.5, "Ann"),
        ("SPEAKER rec 1 0.5 1 speech good Ann <NA> <NA>", "rec", 0.5, 1.5, "Ann"),
        ("SPEAKER rec 1 0.5 1 <NA> <NA> <NA> <NA> <NA>", "rec", 0.5, 1.5, "<NA>"),
        ("SPEAKER rec 1 0.5 1 <NA> <NA> 7 <NA> <NA>", "rec", 0.5, 1.5, "7"),
        ("SPEAKER rec 1 0.5 1 <NA> <NA> Ann Smith <NA> <NA>", "rec", 0.5, 1.5, "Ann Smith"),
        ("SPEAKER rec 1 0.5 1 <NA> <NA> Ann Smith <NA>", "rec", 0.5, 1.5, "Ann Smith"),
        ("SPEAKER rec 1 0.5 1 <NA> <NA> Ann Smith", "rec", 0.5, 1.5, "Ann Smith"),
        ("SPEAKER rec 1 0.5 1 <NA> <NA> Ann M. Smith 0.5 <NA>", "rec", 0.5, 1.5, "Ann M. Smith"),
        ("SPEAKER rec 1 0.5 1 <NA> <NA> Speaker 2 <NA> <NA>", "rec", 0.5, 1.5, "Speaker 2"),
        ("SPEAKER mono vocals 1 0.5 1 <NA> <NA> A <NA> <NA>", "mono vocals", 0.5, 1.5, "A"),
        ("SPEAKER mono vocals 1 0.5 1 <NA> <NA> A <NA>", "mono vocals", 0.5, 1.5, "A"),
        ("SPEAKER mono vocals 1 0.5 1 <NA> <NA> 7 <NA>", "mono vocals", 0.5, 1.5, "7"),
        ("SPEAKER mono vocals 1 0.5 1 <NA> <NA> A", "mono vocals", 0.5, 1.5, "A"),
        ("SPEAKER take 2 1 0.5 1 <NA> <NA> A B <NA> <NA>", "take 2", 0.5, 1.5, "A B"),
        ("SPEAKER\ttake 2\t1\t0.5\t1\tx\ty\tA 3\t1\t<NA>", "take 2", 0.5, 1.5, "A 3"),
    ],
)
def test_rttm_by_its_fields(
    tmp_path: Path, line: str, name: str, start: float, end: float, who: str
) -> None:
    assert read_rttm(write_text(tmp_path / "a.rttm", line)) == {name: [(start, end, who)]}


def test_names_with_blanks_find_their_audio(tmp_path: Path) -> None:
    folder = tmp_path / "my set (1) [new]"
    write_audio(folder / "mono vocals.wav")
    write_text(folder / "a.rttm", speaker("mono vocals", 0, 1, "Ann Smith"))
    write_text(folder / "a.uem", "mono vocals 1 0.5 1.5")
    found = only(load(folder))
    assert found.item(0, RATE).id == "mono vocals"
    assert found.lines[0]["segments"] == [[0.0, 1.0, "Ann Smith"]]
    assert found.lines[0]["uem"] == [[0.5, 1.5]]
    assert only(load(manifest(folder))).item(0, RATE).id == "my set (1) [new]-0000"


def test_names_with_folder_and_ending(tmp_path: Path) -> None:
    write_audio(tmp_path / "rec1.wav")
    write_text(tmp_path / "a.rttm", speaker("/data/wav/rec1.wav", 0, 1, "x"))
    write_text(tmp_path / "a.uem", "wav\\rec1.WAV 1 0 2")
    found = only(load(tmp_path))
    assert (found.identifier(0), found.lines[0]["uem"]) == ("rec1", [[0.0, 2.0]])


RTTM_TYPES = (
    *("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT"),
    *("SU", "IP", "CB", "A/P", "SPKR-INFO"),
)


def test_noscore_is_not_scored_and_other_types_are_passed_over(tmp_path: Path) -> None:
    for name in "abc":
        write_audio(tmp_path / f"{name}.wav", 4.0)
    others = [f"{kind} a 1 1.5 0.5 <NA> <NA> <NA> <NA> <NA>" for kind in RTTM_TYPES]
    noscore = "NOSCORE b 1 0 1 <NA> <NA> <NA> <NA> <NA>", "NOSCORE b 1 2 9 <NA> <NA> <NA> <NA>"
    write_text(tmp_path / "all.rttm", speaker("a", 0, 3, "x"), *others, *noscore)
    write_text(tmp_path / "c.rttm", speaker("c", 0, 1, "x"))
    lines = only(load(tmp_path)).lines
    assert lines[0]["segments"] == [[0.0, 3.0, "x"]]
    assert lines[0]["uem"] == [[0.0, 1.5], [2.0, 4.0]]
    assert (lines[1]["segments"], lines[1]["uem"]) == ([], [[1.0, 2.0]])
    assert "uem" not in lines[2]
    write_text(tmp_path / "all.uem", "a 1 1 1.75", "a 1 3 4", "b 1 0 4", "c 1 0 1")
    found = [line["uem"] for line in only(load(tmp_path)).lines]
    assert found == [[[1.0, 1.5], [3.0, 4.0]], [[1.0, 2.0]], [[0.0, 1.0]]]
    parts = [{"audio_filepath": "a.wav", "rttm_filepath": "all.rttm", "offset": 1, "duration": 2}]
    write_text(tmp_path / "manifest.jsonl", *parts)
    assert only(load(tmp_path)).lines[0]["uem"] == [[0.0, 0.5], [1.0, 2.0]], "times of the part"


@pytest.mark.parametrize(
    "fields",
    [
        {"uem": []},
        {"uem": [[1.0, 1.0]]},
        {"uem": [[1.0, 1.01]]},
        {"uem": [[1.99, 5.0]]},
        {"uem": [[0.0, 0.5]], "offset": 1.0, "duration": 1.0},
        {"uem": [[1.8, 2.0]], "offset": 0.0, "duration": 1.0},
    ],
)
def test_a_uem_that_leaves_nothing(tmp_path: Path, fields: dict[str, Any]) -> None:
    item = only(load(manifest(tmp_path, segments=[{"start": 0, "end": 1}], **fields))).item(0, RATE)
    assert not item.is_scored
    task = Diarization()
    again = task.restored("a", task.truth(item), item.seconds)
    assert not again.is_scored, "nor is it from what the results keep"


@pytest.mark.parametrize("fields", [{}, {"uem": [[0.5, 0.6]]}, {"uem": [[1.0, 1.0], [0, 99]]}])
def test_a_uem_that_leaves_something(tmp_path: Path, fields: dict[str, Any]) -> None:
    item = only(load(manifest(tmp_path, segments=[{"start": 0, "end": 1}], **fields))).item(0, RATE)
    assert item.is_scored
    assert item.scored == [tuple(part) for part in fields.get("uem", [[0.0, 2.0]])]


def test_a_large_rttm_is_read_in_time(tmp_path: Path) -> None:
    lines = [speaker("a", number * 0.01, 0.01, f"s{number % 9}") for number in range(50_000)]
    path = write_text(tmp_path / "a.rttm", *lines)
    assert len(read_rttm(path)["a"]) == 50_000


def test_too_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "a.uem", *["a 1 0 1"] * 200)
    monkeypatch.setattr(text, "TEXT_BYTES", 1 << 10)
    with pytest.raises(CorpusError, match=r"a\.uem is larger than .*: split the test set"):
        read_uem(path)
    long = write_audio(tmp_path / "a.wav")
    monkeypatch.setattr(audio, "LONGEST", 1.5)
    with pytest.raises(CorpusError, match=r"a\.wav is 0\.0 hours long: cut it"):
        read_audio(long, RATE)


# --- audio -----------------------------------------------------------------------------------


def test_audio_is_mixed_and_resampled(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", 1.5, rate=48_000, channels=3)
    samples = read_audio(path, RATE)
    assert samples.shape == (24_000,)
    assert samples.dtype == np.float32
    # Three channels of 1/3, 2/3 and 3/3 of a tone of 0.3: 0.2 at its peak.
    assert np.abs(samples[1000:-1000]).max() == pytest.approx(0.2, abs=0.01)
    part = read_audio(path, 48_000, 0.5, 0.25)
    np.testing.assert_array_equal(part, read_audio(path, 48_000)[24_000:36_000])


def test_channels_are_kept_where_a_model_hears_them(tmp_path: Path) -> None:
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (9_000, 2)).astype(np.float32)
    path = tmp_path / "a.wav"
    soundfile.write(path, stereo, 44_100, subtype="FLOAT")
    found = read_audio(path, 44_100, channels=2)
    np.testing.assert_array_equal(found, stereo.T)
    np.testing.assert_array_equal(read_audio(path, 44_100), stereo.mean(axis=1))
    slower = read_audio(path, 22_050, channels=2)
    assert slower.shape == (2, 4_500)
    for one, alone in zip(slower, stereo.T, strict=True):
        soundfile.write(tmp_path / "one.wav", alone, 44_100, subtype="FLOAT")
        np.testing.assert_allclose(one, read_audio(tmp_path / "one.wav", 22_050), atol=1e-6)
    # What has another number of channels is mixed, and heard on each.
    np.testing.assert_array_equal(
        read_audio(tmp_path / "one.wav", 44_100, channels=2), [stereo[:, 1]] * 2
    )
    three = write_audio(tmp_path / "three.wav", channels=3)
    np.testing.assert_array_equal(
        read_audio(three, RATE, channels=2), [read_audio(three, RATE)] * 2
    )


def test_a_corpus_is_heard_with_channels(tmp_path: Path) -> None:
    stereo = np.linspace(-0.5, 0.5, 2 * RATE, dtype=np.float32).reshape(-1, 2)
    soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="FLOAT")
    write_text(tmp_path / "manifest.jsonl", '{"audio_filepath": "a.wav", "text": "a"}')
    mono = load(tmp_path)
    heard = mono.with_channels(2)
    assert heard.fingerprint == mono.fingerprint
    (item,) = heard.speech.items(RATE)
    np.testing.assert_array_equal(item.audio, stereo.T)
    assert item.seconds == 1.0
    # Hard inputs have as many channels as those that they are made from.
    loud = stress.make({"name": "a", "kind": "speech", "seconds": 2.5}, [item], RATE)
    assert loud.audio.shape == (2, 40_000) and loud.seconds == 2.5
    silent = stress.make({"name": "a", "kind": "silence", "seconds": 0.5}, [item], RATE)
    assert silent.audio.shape == (2, 8_000)


@pytest.mark.parametrize("values", [np.zeros(0), np.array([0.0, np.nan]), np.array([np.inf, 0])])
def test_audio_without_usable_samples(tmp_path: Path, values: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", values, RATE, subtype="FLOAT")
    with pytest.raises(CorpusError, match="no usable samples: restore it"):
        read_audio(tmp_path / "a.wav", RATE)
    with pytest.raises(CorpusError, match="no usable samples"):
        read_audio(write_audio(tmp_path / "b.wav"), RATE, offset=10.0)


def speech_like(seconds: float, rate: int = RATE, quiet_first: bool = False) -> np.ndarray:
    """Noise and then near silence, or the reverse: the two take different bit rates."""
    random = np.random.default_rng(0)
    loud = random.standard_normal(round(seconds * rate)) * 0.2
    half = slice(None, len(loud) // 2) if quiet_first else slice(len(loud) // 2, None)
    loud[half] *= 1e-4
    return loud.clip(-1, 1)


def write_mp3(path: Path, samples: np.ndarray, rate: int = RATE, header: bool = True) -> Path:
    """Write an MP3 of variable bit rate, with or without the Xing header that holds its length."""
    soundfile.write(
        path, samples, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5
    )
    if not header:
        data = path.read_bytes()
        assert b"Xing" in data[:64]
        path.write_bytes(data[data.index(data[:2], 4) :])
    return path


def test_an_mp3_is_as_long_as_what_is_decoded(tmp_path: Path) -> None:
    """Without a Xing header libsndfile's length is a guess, here of more than there is."""
    samples = speech_like(13.3, quiet_first=True)
    path = write_mp3(tmp_path / "a.mp3", samples, header=False)
    assert soundfile.info(path).duration > 20.0, "nothing is tested"
    found = read_audio(path, RATE)
    assert len(found) / RATE == pytest.approx(13.3, abs=inputs_audio.TOLERANCE)
    assert np.abs(found).max() < 2.0
    np.testing.assert_array_equal(found, read_audio(path, RATE))
    write_text(tmp_path / "a.rttm", speaker("a", 0, 1, "x"))
    test_set = only(load(tmp_path))
    assert test_set.lines[0]["duration"] == pytest.approx(13.3, abs=inputs_audio.TOLERANCE)
    assert test_set.item(0, RATE).seconds == len(found) / RATE


def test_an_mp3_that_libsndfile_does_not_read_to_its_end(tmp_path: Path) -> None:
    path = write_mp3(tmp_path / "a.mp3", speech_like(13.3), header=False)
    assert soundfile.info(path).duration < 12.0, "nothing is tested"
    with pytest.raises(CorpusError, match=r"lasts 13\.\d+ s, of which only \d+\.\d+ s can be read"):
        read_audio(path, RATE)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_an_mp3_cut_short_gains_nothing(tmp_path: Path, rate: int) -> None:
    path = write_mp3(tmp_path / "a.mp3", speech_like(6.0, rate), rate)
    whole = read_audio(path, rate)
    assert len(whole) == 6 * rate
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    write_text(tmp_path / "a.rttm", speaker("a", 0, 1, "x"))
    found = only(load(tmp_path)).item(0, rate).audio
    assert 0 < len(found) < len(whole)
    np.testing.assert_array_equal(found, whole[: len(found)])
    write_text(tmp_path / "manifest.jsonl", {"audio_filepath": "a.mp3", "duration": 6, "text": "x"})
    with pytest.raises(CorpusError, match=r"duration says 6 s, and a\.mp3 lasts \d\.\d+ s"):
        load(tmp_path)


def test_parts_of_an_mp3_are_those_of_the_whole(tmp_path: Path) -> None:
    """Seeking in an MP3, as soundfile does after every block too, ends at other samples."""
    path = write_mp3(tmp_path / "a.mp3", speech_like(80.0))
    found = read_audio(path, RATE)
    with soundfile.SoundFile(path) as file:
        np.testing.assert_array_equal(found, file.read(dtype="float32"))
    np.testing.assert_array_equal(read_audio(path, RATE, 30.0, 2.0), found[480_000:512_000])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {}),
        ("a.wav", {"subtype": "ULAW"}),
        ("a.wav", {"subtype": "GSM610"}),
        ("a.wav", {"subtype": "IMA_ADPCM"}),
        ("a.wav", {"subtype": "FLOAT"}),
        ("a.wav", {"format": "WAVEX"}),
        ("a.wav", {"format": "RF64"}),
        ("a.w64", {"format": "W64"}),
        ("a.aiff", {}),
        ("a.au", {}),
        ("a.sph", {"format": "NIST"}),
        ("a.flac", {}),
    ],
)
def test_audio_that_is_cut_short_is_refused(
    tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    path = tmp_path / name
    soundfile.write(path, speech_like(13.0), RATE, **options)
    assert len(read_audio(path, RATE)) / RATE == pytest.approx(13.0, abs=0.1)
    assert inputs_audio.audio_seconds(path) == pytest.approx(13.0, abs=0.1)
    data = path.read_bytes()
    for share in (0.3, 0.95):
        path.write_bytes(data[: round(share * len(data))])
        with pytest.raises(CorpusError) as raised:
            read_audio(path, RATE)
        numbers = [float(found) for found in re.findall(r"(\d+\.\d+) s\b", str(raised.value))]
        assert len(numbers) == 2, raised.value
        assert max(numbers) == pytest.approx(13.0, abs=0.2)
        assert min(numbers) < 13.0 * share + 0.2


def test_a_flac_that_ends_between_two_blocks_is_refused(tmp_path: Path) -> None:
    """libsndfile decodes it without an error, and ends early."""
    path = tmp_path / "a.flac"
    soundfile.write(path, speech_like(13.0), RATE)
    data = path.read_bytes()
    frame = data[data.index(b"\xff\xf8") :][:4]
    starts = [at for at in range(len(data)) if data.startswith(frame, at)]
    path.write_bytes(data[: starts[len(starts) // 2]])
    with pytest.raises(CorpusError, match=r"cut short: its header promises 13\.00 s, .*holds \d"):
        read_audio(path, RATE)
    with pytest.raises(CorpusError, match=r"cut short: its header promises 13\.00 s"):
        read_audio(path, RATE, 1.0, 11.0)
    assert len(read_audio(path, RATE, 1.0, 1.0)) == RATE, "what is asked for is there"


@pytest.mark.parametrize(("name", "options"), [("a.mp3", {}), ("a.ogg", {"subtype": "VORBIS"})])
def test_damaged_audio_of_another_length_is_refused(
    tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    """Where the damage lies, decoders leave out what they cannot read."""
    path = tmp_path / name
    soundfile.write(path, speech_like(13.0), RATE, **options)
    data = bytearray(path.read_bytes())
    hole = slice(len(data) // 4, len(data) // 2)
    data[hole] = b"\x55" * len(data[hole])
    path.write_bytes(data)
    line = {"audio_filepath": name, "duration": 13.0, "text": "x"}
    write_text(tmp_path / "manifest.jsonl", line)
    with pytest.raises(CorpusError, match=r"\d s can be decoded, where .* says 13\.00 s|says 13 s"):
        only(load(tmp_path)).item(0, RATE)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_cut_short_is_what_it_holds(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, speech_like(13.0), RATE, format="OGG", subtype=subtype)
    whole = read_audio(path, RATE)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    found = read_audio(path, RATE)
    assert 0.1 < len(found) / len(whole) < 0.6
    np.testing.assert_array_equal(found, whole[: len(found)])


@pytest.mark.parametrize("promised", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFF0000, 0x80000000])
def test_a_wav_from_a_pipe(tmp_path: Path, promised: int) -> None:
    path = write_audio(tmp_path / "a.wav")
    whole = read_audio(path, RATE)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = promised.to_bytes(4, "little")
    path.write_bytes(data)
    np.testing.assert_array_equal(read_audio(path, RATE), whole)
    assert inputs_audio.audio_seconds(path) == 2.0


def test_a_flac_from_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, speech_like(6.0), RATE)
    whole = read_audio(path, RATE)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # The length: 36 bits of STREAMINFO, 0 where it is not known.
    data[22:26] = bytes(4)
    path.write_bytes(data)
    np.testing.assert_array_equal(read_audio(path, RATE), whole)
    np.testing.assert_array_equal(read_audio(path, RATE, 1.0, 2.0), whole[16_000:48_000])
    assert inputs_audio.audio_seconds(path) == 6.0


def test_a_format_that_cannot_seek(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speech_like(6.0, 8_000), 8_000, subtype="GSM610")
    whole = read_audio(path, 8_000)
    assert len(whole) == 48_000
    np.testing.assert_array_equal(read_audio(path, 8_000, 1.0, 2.0), whole[8_000:24_000])


def test_samples_far_beyond_full_scale_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.0, -12_000.0]), RATE, subtype="FLOAT")
    with pytest.raises(CorpusError, match=r"samples of 12000, and full scale is 1.*32768"):
        read_audio(tmp_path / "a.wav", RATE)


# --- speech of a corpus without utterances -----------------------------------------------------


def test_long_recordings_give_excerpts(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", 90.0, rate=4_000)
    turns = [speaker("a", start, 3.0, "x") for start in np.arange(2.5, 85.0, 4.0)]
    write_text(tmp_path / "a.rttm", speaker("a", 0, 0.3, "y"), *turns)
    found = load(tmp_path)
    speech = found.speech
    items = speech.items(4_000)
    assert 4 <= len(items) <= 8
    assert items[0].id == "a-2.50"
    assert all(0 < item.seconds <= 8.0 for item in items)
    assert not any(item.text or "segments" in item.facts for item in items)
    whole = only(found).item(0, 4_000).audio
    np.testing.assert_array_equal(items[0].audio, whole[10_000:42_000])
    short = load(voxconverse(tmp_path / "short"))
    assert short.speech is only(short)


def test_the_committed_corpus() -> None:
    found = load()
    assert found.speech.name == "clean"
    assert {"clean", "hard"} <= set(found.choose(("clean", "hard"), "text"))
    assert len(found.fingerprint) == 16
