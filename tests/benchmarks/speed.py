"""Speed against the field's baseline: docs/speed.md. ``make speed`` runs it.

Every runtime of a processor transcribes the same audio with the same weights and as many tokens,
each in a worker of its own, round by round in turn; who is not at work stands still. Ratios are
those of one round, so that a drift of the machine favours nobody.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from bench import conditions, other_catalog

from compat import catalog
from compat.contract.case import Case
from compat.hardware.facts import available_cpus
from compat.inputs import corpus
from compat.measure.request import CaseRequest
from compat.metrics.timing import Median, median_interval, undisturbed
from compat.report.documents import put
from compat.run.client import StageFailure, Worker
from compat.run.probing import Prober

BASELINE, SECOND = "cpu-openai-whisper/fp32", "cpu-hugging-face/fp32"
ROUNDS = 12
NOISE = 0.25
"""How much longer than at best fixed arithmetic beside a round may take: as in the suites."""
TRIES = 5
"""Times that one contestant is timed in a round, at most, until the machine was calm beside it."""
AGREEMENT = 0.1
"""How far the baseline's median over the first half of the rounds may be from the second's."""

Round = Mapping[str, Mapping[str, Any]]
"""What the stage ``timed`` found of each contestant in one round; all had the same audio."""


@dataclass(frozen=True)
class Claim:
    """What the field says of runtimes on processors against openai-whisper."""

    text: str
    factor: float
    precision: str = ""
    """Which precision it is about; empty: any."""


CLAIMS = (
    Claim("twice as fast as openai-whisper on a Linux processor", 2.0),
    Claim("the same, float32 against float32", 2.0, "fp32"),
    Claim("4.1 times as fast with int8", 4.1, "int8"),
)


# Measuring -------------------------------------------------------------------------------------


def field(model: str, targets: Sequence[str], recipes: Sequence[str]) -> dict[str, Case]:
    """Return the contestants by ``target/recipe``: on each target fp32, and its first int8."""
    variant, _, weights = model.partition("@")
    chosen: dict[str, Case] = {}
    for case in catalog.load().cases():
        wanted = (case.variant.name, case.weights) == (variant, weights)
        if not (wanted and case.target.on_host_cpu):
            continue
        if targets and case.target.name not in targets:
            continue
        int8 = next((r for r in case.target.recipes if r.startswith("int8")), "")
        if case.recipe.name in (recipes or ("fp32", int8)):
            chosen[f"{case.target.name}/{case.recipe.name}"] = case
    return chosen


def contest(
    cases: Mapping[str, Case], rounds: int, threads: int, checkpoint: str = ""
) -> tuple[list[Round], dict[str, str], dict[str, str]]:
    """Run rounds until enough were undisturbed; return all, what was executed, and who fell out."""
    workers: dict[str, Worker] = {}
    executed: dict[str, str] = {}
    out: dict[str, str] = {}
    probe = Prober()
    found: list[Round] = []
    try:
        for name, case in cases.items():
            probed = probe(case.target)
            if probed.state != "here":
                out[name] = f"{probed.state}: {probed.reason} ({probed.remedy})"
                continue
            request = CaseRequest(
                case.id, str(corpus.DEFAULT), threads=threads, checkpoint=checkpoint
            )
            worker = Worker(request, 3600.0, 16 << 30)
            try:
                schemes = worker.stage("loads")["executed"].values()
                worker.ask("timed", index=0)  # Runs the standard inputs first, which warms up.
            except StageFailure as failure:
                out[name] = f"{failure.status}: {failure}"
                worker.close()
                continue
            executed[name] = ", ".join(dict.fromkeys(schemes))
            workers[name] = worker
            worker.pause(True)
            print(f"ready: {name}", flush=True)
        names, fastest = list(workers), math.inf
        while names and len(found) < 3 * rounds and len(calm(found)) < rounds:
            index = len(found)
            first = index % len(names)
            one: dict[str, Any] = {}
            for name in (*names[first:], *names[:first]):
                workers[name].pause(False)
                for _ in range(TRIES):
                    one[name] = workers[name].ask("timed", index=index)
                    fastest = min(fastest, one[name]["baseline_s"])
                    if one[name]["baseline_s"] <= (1 + NOISE) * fastest:
                        break
                workers[name].pause(True)
            found.append(one)
            print(f"round {index + 1}: {_said(one)}", flush=True)
    finally:
        for worker in workers.values():
            worker.pause(False)
            worker.close()
    return found, executed, out


def _said(one: Round) -> str:
    return ", ".join(f"{name} {found['seconds']:.3f} s" for name, found in one.items())


def calm(rounds: Sequence[Round]) -> list[Round]:
    """Return the rounds in which nobody met a busy machine, by the arithmetic beside them."""
    beside = [found["baseline_s"] for one in rounds for found in one.values()]
    good = iter(undisturbed(beside, NOISE) if beside else ())
    marked = [(one, [next(good) for _ in one]) for one in rounds]
    return [one for one, found in marked if all(found)]


def baselines_of(rounds: Sequence[Round]) -> list[str]:
    """Return what the rest is held against: the first contestant where no baseline is here."""
    return [name for name in (BASELINE, SECOND) if name in rounds[0]] or [next(iter(rounds[0]))]


# Judging ---------------------------------------------------------------------------------------


def faults(rounds: Sequence[Round], wanted: int, baseline: str) -> list[str]:
    """Return why these rounds are not to be published; empty if they may be."""
    said = []
    if len(rounds) < wanted:
        said.append(f"only {len(rounds)} of {wanted} rounds were undisturbed: close other programs")
    seconds = [one[baseline]["seconds"] for one in rounds]
    half = len(seconds) // 2
    first, last = median(seconds[: half or 1]), median(seconds[half:])
    drift = max(first, last) / min(first, last) - 1
    if drift > AGREEMENT:
        said.append(f"the baseline drifted by {drift:.0%} between the first rounds and the last")
    for name in rounds[0]:
        if any(one[name]["counts"] != one[baseline]["counts"] for one in rounds):
            said.append(f"{name} gave another number of tokens than the baseline")
        if not all(one[name]["same"] for one in rounds):
            said.append(f"{name} gave other outputs when timed")
    return said


def speed_up(rounds: Sequence[Round], name: str, baseline: str) -> Median:
    """Return how many times as fast as the baseline, over the ratios of each round."""
    return median_interval([one[baseline]["seconds"] / one[name]["seconds"] for one in rounds])


def verdict(claim: Claim, rounds: Sequence[Round], executed: Mapping[str, str]) -> str:
    """Say of a claim whether the fastest contestant that it is about reaches it."""
    about = [
        name
        for name in rounds[0]
        if name not in (BASELINE, SECOND) and executed[name].startswith(claim.precision)
    ]
    if not about:
        return "nobody to try it"
    ratios = {name: speed_up(rounds, name, BASELINE) for name in about}
    best = max(ratios, key=lambda name: ratios[name].value)
    found = ratios[best]
    if found.low >= claim.factor:
        word = "reached"
    else:
        word = "**not reached**" if found.high < claim.factor else "undecided"
    return f"{word}: {_times(found)} by {best}"


def _times(found: Median) -> str:
    return f"{found.value:.2f} × ({found.low:.2f} to {found.high:.2f})"


def table(
    rounds: Sequence[Round],
    executed: Mapping[str, str],
    versions: Mapping[str, str],
    baselines: Sequence[str] = (BASELINE, SECOND),
) -> str:
    """Return the contestants as a Markdown table, the fastest first."""
    heads = [f"against {name.split('/')[0].removeprefix('cpu-')}" for name in baselines]
    head = ["target", "executed", "versions", "seconds a window", "encoder", "a token", "RTFx"]
    lines = [[*head, *heads], ["---"] * (len(head) + len(heads))]
    for name in sorted(rounds[0], key=lambda n: median(one[n]["seconds"] for one in rounds)):
        mine = [one[name] for one in rounds]
        seconds = median_interval([one["seconds"] for one in mine])
        tokens = median(one["counts"]["tokens"] for one in mine)
        lines.append(
            [
                name.split("/")[0],
                executed[name],
                versions[name],
                f"{seconds.value:.3f} ({seconds.low:.3f} to {seconds.high:.3f})",
                _stage(mine, "encoder", "{:.3f} s"),
                _stage(mine, "decoder", "{:.1f} ms", 1e3 / tokens),
                f"{median(one['audio_s'] / one['seconds'] for one in mine):.0f} ×",
                *(
                    _times(speed_up(rounds, name, baseline)) if name != baseline else "1"
                    for baseline in baselines
                ),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _stage(mine: Sequence[Mapping[str, Any]], stage: str, text: str, factor: float = 1.0) -> str:
    found = [one["stages"][stage] for one in mine if stage in one["stages"]]
    return text.format(factor * median(found)) if found else "–"


def report(
    rounds: Sequence[Round],
    executed: Mapping[str, str],
    versions: Mapping[str, str],
    out: Mapping[str, str],
    model: str,
    threads: int,
) -> str:
    """Return all that is to be published of the rounds, as Markdown."""
    baselines = baselines_of(rounds)
    one = [r[baselines[0]] for r in rounds]
    features = median(found["stages"]["features"] for found in one)
    said = [table(rounds, executed, versions, baselines)]
    if BASELINE in rounds[0]:
        rows = [f"| {claim.text} | {verdict(claim, rounds, executed)} |" for claim in CLAIMS]
        said.append("\n".join(["| claim | found |", "| --- | --- |", *rows]))
    if out:
        said.append("\n".join(f"- {name}: {reason}" for name, reason in out.items()))
    said.append(
        f"{model}, batch 1, {threads} threads, {len(rounds)} rounds, "
        f"{median(found['audio_s'] for found in one):.1f} s of audio and "
        f"{median(found['counts']['tokens'] for found in one):.0f} tokens a window, of which "
        f"features take {features:.3f} s. {conditions()}"
    )
    return "\n\n".join(said)


def version_of(case: Case) -> str:
    """Return name and version of the package that executes a case."""
    for package in catalog.load().runtime(case.target.runtime).packages:
        with suppress(metadata.PackageNotFoundError):
            return f"{package} {metadata.version(package)}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="whisper-tiny@seeded", metavar="VARIANT@WEIGHTS")
    parser.add_argument("--checkpoint", default="", help="folder of pretrained weights")
    parser.add_argument("--targets", type=lambda text: text.split(","), default=[])
    parser.add_argument("--recipes", type=lambda text: text.split(","), default=[])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--raw", type=Path, metavar="FILE", help="write the rounds there, as JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the table there")
    given = parser.parse_args()
    with other_catalog("hugging_face.py"):
        cases = field(given.model, given.targets, given.recipes)
        if not cases:
            parser.error("no contestant: `compat list` shows variants, targets and recipes")
        everything, executed, out = contest(cases, given.rounds, given.threads, given.checkpoint)
        versions = {name: version_of(cases[name]) for name in executed}
    if given.raw:
        given.raw.write_text(json.dumps(everything), encoding="utf-8")
    if not everything:
        sys.exit(f"speed: nobody could run: {out}")
    good = calm(everything)[: given.rounds]
    rounds = good or everything
    said = report(rounds, executed, versions, out, given.model, given.threads)
    print(f"\n{said}")
    wrong = faults(rounds, given.rounds, baselines_of(rounds)[0])
    if not good:
        wrong.append("no round was undisturbed: close other programs")
    for fault in wrong:
        print(f"FAIL {fault}")
    if given.write and not wrong:
        put(given.write, f"speed-{given.model.partition('@')[0]}", said)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
