"""The ledger: the claims of guides, each with its verdict.

Claims are data, and this module names none. Each check of a claim is evaluated by the function of
its kind (``claim_kinds.py``), from a report, the runs behind it, and stored answers of experiments
(``claim_evidence.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from compat.judge.claims import PLACES, Check, Claim, Outcome, Part, Verdict, together
from compat.judge.experiments import Answers
from compat.judge.results import Collection
from compat.report.claim_evidence import Evidence
from compat.report.claim_kinds import EVALUATED
from compat.report.claim_words import claimed_words, command
from compat.report.model import Report

HARDWARE = {
    "cpu": PLACES["C"],
    "cuda": PLACES["G"],
    "rocm": PLACES["R"],
    "mps": PLACES["A"],
    "coreml": PLACES["A"],
    "qualcomm": PLACES["Q"],
    "webgpu": PLACES["B"],
}
"""Maps a column to the hardware that it needs; other columns need a run only."""


def evaluate(claims: Iterable[Claim], evidence: Evidence) -> tuple[Outcome, ...]:
    """Return every claim with its verdict, in the order given."""
    return tuple(_outcome(claim, evidence) for claim in claims)


def ledger(
    claims: Iterable[Claim], report: Report, collection: Collection, answers: Answers
) -> Report:
    """Return the report with the evaluated claims, and with the problems of the answers."""
    evidence = Evidence(report, collection.runs, answers)
    problems = (*report.problems, *answers.problems)
    return replace(report, claims=evaluate(claims, evidence), problems=problems)


# From checks to a verdict --------------------------------------------------------------------


def _outcome(claim: Claim, evidence: Evidence) -> Outcome:
    parts = tuple(_part(check, evidence) for check in claim.checks)
    places = {
        place: together([part.verdict for part in parts if part.place == place])
        for place in dict.fromkeys(part.place for part in parts)
    }
    decided = {verdict for verdict in places.values() if verdict in ("confirmed", "refuted")}
    reason = ""
    verdict: Verdict
    if len(decided) == 1:
        (verdict,) = decided
        reason = _reason(parts, verdict)
        open_places = [p for p, one in places.items() if one not in decided]
        if open_places:
            would = " and ".join(dict.fromkeys(_needs(parts, place) for place in open_places))
            reason = "; ".join(filter(None, (reason, f"still open: {would}")))
    elif decided:
        verdict = "inconclusive"
        said = (f"{one} by {PLACES[place]}" for place, one in places.items() if one in decided)
        reason = "; ".join(said)
    else:
        verdict = "inconclusive" if "inconclusive" in places.values() else "needs"
    label: str = verdict
    if verdict == "needs":
        label = f"needs {' or '.join(dict.fromkeys(_needs(parts, place) for place in places))}"
        reason = _reason(parts, "needs")
    elif verdict == "inconclusive":
        reason = reason or _reason(parts, "inconclusive") or _open(parts)
    return Outcome(
        claim.id, claim.text, claim.source, claim.where, claim.note, verdict, label, parts, reason
    )


def _reason(parts: Sequence[Part], verdict: Verdict) -> str:
    """Return the first reason given by a part with that verdict; empty where none gives one."""
    found = [f for p in parts if p.verdict == verdict for f in p.found if f.verdict == verdict]
    return next((one.reason for one in found if one.reason), "")


def _needs(parts: Sequence[Part], place: str) -> str:
    return next((p.needs for p in parts if p.place == place and p.needs), PLACES[place])


def _open(parts: Sequence[Part]) -> str:
    missing = [part.what or part.needs for part in parts if part.verdict == "needs"]
    return (
        f"not measured: {', '.join(missing)}" if missing else "the interval holds what is claimed"
    )


def _part(check: Check, evidence: Evidence) -> Part:
    found = tuple(EVALUATED[check.kind](check, evidence))
    verdicts = {one.verdict for one in found}
    verdict: Verdict = "inconclusive"
    if not found or verdicts == {"needs"}:
        verdict = "needs"
    elif "confirmed" in verdicts and "refuted" in verdicts:
        verdict = "inconclusive"  # Machines differ, and each is shown.
    elif verdicts & {"confirmed", "refuted"}:
        verdict = "confirmed" if "confirmed" in verdicts else "refuted"
    needs = _what_is_needed(check) if verdict == "needs" else ""
    claimed = claimed_words(check)
    cell = (check["row"], check["hardware"]) if check.kind == "rating" else None
    return Part(check.what, check.place, claimed, verdict, found, command(check), needs, cell)


def _what_is_needed(check: Check) -> str:
    if check.kind == "experiment":
        return f"`compat experiment {check['name']}`"
    if check.kind in ("rating", "best-rated"):
        # An emulator is enough to refute that nothing runs.
        owned = {} if check.claimed.word == "None" else HARDWARE
        return owned.get(check["hardware"], f"a run on {check['hardware']}")
    return PLACES[check.place]
