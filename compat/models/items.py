"""The choice of inputs: the items of a corpus that a protocol uses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from compat.contract.item import Item


@dataclass(frozen=True)
class Items:
    """The inputs of one protocol, chosen by the model from a corpus."""

    task: Mapping[str, Sequence[Item]] = field(default_factory=dict)
    """Test sets that carry the truth; empty for seeded weights, which can prove no accuracy."""
    numerics: Sequence[Item] = ()
    """Inputs whose intermediate outputs are compared with the reference's."""
    timed: Sequence[Item] = ()
    """Inputs of the timed rounds, which are also among those of accuracy."""
    stress: Sequence[Item] = ()
    examples: Sequence[Item] = ()
    """Inputs that only the reference answers, for a task that learns from its answers."""

    @classmethod
    def of(cls, sets: Mapping[str, Sequence[Item]], scored: bool = True) -> Items:
        """Return the usual choice: six inputs of each set for numerics, the first set for timing.

        ``scored`` says whether the sets carry the truth that the task metric needs.
        """
        some = [item for found in sets.values() for item in found[:: max(1, len(found) // 6)]]
        return cls(sets if scored else {}, some, next(iter(sets.values()))[:16])

    def brief(self, seconds: float, numerics: int) -> Items:
        """Return a part of the choice, for slow targets such as emulators.

        Args:
            seconds: seconds of audio of each test set that are kept, about, spread over the set:
                whole utterances, or the beginning of one conversation. A set of trials, whose
                recordings are compared with one another, keeps two pairs.
            numerics: number of the kept inputs whose numerics are judged.
        """

        def fitting(items: Sequence[Item]) -> Sequence[Item]:
            if any("trials" in item.facts for item in items):
                return _two_pairs(items)
            count = len(items)
            while count > 1 and sum(item.seconds for item in _spread(items, count)) > seconds:
                count -= 1
            return [beginning(item, seconds) for item in _spread(items, count)]

        task = {name: fitting(found) for name, found in self.task.items()}
        kept = [item for found in task.values() for item in found]
        if not kept:  # Generated weights, or a corpus without the truth.
            found = fitting(self.timed)
            kept = list(found) if len(found) >= numerics else _spread(self.timed, numerics)
        return Items(task, _spread(kept, numerics), kept, examples=self.examples)


def _two_pairs(items: Sequence[Item]) -> Sequence[Item]:
    """Return two recordings of one speaker and two of another; all if there are no such four."""
    paired = [(item.id, *trial) for item in items for trial in item.facts.get("trials", ())]
    trials = {(one, other): same for one, other, same in paired}
    known = {item.id for item in items}
    pairs = [pair for pair, same in trials.items() if same and known >= set(pair)]
    for first, second in itertools.combinations(pairs, 2):
        across = {trials.get(pair) for pair in itertools.product(first, second)}
        across |= {trials.get(pair) for pair in itertools.product(second, first)}
        if False in across and True not in across:
            return [item for item in items if item.id in {*first, *second}]
    return items


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return up to ``count`` items, spread evenly."""
    wanted = min(count, len(items))
    return [items[round(i * len(items) / wanted)] for i in range(wanted)]


def beginning(item: Item, seconds: float) -> Item:
    """Return the first seconds of a recording with speakers' segments, which are cut as well.

    Recordings with a text are returned whole, because the text of a part is not known.
    """
    if item.seconds <= seconds or item.text or "segments" not in item.facts:
        return item
    facts = dict(item.facts)
    for name in {"segments", "uem"} & facts.keys():
        spans = [span for span in facts[name] if span[0] < seconds]
        facts[name] = [[first, min(last, seconds), *of] for first, last, *of in spans]
    audio = item.audio[..., : round(seconds * item.rate)]
    name = item.id.removesuffix("-beginning")
    return replace(item.with_audio(audio, f"{name}-beginning"), facts=facts)


def beginnings(sets: Mapping[str, Sequence[Item]], seconds: float) -> dict[str, Sequence[Item]]:
    """Return sets whose conversations are cut to their beginnings, for a first look."""
    return {name: [beginning(item, seconds) for item in found] for name, found in sets.items()}
