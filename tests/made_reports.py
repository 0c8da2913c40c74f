"""Reports made of a few observations: what tests of the report change a part of."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from compat.judge.results import (
    SCHEMA_VERSION,
    CaseFacts,
    Collection,
    Header,
    Level,
    Line,
    Observation,
    Planned,
    Run,
    Started,
    Status,
)
from compat.metrics import SCORER_VERSION
from compat.report import build, write_site
from compat.report.model import Configuration, Report

CPU, GPU = "c4d1e09f77aa2b10", "ab12f00d55e6c3d9"
LOADS, PLACED, TASK, NUMERICS = (
    "support.loads",
    "support.placed",
    "accuracy.task",
    "accuracy.numerics",
)
LATENCY, STRESS = "latency.task", "robustness.stress"


def case(
    target: str = "cpu-torch",
    recipe: str = "fp32",
    variant: str = "whisper-tiny",
    weights: str = "seeded",
    **changes: Any,
) -> CaseFacts:
    hardware = target.split("-", maxsplit=1)[0]
    about: dict[str, Any] = {
        "id": f"{variant}@{weights}/{target}/{recipe}",
        "family": "whisper",
        "task": "transcription",
        "row": "whisper",
        "variant": variant,
        "weights": weights,
        "hardware": hardware,
        "runtime": target.partition("-")[2],
        "target": target,
        "recipe": recipe,
        "precision": recipe.split("-", maxsplit=1)[0],
        "evidence": "device",
        "on_host_cpu": hardware == "cpu",
        "published": weights != "trained",
        "headline": weights != "trained",
        "stand_in": weights == "trained",
        "timed": True,
        "parameters": 37.8,
    }
    return CaseFacts(**{**about, **changes})


def nano(target: str = "cpu-torch", recipe: str = "fp32") -> CaseFacts:
    return case(target, recipe, "whisper-nano", "trained", parameters=1.0)


def seen(
    about: CaseFacts, check: str, status: Status = "passed", level: Level | None = None, **more: Any
) -> Observation:
    if status == "passed" and level is None:
        level = "strict"
    more.setdefault("check_version", 1)
    return Observation(case=about.id, check=check, status=status, level=level, **more)


def latency(about: CaseFacts, low: float, high: float, **more: Any) -> Observation:
    middle = (low + high) / 2
    values = {
        "median_s": middle,
        "interval_s": [low, high],
        "rtf": middle / 10,
        "rtf_upper": high / 10,
    }
    samples = {"seconds": [low, middle, high]}
    return seen(about, LATENCY, values=values, samples=samples, threads=2, **more)


def good(about: CaseFacts, low: float = 0.3, high: float = 0.31) -> list[Line]:
    """Everything that a strict configuration needs from one case."""
    checks = [LOADS, NUMERICS, STRESS] + ([TASK] if about.weights != "seeded" else [])
    if not about.on_host_cpu:
        checks.append(PLACED)
    lines: list[Line] = [Planned(case=about, checks=(*checks, LATENCY))]
    return [*lines, *(seen(about, check) for check in checks), latency(about, low, high)]


def run(
    *lines: Line,
    machine: str = CPU,
    name: str = "r1",
    started: str = "2026-11-20T10:00:00Z",
    profile: str = "core",
    worker: str = "main",
    problems: tuple[str, ...] = (),
    **header: Any,
) -> Run:
    about = Header(
        schema=SCHEMA_VERSION,
        run=name,
        worker=worker,
        started=started,
        profile=profile,
        machine=machine,
        facts=header.pop("facts", {"cpu": "Some CPU"}),
        versions={"torch": "2.13.0", "scorer": str(header.pop("scorer", SCORER_VERSION))},
        commit="abc",
        arguments=(),
        threads=2,
        parallel=False,
        **header,
    )
    return Run(
        Path(f"{name}.{worker}.jsonl"),
        about,
        tuple(one for one in lines if isinstance(one, Planned)),
        tuple(one for one in lines if isinstance(one, Started)),
        tuple(one for one in lines if isinstance(one, Observation)),
        problems,
    )


def report_of(*runs: Run) -> Report:
    return build(Collection(tuple(runs)))


def only(report: Report) -> Configuration:
    (one,) = report.configurations
    return one


def gate(one: Configuration, key: str) -> str:
    return next(gate.state for gate in one.gates if gate.key == key)


def rated(*lines: Line, **header: Any) -> Configuration:
    return only(report_of(run(*lines, **header)))


def site_of(report: Report, folder: Path) -> dict[str, str]:
    """Render a site and return every text file of it, by path, less the charting library."""
    write_site(report, folder)
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("plotly.min.js", "data.parquet")
    }


WORDS = {"wer": 0.0753, "wer_interval": [0.05, 0.1], "degradation": 0.0, "reference_wer": 0.0753}


def scored(about: CaseFacts, **more: Any) -> list[Line]:
    """Everything that a strict configuration needs, with a word error rate."""
    lines = [one for one in good(about) if getattr(one, "check", "") != TASK]
    return [*lines, seen(about, TASK, values={"clean": WORDS, "hard": WORDS}, **more)]


class Page(HTMLParser):
    """Collects tags, attributes and text of a page as a browser would see them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(source)

    def caption(self) -> str:
        """Return everything that is said, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def full_report() -> Report:
    gpu = case("cuda-torch", "fp16")
    crash = case("openvino-cpu", "int8-weights", on_host_cpu=True)
    emulated = case("qualcomm-emulator", "fp16", evidence="emulator")
    unable = case("webnn-chromium")
    cut = case("rocm-torch")
    absent = case("mps-torch")
    return build(
        Collection(
            (
                run(
                    *good(case()),
                    *good(nano()),
                    *good(emulated),
                    *good(gpu, 0.1, 0.11),
                    Planned(case=crash, checks=(LOADS,)),
                    seen(crash, LOADS, "crashed", "failed", reason="signal 11"),
                    Planned(case=unable, checks=(LOADS,)),
                    seen(unable, LOADS, "unsupported", reason="no ScatterND"),
                    Planned(case=cut, checks=(LOADS,)),
                    Planned(case=absent, checks=(LOADS,)),
                    seen(absent, LOADS, "skipped", reason="no Apple silicon"),
                ),
            ),
            ("r9.main.jsonl:4: Input data was truncated",),
        )
    )
