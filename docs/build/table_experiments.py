"""Tables of stored answers of experiments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from table_form import table

from compat.experiments.beams import BASELINE
from compat.judge.experiments import Answers, Finding, Stored, read_all
from compat.report.claim_words import shown


@dataclass(frozen=True)
class Asked:
    """A claim of the field about the speed of ports compared with openai-whisper."""

    text: str
    factor: float
    """Claimed ratio of the speeds."""
    library: str
    """Beginning of the names of the contestants that the claim is about; empty for all."""
    beams: str
    """Part of the names of the contestants that the claim is about, such as ``5 beams,``."""


ASKED = (
    Asked("twice as fast as openai-whisper, greedily", 2.0, "", "1 beam,"),
    Asked("twice as fast, 5 beams", 2.0, "", "5 beams,"),
    Asked("4.1 × by faster-whisper's int8, 5 beams", 4.1, "faster-whisper int8", "5 beams,"),
)
SIZE = "needs published small for the size of the claim"


def beams(results: Path) -> str:
    """Return tables of Whisper's ports by beams and batches, and of the field's claims."""
    stored = _newest(read_all([results]), "beams")
    if stored is None:
        return "Not measured yet: `compat experiment beams --save`."
    found = {one.measure: one for one in stored.findings}
    ratios = {
        measure.removeprefix("speed of ").removesuffix(f" over {BASELINE}"): one
        for measure, one in found.items()
        if measure.endswith(f" over {BASELINE}")
    }
    rows = [
        (
            name,
            shown(one.value, one.interval, "seconds"),
            _ratio(ratios.get(name)),
            _errors(found, name),
        )
        for name, one in _times(found)
    ]
    head = ("contestant", "seconds a window", "against openai-whisper", "WER")
    claims = [(asked.text, _verdict(asked, ratios)) for asked in ASKED]
    versions = stored.header.versions
    packages = ("openai-whisper", "faster-whisper", "ctranslate2", "pywhispercpp", "openvino")
    said = ", ".join(f"{name} {versions[name]}" for name in packages if name in versions)
    busy = f" Nothing is decided: {stored.busy}." if stored.busy else ""
    return "\n\n".join(
        (
            table(head, rows),
            table(("claim", "found"), claims),
            f"whisper-tiny.en@pretrained, {stored.header.threads} threads, "
            f"{stored.header.started[:10]}, {said}.{busy}",
        )
    )


def _newest(answers: Answers, name: str) -> Stored | None:
    """Return the newest answer that a calm machine gave, else the newest of any."""
    mine = [one for one in answers.stored if one.experiment == name]
    return next((one for one in reversed(mine) if not one.busy), mine[-1] if mine else None)


def _times(found: dict[str, Finding]) -> Iterator[tuple[str, Finding]]:
    times = {
        measure.partition(": ")[2]: one
        for measure, one in found.items()
        if measure.startswith("seconds a window: ")
    }
    yield from sorted(times.items(), key=lambda pair: pair[1].value)


def _ratio(one: Finding | None) -> str:
    return "1" if one is None else shown(one.value, one.interval, "ratio")


def _errors(found: dict[str, Finding], name: str) -> str:
    return f"{found[f'word error rate: {name}'].value:.1%}".replace("%", " %")


def _verdict(asked: Asked, ratios: dict[str, Finding]) -> str:
    """Compare the fastest contestant that a claim is about with the claim.

    Only batches of 1 count, as claims are about single recordings.
    """
    about = {
        name: one
        for name, one in ratios.items()
        if name.startswith(asked.library)
        and f", {asked.beams} batch 1" in name
        and one.interval is not None
    }
    if not about:
        return "nobody to try it"
    best = max(about, key=lambda name: about[name].value)
    low, high = about[best].interval or (0.0, 0.0)
    word = "undecided"
    if low >= asked.factor:
        word = "reached"
    elif high < asked.factor:
        word = "**not reached**"
    return f"{word}: {_ratio(about[best])} by {best}; {SIZE}"
