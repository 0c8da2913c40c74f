"""Layouts of corpora: a small tree of each form as people have it, and its usual damage."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_corpus import RATE, facts_of, only, speaker, write_audio, write_mp3, write_text

from compat.inputs import layouts
from compat.inputs.audio import CorpusError
from compat.inputs.corpus import Corpus, load
from compat.inputs.layouts import choosing, parquet
from compat.inputs.layouts.layout import evaluated

Change = Callable[[Path], object]


def texts(corpus: Corpus) -> dict[str, str]:
    return {
        test_set.identifier(index): line["text"]
        for test_set in corpus.sets.values()
        for index, line in enumerate(test_set.lines)
    }


def edit(name: str, old: str, new: str) -> Change:
    """Return a change of a text file that has the old words, once."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes().decode()
        assert content.count(old) == 1
        (folder / name).write_bytes(content.replace(old, new).encode())

    return change


def recode(name: str, encoding: str) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_text(encoding="utf-8") + "à\n"
        (folder / name).write_bytes(content.encode(encoding))

    return change


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def windows(folder: Path, *names: str) -> None:
    """Save text files as Windows does: a mark at the beginning, carriage returns at line ends."""
    for name in names:
        content = (folder / name).read_text(encoding="utf-8").replace("\n", "\r\n")
        (folder / name).write_bytes(b"\xef\xbb\xbf" + content.encode())


def pack(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()


def hide(folder: Path, *names: str) -> None:
    """Add the files that macOS leaves in archives beside the true ones."""
    for name in names:
        path = folder / name
        path.with_name(f"._{path.name}").write_bytes(b"\0\x05\x16\x07Mac OS X")


def refused(load_from: Path, said: str) -> None:
    with pytest.raises(CorpusError, match=said) as raised:
        load(load_from)
    assert str(load_from) in str(raised.value)


# --- LibriSpeech ---------------------------------------------------------------------------------

CHAPTER = "test-clean/1089/134686"
TRANSCRIPTS = f"{CHAPTER}/1089-134686.trans.txt"


def librispeech(folder: Path) -> Path:
    for name in ("1089-134686-0000", "1089-134686-0001"):
        write_audio(folder / CHAPTER / f"{name}.flac")
    write_text(
        folder / TRANSCRIPTS, "1089-134686-0000 HE HOPED", "1089-134686-0001 STUFF IT INTO YOU"
    )
    write_audio(folder / "test-other/367/130732/367-130732-0000.flac")
    write_text(folder / "test-other/367/130732/367-130732.trans.txt", "367-130732-0000 LOBSTERS")
    write_text(folder / "train-clean-100/19/198/19-198.trans.txt", "19-198-0000 NOT THERE")
    write_text(folder / "SPEAKERS.TXT", "; ID |SEX| SUBSET", "1089 | M | test-clean")
    return folder


def test_librispeech(tmp_path: Path) -> None:
    """Of the whole download the parts to test on; a part, a speaker or a chapter by itself."""
    found = load(librispeech(tmp_path / "LibriSpeech"))
    assert list(found.sets) == ["test-clean", "test-other"]
    assert texts(found)["1089-134686-0001"] == "STUFF IT INTO YOU"
    assert found.described == ("LibriSpeech: test-clean (2 recordings), test-other (1 recordings)")
    item = found.sets["test-clean"].item(0, RATE)
    assert (item.facts["lang"], item.facts["speaker"], item.seconds) == ("en", "1089", 2.0)
    for name, count in (("test-clean", 2), ("test-clean/1089", 2), (CHAPTER, 2)):
        assert len(only(load(tmp_path / "LibriSpeech" / name)).lines) == count


def test_librispeech_of_windows_and_macos(tmp_path: Path) -> None:
    librispeech(tmp_path)
    before = texts(load(tmp_path))
    windows(tmp_path, TRANSCRIPTS)
    hide(tmp_path, TRANSCRIPTS, f"{CHAPTER}/1089-134686-0000.flac")
    flac = tmp_path / CHAPTER / "1089-134686-0000.flac"
    write_audio(flac.with_suffix(".wav"), rate=8000)
    flac.unlink()
    assert texts(load(tmp_path)) == before
    assert load(tmp_path).sets["test-clean"].item(0, RATE).seconds == 2.0, "resampled"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove(f"{CHAPTER}/1089-134686-0001.flac"), r"txt:2: audio file .*0001\.flac is missing"),
        (edit(TRANSCRIPTS, "1089-134686-0001", "1089-134686-0000"), "two recordings are called"),
        (edit(TRANSCRIPTS, " HE HOPED", ""), r"trans\.txt:1: 1089-134686-0000 has no text"),
        (edit(TRANSCRIPTS, "1089-134686-0000 ", "../../x "), "is missing"),
        (edit(TRANSCRIPTS, "1089-134686-0000 ", "../../../../x "), "lies outside the corpus"),
        (recode(TRANSCRIPTS, "latin-1"), "Save it as UTF-8"),
        (recode(TRANSCRIPTS, "utf-16"), "Save it as UTF-8"),
    ],
)
def test_damaged_librispeech(tmp_path: Path, change: Change, said: str) -> None:
    change(librispeech(tmp_path))
    refused(tmp_path, said)


# --- Common Voice --------------------------------------------------------------------------------

HEADER = ("client_id", "path", "sentence", "up_votes", "locale")


def tsv(path: Path, *rows: tuple[str, ...], header: tuple[str, ...] = HEADER) -> Path:
    return write_text(path, *("\t".join(row) for row in (header, *rows)))


def common_voice(folder: Path) -> Path:
    """Two languages of a release, their clips as MP3 at 48 and 32 kHz."""
    time = np.arange(96_000) / 48_000
    tone = (0.3 * np.sin(2 * np.pi * 300 * time)).astype(np.float32)
    for language, rate in (("hi", 48_000), ("es", 32_000)):
        (folder / language / "clips").mkdir(parents=True)
        for number in (1, 2):
            write_mp3(
                folder / language / "clips" / f"common_voice_{language}_{number}.mp3", tone, rate
            )
    names = [f"common_voice_hi_{number}.mp3" for number in (1, 2)]
    tsv(
        folder / "hi/test.tsv",
        ("c1", names[0], "की बात", "2", "hi"),
        ("c2", names[1], '"हाँ" कहा', "2", "hi"),
    )
    tsv(folder / "hi/train.tsv", ("c1", "common_voice_hi_9.mp3", "गया", "2", "hi"))
    tsv(folder / "hi/reported.tsv", header=("sentence", "reason"))
    # An early release: without locale, and clips named without their ending.
    tsv(
        folder / "es/dev.tsv",
        ("c3", "common_voice_es_1", "1 o 2", "2"),
        ("c3", "common_voice_es_2", "¿Qué?", ""),
        header=HEADER[:-1],
    )
    tsv(folder / "es/validated.tsv", header=HEADER[:-1])
    return folder


def test_common_voice(tmp_path: Path) -> None:
    found = load(common_voice(tmp_path / "cv-corpus"))
    assert list(found.sets) == ["es-dev", "hi-test"]
    assert found.described.startswith("Common Voice: es-dev (2 recordings), hi-test (2")
    assert texts(found)["common_voice_hi_2"] == '"हाँ" कहा', "quotation marks are text"
    item = found.sets["hi-test"].item(0, RATE)
    assert (item.facts["lang"], item.facts["speaker"]) == ("hi", "c1")
    assert item.seconds == pytest.approx(2.0, abs=0.1)
    assert found.sets["es-dev"].lines[0]["lang"] == "es", "the folder's name"
    assert list(load(tmp_path / "cv-corpus/hi").sets) == ["hi-test"]
    assert list(load(tmp_path / "cv-corpus/es/dev.tsv").sets) == ["dev"]


def test_common_voice_of_windows_and_macos_packed(tmp_path: Path) -> None:
    common_voice(tmp_path)
    before = texts(load(tmp_path))
    windows(tmp_path, "hi/test.tsv", "es/dev.tsv")
    hide(tmp_path, "hi/test.tsv", "hi/clips/common_voice_hi_1.mp3")
    assert texts(load(tmp_path)) == before
    pack(tmp_path, "hi/test.tsv")
    assert texts(load(tmp_path)) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("hi/clips/common_voice_hi_2.mp3"), r"test\.tsv:3: audio file .*_2\.mp3 is missing"),
        (
            lambda f: (f / "hi/clips/common_voice_hi_2.mp3").write_bytes(b""),
            r"cannot read audio file .*common_voice_hi_2\.mp3",
        ),
        (edit("hi/test.tsv", "की बात", "की\tबात"), r"test\.tsv:2: 6 fields where the header has 5"),
        (edit("hi/test.tsv", "की बात", ""), r"test\.tsv:2: common_voice_hi_1\.mp3 has no sentence"),
        (
            edit("hi/test.tsv", "\t".join(HEADER) + "\n", ""),
            r"no column 'path'.*Restore the header",
        ),
        (
            edit("hi/test.tsv", "_hi_2.mp3", "_hi_1.mp3"),
            "two recordings are called common_voice_hi",
        ),
        (edit("hi/test.tsv", "common_voice_hi_1", "../../../x"), "lies outside the corpus"),
        (edit("hi/test.tsv", "common_voice_hi_1.mp3", "/etc/hosts"), "is missing: restore it"),
        (recode("hi/test.tsv", "utf-16"), "Save it as UTF-8"),
        (lambda f: tsv(f / "hi/test.tsv"), r"test\.tsv lists no recordings"),
    ],
)
def test_damaged_common_voice(tmp_path: Path, change: Change, said: str) -> None:
    change(common_voice(tmp_path))
    refused(tmp_path, said)


# --- LJSpeech ------------------------------------------------------------------------------------


def ljspeech(folder: Path) -> Path:
    for number in (1, 2):
        write_audio(folder / f"wavs/LJ001-000{number}.wav", rate=22_050)
    lines = (
        'LJ001-0001|in 1905, "he said"|in nineteen oh five, "he said"',
        "LJ001-0002|in being modern.|",
    )
    write_text(folder / "metadata.csv", *lines)
    return folder


def test_ljspeech(tmp_path: Path) -> None:
    found = load(ljspeech(tmp_path / "LJSpeech-1.1"))
    assert found.described == "LJSpeech: LJSpeech-1.1 (2 recordings)"
    assert texts(found) == {
        "LJ001-0001": 'in nineteen oh five, "he said"',
        "LJ001-0002": "in being modern.",
    }
    item = only(found).item(0, RATE)
    assert item.seconds == 2.0 and "lang" not in item.facts
    assert load(tmp_path / "LJSpeech-1.1", "de").sets["LJSpeech-1.1"].lines[0]["lang"] == "de"
    windows(tmp_path / "LJSpeech-1.1", "metadata.csv")
    hide(tmp_path / "LJSpeech-1.1", "metadata.csv", "wavs/LJ001-0001.wav")
    assert texts(load(tmp_path / "LJSpeech-1.1/metadata.csv")) == texts(found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("wavs/LJ001-0002.wav"), r"metadata\.csv:2: audio file .*0002\.wav is missing"),
        (edit("metadata.csv", "LJ001-0002", "LJ001-0001"), "two recordings are called LJ001-0001"),
        (edit("metadata.csv", "in being modern.", ""), r"metadata\.csv:2: LJ001-0002 has no text"),
        (edit("metadata.csv", "in being modern.|", "a|b|c"), "4 fields instead of 2 or 3"),
        (edit("metadata.csv", "LJ001-0002", "../../x"), "lies outside the corpus"),
        (recode("metadata.csv", "latin-1"), "Save it as UTF-8"),
    ],
)
def test_damaged_ljspeech(tmp_path: Path, change: Change, said: str) -> None:
    change(ljspeech(tmp_path))
    refused(tmp_path, said)


# --- ESC-50 and UrbanSound8K ---------------------------------------------------------------------

ESC = "meta/esc50.csv"
URBAN = "metadata/UrbanSound8K.csv"


def labels(corpus: Corpus) -> dict[str, str]:
    test_set = only(corpus)
    return {test_set.identifier(i): line["label"] for i, line in enumerate(test_set.lines)}


def esc50(folder: Path) -> Path:
    names = ("1-100032-A-0.wav", "1-17367-A-10.wav")
    for name in names:
        write_audio(folder / "audio" / name, rate=44_100)
    write_text(
        folder / ESC,
        "filename,fold,target,category,esc10,src_file,take",
        f"{names[0]},1,0,dog,True,100032,A",
        f"{names[1]},1,10,rain,True,17367,A",
    )
    return folder


def urbansound8k(folder: Path) -> Path:
    """Slices of many rates, some of them with two channels."""
    write_audio(folder / "audio/fold5/100032-3-0-0.wav", 0.3, rate=44_100, channels=2)
    write_audio(folder / "audio/fold1/101415-3-0-2.wav", 2.0, rate=96_000)
    write_text(
        folder / URBAN,
        "slice_file_name,fsID,start,end,salience,fold,classID,class",
        "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark",
        "101415-3-0-2.wav,101415,1.0,3.0,1,1,8,siren",
    )
    return folder


def test_esc50(tmp_path: Path) -> None:
    found = load(esc50(tmp_path / "ESC-50-master"))
    assert found.described == "ESC-50: ESC-50-master (2 recordings)"
    assert labels(found) == {"1-100032-A-0": "dog", "1-17367-A-10": "rain"}
    assert only(found).item(0, 48_000).facts["label"] == "dog" and facts_of(only(found)) == set()
    assert only(found).knows("label")
    windows(tmp_path / "ESC-50-master", ESC)
    hide(tmp_path / "ESC-50-master", ESC, "audio/1-17367-A-10.wav")
    assert labels(load(tmp_path / "ESC-50-master" / ESC)) == labels(found)


def test_urbansound8k(tmp_path: Path) -> None:
    found = load(urbansound8k(tmp_path / "UrbanSound8K"))
    assert found.described == "UrbanSound8K: UrbanSound8K (2 recordings)"
    assert labels(found) == {"100032-3-0-0": "dog_bark", "101415-3-0-2": "siren"}
    assert only(found).item(0, 48_000).audio.shape == (14_400,)
    assert labels(load(tmp_path / "UrbanSound8K" / URBAN)) == labels(found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("audio/1-17367-A-10.wav"), r"esc50\.csv:3: audio file .*A-10\.wav is missing"),
        (edit(ESC, ",rain,", ",,"), r"esc50\.csv:3: no category"),
        (edit(ESC, "1-17367-A-10.wav", ""), r"esc50\.csv:3: no filename"),
        (edit(ESC, "1-17367-A-10.wav", "1-100032-A-0.wav"), "two recordings are called 1-100032"),
        (edit(ESC, "10,rain,", "10,rain, heavy,"), "8 fields where the header has 7"),
        (edit(ESC, "1-17367-A-10.wav", "../../x.wav"), "lies outside the corpus"),
        (recode(ESC, "utf-16"), "no manifest.jsonl"),
        (recode(ESC, "latin-1"), "Save it as UTF-8"),
        (lambda f: write_text(f / ESC, "filename,category"), r"esc50\.csv lists no recordings"),
    ],
)
def test_damaged_esc50(tmp_path: Path, change: Change, said: str) -> None:
    change(esc50(tmp_path))
    refused(tmp_path, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit(URBAN, ",5,3,", ",6,3,"), r"csv:2: audio file .*fold6.100032-3-0-0\.wav is missing"),
        (edit(URBAN, ",dog_bark", ","), "csv:2: no class"),
    ],
)
def test_damaged_urbansound8k(tmp_path: Path, change: Change, said: str) -> None:
    change(urbansound8k(tmp_path))
    refused(tmp_path, said)


# --- AudioCaps -----------------------------------------------------------------------------------

CAPS = "test.csv"


def audiocaps(folder: Path) -> Path:
    """Clips under each of the usual names, and one that is no longer to be had."""
    for name in ("r1nicOVtvkQ_130.wav", "YUDGBjjwyaqE.flac", "103541.wav"):
        write_audio(folder / "test" / name)
    write_audio(folder / "train/r1nicOVtvkQ_130.wav", 3.0)
    rows = [
        "audiocap_id,youtube_id,start_time,caption",
        "103549,r1nicOVtvkQ,130,A woman talks nearby as water pours",
        '103548,r1nicOVtvkQ,130,"Speech, and the ""splash"" of water"',
        "103541,-yeau2LzTXs,30,Constant rattling noise and sharp vibrations",
        "103537,UDGBjjwyaqE,20,Multiple clanging and clanking sounds",
        "103533,gonegonegon,5,A clip that is gone",
    ]
    write_text(folder / CAPS, *rows)
    write_text(folder / "train.csv", rows[0], "1,other,1,Not there")
    return folder


def test_audiocaps(tmp_path: Path) -> None:
    found = load(audiocaps(tmp_path / "AudioCaps"))
    assert found.described == "AudioCaps: AudioCaps-test (3 recordings)"
    captions = {line["id"]: line["caption"] for line in only(found).lines}
    assert captions == {
        "r1nicOVtvkQ_130": [
            "A woman talks nearby as water pours",
            'Speech, and the "splash" of water',
        ],
        "-yeau2LzTXs_30": "Constant rattling noise and sharp vibrations",
        "UDGBjjwyaqE_20": "Multiple clanging and clanking sounds",
    }
    assert only(found).item(0, RATE).seconds == 2.0, "the part's own file"
    windows(tmp_path / "AudioCaps", CAPS)
    again = load(tmp_path / "AudioCaps" / CAPS)
    assert {line["id"]: line["caption"] for line in only(again).lines} == captions


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: shutil.rmtree(f / "test"), r"csv:2: no audio file r1nicOVtvkQ_130 or r1nicOV"),
        (edit(CAPS, "Multiple clanging and clanking sounds", ""), "csv:5: a row without caption"),
        (edit(CAPS, "130,A woman talks", "130,A woman, who talks"), "5 fields where the header"),
        (edit(CAPS, '"Speech, and the ""s', '"Speech, and the "s'), "Correct the quotation marks"),
        (
            lambda f: write_text(f / CAPS, "audiocap_id,youtube_id,start_time,caption"),
            r"test\.csv names no clips",
        ),
    ],
)
def test_damaged_audiocaps(tmp_path: Path, change: Change, said: str) -> None:
    folder = audiocaps(tmp_path)
    shutil.rmtree(folder / "train")
    change(folder)
    refused(tmp_path, said)


# --- Kaldi ---------------------------------------------------------------------------------------

DATA = "data/test"


def kaldi(folder: Path, segments: bool = True) -> Path:
    """A recipe's folder: paths begin where the recipe is run, and some are absolute."""
    write_audio(folder / "audio/call one.wav", 4.0, rate=8000)
    absolute = write_audio(folder / "audio/call2.wav", 3.0)
    data = folder / DATA
    write_text(data / "wav.scp", "rec1 audio/call one.wav", f"rec2 {absolute}")
    if segments:
        write_text(data / "segments", "s1-a rec1 0.5 1.5", "s1-b rec1 2.0 -1", "s2-a rec2 0 3.0")
        write_text(data / "text", "s1-a hello\tthere", "s1-b good bye", "s2-a")
        write_text(data / "utt2spk", "s1-a s1", "s1-b s1", "s2-a s2")
        write_text(data / "utt2lang", "s1-a de", "s1-b de", "s2-a de")
    else:
        write_text(data / "text", "rec1 hello", "rec2 good bye")
    return folder


def test_kaldi(tmp_path: Path) -> None:
    found = load(kaldi(tmp_path))
    assert found.described == "Kaldi: data-test (3 recordings)"
    assert texts(found) == {"s1-a": "hello\tthere", "s1-b": "good bye", "s2-a": ""}
    items = only(found).items(RATE)
    assert [item.seconds for item in items] == [1.0, 2.0, 3.0]
    assert [item.facts["speaker"] for item in items] == ["s1", "s1", "s2"]
    assert {item.facts["lang"] for item in items} == {"de"}
    windows(tmp_path / DATA, "wav.scp", "segments", "text", "utt2spk")
    pack(tmp_path / DATA, "segments", "text")
    assert texts(load(tmp_path)) == texts(found)


def test_kaldi_without_segments(tmp_path: Path) -> None:
    found = load(kaldi(tmp_path, segments=False))
    assert texts(found) == {"rec1": "hello", "rec2": "good bye"}
    (tmp_path / DATA / "text").unlink()
    assert facts_of(only(load(tmp_path))) == set()


@pytest.mark.parametrize(
    "command",
    [
        "sox audio/call2.wav -t wav - |",
        "touch {}/ran |",
        "| touch {}/ran",
        "sph2pipe -f wav -c 1 a.sph |  ",
        "cat audio/call2.wav | touch {}/ran |",
    ],
)
def test_commands_in_a_list_of_recordings_are_never_run(tmp_path: Path, command: str) -> None:
    kaldi(tmp_path)
    lines = (tmp_path / DATA / "wav.scp").read_text().splitlines()
    write_text(tmp_path / DATA / "wav.scp", lines[0], f"rec2 {command.format(tmp_path)}")
    refused(tmp_path, r"wav\.scp:2: .* is a command, which is never run\. Write its output")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("audio/call one.wav"), "audio file audio/call one.wav is missing below"),
        (edit(f"{DATA}/wav.scp", "audio/call one.wav", "raw.ark:42"), "lies in a Kaldi archive"),
        (edit(f"{DATA}/wav.scp", "audio/call one.wav", ""), r"wav\.scp:1: no audio file is named"),
        (edit(f"{DATA}/wav.scp", "audio/call one.wav", "/etc/hostname"), r"outside.*holds both"),
        (
            edit(f"{DATA}/wav.scp", "audio/call one.wav", "../../../x.wav"),
            "lies outside the corp",
        ),
        (edit(f"{DATA}/wav.scp", "rec2", "rec1"), r"wav\.scp:2: rec1 is there already, in .*:1"),
        (edit(f"{DATA}/text", "s1-b", "s1-a"), r"text:2: s1-a is there already"),
        (edit(f"{DATA}/text", "s1-b good bye\n", ""), r"has no line of s1-b, .*fix_data_dir"),
        (edit(f"{DATA}/text", "s1-b", "s9-b"), r"text:2: s9-b is not in segments.*fix_data_dir"),
        (edit(f"{DATA}/segments", "rec1 0.5 1.5", "rec1 1.5 0.5"), r"segments:1: 1\.5 to 0\.5 s"),
        (edit(f"{DATA}/segments", "0.5 1.5", "0.5"), r"segments:1: .*utterance recording start"),
        (edit(f"{DATA}/segments", "rec1 0.5 1.5", "rec7 0.5 1.5"), r"rec7 is not in wav\.scp"),
        (edit(f"{DATA}/segments", "0.5 1.5", "500 1500"), r"the offset is 500 s, .*lasts 4 s"),
        (edit(f"{DATA}/segments", "0.5 1.5", "nan 1.5"), "no stretch of time"),
        (recode(f"{DATA}/text", "latin-1"), "Save it as UTF-8"),
    ],
)
def test_damaged_kaldi(tmp_path: Path, change: Change, said: str) -> None:
    write_audio(tmp_path / "x.wav")
    change(kaldi(tmp_path / "corpus"))
    refused(tmp_path / "corpus", said)


def test_a_kaldi_folder_names_only_audio_inside_the_corpus(tmp_path: Path) -> None:
    kaldi(tmp_path)
    refused(
        tmp_path / DATA, r"call one\.wav is missing below .*test\. .*name that one with --corpus"
    )
    edit(f"{DATA}/wav.scp", "audio/call one.wav", str(tmp_path / "audio/call2.wav"))(tmp_path)
    refused(tmp_path / DATA, "lies outside the corpus: move it inside, or name a folder")


# --- MUSDB18 -------------------------------------------------------------------------------------

STEMS = ("drums", "bass", "other", "vocals")


def musdb18(folder: Path) -> Path:
    for song in ("train/Band - Old", "test/Band - Song #1", "test/Duo - Ça va"):
        for name in ("mixture", *STEMS):
            write_audio(folder / song / f"{name}.wav", 1.0, 44_100, channels=2)
    return folder


def test_musdb18(tmp_path: Path) -> None:
    found = load(musdb18(tmp_path / "musdb18hq"))
    assert found.described == "MUSDB18: test (2 recordings)"
    line = only(found).lines[1]
    assert line["id"] == "Duo - Ça va" and only(found).knows("stems")
    assert line["stems"] == {stem: f"Duo - Ça va/{stem}.wav" for stem in STEMS}
    assert only(found).item(1, RATE).facts["stems"] == line["stems"]
    hide(tmp_path / "musdb18hq", "test/Band - Song #1/mixture.wav")
    assert len(only(load(tmp_path / "musdb18hq/test")).lines) == 2
    (song,) = only(load(tmp_path / "musdb18hq/train/Band - Old")).lines
    assert song["stems"]["drums"] == "drums.wav"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("test/Duo - Ça va/bass.wav"), r"bass\.wav of the stem bass is missing"),
        (
            lambda f: write_audio(f / "test/Duo - Ça va/bass.wav", 0.9, 44_100),
            r"the stem bass\.wav lasts 0\.9 s, and its mixture mixture\.wav 1 s",
        ),
        (
            lambda f: (f / "test/Duo - Ça va/bass.wav").write_bytes(b"RIFF"),
            r"cannot read audio file .*bass\.wav",
        ),
        (lambda f: (f / "test/A - B.stem.mp4").write_bytes(b""), "musdbconvert"),
    ],
)
def test_damaged_musdb18(tmp_path: Path, change: Change, said: str) -> None:
    change(musdb18(tmp_path))
    refused(tmp_path, said)


def test_a_stem_outside_the_corpus_is_refused(tmp_path: Path) -> None:
    outside = write_audio(tmp_path / "secret.wav", 1.0)
    bass = musdb18(tmp_path / "set") / "test/Duo - Ça va/bass.wav"
    bass.unlink()
    bass.symlink_to(outside)
    refused(tmp_path / "set", "lies outside the corpus")
    write_audio(tmp_path / "own/a.wav", 1.0)
    for stems, said in (
        ({"drums": "../secret.wav"}, "lies outside the corpus"),
        ({"drums": str(outside)}, "lies outside the corpus"),
        ({"drums": "b.wav"}, "is missing: restore it"),
        ({"drums": "a\0.wav"}, "names no file"),
        ({"drums": 1}, "stems must name files"),
        ({}, "stems must name files"),
        (["a.wav"], "stems must name files"),
    ):
        line = {"audio_filepath": "a.wav", "stems": stems}
        write_text(tmp_path / "own/manifest.jsonl", line)
        refused(tmp_path / "own", rf"manifest\.jsonl:1: .*{said}")


@pytest.mark.parametrize("tags", ["rock", [1], ["rock", " "], {"rock": 1}])
def test_tags_of_another_form(tmp_path: Path, tags: Any) -> None:
    write_audio(tmp_path / "a.wav")
    write_text(tmp_path / "manifest.jsonl", {"audio_filepath": "a.wav", "tags": tags})
    refused(tmp_path, r"manifest\.jsonl:1: tags must be a list of words")


@pytest.mark.parametrize(
    "said", [{"label": 3}, {"label": " "}, {"caption": 3}, {"caption": ["a", ""]}, {"caption": []}]
)
def test_labels_and_captions_of_another_form(tmp_path: Path, said: Any) -> None:
    write_audio(tmp_path / "a.wav")
    write_text(tmp_path / "manifest.jsonl", {"audio_filepath": "a.wav", **said})
    refused(tmp_path, r"manifest\.jsonl:1: (label must be a word, and caption|caption is an empty)")


def test_labels_and_captions_of_a_manifest(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    line = {"audio_filepath": "a.wav", "label": "rain", "caption": ["Rain falls.", "It rains."]}
    write_text(tmp_path / "manifest.jsonl", {**line, "text": None})
    found = only(load(tmp_path))
    assert found.knows("label") and found.knows("caption") and not found.knows("text")
    assert found.item(0, RATE).facts["caption"] == ["Rain falls.", "It rains."]


# --- MTG-Jamendo ---------------------------------------------------------------------------------

JAMENDO = "data/splits/split-0"
COLUMNS = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"


def jamendo(folder: Path) -> Path:
    """The project's folder with its lists, and songs in either of the two sizes."""
    rock = "track_0000214\tartist_14\talbum_31\t14/214.mp3\t124.6\tgenre---rock\tmood---dark"
    jazz = "track_0000215\tartist_14\talbum_31\t15/215.mp3\t151.4\tgenre---jazz"
    tone = np.sin(np.arange(24_000) / 10).astype(np.float32)
    for name in ("audio/14/214.low.mp3", "15/215.mp3"):
        (folder / name).parent.mkdir(parents=True)
        write_mp3(folder / name, tone, 24_000)
    write_text(folder / JAMENDO / "autotagging-test.tsv", COLUMNS, rock, jazz)
    write_text(folder / JAMENDO / "autotagging_genre-test.tsv", COLUMNS, rock)
    write_text(folder / JAMENDO / "autotagging-train.tsv", COLUMNS, jazz)
    return folder


def tags(corpus: Corpus) -> list[list[str]]:
    return [line["tags"] for line in only(corpus).lines]


def test_mtg_jamendo(tmp_path: Path) -> None:
    found = load(jamendo(tmp_path / "mtg"))
    assert found.described.startswith("MTG-Jamendo: ") and list(found.sets) == [
        "data-splits-split-0-autotagging-test"
    ]
    assert tags(found) == [["genre---rock", "mood---dark"], ["genre---jazz"]]
    item = only(found).item(0, RATE)
    assert item.id == "track_0000214" and item.seconds == pytest.approx(1.0, abs=0.1)
    windows(tmp_path / "mtg" / JAMENDO, "autotagging-test.tsv")
    hide(tmp_path / "mtg" / JAMENDO, "autotagging-test.tsv")
    assert tags(load(tmp_path / "mtg")) == tags(found)
    pack(tmp_path / "mtg" / JAMENDO, "autotagging-test.tsv")
    assert tags(load(tmp_path / "mtg")) == tags(found)


TEST_LIST = f"{JAMENDO}/autotagging-test.tsv"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("15/215.mp3"), r"test\.tsv:3: audio file .*215\.mp3 is missing"),
        (edit(TEST_LIST, "\tgenre---jazz", ""), r"test\.tsv:3: a line has a track"),
        (edit(TEST_LIST, "15/215.mp3", "../../../../215.mp3"), "lies outside the corpus"),
        (edit(TEST_LIST, "0000215", "0000214"), "two recordings are called track_0000214"),
        (lambda f: write_text(f / TEST_LIST, COLUMNS), r"test\.tsv lists no songs"),
        (recode(TEST_LIST, "latin-1"), "Save it as UTF-8"),
    ],
)
def test_damaged_mtg_jamendo(tmp_path: Path, change: Change, said: str) -> None:
    write_audio(tmp_path / "215.mp3.wav").rename(tmp_path / "215.mp3")
    change(jamendo(tmp_path / "mtg"))
    refused(tmp_path / "mtg", said)


# --- MagnaTagATune -------------------------------------------------------------------------------

ANNOTATIONS = "annotations_final.csv"


def magnatagatune(folder: Path) -> Path:
    tone = np.sin(np.arange(24_000) / 10).astype(np.float32)
    rows = ['"clip_id"\t"no voice"\t"guitar"\t"mp3_path"']
    for number, (name, *values) in enumerate((("0/a", 1, 0), ("d/b", 1, 1), ("f/c", 0, 0)), 1):
        (folder / name).parent.mkdir(parents=True)
        write_mp3(folder / f"{name}.mp3", tone, 16_000)
        rows.append("\t".join(f'"{one}"' for one in (number, *values, f"{name}.mp3")))
    write_text(folder / ANNOTATIONS, *rows)
    return folder


def test_magnatagatune(tmp_path: Path) -> None:
    found = load(magnatagatune(tmp_path / "mtat"))
    assert found.described == "MagnaTagATune: mtat (2 recordings)", "those of d to f"
    assert tags(found) == [["no voice", "guitar"], []] and only(found).knows("tags")
    assert only(found).item(0, RATE).id == "2"
    windows(tmp_path / "mtat", ANNOTATIONS)
    assert tags(load(tmp_path / "mtat" / ANNOTATIONS)) == tags(found)
    for name in ("d/b", "f/c"):
        edit(ANNOTATIONS, f"{name}.mp3", "0/a.mp3")(tmp_path / "mtat")
    assert len(tags(load(tmp_path / "mtat"))) == 3, "there are no others"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("d/b.mp3"), r"final\.csv:3: audio file .*b\.mp3 is missing"),
        (lambda f: (f / "d/b.mp3").write_bytes(b""), r"cannot read audio file .*b\.mp3"),
        (edit(ANNOTATIONS, '"3"\t"0"', '"3"\t"2"'), r"final\.csv:4: '2' instead of 0 or 1"),
        (edit(ANNOTATIONS, '"3"\t"0"', '"3"'), r"final\.csv:4: 3 fields where the header has 4"),
        (edit(ANNOTATIONS, '"3"\t', '""\t'), r"final\.csv:4: no clip_id"),
        (edit(ANNOTATIONS, '"3"\t', '"2"\t'), "two recordings are called 2"),
        (edit(ANNOTATIONS, "d/b.mp3", "d/../../b.mp3"), "lies outside the corpus"),
        (edit(ANNOTATIONS, '"f/c.mp3"', '"f/c.mp3'), "Correct the quotation marks"),
        (recode(ANNOTATIONS, "latin-1"), "Save it as UTF-8"),
    ],
)
def test_damaged_magnatagatune(tmp_path: Path, change: Change, said: str) -> None:
    change(magnatagatune(tmp_path))
    refused(tmp_path, said)


# --- Note lists ----------------------------------------------------------------------------------

MAPS = "OnsetTime\tOffsetTime\tMidiPitch\n0.1\t0.5\t60\n0.25\t0.75\t64\n"


def note_lists(folder: Path) -> Path:
    """A piece as MAPS has it, one as basic-pitch writes it, and files that are neither."""
    for name in ("MUS/AkPnBcht/a", "MUS/AkPnBcht/b", "MUS/AkPnBcht/plain"):
        write_audio(folder / f"{name}.wav", 1.0)
    (folder / "MUS/AkPnBcht/a.txt").write_text(MAPS, encoding="utf-8")
    (folder / "MUS/AkPnBcht/b.csv").write_text(
        "start_time_s,end_time_s,pitch_midi,velocity,pitch_bend\n0.5,0.9,69,80,0,1,0\n",
        encoding="utf-8",
    )
    (folder / "MUS/readme.txt").write_text("Music.\n", encoding="utf-8")
    return folder


def test_note_lists(tmp_path: Path) -> None:
    found = load(note_lists(tmp_path / "maps"))
    assert found.described == "note lists: maps (2 recordings)"
    first, second = only(found).lines
    assert first["notes"] == [[0.1, 0.5, 60.0], [0.25, 0.75, 64.0]]
    assert second["notes"] == [[0.5, 0.9, 69.0]] and only(found).knows("notes")
    windows(tmp_path / "maps/MUS/AkPnBcht", "a.txt")
    assert only(load(tmp_path / "maps")).lines[0] == first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit("a.txt", "0.5\t60", "0.5"), r"a\.txt:2: no note .*index out of range"),
        (edit("a.txt", "0.1", "0,1"), r"a\.txt:2: no note .*could not convert"),
        (edit("a.txt", "\t60", "\t261.6"), r"a\.txt: 261\.6 is no MIDI number"),
        (edit("a.txt", "0.5\t60", "0.05\t60"), r"a\.txt: 0\.1 to 0\.05 s is no stretch of time"),
        (edit("a.txt", "0.25\t0.75", "250\t750"), r"notes begin at 250 s, .* ends at 1 s"),
    ],
)
def test_damaged_note_lists(tmp_path: Path, change: Change, said: str) -> None:
    change(note_lists(tmp_path) / "MUS/AkPnBcht")
    refused(tmp_path, said)


def test_notes_of_a_manifest(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", 2.0)
    notes = [[0.2, 0.8, 60], [0.9, 1.6, 62.5]]
    line = {"audio_filepath": "a.wav", "notes": notes}
    write_text(tmp_path / "manifest.jsonl", line, {**line, "offset": 0.5, "duration": 1, "id": "b"})
    whole, part = only(load(tmp_path)).lines
    assert whole["notes"] == notes
    assert part["notes"] == [[0.0, pytest.approx(0.3), 60], [pytest.approx(0.4), 1.0, 62.5]]
    write_text(tmp_path / "manifest.jsonl", {**line, "notes": [[0.2, 0.8]]})
    refused(tmp_path, r"manifest\.jsonl:1: .*pitch")


# --- NeMo ----------------------------------------------------------------------------------------


def nemo(folder: Path) -> Path:
    """As recipes write it: ``.json`` for JSON lines, paths relative and absolute, a language."""
    write_audio(folder / "clips/a.wav")
    absolute = write_audio(folder / "clips/b.wav")
    line = {"audio_filepath": "clips/a.wav", "duration": 2.0, "text": "eins", "lang": "de"}
    other = {"audio_filepath": str(absolute), "duration": 2, "text": "zwei", "source_lang": "de"}
    write_text(folder / "test_manifest.json", line, other)
    write_text(folder / "dev_manifest.json", {**line, "text": "drei", "id": "dev"})
    return folder


def test_nemo(tmp_path: Path) -> None:
    found = load(nemo(tmp_path / "set"))
    assert list(found.sets) == ["set-dev", "set-test"]
    assert [line["lang"] for line in found.sets["set-test"].lines] == ["de", "de"]
    alone = load(tmp_path / "set/test_manifest.json")
    assert alone.described == "NeMo manifest: test_manifest (2 recordings)"
    assert load(tmp_path / "set", "fr").sets["set-dev"].lines[0]["lang"] == "de", "it is said"


@pytest.mark.parametrize("name", ["manifest.jsonl.gz", "MANIFEST.JSONL", "manifest.json"])
def test_names_of_manifests(tmp_path: Path, name: str) -> None:
    nemo(tmp_path)
    content = (tmp_path / "test_manifest.json").read_bytes()
    marked = b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")
    (tmp_path / name).write_bytes(gzip.compress(marked) if name.endswith(".gz") else marked)
    hide(tmp_path, name)
    assert list(texts(load(tmp_path)).values()) == ["eins", "zwei"]
    assert list(texts(load(tmp_path / name)).values()) == ["eins", "zwei"]


def test_a_packed_manifest_that_is_cut_short(tmp_path: Path) -> None:
    nemo(tmp_path)
    content = gzip.compress((tmp_path / "test_manifest.json").read_bytes())
    (tmp_path / "manifest.jsonl.gz").write_bytes(content[:-12])
    refused(tmp_path, r"cannot read .*manifest\.jsonl\.gz: .*Restore it")


# --- audiofolder ---------------------------------------------------------------------------------


def audiofolder(folder: Path) -> Path:
    """With parts, as the hub has them: comma-separated with quotes, and JSON lines."""
    for name in ("test/a/1.wav", "test/b/1.wav", "train/1.wav"):
        write_audio(folder / name, rate=44_100)
    write_text(
        folder / "test/metadata.csv",
        "file_name,transcription,language",
        'a/1.wav,"uno, dos\nand ""tres""",es',
        "b/1.wav,cuatro,es",
    )
    write_text(folder / "train/metadata.jsonl", {"file_name": "1.wav", "text": "no"})
    return folder


def test_audiofolder(tmp_path: Path) -> None:
    found = load(audiofolder(tmp_path / "set"))
    assert found.described == "Hugging Face audiofolder: test (2 recordings)"
    assert texts(found) == {"a-1": 'uno, dos\nand "tres"', "b-1": "cuatro"}
    assert only(found).lines[0]["lang"] == "es"
    windows(tmp_path / "set", "test/metadata.csv")
    hide(tmp_path / "set", "test/metadata.csv", "test/a/1.wav")
    assert texts(load(tmp_path / "set"))["b-1"] == "cuatro"
    pack(tmp_path / "set", "test/metadata.csv")
    assert texts(load(tmp_path / "set"))["b-1"] == "cuatro"
    lines = load(tmp_path / "set/train")
    assert texts(lines) == {"1": "no"} and "lang" not in only(lines).lines[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("test/a/1.wav"), r"audio file .*1\.wav is missing"),
        (edit("test/metadata.csv", "cuatro,es", "cuatro, cinco,es"), "4 fields where the header"),
        (edit("test/metadata.csv", "b/1.wav", "a/1.wav"), "two recordings are called a-1"),
        (edit("test/metadata.csv", "b/1.wav", "../../../1.wav"), "lies outside the corpus"),
        (edit("test/metadata.csv", "b/1.wav", ""), r"metadata\.csv:4: no file_name"),
        (edit("test/metadata.csv", '""tres"""', '""tres""'), "Correct the quotation marks"),
        (recode("test/metadata.csv", "utf-16"), "no manifest.jsonl|Save it as UTF-8"),
    ],
)
def test_damaged_audiofolder(tmp_path: Path, change: Change, said: str) -> None:
    change(audiofolder(tmp_path))
    refused(tmp_path / "test", said)


@pytest.mark.parametrize(
    ("line", "said"), [("[1]", "cannot convert|sequence"), ('{"text": "a"}', "no 'file_name'")]
)
def test_damaged_lines_of_an_audiofolder(tmp_path: Path, line: str, said: str) -> None:
    write_audio(tmp_path / "1.wav")
    write_text(tmp_path / "metadata.jsonl", {"file_name": "1.wav", "text": "one"}, line)
    refused(tmp_path, rf"metadata\.jsonl:2: .*{said}")


# --- Parquet -------------------------------------------------------------------------------------


def write_parquet(path: Path, rows: list[dict[str, Any]], group: int = 2) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=group)
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of the hub: two files to test on, one to train on; MP3 among the FLAC files."""
    monkeypatch.setenv("COMPAT_CACHE", str(tmp_path / "cache"))
    rows: list[dict[str, Any]] = []
    for number in range(6):
        audio = tmp_path / f"{number}.flac"
        write_audio(audio, 1.0 + number / 10, rate=44_100)
        if number == 5:
            tone = np.sin(np.arange(24_000) / 10).astype(np.float32)
            audio = write_mp3(tmp_path / "5.mp3", tone, 16_000)
        bytes_of = {"bytes": audio.read_bytes(), "path": audio.name}
        rows.append({"audio": bytes_of, "sentence": f"text {number}", "locale": "sv-SE", "id": 7})
    folder = tmp_path / "hub"
    write_parquet(folder / "data/test-00000-of-00002.parquet", rows[:3])
    write_parquet(folder / "data/test-00001-of-00002.parquet", rows[3:])
    write_parquet(folder / "data/train-00000-of-00001.parquet", rows[:1])
    return folder


def test_parquet(hub: Path) -> None:
    found = load(hub)
    assert found.described == "Parquet: hub-test (6 recordings)"
    items = only(found).items(RATE)
    assert [item.text for item in items] == [f"text {number}" for number in range(6)]
    assert [round(item.seconds, 1) for item in items[:5]] == [1.0, 1.1, 1.2, 1.3, 1.4]
    assert {item.facts["lang"] for item in items} == {"sv-SE"}
    assert len(only(load(hub / "data/train-00000-of-00001.parquet")).lines) == 1
    unpacked = {path: path.stat().st_mtime_ns for path in only(found).folder.iterdir()}
    assert load(hub).fingerprint == found.fingerprint
    assert {path: path.stat().st_mtime_ns for path in only(found).folder.iterdir()} == unpacked


def test_of_a_large_parquet_whole_row_groups_are_chosen(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MOST", 3)
    found = load(hub)
    words = [line["text"] for line in only(found).lines]
    assert 3 <= len(words) <= 4 and found.described.endswith("of 6, chosen by chance)")
    assert ("text 0" in words) == ("text 1" in words)
    assert len(list(only(found).folder.glob("0*"))) == len(words), "no other was unpacked"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"audio": {"bytes": None, "path": "/etc/hostname"}, "text": "a"}], "row 1: .*no bytes"),
        ([{"speech": b"RIFF", "text": "a"}], "no column 'audio', but speech, text"),
        ([{"audio": b"no audio at all", "text": "a"}], "cannot read audio file"),
        ([{"audio": b"", "text": "a"}], "row 1: .*no bytes of an audio file"),
    ],
)
def test_damaged_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], said: str
) -> None:
    monkeypatch.setenv("COMPAT_CACHE", str(tmp_path / "cache"))
    write_parquet(tmp_path / "test.parquet", rows)
    with pytest.raises(CorpusError, match=said):
        load(tmp_path / "test.parquet")
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_parquet_file_that_is_cut_short(hub: Path) -> None:
    path = hub / "data/test-00000-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    refused(hub, r"cannot read .*test-00000-of-00002\.parquet: .*Restore it")


def test_parquet_without_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    refused(tmp_path, r"pyarrow, which reads it, is not installed: pip install 'audio-compat\[parq")


# --- Many recordings, several forms --------------------------------------------------------------


def test_of_many_recordings_some_are_chosen_and_only_these_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "MOST", 5)
    names = [f"{number:03d}.wav" for number in range(40)]
    rows = [{"audio_filepath": name, "text": name} for name in names]
    write_text(tmp_path / "manifest.jsonl", *rows)
    with pytest.raises(CorpusError, match="is missing"):
        load(tmp_path)
    audio = write_audio(tmp_path / "000.wav")
    for name in names[1:]:
        shutil.copy(audio, tmp_path / name)
    first = texts(load(tmp_path))
    assert len(first) == 5 and list(first) == sorted(first)
    assert load(tmp_path).described.endswith("(5 recordings of 40, chosen by chance)")
    kept = set(first.values())
    assert kept != set(names[:5])
    for name in set(names) - kept:
        (tmp_path / name).unlink()
    assert texts(load(tmp_path)) == first, "the others are not opened"


def test_other_forms_side_by_side(tmp_path: Path) -> None:
    """A manifest, a download and a tree of RTTM files in one folder."""
    nemo(tmp_path / "own")
    librispeech(tmp_path)
    write_audio(tmp_path / "meetings/audio/a.wav")
    write_text(tmp_path / "meetings/a.rttm", speaker("a", 0, 1, "x"))
    found = load(tmp_path)
    assert list(found.sets) == ["meetings", "own-dev", "own-test", "test-clean", "test-other"]
    assert {one.split(":")[0] for one in found.described.split("; ")} == {
        "NeMo manifest",
        "RTTM files",
        "LibriSpeech",
    }


def test_no_form_at_all_names_those_that_are_known(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    write_text(tmp_path / "metadata.csv", "name,text", "a.wav,one")
    with pytest.raises(CorpusError, match="LibriSpeech, RTTM files") as raised:
        load(tmp_path)
    for layout in layouts.layouts():
        assert layout.name in str(raised.value)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["test-clean", "train-clean-100", "dev-other"], ["test-clean"]),
        (["dev", "train", "validated"], ["dev"]),
        (["train", "validated", "other"], ["train"]),
        (["validated", "other"], ["validated", "other"]),
        (["en", "de"], ["en", "de"]),
        (["latest", "contest"], ["latest", "contest"]),
        (["mine", "test", "train"], ["mine", "test"]),
    ],
)
def test_parts_to_test_on(names: list[str], taken: list[str]) -> None:
    assert evaluated(names) == taken


def test_readers_of_formats_are_imported_when_they_are_needed() -> None:
    code = (
        "import sys, compat.inputs.corpus; print(sorted(set(sys.modules) & {'pyarrow', 'pandas'}))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=False
        ).stdout.strip()
        == b"[]"
    )


def test_a_manifest_stays_as_json_has_it(tmp_path: Path) -> None:
    """Facts go into results and digests: what a manifest says beside the known is kept."""
    write_audio(tmp_path / "a.wav")
    line = {"audio_filepath": "a.wav", "text": "one", "noscore": [[0, 1]], "mood": ["glad"]}
    write_text(tmp_path / "manifest.jsonl", line)
    found = only(load(tmp_path)).lines[0]
    assert json.loads(json.dumps(found)) == found
    assert found["mood"] == ["glad"] and "uem" not in found
