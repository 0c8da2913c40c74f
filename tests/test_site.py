"""What a reader learns from the site: what ran, its numbers, who is best, what fails and why."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_reports import (
    CPU,
    GPU,
    LATENCY,
    LOADS,
    NUMERICS,
    TASK,
    Page,
    case,
    full_report,
    good,
    nano,
    only,
    rated,
    report_of,
    run,
    scored,
    seen,
    site_of,
)

from compat.catalog import load as load_catalog
from compat.contract.errors import CompatError
from compat.judge.expectations import Expectation, Expectations
from compat.judge.results import Collection, Limit, Line, Observation, facts_of
from compat.report import build, evidence, exports, machines, reasons, shown, text, write_site
from compat.report.advice import advise
from compat.report.candidates import Limits
from compat.report.distinctions import distinctions
from compat.report.failures import failures
from compat.report.markdown import matrix_markdown
from compat.report.matrix import face, index_data, matrix, summary
from compat.report.model import Report
from compat.report.shares import in_shares

ROOT = Path(__file__).resolve().parents[1]
MEMORY = "memory.peak"
DAY = "2026-11-20"

# --- what really ran --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "changes", "kind"),
    [
        ("cpu-torch", {}, "processor"),
        ("openvino-cpu", {"on_host_cpu": True}, "processor"),
        ("webnn-chromium-cpu", {}, "processor"),
        ("webnn-chromium", {"is_host": True}, "processor"),
        ("openvino-gpu", {}, "accelerator"),
        ("cuda-torch", {}, "accelerator"),
        ("webgpu-chromium-software", {"evidence": "emulator"}, "emulator"),
        ("coreml-conversion", {"evidence": "conversion"}, "conversion"),
    ],
)
def test_a_configuration_says_what_it_ran_on(target: str, changes: Any, kind: str) -> None:
    about = case(target, **changes)
    assert rated(*good(about)).kind == kind
    absent = seen(about, LOADS, "skipped", reason="no such device")
    assert rated(*good(about)[:1], absent).kind == "nothing"


def test_every_target_of_the_catalog_says_whether_it_is_the_processor() -> None:
    """Results from before targets said so are told by the name of the target."""
    for one in load_catalog().cases():
        about = facts_of(one)
        before = msgspec.structs.replace(about, is_host=False)
        assert evidence.on_processor(before) == evidence.on_processor(about), about.target


def test_columns_are_grouped_by_what_really_ran_in_them() -> None:
    shown_columns = matrix(full_report())
    assert shown_columns.groups == (
        ("accelerator", ("cuda", "webnn")),
        ("processor", ("cpu", "openvino")),
        ("emulator", ("qualcomm",)),
    )
    assert shown_columns.empty == ("rocm", "mps", "coreml", "webgpu")


def test_the_index_says_that_no_accelerator_was_timed(tmp_path: Path) -> None:
    said = "No accelerator was ever timed in this evidence."
    webnn = case("webnn-chromium-cpu")
    report = report_of(run(*good(case()), *good(webnn)))
    assert said in Page(site_of(report, tmp_path / "site")["index.html"]).caption()
    assert said in matrix_markdown(report)
    assert all(said not in line for _, line in summary(full_report()))


def test_empty_columns_and_checks_that_did_not_run_are_folded(tmp_path: Path) -> None:
    about = case("cuda-torch")
    skipped = [
        seen(about, c, "skipped", reason="no driver", remedy="add it") for c in (TASK, LOADS)
    ]
    pages = site_of(report_of(run(*good(case()), *good(about)[:1], *skipped)), tmp_path / "site")
    index = Page(pages["index.html"]).caption()
    assert re.search("Nothing ran on cuda *, rocm", index)
    folded = [name for name in pages if name.startswith("configurations/")]
    assert len(folded) == 1, "a configuration that never ran has no page of its own"
    (cell,) = (p for n, p in pages.items() if n.startswith("cells/") and n.endswith("--cuda.html"))
    assert "<details" in cell and "remedy: add it" in cell

    mixed = [*good(case()), seen(case(), TASK, "skipped", reason="no truth")]
    mixed += [seen(case(), "latency.throughput", "skipped", reason="no truth")]
    report = report_of(run(*mixed))
    page = site_of(report, tmp_path / "two")[f"configurations/{only(report).anchor}.html"]
    assert Page(page).caption().count("no truth") == 1
    assert "2 checks" in Page(page).caption()


# --- numbers and age in every cell ------------------------------------------------------------


def measured(about: Any, rtfx: float = 8.0, peak: float = 5e8, day: str = DAY) -> list[Line]:
    """Everything of one case, timed and with its memory, on one day."""
    time = f"{day}T10:00:00Z"
    lines = [one for one in scored(about) if getattr(one, "check", "") != LATENCY]
    values = {"median_s": 10 / rtfx, "rtf": 1 / rtfx, "rtf_upper": 1.1 / rtfx, "rtfx": rtfx}
    values["interval_s"] = [9.9 / rtfx, 10.1 / rtfx]
    lines += [seen(about, LATENCY, values=values), seen(about, MEMORY, values={"peak_bytes": peak})]
    return [
        msgspec.structs.replace(one, time=time) if isinstance(one, Observation) else one
        for one in lines
    ]


def test_a_cell_says_target_speed_metric_memory_and_day() -> None:
    about = case("openvino-cpu", on_host_cpu=True, weights="pretrained")
    said = face(rated(*measured(about)), "2026-11-20")
    assert said["detail"] == "openvino-cpu · fp32"
    assert said["speed"] == "RTFx 8"
    assert said["metric"] == "WER 7.5 % [5 % to 10 %] (hard)"
    assert said["memory"] == "500 MB"
    assert said["when"] == "20 Nov 2026"
    assert said["tags"] == []


def test_an_emulator_shows_no_speed_anywhere(tmp_path: Path) -> None:
    report = report_of(run(*measured(case("qualcomm-emulator", "fp16", evidence="emulator"))))
    assert face(only(report), "2026-11-20")["speed"] == ""
    pages = site_of(report, tmp_path / "site")
    models = next(page for name, page in pages.items() if name.startswith("models/"))
    assert "RTFx 8" not in models and 'data-v="8.0"' not in models


def test_a_noisy_time_says_that_it_is_none() -> None:
    lines = [one for one in measured(case()) if getattr(one, "check", "") != LATENCY]
    noisy = seen(case(), LATENCY, "inconclusive", values={"rtfx": 5.0, "median_s": 2.0})
    assert shown.speed(rated(*lines, noisy)) == "RTFx 5 (inconclusive)"


@pytest.mark.parametrize(("made", "old"), [("2027-02-18", False), ("2027-02-19", True)])
def test_what_is_older_than_the_stated_limit_says_so(made: str, old: bool, tmp_path: Path) -> None:
    now = datetime.fromisoformat(made).replace(tzinfo=UTC)
    report = build(Collection((run(*measured(case(weights="pretrained"))),)), now=now)
    assert (face(only(report), report.made)["tags"] == ["older than 90 days"]) is old
    pages = site_of(report, tmp_path / "site")
    assert ("older than 90 days" in pages[f"configurations/{only(report).anchor}.html"]) is old


def test_a_newer_throughput_does_not_make_old_evidence_young() -> None:
    fresh = seen(case(), "latency.throughput", time=f"{DAY}T11:00:00Z")
    one = rated(*measured(case(), day="2026-06-01"), fresh, started="2026-06-01T09:00:00Z")
    assert one.measured == ("2026-06-01", "2026-06-01")


# --- who is best in what ----------------------------------------------------------------------


def three_precisions() -> Report:
    whole = {"weights": "pretrained", "on_host_cpu": True}
    slow = measured(case("openvino-cpu", **whole), 47, 6e8)
    fast = measured(case("openvino-cpu", "int8-dynamic", **whole), 83, 4e8)
    wrong = [
        one
        for one in measured(case("openvino-cpu", "int4-weights", **whole), 200, 1e8)
        if getattr(one, "check", "") != NUMERICS
    ]
    wrong += [seen(case("openvino-cpu", "int4-weights", **whole), NUMERICS, "failed", "failed")]
    return report_of(run(*slow, *fast, *wrong))


def test_the_fastest_and_the_smallest_are_those_that_are_accurate() -> None:
    found = {
        key.split("/")[2]: names
        for key, names in distinctions(three_precisions().configurations).items()
    }
    assert set(found["int8-dynamic"]) >= {"fastest", "smallest"}
    assert "int4-weights" not in found
    assert sum("best rated" in names for names in found.values()) == 1


def test_no_mark_crosses_machines_or_variants() -> None:
    quick = measured(case(weights="pretrained"), 100)
    other = measured(case(weights="pretrained"), 5)
    report = report_of(run(*quick, machine=GPU), run(*other, machine=CPU, name="r2"))
    assert all("fastest" not in names for names in distinctions(report.configurations).values())


def test_the_cell_names_who_is_fastest_beside_who_is_rated_best(tmp_path: Path) -> None:
    report = three_precisions()
    pages = site_of(report, tmp_path / "site")
    cell = Page(pages[f"cells/{report.cell('whisper', 'openvino').slug}.html"]).caption()
    assert "Precisions side by side" in cell
    assert re.search(r"fastest openvino-cpu · int8-dynamic · RTFx 83", cell)
    model = Page(pages[f"models/{text.slug('whisper')}.html"]).caption()
    assert re.search(r"Fastest on each machine.*openvino-cpu · int8-dynamic", model)


def test_a_machines_page_holds_all_that_ran_on_its_processor(tmp_path: Path) -> None:
    one = measured(case(weights="pretrained"), 20)
    two = measured(case("openvino-cpu", weights="pretrained", on_host_cpu=True), 40)
    three = measured(case("webnn-chromium-cpu", weights="pretrained"), 5)
    gpu = measured(case("cuda-torch", weights="pretrained"), 400)
    pages = site_of(report_of(run(*one, *two, *three, *gpu)), tmp_path / "site")
    page = pages[f"machines/{text.slug(CPU)}.html"]
    processor = page.split('id="kind-processor"')[1].split('class="two"')[0]
    order = re.findall(r'<th scope="row"><a href="[^"]*">([^<]*)</a>', processor)
    assert order == ["openvino-cpu", "cpu-torch", "webnn-chromium-cpu"], "the fastest first"
    accelerator = page.split('id="kind-accelerator"')[1].split('id="kind-processor"')[0]
    assert "cuda-torch" in accelerator


def test_a_models_page_advises_as_the_command_does(tmp_path: Path) -> None:
    report = three_precisions()
    pages = site_of(report, tmp_path / "site")
    (row,) = report.rows
    advice = advise(report, row, Limits(("cpu",)))
    assert advice.best is not None and advice.lost
    page = pages[f"models/{text.slug(row)}.html"]
    use = page.partition('id="use"')[2].partition("</section>")[0]
    assert advice.best.numbers in use
    assert all(escape(reason) in use for _, reason in advice.lost)


def test_machines_are_told_apart_by_name() -> None:
    facts = {"cpu": {"model": "AMD EPYC", "logical_cores": 2, "capabilities": ["avx2"]}}
    more = {"cpu": {**facts["cpu"], "capabilities": ["avx2", "avx512", "vnni"]}}
    assert machines.name(facts, "c8c7") == "AMD EPYC, avx2, 2 cores (c8c7)"
    assert machines.name(more, "4811") == "AMD EPYC, avx512 vnni, 2 cores (4811)"
    board = {**facts, "gpus": [{"name": "NVIDIA H200"}]}
    assert machines.name(board, "a") == "AMD EPYC, avx2, 2 cores, NVIDIA H200 (a)"
    for hostile in ({}, {"cpu": []}, {"cpu": {"model": 3, "capabilities": {}}}, {"gpus": [1]}):
        assert machines.name(hostile, "a").endswith("(a)")


# --- reasons ----------------------------------------------------------------------------------


def limit(metric: str, value: float, strict: float, relaxed: float, **more: Any) -> Limit:
    least = strict > relaxed
    fails = value < relaxed if least else value > relaxed
    return Limit(
        metric=metric,
        value=value,
        strict=strict,
        relaxed=relaxed,
        direction="at_least" if least else "at_most",
        level="failed" if fails else "relaxed",
        reason="a page of reasons",
        **more,
    )


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (
            [limit("hidden.snr_db", 1.84, 80.0, 60.0)],
            "keeps 1.8 dB between signal and error of hidden (60.0 dB at least)",
        ),
        (
            [limit("hidden.snr_db", 33.8, 45.0, 20.0)],
            "keeps 33.8 dB between signal and error of hidden (45.0 dB at least for strict)",
        ),
        (
            [limit("share", 0.828, 0.95, 0.5)],
            "ran 82.8 % of the work on the target (95 % at least for strict)",
        ),
        (
            [limit("rtf_upper", 1.3, 0.5, 1.0)],
            "takes up to 1.3 times as long as the audio lasts (1 at most)",
        ),
    ],
)
def test_a_missed_limit_is_a_sentence_with_its_number(limits: list[Limit], said: str) -> None:
    one = seen(case(), NUMERICS, "failed", limits=tuple(limits))
    assert reasons.sentence("failed", "whatever the file says", one) == said


def test_the_telling_limit_is_named_and_the_others_counted() -> None:
    limits = [limit("h.worst_cosine", 0.5, 0.99, 0.95), limit("h.degradation", 0.2, 0.01, 0.03)]
    one = seen(case(), TASK, "failed", limits=(*limits, limit("h.changed", 0.3, 0.1, 0.2)))
    found = reasons.sentence("failed", "", one)
    assert (
        found == "task metric +20.00 pp against the reference (+3.00 pp at most), and 2 more limits"
    )


LOGS = {
    "loads took over 300 s (--time-limit); it last printed: # LIBNATIVE: No configuration": (
        "loads took over 300 s"
    ),
    "failed to call OrtRun(). ERROR_CODE: 1, ERROR_MESSAGE: …/buffer_manager.cc:562 WGPUBuffer "
    "onnxruntime::webgpu::BufferManager::Create(size_t) const [ONNXRuntimeError] : 1 : FAIL : "
    "Failed to create a WebGPU compute pipeline: ShaderModule with 'Pad' label is invalid\n": (
        "Failed to create a WebGPU compute pipeline: ShaderModule with 'Pad' label is invalid"
    ),
    "signal 11\nfirst line of a trace\nsecond line": "signal 11",
}


@pytest.mark.parametrize("reason", LOGS)
def test_no_reason_repeats_a_log(reason: str, tmp_path: Path) -> None:
    assert reasons.clause(reason) == LOGS[reason]
    report = report_of(
        run(*good(case())[:1], seen(case(), LOADS, "crashed", "failed", reason=reason))
    )
    pages = site_of(report, tmp_path / "site")
    for name in ("failures.html", f"cells/{report.cell('whisper', 'cpu').slug}.html"):
        assert LOGS[reason] in Page(pages[name]).caption()
        for noise in ("LIBNATIVE", "BufferManager", "second line"):
            assert noise not in Page(pages[name]).caption()
    assert all(len(why) < 400 for why in only(report).why)


def test_slower_than_the_processor_says_how_many_times() -> None:
    cpu = [*good(case(), 0.0829, 0.09)]
    gpu = case("cuda-torch", "fp16")
    report = report_of(run(*cpu, *good(gpu, 0.45, 0.464)))
    (one,) = (one for one in report.configurations if one.target == "cuda-torch")
    (why,) = (why for why in one.why if why.startswith("worthwhile"))
    assert "up to 5.6 times slower than this machine's CPU (cpu-torch fp32: 464 ms against" in why


# --- failures ---------------------------------------------------------------------------------


def failing(target: str) -> list[Line]:
    about = case(target, on_host_cpu=True)
    lines = [one for one in good(about) if getattr(one, "check", "") != NUMERICS]
    bad = seen(about, NUMERICS, "known-failure", "failed", reason="snr_db 3", expected="cpu#1")
    return [*lines, bad]


KNOWN = Expectation(
    id="cpu#1",
    case="whisper-*/cpu-torch/fp32",
    check="accuracy.numerics",
    owner="vendor",
    error="snr_db",
    reason="the kernel rounds twice",
    link="https://example.org/1",
    expires=datetime(2027, 3, 1).date(),
)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (failing("cpu-torch"), "tried on no other backend"),
        ([*failing("cpu-torch"), *good(case("openvino-cpu"))], "only here: openvino-cpu passes"),
        ([*failing("cpu-torch"), *failing("openvino-cpu")], "everywhere: openvino-cpu too"),
        (
            [*failing("cpu-torch"), *failing("openvino-cpu"), *good(case("cuda-torch"))],
            "here and on openvino-cpu; cuda-torch passes",
        ),
    ],
)
def test_a_failure_says_whose_it_is_and_where_else_it_fails(lines: list[Line], said: str) -> None:
    report = report_of(run(*lines))
    found, _ = failures(report.configurations, Expectations((KNOWN,)))
    (one,) = (one for one in found if one.configuration.target == "cpu-torch")
    assert (one.owner, one.link, one.expires) == ("vendor", KNOWN.link, "2027-03-01")
    assert one.reason == "the kernel rounds twice"
    assert one.elsewhere == said


def test_no_expectation_speaks_for_another_failure() -> None:
    report = report_of(run(*failing("cpu-torch")))
    for other in (
        replace(KNOWN, case="whisper-*/cpu-torch/bf16"),
        replace(KNOWN, check="latency.task"),
        replace(KNOWN, id="cpu#7", error="cosine"),
    ):
        (one,), _ = failures(report.configurations, Expectations((other,)))
        assert one.owner == "", other


def test_what_cannot_run_is_told_once_for_each_reason() -> None:
    lines: list[Line] = []
    for recipe in ("bf16", "fp16"):
        about = case(recipe=recipe)
        lines += good(about)[:1]
        lines += [seen(about, c, "unsupported", reason="no kernels") for c in (LOADS, NUMERICS)]
    found, (unable,) = failures(report_of(run(*lines)).configurations, Expectations())
    assert found == []
    assert (unable.target, unable.reason, len(unable.configurations)) == (
        "cpu-torch",
        "no kernels",
        2,
    )


# --- what never ran ---------------------------------------------------------------------------


def test_what_nobody_ever_ran_is_listed_with_its_reason(tmp_path: Path) -> None:
    gpu = case("cuda-torch")
    skipped = seen(gpu, LOADS, "skipped", reason="no driver", remedy="install it")
    catalog = [case(), gpu, case("mps-torch")]
    runs = (run(*good(case()), *good(gpu)[:1], skipped),)
    report = build(Collection(runs), known=catalog)
    rows = {one.target: one for one in report.coverage}
    assert (rows["cpu-torch"].measured, rows["cpu-torch"].never) == (1, ())
    assert rows["cuda-torch"].never == (gpu.id,)
    assert (rows["cuda-torch"].reasons[0], rows["cuda-torch"].remedies) == (
        "no driver",
        ("install it",),
    )
    assert (rows["mps-torch"].known, rows["mps-torch"].planned) == (1, 0)
    page = Page(site_of(report, tmp_path / "site")["coverage.html"]).caption()
    for said in ("mps-torch", "no run planned them", gpu.id, "install it"):
        assert said in page


# --- reuse ------------------------------------------------------------------------------------


def test_csv_and_parquet_say_the_same_and_what_the_report_says(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    report = three_precisions()
    write_site(report, tmp_path / "site")
    data = (tmp_path / "site" / "data.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(data)))
    table = parquet.read_table(tmp_path / "site" / "data.parquet").to_pylist()
    assert len(rows) == len(table) == len(report.configurations) == 3
    for row, packed, one in zip(rows, table, report.configurations, strict=True):
        assert float(row["rtfx"]) == packed["rtfx"] == one.figures.rtfx
        assert row["rating"] == packed["rating"] == one.rating.label
        assert (tmp_path / "site" / row["page"]).is_file()
        for key, value in packed.items():
            assert row[key] == ("" if value is None else str(value)), key


@pytest.mark.parametrize("evil", ["=1+1", "@SUM(A1)", "+1", "-1", "\t=1", "a\n=b"])
def test_no_cell_of_a_table_is_a_formula(evil: str) -> None:
    report = report_of(run(*good(case(recipe=evil, variant=evil))))
    (row,) = csv.DictReader(io.StringIO(exports.data_csv(report)))
    assert not any(value.startswith(("=", "+", "-", "@", "\t")) for value in row.values())


def test_source_lines_are_the_observations(tmp_path: Path) -> None:
    report = three_precisions()
    write_site(report, tmp_path / "site")
    for one in report.configurations:
        data = (tmp_path / "site" / "lines" / f"{one.anchor}.jsonl").read_bytes()
        lines = [msgspec.json.decode(line, type=Observation) for line in data.splitlines()]
        assert lines == [record.observation for record in one.records]


def test_every_number_of_a_page_is_in_the_data(tmp_path: Path) -> None:
    """Cells of tables carry the number that they are sorted by: the one that is shown."""
    pages = site_of(three_precisions(), tmp_path / "site")
    numbers: set[float] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                collect(part)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers.add(float(value))

    data = json.loads(pages["data.json"])
    collect(data)
    looked = 0
    for name, page in pages.items():
        if name.split("/")[0] not in ("cells", "models", "machines"):
            continue
        for value in re.findall(r'<td class="num[ a-z]*" data-v="([^"]+)"', page):
            counts = "machines" in name and float(value).is_integer()
            assert counts or float(value) in numbers, (name, value)
            looked += 1
    assert looked > 40
    assert {one["rating"]["label"] for c in data["cells"] for one in c["configurations"]}


def test_every_cell_has_a_link_and_a_badge_and_the_matrix_can_be_embedded(tmp_path: Path) -> None:
    pages = site_of(full_report(), tmp_path / "site")
    for cell in full_report().cells:
        page = pages[f"cells/{cell.slug}.html"]
        assert (f'data-badge="badges/{cell.slug}.svg"' in page) is (cell.best is not None)
        assert ("data-copy" in page) is (cell.best is not None)
    embedded = pages["embed.html"]
    assert "<script" not in embedded and 'class="matrix"' in embedded
    assert pages["table.md"].startswith("| ")
    linked = re.findall(r"\]\(([^)]*)\)", pages["table.md"])
    assert len(linked) == len(matrix(full_report()).columns)
    assert all(link in pages for link in linked)


def test_published_markdown_leads_to_what_it_rests_on() -> None:
    lines = matrix_markdown(full_report(), published=True)
    links = re.findall(r"\]\(([^)]*)\)", lines)
    assert f"results/{CPU}" in links
    documents = [link for link in links if link.startswith("../docs/")]
    assert documents
    assert all((ROOT / "reports" / link).resolve().is_file() for link in documents)
    assert "](" not in matrix_markdown(full_report())


def test_the_markdown_is_the_table_and_one_line_for_each_cell() -> None:
    lines = matrix_markdown(full_report()).splitlines()
    ran = [cell for cell in full_report().cells if cell.best and cell.best.kind != "nothing"]
    why = [one for one in lines if one.startswith("- **whisper on ")]
    assert len(why) == len(ran)
    assert max(map(len, lines)) < 600
    (one,) = (one for one in why if "openvino" in one)
    assert "None, openvino-cpu · int8-weights on the processor; loads failed: " in one
    assert "signal 11" in one


# --- size -------------------------------------------------------------------------------------


def test_the_index_holds_what_filters_choose_and_no_more() -> None:
    recipes = ("fp32", "bf16", "int8-dynamic", "int8-weights")
    cases = [kind(recipe=recipe) for recipe in recipes for kind in (nano, case)]
    lines = [one for about in cases for one in good(about)]
    report = report_of(run(*lines), run(*good(case()), machine=GPU, name="r2"))
    data = index_data(report)
    entries = [
        dict(zip(data["fields"], (data["texts"][i] for i in one), strict=True))
        for found in data["cells"].values()
        for one in found
    ]
    keys = {(one["machine"], one["precision"]) for one in entries}
    assert keys == {(CPU, "fp32"), (CPU, "bf16"), (CPU, "int8"), (GPU, "fp32")}
    assert len(entries) == 4, "of two recipes of one precision the better is shown"
    first = report.cell("whisper", "cpu").best
    assert first is not None
    assert entries[0]["detail"] == f"{first.target} · {first.recipe}"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux alone")
def test_several_processes_write_the_same_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = full_report()
    alone = site_of(report, tmp_path / "alone")
    copied: list[int] = []
    fork = os.fork
    monkeypatch.setattr("compat.report.site.MANY", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    monkeypatch.setattr("os.fork", lambda: copied.append(1) or fork())
    together = site_of(report, tmp_path / "together")
    assert len(copied) == 2
    assert together == alone


@pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux alone")
def test_a_process_that_fails_fails_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)

    def work(part: int) -> None:
        if part == 1:
            raise ValueError("this part is bad")

    with pytest.raises(CompatError, match="1 of 2 processes"):
        in_shares(work, [0, 1], alone=False)


def test_the_cost_of_rating_is_linear_in_configurations() -> None:
    """Four times the configurations of one machine take no more than six times as long."""

    def took(count: int) -> float:
        lines: list[Line] = []
        for number in range(count):
            lines += good(case(recipe=f"int8-r{number}"))
            lines += good(case("cuda-torch", recipe=f"int8-r{number}"))
        collection = Collection((run(*lines),))
        started = time.process_time()
        build(collection)
        return time.process_time() - started

    took(10)
    assert min(took(160) for _ in range(2)) <= 6 * min(took(40) for _ in range(2))
