"""Claims of guides: how they are read, and what decides one, on results that are made up."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from small_results import header

from compat import catalog
from compat.commands.main import main
from compat.contract.errors import CompatError
from compat.contract.profile import FULL
from compat.hardware.facts import machine_id
from compat.judge import claims, experiments
from compat.judge.claims import KINDS, Claim, Claimed, Found, Outcome
from compat.judge.experiments import Answers, Finding, Stored
from compat.judge.results import Collection, Limit, Observation, Planned, Run, facts_of, read_all
from compat.metrics import SCORER_VERSION
from compat.metrics.timing import summarise
from compat.report import Report, build, with_claims
from compat.report.claim_evidence import Evidence
from compat.report.claim_kinds import BETWEEN_RUNS, EVALUATED
from compat.report.claims import evaluate
from compat.run import selection

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = claims.load(claims.default_folder())
PUBLISHED = ROOT / "reports"
TO_COME = ("htdemucs", "clap-", "musicgen", "encodec", "seamless", "mert")
"""Families that claims speak of, whether or not the catalog has them yet."""
CPU, GPU = {"cpu": {"model": "x"}}, {"cpu": {"model": "y"}, "gpus": [{"name": "pretended"}]}
AUDIO = [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
FACE = ("whisper-tiny@seeded/cpu-torch/fp32", "whisper-tiny@seeded/cpu-torch/bf16")

VALID = """
[[claim]]
id = "9.01"
text = "bf16 is at least 1.5 times as fast."
source = "a guide"
where = ["C"]
[[claim.check]]
kind = "speed-up"
slow = "whisper-tiny@*/cpu-torch/fp32"
fast = "whisper-tiny@*/cpu-torch/bf16"
claimed = { at_least = 1.5 }
"""


# Made-up results -----------------------------------------------------------------------------


def timing(case: str, rtf: float, wobble: float = 0.02, **values: Any) -> Observation:
    """Return a latency that grows with the length of its inputs, as real ones do."""
    seconds = [rtf * long * (1 + wobble * (n % 3 - 1)) for n, long in enumerate(AUDIO)]
    return Observation(
        case=case,
        check="latency.task",
        check_version=1,
        status="passed",
        level="strict",
        values={**summarise(seconds, AUDIO), **values},
        samples={"seconds": seconds, "audio_seconds": list(AUDIO)},
        threads=1,
        time="2026-11-28T12:00:00.000Z",
    )


def found(case: str, check: str, status: Any = "passed", **values: Any) -> Observation:
    return Observation(
        case=case,
        check=check,
        check_version=1,
        status=status,
        values=values,
        time="2026-11-28T12:00:00.000Z",
    )


def run(
    observations: Sequence[Observation],
    facts: Mapping[str, Any] = CPU,
    name: str = "20261128T120000Z-abcdef",
    **changes: Any,
) -> Run:
    """Return a results file of one machine."""
    head = header(
        run=name,
        started="2026-11-28T12:00:00.000Z",
        facts=dict(facts),
        profile="core",
        machine=machine_id(facts),
        versions={"scorer": str(SCORER_VERSION)},
        **changes,
    )
    checks: dict[str, list[str]] = {}
    for one in observations:
        checks.setdefault(one.case, []).append(one.check)
    loaded = catalog.load()
    planned = tuple(
        Planned(case=facts_of(loaded.case(case)), checks=tuple(names))
        for case, names in checks.items()
    )
    return Run(Path(f"{name}.main.jsonl"), head, planned, (), tuple(observations))


@cache
def published() -> tuple[Collection, Answers, Report]:
    """Return what lies in the repository, with its claims."""
    collection = read_all([PUBLISHED])
    answers = experiments.read_all([PUBLISHED])
    return collection, answers, with_claims(SHIPPED, build(collection), collection, answers)


def judged(
    ledger: Sequence[Claim], *runs: Run, answers: Answers | None = None
) -> dict[str, Outcome]:
    collection = Collection(tuple(runs))
    report = with_claims(ledger, build(collection), collection, answers or Answers())
    return {one.id: one for one in report.claims}


@pytest.fixture
def one(tmp_path: Path) -> Any:
    """Return a function that evaluates one claim, :data:`VALID` with changes."""

    def evaluated(*runs: Run, **changes: str) -> Outcome:
        text = VALID
        for key, value in changes.items():
            text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        (tmp_path / "claims.toml").write_text(text, encoding="utf-8")
        return judged(claims.load(tmp_path), *runs)["9.01"]

    return evaluated


# The shipped ledger --------------------------------------------------------------------------


def test_every_row_of_the_guides_is_an_entry() -> None:
    numbers = {
        0: range(1, 47),
        1: range(1, 14),
        2: [*range(1, 10), 11, 12, 13, 14, 15, 17],
        3: [*range(1, 9), *range(10, 15), 17, 20, 21, 22],
        4: [*range(1, 9), *range(10, 15)],
    }
    wanted = [f"{guide}.{number:02d}" for guide, rows in numbers.items() for number in rows]
    assert [claim.id for claim in SHIPPED] == sorted(wanted)
    assert all(claim.text.endswith(".") and claim.source for claim in SHIPPED)


def test_without_results_only_arithmetic_decides() -> None:
    """No verdict is written by hand: it goes when what it rests on does."""
    outcomes = judged(SHIPPED)
    decided = {name for name, outcome in outcomes.items() if outcome.decided}
    arithmetic = {c.id for c in SHIPPED if any(k.kind == "arithmetic" for k in c.checks)}
    assert decided == arithmetic
    for name in decided:
        assert all(f.expression for p in outcomes[name].parts for f in p.found)
    for outcome in outcomes.values():
        if outcome.verdict == "needs":
            assert outcome.label.startswith("needs ")
            assert all(part.needs and part.command for part in outcome.parts)


def test_every_verdict_holds_observations_answers_or_an_expression() -> None:
    collection, answers, report = published()
    known = {
        f"{r.header.machine}/{r.header.run}.{r.header.worker}/{o.case}/{o.check}"
        for r in collection.runs
        for o in r.observations
    } | {
        f"{s.header.machine}/{s.header.run}/{s.experiment}/{f.measure}"
        for s in answers.stored
        for f in s.findings
    }
    decided = [outcome for outcome in report.claims if outcome.decided]
    for outcome in decided:
        resting = [f for p in outcome.parts for f in p.found if f.verdict == outcome.verdict]
        assert resting, outcome.id
        for one in resting:
            assert one.expression or one.evidence, outcome.id
            assert set(one.evidence) <= known, outcome.id
    assert len(decided) >= 15, "what was published decides these already"


def test_the_data_hold_no_verdict() -> None:
    for path in claims.default_folder().glob("*.toml"):
        assert not re.search(r"verdict|confirmed|= *\"?refuted", path.read_text(encoding="utf-8"))


def test_patterns_and_measures_name_what_there_is() -> None:
    """A misspelt pattern would be a claim that no hardware ever decides."""
    from fnmatch import fnmatchcase

    loaded = catalog.load()
    ids = [case.id for case in loaded.cases(("int8-a8w8", "int8-a16w8"))]
    for claim in SHIPPED:
        for check in claim.checks:
            if check.kind == "arithmetic":
                continue
            given = [check.arguments.get(key) for key in ("slow", "fast", "case", "over")]
            for pattern in (*filter(None, given), *check.arguments.get("cases", ())):
                if any(pattern.startswith(name) for name in TO_COME) or "mlx-lazy" in pattern:
                    continue  # A family that is still to come, or what the note says is missing.
                assert any(fnmatchcase(name, pattern) for name in ids), (claim.id, pattern)


def test_the_commands_that_repeat_a_measurement_select_what_there_is() -> None:
    loaded = catalog.load()
    for outcome in judged(SHIPPED).values():
        for part in outcome.parts:
            words = shlex.split(part.command)
            if words[0] == "compat":
                continue
            options = dict(zip(words[1::2], words[2::2], strict=False))
            if any(name in options.get("--models", "") for name in TO_COME) or "lazy" in str(words):
                continue
            lists = {
                name: tuple(filter(None, options.get(f"--{name}", "").split(",")))
                for name in ("models", "targets", "recipes", "weights")
            }
            selection.Selection(**lists, profile=FULL).check(loaded)


# Reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("where", '["X"]', "where must be a list of places"),
        ("kind", '"eval"', "kind = 'eval' is unknown"),
        ("slow", '"whisper-tiny"', "is no pattern of a case"),
        ("fast", '""', "speed-up needs fast"),
        ("claimed", "{ about = 2 }", "claimed must be"),
        ("claimed", "{ at_least = 3, at_most = 2 }", "claimed must be"),
        ("claimed", '"High"', "claimed must be"),
        ("kind", '"number"', "number has no 'slow'"),
        ("text", '" "', 'add text = "..."'),
    ],
)
def test_a_faulty_entry_is_named(key: str, value: str, said: str, tmp_path: Path) -> None:
    text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", VALID)
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    with pytest.raises(CompatError) as raised:
        claims.load(tmp_path)
    assert f"{tmp_path / 'a.toml'}, entry 1 (line 2)" in str(raised.value)
    assert said in str(raised.value)


def test_a_verdict_written_by_hand_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(VALID.replace("where", 'verdict = "confirmed"\nwhere'))
    with pytest.raises(CompatError, match="unknown key 'verdict'"):
        claims.load(tmp_path)
    (tmp_path / "a.toml").write_text(VALID.replace("kind", 'verdict = "confirmed"\nkind'))
    with pytest.raises(CompatError, match="has no 'verdict'"):
        claims.load(tmp_path)


def test_two_of_one_id_and_none_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompatError, match="there are no claims"):
        claims.load(tmp_path)
    (tmp_path / "a.toml").write_text(VALID + VALID)
    with pytest.raises(CompatError, match=r"9\.01 is in .*entry 1"):
        claims.load(tmp_path)


def test_every_kind_is_used_and_has_its_function() -> None:
    assert set(EVALUATED) == set(KINDS) == {c.kind for claim in SHIPPED for c in claim.checks}


# Timings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "verdict"), [(2.0, "confirmed"), (1.0, "refuted"), (1.5, "inconclusive")]
)
def test_a_ratio_is_held_against_the_claimed_factor(one: Any, factor: float, verdict: str) -> None:
    """At 1.0 a technique does nothing, and is refuted."""
    noisy = run([timing(FACE[0], 0.1 * factor), timing(FACE[1], 0.1, wobble=-0.02)])
    outcome = one(noisy)
    assert outcome.verdict == verdict
    (part,) = outcome.parts
    (seen,) = part.found
    assert f"{factor:g} × (" in seen.measured
    assert seen.machine == machine_id(CPU)
    assert seen.evidence == tuple(
        f"{seen.machine}/20261128T120000Z-abcdef.main/{case}/latency.task" for case in FACE
    )
    assert part.command == "pytest --models whisper-tiny --targets cpu-torch --recipes fp32,bf16"


def test_machines_are_never_compared_with_one_another(one: Any) -> None:
    slow, fast = run([timing(FACE[0], 0.4)]), run([timing(FACE[1], 0.1)], GPU, "another")
    assert one(slow, fast).verdict == "needs"


def test_two_runs_widen_the_interval_and_one_run_is_preferred(one: Any) -> None:
    slow, fast = run([timing(FACE[0], 0.2)]), run([timing(FACE[1], 0.1)], name="later")
    assert one(slow, fast).verdict == "inconclusive"  # 2 ÷ 1.5 is less than 1.5.
    apart = run([timing(FACE[0], 0.1 * 1.6 * BETWEEN_RUNS)])
    assert one(apart, fast).verdict == "confirmed"
    together = run([timing(FACE[0], 0.2), timing(FACE[1], 0.1)], name="both")
    outcome = one(slow, fast, together)
    assert outcome.verdict == "confirmed"
    assert all("/both.main/" in name for p in outcome.parts for f in p.found for name in f.evidence)


def test_a_busy_machine_and_a_fault_of_the_timing_decide_nothing(one: Any) -> None:
    busy = {"others_busy": 1.9, "processors": 2}
    assert one(run([timing(FACE[0], 0.4, **busy), timing(FACE[1], 0.1)])).verdict == "needs"
    wrong = msgspec.structs.replace(timing(FACE[0], 0.4), status="failed", level="failed")
    assert one(run([wrong, timing(FACE[1], 0.1)])).verdict == "needs"
    limit = Limit(
        metric="rtf",
        value=0.4,
        strict=0.1,
        relaxed=0.2,
        direction="at_most",
        level="failed",
        reason="slow",
    )
    slow = msgspec.structs.replace(wrong, limits=(limit,))
    assert one(run([slow, timing(FACE[1], 0.1)])).verdict == "confirmed"


def test_other_inputs_are_not_paired(one: Any) -> None:
    """Longer recordings take longer: ends of both intervals are all that can be said."""
    other = timing(FACE[1], 0.1)
    other.samples["audio_seconds"][0] = 3.0
    (seen,) = one(run([timing(FACE[0], 0.3), other])).parts[0].found
    assert "ends of the intervals" in seen.reason
    assert seen.verdict == "inconclusive"


def test_an_emulator_and_own_recordings_decide_nothing(one: Any) -> None:
    names = [f"whisper-nano@trained/webgpu-{b}-software/fp32" for b in ("chromium", "firefox")]
    patterns = {
        "slow": '"whisper-nano@*/webgpu-chromium-software/fp32"',
        "fast": '"whisper-nano@*/webgpu-firefox-software/fp32"',
    }
    assert one(run([timing(names[0], 0.4), timing(names[1], 0.1)]), **patterns).verdict == "needs"
    own = run([timing(FACE[0], 0.4), timing(FACE[1], 0.1)], own=("corpus",))
    assert one(own).verdict == "needs"


def test_machines_that_differ_leave_it_open(one: Any) -> None:
    good = run([timing(FACE[0], 0.4), timing(FACE[1], 0.1)])
    bad = run([timing(FACE[0], 0.1), timing(FACE[1], 0.1)], GPU, "another")
    assert one(good).verdict == "confirmed"
    outcome = one(good, bad)
    assert outcome.verdict == "inconclusive"
    assert {f.verdict for f in outcome.parts[0].found} == {"confirmed", "refuted"}


# Accuracy, bytes, ratings --------------------------------------------------------------------


def degraded(by: float, interval: Any, recordings: int = 12) -> Observation:
    return found(
        "diarization-synthetic@trained/openvino-cpu/int8-dynamic",
        "accuracy.task",
        conversations={
            "der": 0.2,
            "degradation": by,
            "degradation_interval": interval,
            "recordings": recordings,
        },
    )


@pytest.mark.parametrize(
    ("observation", "verdict"),
    [
        (degraded(0.05, [0.03, 0.07]), "refuted"),
        (degraded(0.001, [0.0, 0.004]), "confirmed"),
        (degraded(0.005, [-0.001, 0.014]), "inconclusive"),
        (degraded(0.0, [0.0, 0.0], 2), "inconclusive"),
        (degraded(0.0, None), "inconclusive"),
    ],
    ids=["broken", "sound", "wide", "two recordings", "no interval"],
)
def test_a_degradation_is_held_against_its_bound(observation: Observation, verdict: str) -> None:
    outcome = judged(SHIPPED, run([observation]))["4.05"]
    (part,) = (part for part in outcome.parts if part.what == "DER")
    assert part.verdict == verdict
    # A technique that breaks accuracy is refuted, however fast it may be.
    assert outcome.verdict == ("refuted" if verdict == "refuted" else "inconclusive")


def test_bytes_are_those_of_one_size_with_one_set_of_weights() -> None:
    small, large = "whisper-nano@trained/{}", "whisper-tiny@seeded/{}"
    sides = [("cpu-onnxruntime/int8-dynamic", 40), ("cpu-onnxruntime/fp32", 100)]
    observations = [
        found(large.format(name), "memory.peak", model_bytes=size) for name, size in sides
    ]
    outcome = judged(SHIPPED, run(observations))["0.46"]
    assert (outcome.parts[0].verdict, outcome.parts[0].found[0].measured) == ("confirmed", "0.4 ×")
    mixed = [found(small.format(sides[0][0]), "memory.peak", model_bytes=1), observations[1]]
    assert judged(SHIPPED, run(mixed))["0.46"].parts[0].verdict == "needs"


def test_an_emulator_refutes_that_nothing_runs_and_nothing_else() -> None:
    name = "whisper-nano@trained/webgpu-chromium-software/fp32"
    good = run(
        [
            found(name, "support.loads"),
            found(name, "support.placed", share=1.0),
            msgspec.structs.replace(found(name, "robustness.stress"), level="strict"),
            msgspec.structs.replace(
                found(name, "accuracy.task", clean={"wer": 0.1}), level="strict"
            ),
            msgspec.structs.replace(found(name, "accuracy.numerics"), level="strict"),
        ]
    )
    report = build(Collection((good,)))
    cell = report.cell("Whisper", "webgpu")
    assert cell.best is not None and cell.best.rating.kind == "emulated"
    (limited,) = (claim for claim in SHIPPED if claim.id == "0.07")
    outcome = evaluate([limited], Evidence(report))[0]
    assert (outcome.verdict, outcome.label) == ("needs", "needs a browser with a GPU")
    assert "says nothing of speed" in outcome.reason
    (check,) = limited.checks
    nothing = replace(limited, checks=(replace(check, claimed=Claimed(word="None")),))
    outcome = evaluate([nothing], Evidence(report))[0]
    assert outcome.verdict == "refuted"
    assert "gives right answers" in outcome.reason


def test_a_published_cell_says_how_it_differs() -> None:
    outcomes = {one.id: one for one in published()[2].claims}
    openvino, webnn = outcomes["0.04"], outcomes["0.06"]
    assert openvino.verdict == "refuted" and openvino.reason.startswith("better than claimed: ")
    assert webnn.verdict == "confirmed" and "worthwhile failed" in webnn.reason
    for number in range(1, 22):
        outcome = outcomes[f"0.{number:02d}"]
        assert outcome.decided is bool(
            outcome.parts[0].found and outcome.reason.count(" ") > 3
        ) or (outcome.verdict == "needs")


# Hardware that is not here -------------------------------------------------------------------


def gpu_run() -> Run:
    """What ``pytest -m cuda`` writes on a machine with a GPU: pretended, and never published."""
    name = "whisper-tiny@seeded/{}"
    batches = {str(size): {"items_per_s": 10.0 * size} for size in (1, 4, 8, 16, 24, 32)}
    cases = {
        "cuda-torch/fp32": 0.02,
        "cuda-torch/fp16": 0.01,
        "cuda-torch/bf16": 0.011,
        "cuda-onnxruntime-tensorrt/fp16": 0.008,
        "cuda-faster-whisper/fp16": 0.002,
        "cuda-faster-whisper/int8-dynamic": 0.004,
        "cuda-openai-whisper/fp16": 0.009,
        "cpu-torch/fp32": 0.2,
        "cpu-torch/bf16": 0.1,
    }
    observations = [timing(name.format(case), rtf, fetch_share=0.01) for case, rtf in cases.items()]
    fp16 = name.format("cuda-torch/fp16")
    return run(
        [
            *observations,
            found(fp16, "memory.peak", device_peak_bytes=0.7e9),
            found(fp16, "latency.throughput", batches=batches),
        ],
        GPU,
    )


@pytest.mark.parametrize(
    ("name", "verdict", "measured"),
    [
        ("1.08", "refuted", "1.25 ×"),
        ("1.10", "refuted", "1 %"),
        ("3.07", "confirmed", "2 ×"),
        ("3.10", "confirmed", "700 MB"),
        ("3.06", "inconclusive", "4.5 ×"),
    ],
)
def test_a_run_on_the_hardware_decides_without_further_work(
    name: str, verdict: str, measured: str
) -> None:
    before, after = judged(SHIPPED)[name], judged(SHIPPED, gpu_run())[name]
    if name != "3.06":  # Its own arithmetic refutes it, and measurements then do not.
        assert before.label == "needs an NVIDIA GPU"
    assert after.verdict == verdict
    found_there = [f for p in after.parts if p.place == "G" for f in p.found]
    assert any(measured in one.measured for one in found_there), found_there
    assert {one.machine for one in found_there} == {machine_id(GPU)}


def test_a_gpu_changes_no_claim_of_other_hardware() -> None:
    before, after = judged(SHIPPED), judged(SHIPPED, gpu_run())
    for claim in SHIPPED:
        if not {"G", "C"} & {*claim.where}:
            assert after[claim.id].verdict == before[claim.id].verdict, claim.id
    assert after["2.02"].label == "needs Apple silicon"


# Answers of experiments ----------------------------------------------------------------------


def answer(*findings: Finding, busy: float = 0.0, name: str = "fusion", **changes: Any) -> Stored:
    head = header(machine=machine_id(CPU), facts=CPU, **changes)
    return Stored(
        experiment=name,
        version=experiments.VERSIONS[name],
        header=head,
        findings=findings,
        others={"others_busy": busy, "processors": 2},
    )


FUSED = (
    Finding(
        measure="speed-up of optimisation", value=1.5, interval=(1.4, 1.6), timed=True, detail="d"
    ),
    Finding(measure="frames that optimisation changes", value=0, unit="count"),
)


def test_an_answer_decides_and_names_its_run() -> None:
    outcome = judged(SHIPPED, answers=Answers((answer(*FUSED),)))["4.06"]
    assert outcome.verdict == "confirmed"
    (seen,) = outcome.parts[0].found
    assert seen == Found(
        "confirmed",
        "1.5 × (1.4 × to 1.6 ×)",
        machine_id(CPU),
        "2026-11-20",
        (f"{machine_id(CPU)}/20261120T120000Z-abcdef/fusion/speed-up of optimisation",),
        reason="d",
    )
    assert outcome.parts[0].command == "compat experiment fusion --save"


def test_a_timed_answer_of_a_busy_machine_decides_nothing_and_another_does() -> None:
    outcome = judged(SHIPPED, answers=Answers((answer(*FUSED, busy=1.5),)))["4.06"]
    assert outcome.verdict == "inconclusive"
    assert [part.verdict for part in outcome.parts] == ["inconclusive", "confirmed"]
    assert "other processes kept 1.5 of 2 processors busy" in outcome.reason
    later = answer(*FUSED, busy=1.5, run="later", started="2026-11-21T12:00:00.000Z")
    both = Answers((answer(*FUSED), later))
    assert judged(SHIPPED, answers=both)["4.06"].verdict == "confirmed"


def test_a_doubted_answer_decides_nothing() -> None:
    doubted = msgspec.structs.replace(FUSED[0], doubt="a software adapter")
    outcome = judged(SHIPPED, answers=Answers((answer(doubted, FUSED[1]),)))["4.06"]
    assert (outcome.verdict, outcome.reason) == ("inconclusive", "a software adapter; d")


def test_a_stranger_answer_is_named_and_left_out(tmp_path: Path) -> None:
    good = answer(*FUSED)
    other = msgspec.structs.replace
    for name, one in {
        "good": good,
        "old": other(good, version=0),
        "unknown": other(good, experiment="fission"),
        "evil": other(good, header=other(good.header, run="../x")),
        "huge": other(good, findings=(other(FUSED[0], value=1e300),)),
    }.items():
        (tmp_path / f"{name}.experiment.json").write_bytes(msgspec.json.encode(one))
    (tmp_path / "torn.experiment.json").write_text("{")
    read = experiments.read_all([tmp_path])
    assert read.stored == (good,)
    said = " ".join(read.problems)
    for words in ("version 0", "no experiment is called fission", "cannot be part of a path"):
        assert words in said or len(read.problems) == 4  # Three are told, the others counted.


def test_an_outdated_answer_is_told_until_its_machine_has_answered_again(tmp_path: Path) -> None:
    def write(name: str, one: Stored) -> tuple[str, ...]:
        (tmp_path / f"{name}.experiment.json").write_bytes(msgspec.json.encode(one))
        return experiments.read_all([tmp_path]).problems

    good = answer(*FUSED)
    assert "old.experiment.json: version 0" in " ".join(
        write("old", msgspec.structs.replace(good, version=0))
    )
    elsewhere = msgspec.structs.replace(good.header, machine="elsewhere", run="another")
    assert write("elsewhere", msgspec.structs.replace(good, header=elsewhere))
    assert not write("again", good)


def test_published_evidence_has_no_problems() -> None:
    _, answers, report = published()
    assert answers.problems == ()
    assert report.problems == ()


# The command and the page --------------------------------------------------------------------


def test_the_table_fits_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["claims", str(PUBLISHED / "results" / "fcacce06")]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(bool(re.match(r"\d\.\d\d ", line)) for line in lines) == len(SHIPPED)
    assert re.search(r"104 claims: \d+ confirmed, \d+ refuted, \d+ inconclusive", shown)


def test_one_claim_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "1.09", str(PUBLISHED / "results" / "fcacce06")]) == 0
    shown = capsys.readouterr().out
    assert "claimed ≤ 0.5, confirmed" in shown
    assert "whisper-tiny.en@pretrained/cpu-onnxruntime/fp32/latency.task" in shown
    assert "repeat: pytest --models 'whisper-tiny*' --targets cpu-onnxruntime" in shown
    assert main(["claims", "3.17", str(PUBLISHED / "results" / "fcacce06"), "--json"]) == 0
    (found_one,) = json.loads(capsys.readouterr().out)
    assert (found_one["id"], found_one["verdict"]) == ("3.17", "refuted")
    assert "120 ÷ 52 = 2.308" in found_one["parts"][0]["found"][0]["expression"]


def test_an_unknown_claim_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "7.01", str(PUBLISHED / "results" / "fcacce06")]) == 3
    assert "no claim is called 7.01" in capsys.readouterr().err


def test_the_page_shows_every_claim_with_its_evidence(tmp_path: Path) -> None:
    from compat.report import write_site

    evil = "<script>alert(1)</script>"
    collection = read_all([PUBLISHED / "results" / "fcacce06"])
    told = msgspec.structs.replace(FUSED[0], detail=evil)
    answers = Answers((answer(told, FUSED[1]),))
    report = with_claims(SHIPPED, build(collection), collection, answers)
    write_site(report, tmp_path / "site")
    page = (tmp_path / "site" / "claims.html").read_text(encoding="utf-8")
    assert all(f'id="claim-{claim.id}"' in page for claim in SHIPPED)
    printed = page.partition('class="list published"')[2].partition("</table>")[0]
    cells = re.findall(r'href="#claim-(0\.\d\d)">(\S) (\w+) → ([^<]+)</a>', printed)
    assert sorted(cell[0] for cell in cells) == [f"0.{n:02d}" for n in range(1, 29)]
    assert {cell[2] for cell in cells} == {"High", "Medium", "Limited", "None"}
    assert evil not in page and "&lt;script&gt;alert(1)" in page
    assert "compat experiment fusion --save" in page
    links = re.findall(r'href="(configurations/[^"#]+)#([^"]+)"', page)
    assert len(links) > 3
    for file, anchor in links:
        text = (tmp_path / "site" / file).read_text(encoding="utf-8")
        assert f'id="{anchor}"' in text


# Experiments ---------------------------------------------------------------------------------


def test_every_experiment_has_a_version_and_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from importlib import import_module

    from compat.experiments import EXPERIMENTS

    assert sorted(EXPERIMENTS) == sorted(experiments.VERSIONS)
    for name in EXPERIMENTS:
        declared = import_module(f"compat.experiments.{name}").EXPERIMENT
        assert declared.example.startswith(f"compat experiment {name}")
    used = {c["name"]: set() for claim in SHIPPED for c in claim.checks if c.kind == "experiment"}
    # No guide claims anything of an hour of speech, of following it as it is said, or of seams.
    assert set(used) == set(EXPERIMENTS) - {"live", "long", "seams", "times"}


def test_turns_alternate_and_a_technique_that_does_nothing_gains_nothing() -> None:
    from compat.experiments.measures import in_turns, quotient, saved

    order: list[str] = []
    seconds = in_turns(
        {name: lambda number, name=name: order.append(name) for name in "ab"},  # type: ignore[misc]
        4,
        lambda text: None,
    )
    assert "".join(order) == "baabbaabba"
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 4, "b": 4}
    same = quotient("m", [1.0, 1.1, 0.9, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.1, 0.9, 1.0])
    assert same.timed and same.interval is not None
    assert Claimed(at_least=1.2).judge(*same.interval) == "refuted"
    half = quotient("m", [0.5] * 6, [1.0] * 6, unit="share", form=saved)
    assert (half.value, half.interval) == (0.5, (0.5, 0.5))


def test_decoding_is_saved_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compat.experiments import decoding

    monkeypatch.setattr(decoding, "SECONDS", 2)
    monkeypatch.setattr(sys, "argv", ["compat", "experiment", "decoding"])
    words = ["experiment", "decoding", "--rounds", "2", "--save", str(tmp_path)]
    assert main(words) == 0
    (stored,) = experiments.read_all([tmp_path]).stored
    assert stored.header.machine == machine_id(stored.header.facts)
    assert {"MP3 over WAV", "MP3 over FLAC"} <= {one.measure for one in stored.findings}
    assert all(one.timed and one.interval for one in stored.findings)
    assert all("2 rounds covers 50%" in one.doubt for one in stored.findings)
    outcomes = judged(SHIPPED, answers=Answers((stored,)))
    assert outcomes["1.11"].verdict == "inconclusive", "two rounds decide nothing"


def test_overlap_add_and_pruning_see_what_they_must(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from compat.experiments import identities, segmenting
    from compat.models.parts.windows import Windows

    (sound,) = identities._overlap()
    assert sound.value == 1.0
    join = Windows.join
    monkeypatch.setattr(
        Windows, "join", lambda self, w, n, weights: join(self, w * np.float32(1.0001), n, weights)
    )
    (broken,) = identities._overlap()
    assert broken.value == 0.0
    small = segmenting.pruned(0.3)
    weights = [p for n, p in small.named_parameters() if p.ndim > 1]
    zero = sum(int((p == 0).sum()) for p in weights) / sum(p.numel() for p in weights)
    assert 0.27 < zero < 0.31
    assert not (segmenting.trained()[1].linear[0].weight == 0).any(), "the original is untouched"


def test_a_process_of_its_own_measures_memory() -> None:
    pytest.importorskip("torch")
    from compat.experiments.chunks import memory_of

    assert memory_of("attention plain 2048") > 8 * 2048**2 * 4  # Scores of eight heads.


def test_nothing_is_executed_from_a_file() -> None:
    for name in ("judge/claims.py", "report/claims.py", "report/claim_kinds.py"):
        text = (ROOT / "compat" / name).read_text(encoding="utf-8")
        assert not re.search(r"\b(eval|exec|compile)\(", text)
