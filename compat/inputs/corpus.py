"""Corpora: folders of audio with the truth about it.

A corpus is one test set or several, in any of the forms of :mod:`compat.inputs.layouts`: NeMo
manifests, LibriSpeech, Common Voice, Kaldi and others. Whatever the form, a test set is a list of
lines with the fields of a NeMo manifest: ``audio_filepath``, ``duration`` in seconds, and the
truth. For speech the truth is ``text`` and ``lang``, or ``segments`` (who spoke when) and ``uem``
(which part is scored); for music ``tags`` and ``stems``; for sounds ``label`` and ``caption``.
A set may also have pairs of recordings: ``1 a.flac b.flac`` for one speaker, ``0`` for two.

docs/corpora.md shows each form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from compat.contract.item import Item
from compat.contract.places import FIXTURES
from compat.inputs import layouts, people
from compat.inputs.audio import TOLERANCE, CorpusError, read_audio
from compat.inputs.layouts.checking import audio_files, checked
from compat.inputs.layouts.choosing import chosen
from compat.inputs.layouts.layout import Layout, Part
from compat.inputs.packages import packages_folder
from compat.inputs.text import text_lines

DEFAULT = FIXTURES / "corpus"
SOUNDS = FIXTURES / "sounds"
"""Folder of the sets of music and sounds, which only tasks that name them are given."""
TRIALS_FACT = "trials"
"""Fact of an item: its pairs with other recordings, which are read from a file of their own."""
EXCERPT = 30.0
"""Seconds of the longest utterance; of longer recordings, excerpts are taken."""

_NO_NAME = r'<>:"/\\|?*\x00-\x1f\x7f'
"""Characters that file names cannot have on Windows, as part of a regular expression."""
_ID = re.compile(rf"[^\s.{_NO_NAME}](?:[^{_NO_NAME}]{{0,148}}[^\s.{_NO_NAME}])?")
"""Valid id of a recording: a file name that neither begins nor ends with a blank or a dot."""


# Test sets ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TestSet:
    """One folder of recordings, whose audio is read only when an item is requested."""

    __test__ = False  # Without this, pytest would take the class for a test.

    name: str
    folder: Path
    lines: tuple[Mapping[str, Any], ...]
    """Manifest fields of each recording, with ``segments`` as lists [start, end, speaker]."""
    trials: tuple[tuple[str, str, bool], ...] = ()
    """Ids of two recordings, and whether one person speaks in both."""
    form: str = ""
    """Name of the form in which the corpus is kept, such as ``LibriSpeech``."""
    total: int = 0
    """Number of recordings in the corpus, of which ``lines`` may be a selection."""
    channels: int = 1
    """Number of channels with which each recording is read."""

    def knows(self, fact: str) -> bool:
        """Whether a fact, such as ``text`` or ``trials``, is known of every recording.

        Any field of the manifest is a fact. Texts that are all empty count as unknown.
        """
        if fact == TRIALS_FACT:
            return bool(self.trials)
        values = [line.get(fact) for line in self.lines]
        return None not in values and (fact != "text" or any(values))

    def identifier(self, index: int) -> str:
        """Return the id of a recording."""
        return str(self.lines[index].get("id") or f"{self.name}-{index:04d}")

    def item(self, index: int, rate: int) -> Item:
        """Read one recording at a sampling rate in hertz.

        The item's ``facts`` are the manifest's fields, and ``trials``: a list of [other id, whether
        it is the same speaker] for the trials that name this recording first.
        """
        line = self.lines[index]
        identifier = self.identifier(index)
        pairs = self._pairs.get(identifier)
        facts = {**line, **({"trials": pairs} if pairs else {})}
        first, length = (line["offset"], line["duration"]) if "offset" in line else (0.0, None)
        audio = self.folder / line["audio_filepath"]
        samples = read_audio(audio, rate, first, length, self.channels)
        seconds = samples.shape[-1] / rate
        if abs(seconds - line["duration"]) > TOLERANCE:
            raise CorpusError(
                f"audio file {audio}: {seconds:.2f} s can be decoded, where the "
                f"manifest or the file itself says {line['duration']:.2f} s. Restore it, or "
                "correct the manifest."
            )
        return Item.from_audio(identifier, samples, rate, facts)

    @cached_property
    def _pairs(self) -> Mapping[str, list[list[Any]]]:
        found: dict[str, list[list[Any]]] = {}
        for one, other, same in self.trials:
            found.setdefault(one, []).append([other, same])
        return found

    def items(self, rate: int, limit: int | None = None) -> list[Item]:
        """Read recordings, spread evenly over the set if ``limit`` is below its length."""
        return [self.item(index, rate) for index in self.spread(limit)]

    def spread(self, limit: int | None = None) -> list[int]:
        """Return the indices of the recordings that ``items`` reads."""
        count = len(self.lines)
        wanted = count if limit is None else min(limit, count)
        return [round(i * count / wanted) for i in range(wanted)]

    def excerpts(self, seconds: float = 8.0, each: int = 8) -> TestSet:
        """Return a set of excerpts of ``seconds``, up to ``each`` of a recording.

        Excerpts begin where speech begins, if segments are known.

        Their words are unknown, and of the truth only the language is kept.
        """
        lines = []
        for index, line in enumerate(self.lines):
            length = float(line["duration"])
            speech = [start for start, end, _ in line.get("segments") or () if end - start >= 1.0]
            starts = sorted(set(speech)) or list(np.arange(0.0, length, seconds))
            for start in starts[:: max(1, len(starts) // each)][:each]:
                lines.append(
                    {
                        "id": f"{self.identifier(index)}-{start:.2f}",
                        "audio_filepath": line["audio_filepath"],
                        "offset": line.get("offset", 0.0) + start,
                        "duration": min(seconds, length - start),
                        **({"lang": line["lang"]} if "lang" in line else {}),
                    }
                )
        return TestSet(self.name, self.folder, tuple(lines), channels=self.channels)


@dataclass(frozen=True)
class Corpus:
    """Test sets by name."""

    path: Path
    sets: Mapping[str, TestSet]
    special: Mapping[str, TestSet] = field(default_factory=dict)
    """Sets that are given only to tasks that name them. They are the recordings that a person
    fetched (:mod:`compat.inputs.people`), since calibration and timing must not depend on them, and
    music and sounds, which mean nothing to a model of speech."""

    @cached_property
    def fingerprint(self) -> str:
        """Hex digits that identify every recording and its truth."""
        from compat.contract.digests import digest, file_digest

        return digest(
            {
                name: [
                    [
                        [dict(line), *(file_digest(test_set.folder / f) for f in audio_files(line))]
                        for line in test_set.lines
                    ],
                    test_set.trials,
                ]
                for name, test_set in {**self.special, **self.sets}.items()
            }
        )

    def choose(self, names: Sequence[str], fact: str = "") -> dict[str, TestSet]:
        """Return the sets with these names, or all ordinary sets where none has one of them.

        If a fact is named, only sets count in which it is known of every recording. The result may
        be empty.
        """
        fitting = {n: s for n, s in self.sets.items() if not fact or s.knows(fact)}
        named = {n: s for n, s in self.special.items() if not fact or s.knows(fact)} | fitting
        return {n: named[n] for n in names if n in named} or fitting

    def with_channels(self, channels: int) -> Corpus:
        """Return the corpus with every recording read with this number of channels."""
        if channels == 1:
            return self
        sets, special = (
            {name: replace(found, channels=channels) for name, found in some.items()}
            for some in (self.sets, self.special)
        )
        return Corpus(self.path, sets, special)

    @property
    def described(self) -> str:
        """Forms and sets of the corpus in words, with the number of recordings taken."""
        words = []
        for form in dict.fromkeys(one.form for one in self.sets.values()):
            sets = []
            for test_set in (one for one in self.sets.values() if one.form == form):
                count = len(test_set.lines)
                of = f" of {test_set.total:,}, chosen by chance" if test_set.total > count else ""
                sets.append(f"{test_set.name} ({count:,} recordings{of})")
            words.append(f"{form}: {', '.join(sets)}")
        return "; ".join(words)

    @property
    def speech(self) -> TestSet:
        """A set of short utterances, for uses that need any speech and no truth.

        Where recordings are long, such as meetings of an hour, the set holds excerpts of them.
        """
        found = next(iter((self.choose(("clean",), "text") or self.sets).values()))
        long = any(line["duration"] > EXCERPT for line in found.lines)
        return found.excerpts() if long else found


def load(path: Path = DEFAULT, language: str = "") -> Corpus:
    """Read a corpus and check that all of its files are there.

    Args:
        path: a folder, or a file where the form of the corpus is one file.
        language: code of the language of recordings that state none; empty for unknown.

    Raises:
        CorpusError: no form is recognised, or the corpus is malformed or lacks audio.
    """
    found = layouts.find(path) if path.exists() else []
    if not found:
        raise CorpusError(
            f"no manifest.jsonl in {path} or its subfolders, and no other form of corpus that is "
            'known. A corpus is a folder of audio files with a manifest: {"audio_filepath": '
            '"a.flac", "duration": 2.5, "text": "…"} a line, or with RTTM files that are named '
            "like the recordings, or one of "
            + ", ".join(one.name for one in layouts.layouts())
            + " (docs/corpora.md)."
        )
    sets: dict[str, TestSet] = {}
    owners: dict[str, Path] = {}
    for place, layout in found:
        for part in layout.read(place, path if path.is_dir() else path.parent):
            test_set = _test_set(_set_name(path, place, part), layout, part, language)
            if test_set.name in sets:
                raise CorpusError(
                    f"two test sets would be called {test_set.name}, in "
                    f"{sets[test_set.name].folder} and {test_set.folder}: rename a folder."
                )
            _own(test_set, owners)
            sets[test_set.name] = test_set
    return Corpus(path, sets, _special() if path.resolve() == DEFAULT.resolve() else {})


def _special() -> dict[str, TestSet]:
    folder = packages_folder()
    fetched = {name: TestSet(name, folder, tuple(found)) for name, found in people.lines().items()}
    return {**(dict(load(SOUNDS).sets) if SOUNDS.is_dir() else {}), **fetched}


def _set_name(corpus: Path, place: Path, part: Part) -> str:
    """Return the name of a test set: its folders inside the corpus and its split, with hyphens."""
    if place == corpus:
        names = [place.name if place.is_dir() else place.name.partition(".")[0]]
    else:
        names = list(place.relative_to(corpus).parts)
    return "-".join([*names, *([part.split] if part.split else [])])


def _test_set(name: str, layout: Layout, part: Part, language: str) -> TestSet:
    """Make a test set: choose recordings of a part, and check each against its audio."""
    entries = chosen(part.entries, name)
    spoken = {"lang": language} if language else {}
    lines = tuple({**spoken, **checked(entry, part.folder, part.root)} for entry in entries)
    test_set = TestSet(name, part.folder, lines, form=layout.name, total=part.count)
    return (
        replace(test_set, trials=_read_trials(part.trials, test_set)) if part.trials else test_set
    )


def _own(test_set: TestSet, owners: dict[str, Path]) -> None:
    """Add a set's ids to ``owners``; refuse ids that cannot be file names, and repeated ones."""
    for index in range(len(test_set.lines)):
        identifier = test_set.identifier(index)
        if not _ID.fullmatch(identifier):
            raise CorpusError(
                f"{test_set.folder}: a recording cannot be called {identifier[:60]!r}: ids "
                'become names of files, of at most 150 characters without / \\ : * ? " < > |, '
                "and with no blank or dot at either end. Give it another id."
            )
        if identifier in owners:
            raise CorpusError(
                f"two recordings are called {identifier}, in {owners[identifier]} and "
                f"{test_set.folder}: give one of them another id."
            )
        owners[identifier] = test_set.folder


# Trials ------------------------------------------------------------------------------------------


def _read_trials(path: Path, test_set: TestSet) -> tuple[tuple[str, str, bool], ...]:
    names = {
        str(line["audio_filepath"]): test_set.identifier(index)
        for index, line in enumerate(test_set.lines)
    }
    trials = []
    for number, text in text_lines(path):
        try:
            same, one, other = text.split()
            if same not in ("0", "1"):
                raise ValueError(f"{same} instead of 0 or 1")
            trials.append((names[one], names[other], same == "1"))
        except (ValueError, KeyError) as error:
            raise CorpusError(
                f"{path}:{number}: {error}. A trial reads: 1 a.flac b.flac (0 for two speakers), "
                "with files of the manifest."
            ) from error
    return tuple(trials)
