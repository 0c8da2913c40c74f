"""NeMo manifest: ``manifest.jsonl`` or ``test_manifest.json`` of JSON lines, with any truth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from compat.inputs.audio import CorpusError
from compat.inputs.layouts.layout import Entry, Layout, Part
from compat.inputs.text import beginning, text_lines

MANIFEST = "manifest.jsonl"
TRIALS = "trials.txt"
LANGUAGES = ("lang", "language", "source_lang")
"""Names of the field for the spoken language in NeMo's recipes."""
TRUTHS = (
    *("text", "rttm_filepath", "segments", "tags", "stems", "label", "caption", "translation"),
    "notes",
)
"""Fields of truth; without trials, a line needs at least one of them."""


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    if path.is_dir():
        return bool(manifests(path))
    name = path.name.lower().removesuffix(".gz")
    return name.endswith((".jsonl", ".json")) and '"audio_filepath"' in beginning(path)


def manifests(folder: Path) -> list[Path]:
    """Return the manifests in a folder: ``manifest.jsonl``, or all like ``test_manifest.json``."""
    names = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.name[0] != "."}
    for name in (MANIFEST, f"{MANIFEST}.gz", "manifest.json", "manifest.json.gz"):
        if name in names and names[name].is_file():
            return [names[name]]
    plain = {name: name.removesuffix(".gz") for name in names}
    return [
        path
        for name, path in names.items()
        if plain[name].endswith(("_manifest.jsonl", "_manifest.json"))
        and '"audio_filepath"' in beginning(path)
    ]


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the test sets of a path that was claimed."""
    found = manifests(path) if path.is_dir() else [path]
    return [_part(one, one.name.split("_manifest.")[0] if len(found) > 1 else "") for one in found]


def _part(path: Path, split: str) -> Part:
    trials = path.parent / TRIALS
    paired = trials.is_file()
    entries = list(_entries(path, paired))
    if not entries:
        raise CorpusError(f"{path} is empty: a test set needs at least one utterance.")
    return Part(path.parent, entries, split, trials if paired else None)


def _entries(path: Path, paired: bool) -> Iterator[Entry]:
    """Yield the entries of a manifest; with ``paired``, lines may lack truth of their own."""
    for number, text in text_lines(path):
        where = f"{path}:{number}"
        try:
            line = dict(json.loads(text))
            line["audio_filepath"]
            if not paired and line.keys().isdisjoint(TRUTHS):
                raise KeyError("text")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            missing = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise CorpusError(f"{where}: {missing}. Correct or remove the line.") from error
        yield Entry(where, _plain(line))


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line without NeMo's placeholders for unknown values."""
    if line.get("text", "-") in ("-", None):
        line.pop("text", None)
    if line.get("label") == "infer":  # NeMo's placeholder for an unknown class.
        del line["label"]
    line.pop("noscore", None)  # This field is internal: only readers of RTTM files may set it.
    languages = [line[name] for name in LANGUAGES if isinstance(line.get(name), str)]
    return {**line, "lang": languages[0]} if languages else line


LAYOUT = Layout("NeMo manifest", claims, read, splits=False)
