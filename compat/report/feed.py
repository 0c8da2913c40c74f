"""Write an Atom feed (RFC 4287) of changes: steps of numbers, and checks that turned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from compat.contract.untrusted import one_line
from compat.report.history import History, Turn, changed_versions, turns
from compat.report.steps import Step, steps

MOST = 100
"""Most entries of a feed; the newest are kept."""
_ATOM = "http://www.w3.org/2005/Atom"


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a history: a step of a number, or a check that began to fail or to pass."""

    time: datetime
    kind: str
    """``worse``, ``better``, ``newly failing`` or ``newly passing``."""
    history: History
    sentence: str
    versions: tuple[str, ...]
    """Packages and commit that changed at the same measurement, such as ``torch 2.8 → 2.9``."""
    run: str

    @property
    def regression(self) -> bool:
        return self.kind in ("worse", "newly failing")


def events(found: Iterable[History]) -> tuple[Event, ...]:
    """Return every step and every turn of histories, newest first."""
    said: list[Event] = []
    for history in found:
        said += [_of_step(step) for step in steps(history)]
        if history.name in ("", *[m.name for m in history.values[:1]]):
            said += [_of_turn(turn) for turn in turns(history)]
    alike = {(e.time, e.kind, e.history.case, e.history.machine, e.sentence): e for e in said}
    order = sorted(alike.values(), key=lambda e: (e.history.label, e.history.machine, e.sentence))
    return tuple(sorted(order, key=lambda event: event.time, reverse=True))


def _of_step(step: Step) -> Event:
    return Event(
        step.after.time,
        step.kind,
        step.history,
        step.sentence,
        changed_versions(step.before, step.after),
        step.after.run,
    )


def _of_turn(turn: Turn) -> Event:
    after = turn.after
    reason = f": {one_line(after.reason, 160)}" if after.reason and not after.passed else ""
    sentence = f"{turn.history.check} {turn.before.status} → {after.status}{reason}"
    versions = changed_versions(turn.before, after)
    return Event(after.time, turn.kind, turn.history, sentence, versions, after.run)


def atom(found: Sequence[Event], address: str, title: str = "Regressions and gains") -> str:
    """Return a feed of events; ``address`` is where the site is published.

    Text from results files is escaped, and characters that XML cannot hold are replaced.
    """
    feed = Element("feed", xmlns=_ATOM)
    SubElement(feed, "title").text = title
    SubElement(feed, "id").text = _identity(address, "feed")
    SubElement(feed, "link", rel="alternate", href=address)
    newest = max((event.time for event in found), default=datetime.fromtimestamp(0, UTC))
    SubElement(feed, "updated").text = _date(newest)
    author = SubElement(feed, "author")
    SubElement(author, "name").text = "audio-compat"
    for event in sorted(found, key=lambda event: event.time, reverse=True)[:MOST]:
        where = event.history
        entry = SubElement(feed, "entry")
        SubElement(entry, "title").text = _text(f"{event.kind}: {where.label}", 200)
        key = (where.machine, where.case, where.check, where.name, event.run, event.kind)
        SubElement(entry, "id").text = _identity(address, *key)
        SubElement(entry, "updated").text = _date(event.time)
        SubElement(entry, "category", term=event.kind)
        SubElement(entry, "link", rel="alternate", href=address)
        lines = [f"{event.sentence} (machine {where.machine})"]
        if event.versions:
            lines.append(f"From there on also: {', '.join(event.versions[:12])}")
        SubElement(entry, "summary").text = _text(". ".join(lines), 1000)
    indent(feed)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(feed, encoding="unicode") + "\n"


def _text(words: str, longest: int) -> str:
    """Return words on one line, with U+FFFE and U+FFFF replaced, which XML forbids."""
    return one_line(words, longest).translate({0xFFFE: 0xFFFD, 0xFFFF: 0xFFFD})


def _identity(*parts: str) -> str:
    """Return an id that stays the same however often the feed is made."""
    return f"urn:uuid:{uuid5(NAMESPACE_URL, repr(parts))}"


def _date(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
