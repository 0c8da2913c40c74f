"""Recommendations of published guides as data: precision and batch of a size on a hardware.

One file, ``fixtures/recommendations.toml``::

    [[recommendation]]
    family = "whisper"                # a family of the catalog
    variant = "whisper-small"         # optional: a name, a pattern or a list of them; left out,
                                      # every published size of the family
    hardware = "cuda"
    precision = "fp16"
    batch = [16, 24]                  # one size, or the lowest and the highest
    memory_gb = 3                     # optional: memory of the device that the guide names with it
    source = "..."                    # which guide says so

A size on a hardware has one recommendation at most. It limits nothing and rates nothing. A
throughput sweep goes up to its batch, and says whether the case runs in its precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

from compat import catalog
from compat.contract.case import Case, Family
from compat.contract.errors import CompatError
from compat.contract.places import FIXTURES
from compat.contract.precision import precisions
from compat.judge.entries import Format

FORMAT = Format(
    name="recommendation",
    table="recommendation",
    required=("family", "hardware", "precision", "source"),
    optional=("variant", "batch", "memory_gb"),
    if_absent="Restore the one that comes with compat.",
    if_broken="; the format is described at the top of compat/judge/recommendations.py.",
)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A guide's recommendation for some sizes of a family on one hardware."""

    family: str
    variants: frozenset[str]
    hardware: str
    precision: str
    lowest: int
    batch: int
    """The largest batch that is recommended; the only one where it equals :attr:`lowest`."""
    source: str
    memory_gb: float | None
    origin: str
    """File and entry, for messages."""

    @property
    def batches(self) -> str:
        """The batch in words: ``16``, or ``16 to 24``."""
        return str(self.batch) if self.batch == self.lowest else f"{self.lowest} to {self.batch}"

    def values(self, case: Case) -> dict[str, Any]:
        """Return the values that an observation of a case stores about the recommendation."""
        return {
            "precision": self.precision,
            "batch": self.batch,
            "lowest_batch": self.lowest,
            "in_this_precision": case.recipe.precision == self.precision,
        }


@dataclass(frozen=True, slots=True)
class Recommendations:
    """All entries, in the order in which they were read."""

    entries: tuple[Recommendation, ...] = ()

    def of(self, case: Case) -> Recommendation | None:
        """Return the recommendation for a case's variant on its hardware, whatever its recipe."""
        key = case.family.name, case.variant.name, case.target.hardware
        return next((entry for entry in self.entries if key in _keys(entry)), None)


def default_path() -> Path:
    """The recommendations that this project ships."""
    return FIXTURES / "recommendations.toml"


def load(path: Path) -> Recommendations:
    """Read a file of recommendations.

    Raises:
        CompatError: it cannot be read, is not TOML, has an entry that is not valid, or two
            for one variant and hardware.
    """
    entries: list[Recommendation] = []
    taken: dict[tuple[str, str, str], str] = {}
    for origin, row in FORMAT.entries(path, FORMAT.read(path)):
        entry = _entry(origin, row)
        for key in sorted(_keys(entry)):
            if key in taken:
                raise CompatError(
                    f"{origin}: {key[1]} on {key[2]} has a recommendation already, in {taken[key]}."
                    " Name the variants of each, or join them to one with both sources."
                )
            taken[key] = origin
        entries.append(entry)
    return Recommendations(tuple(entries))


def _keys(entry: Recommendation) -> set[tuple[str, str, str]]:
    return {(entry.family, variant, entry.hardware) for variant in entry.variants}


def _entry(origin: str, row: Mapping[str, Any]) -> Recommendation:
    loaded = catalog.load()
    family = next((one for one in loaded.families if one.name == row["family"]), None)
    if family is None:
        _refuse(origin, "family", row["family"], (one.name for one in loaded.families))
    _known(origin, "hardware", row["hardware"], loaded.hardware)
    _known(origin, "precision", row["precision"], precisions())
    lowest, highest = _batch(origin, row.get("batch"))
    memory = row.get("memory_gb")
    number = isinstance(memory, int | float) and not isinstance(memory, bool)
    if memory is not None and not (number and 0 < memory < math.inf):
        raise CompatError(f"{origin}: memory_gb must be a number above zero.")
    return Recommendation(
        family=family.name,
        variants=frozenset(_variants(origin, row, family)),
        hardware=row["hardware"],
        precision=row["precision"],
        lowest=lowest,
        batch=highest,
        source=row["source"].strip(),
        memory_gb=memory,
        origin=origin,
    )


def _variants(origin: str, row: Mapping[str, Any], family: Family) -> Iterator[str]:
    """Yield the names of the variants that an entry speaks of."""
    if "variant" not in row:
        # Guides speak of published sizes; an entry for a stand-in has to name it.
        yield from (variant.name for variant in family.variants if variant.published)
        return
    wanted = [row["variant"]] if isinstance(row["variant"], str) else row["variant"]
    if not isinstance(wanted, list) or not wanted or not all(isinstance(w, str) for w in wanted):
        raise CompatError(f"{origin}: variant must be a text or a list of texts.")
    names = [variant.name for variant in family.variants]
    for pattern in wanted:
        found = [name for name in names if fnmatchcase(name, pattern)]
        # A catalog file may replace one of our families by one with other sizes.
        if not found and family.module.startswith("compat.models."):
            _refuse(origin, "variant", pattern, names)
        yield from found


def _batch(origin: str, given: Any) -> tuple[int, int]:
    ends = given if isinstance(given, list) and len(given) == 2 else [given, given]
    # bool is an int to Python and not to a person.
    sizes = [end for end in ends if isinstance(end, int) and not isinstance(end, bool)]
    if len(sizes) != 2 or not 1 <= sizes[0] <= sizes[1]:
        raise CompatError(
            f"{origin}: batch = {given!r}; write one size, as 16, or the lowest and the highest, "
            "as [16, 24]."
        )
    return sizes[0], sizes[1]


def _known(origin: str, key: str, word: str, words: Iterable[str]) -> None:
    if word not in words:
        _refuse(origin, key, word, words)


def _refuse(origin: str, key: str, word: str, words: Iterable[str]) -> NoReturn:
    raise CompatError(f"{origin}: {key} = {word!r} matches nothing. Known are {', '.join(words)}.")
