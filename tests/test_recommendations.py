"""Recommended precision and batch: the data, and the sweep of batches that goes up to it."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forks
import pytest

from compat import catalog
from compat.build.torch_session import TorchSession
from compat.commands.main import main
from compat.contract.case import Case
from compat.contract.errors import CompatError
from compat.contract.model_reference import ModelReference
from compat.contract.profile import FULL
from compat.inputs import corpus
from compat.judge.recommendations import Recommendations, default_path, load
from compat.judge.results import Observation, read_all
from compat.judge.thresholds import Thresholds
from compat.measure.protocol import Protocol
from compat.measure.robustness import in_batch
from compat.run.client import OutOfMemory, StageFailure, TimedOut
from compat.run.measurement import Measurement

ROOT = Path(__file__).resolve().parents[1]
PLANTED = ("-p", "tests.toy_recommendations")
VALID = {
    "family": '"whisper"',
    "hardware": '"cuda"',
    "precision": '"fp16"',
    "batch": "16",
    "source": '"a guide"',
}


def write(path: Path, *entries: dict[str, str]) -> Path:
    """Write entries whose values are TOML; an empty one leaves its key out."""
    tables = (
        "\n".join(["[[recommendation]]", *(f"{k} = {v}" for k, v in entry.items() if v)])
        for entry in entries
    )
    path.write_text("\n".join(tables), encoding="utf-8")
    return path


def case(identifier: str) -> Case:
    return catalog.load().case(identifier)


# The data --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identifier", "precision", "batches", "memory"),
    [
        ("whisper-tiny@seeded/cuda-torch/fp16", "fp16", "32", 1),
        ("whisper-base@seeded/cuda-torch/fp16", "fp16", "24 to 32", 2),
        ("whisper-small@seeded/cuda-onnxruntime/fp16", "fp16", "16 to 24", 3),
        ("whisper-medium@seeded/cuda-ctranslate2/fp16", "fp16", "8 to 16", 6),
        ("whisper-large-v3@seeded/cuda-torch/fp32", "fp16", "4 to 8", 10),
        ("wav2vec2-base@seeded/cuda-torch/fp16", "fp16", "24", None),
        ("whisper-small@seeded/rocm-torch/fp16", "fp16", "8", None),
        ("wav2vec2-base@seeded/rocm-torch/fp16", "fp16", "16", None),
        ("whisper-small@seeded/mps-torch/fp16", "fp16", "4", None),
        ("wav2vec2-base@seeded/mps-torch/fp16", "fp16", "8", None),
        ("whisper-tiny@seeded/qualcomm-htp/int8-a8w8", "int8", "1", None),
        ("wav2vec2-base@seeded/qualcomm-htp/int8-a8w8", "int8", "1", None),
        ("whisper-tiny@seeded/webnn-chromium-gpu/fp16", "fp16", "1", None),
        ("whisper-tiny@seeded/webgpu-chromium/fp16", "fp16", "1", None),
    ],
)
def test_what_guides_recommend(
    identifier: str, precision: str, batches: str, memory: float | None
) -> None:
    found = load(default_path()).of(case(identifier))
    assert found is not None and found.source
    assert (found.precision, found.batches, found.memory_gb) == (precision, batches, memory)


@pytest.mark.parametrize(
    "identifier",
    [
        "whisper-tiny@seeded/cpu-torch/fp32",
        "whisper-nano@trained/rocm-torch/fp16",  # Nobody's guide knows a stand-in.
        "distil-large-v3@seeded/cuda-torch/fp16",
        "resemblyzer@pretrained/cuda-torch/fp32",
    ],
)
def test_what_nobody_recommends(identifier: str) -> None:
    assert load(default_path()).of(case(identifier)) is None


def test_every_recommended_batch_can_be_run() -> None:
    """The ends of each are among the sizes of every variant that it speaks of."""
    entries = load(default_path()).entries
    assert entries
    for entry in entries:
        for variant in entry.variants:
            model = catalog.open_model(ModelReference(entry.family, variant, "seeded"))
            assert {entry.lowest, entry.batch} <= set(model.batches(entry.batch)), entry


def test_patterns_and_lists_name_variants(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", {**VALID, "variant": '["whisper-n*", "distil-large-v3"]'})
    (entry,) = load(path).entries
    assert entry.variants == {"whisper-nano", "distil-large-v3"}
    assert entry.values(case("whisper-nano@trained/cuda-torch/fp16"))["in_this_precision"]
    assert not entry.values(case("whisper-nano@trained/cuda-torch/fp32"))["in_this_precision"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"family": '"wisper"'}, "family = 'wisper' matches nothing"),
        ({"variant": '"whisper-smal"'}, "variant = 'whisper-smal' matches nothing"),
        ({"variant": '["whisper-tiny", "wav2vec2-*"]'}, "'wav2vec2-*' matches nothing"),
        ({"variant": "3"}, "variant must be a text or a list of texts"),
        ({"hardware": '"cuba"'}, "hardware = 'cuba' matches nothing"),
        ({"precision": '"int8-dynamic"'}, "precision = 'int8-dynamic' matches nothing"),
        ({"batch": ""}, "batch = None; write one size, as 16, or the lowest and the highest"),
        ({"batch": "0"}, "batch = 0;"),
        ({"batch": "true"}, "batch = True;"),
        ({"batch": "[24, 16]"}, "batch = [24, 16];"),
        ({"batch": "[8, 16, 24]"}, "batch = [8, 16, 24];"),
        ({"memory_gb": "inf"}, "memory_gb must be a number above zero"),
        ({"source": '" "'}, 'add source = "..."'),
        ({"batches": "16"}, "unknown key 'batches'"),
    ],
)
def test_a_faulty_entry_is_named(changes: dict[str, str], said: str, tmp_path: Path) -> None:
    sound = {**VALID, "hardware": '"mps"'}
    path = write(tmp_path / "faulty.toml", sound, {**VALID, **changes})
    with pytest.raises(CompatError) as raised:
        load(path)
    assert f"{path}, entry 2 (line 7): " in str(raised.value)
    assert said in str(raised.value)


def test_two_for_one_variant_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", VALID, {**VALID, "variant": '"whisper-b*"'})
    with pytest.raises(CompatError, match=r"whisper-base on cuda has .*entry 1 \(line 1\)"):
        load(path)


def test_a_missing_or_torn_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(CompatError, match="there is no recommendations file"):
        load(tmp_path / "none.toml")
    (tmp_path / "torn.toml").write_text("[[recommendation]\n")
    with pytest.raises(CompatError, match="not valid TOML"):
        load(tmp_path / "torn.toml")


def test_no_recommendations_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    found = load(tmp_path / "empty.toml")
    assert found == Recommendations()
    assert found.of(case("whisper-tiny@seeded/cuda-torch/fp16")) is None


def test_show_prints_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["show", "whisper-base@seeded/cuda-torch/fp32", str(tmp_path)])
    shown = " ".join(capsys.readouterr().out.split())
    said = "recommended on cuda: fp16, batch 24 to 32, 2 GB; this case is fp32 (AudioDecode's guide"
    assert said in shown
    main(["show", "whisper-base@seeded/cpu-torch/fp32", str(tmp_path)])
    assert "recommended" not in capsys.readouterr().out


# Batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recommended", "expected"),
    [
        (0, (1, 4)),
        (1, (1, 4)),
        (12, (1, 4, 8)),
        (16, (1, 4, 8, 16)),
        (99, (1, 4, 8, 16, 24, 32)),
    ],
)
@pytest.mark.parametrize("family", ["whisper", "wav2vec2"])
def test_sizes_of_a_sweep(family: str, recommended: int, expected: tuple[int, ...]) -> None:
    name = f"{family}-nano"
    model = catalog.open_model(ModelReference(family, name, "trained", f"checkpoints/{name}"))
    assert model.batches(recommended) == expected


@pytest.fixture
def few_recordings(tmp_path: Path) -> Path:
    """A corpus of eight recordings, so that running every standard input takes a second."""
    folder = tmp_path / "corpus" / "clean"
    folder.mkdir(parents=True)
    source = corpus.DEFAULT / "clean"
    lines = (source / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    (folder / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for line in lines:
        name = json.loads(line)["audio_filepath"]
        shutil.copyfile(source / name, folder / name)
    return folder.parent


@pytest.mark.parametrize("variant", ["whisper-nano", "wav2vec2-nano"])
def test_ordinary_runs_compile_no_large_batch(
    variant: str, few_recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked of a case but a sweep; a sweep compiles the size that it asks for."""
    ran: set[str] = set()
    execute = TorchSession.execute

    def recorded(session: TorchSession, graph: str, point: str, inputs: Any) -> Any:
        ran.add(point.removesuffix("-4s"))
        return execute(session, graph, point, inputs)

    monkeypatch.setattr(TorchSession, "execute", recorded)
    protocol = Protocol({"id": f"{variant}@trained/cpu-torch/fp32", "corpus": str(few_recordings)})
    for stage in ("loads", "placed", "standard", "suspicions"):
        protocol.stage(stage, {})
    protocol.stage("timed", {"index": 0})
    # A minute is many windows, which go through one by one.
    protocol.stage("found", {"entry": {"kind": "speech", "seconds": 60}})
    assert ran == {"b1"}
    assert in_batch(protocol.case) == {"items": 4, "different": []}
    for batch in protocol.stage("batches", {"recommended": 0}):
        protocol.stage("throughput", {"batch": batch, "rounds": 1})
    assert ran == {"b1", "b4"}
    protocol.stage("throughput", {"batch": 8, "rounds": 1})
    assert ran == {"b1", "b4", "b8"}


# Sweeps ----------------------------------------------------------------------------------------


def sweep(suites: Any, folder: Path, *options: str, models: str = "toy") -> Any:
    run = suites.run(folder, "--full", "-k", "throughput", *PLANTED, *options, models=models)
    (one,) = run.observations
    return one


def test_a_sweep_goes_up_to_the_recommended_batch(suites: Any, tmp_path: Path) -> None:
    one = sweep(suites, tmp_path, "--weights=pretrained", "--targets=sound-torch-1")
    assert (one.status, one.batch) == ("passed", 8), one
    assert list(one.values["batches"]) == ["1", "2", "4", "8"], "16 is beyond it"
    assert all(batch["items_per_s"] > 0 for batch in one.values["batches"].values())
    assert one.values["recommended"] == {
        "precision": "fp16",
        "lowest_batch": 4,
        "batch": 8,
        "in_this_precision": False,
    }
    assert {len(seconds) for seconds in one.samples.values()} == {10}


def test_memory_that_runs_out_ends_a_sweep(suites: Any, tmp_path: Path) -> None:
    one = sweep(suites, tmp_path, "--weights=pretrained", "--targets=breaking-large-batches")
    assert (one.status, one.batch) == ("passed", 2), one
    batches = one.values["batches"]
    assert list(batches) == ["1", "2", "4"], "8 is not tried after 4"
    assert batches["4"] == {"status": "out-of-memory"}
    assert batches["2"]["items_per_s"] > 0


def ended(failures: dict[int, StageFailure], tmp_path: Path) -> Observation:
    """Return the observation of a full sweep whose batches fail so."""

    def stage(name: str, **arguments: int) -> Any:
        if name == "throughput" and arguments["batch"] in failures:
            raise failures[arguments["batch"]]
        return {
            "loads": {},
            "batches": [1, 4, 8],
            "throughput": {"seconds": [2.0], "audio_s": 8.0},
        }[name]

    worker: Any = SimpleNamespace(stage=stage, request=SimpleNamespace(threads=1))
    test = runpy.run_path(str(ROOT / "suites" / "test_latency.py"))["test_throughput"]
    chosen = case("whisper-small@seeded/rocm-torch/fp16")
    measurement = Measurement(
        *(chosen, test.check, worker, Thresholds((), ""), 44, 1, FULL, True, tmp_path),
        load(default_path()).of(chosen),
    )
    error = None
    try:
        test(measurement)
    except Exception as raised:
        error = raised
    return measurement.observation(error, None, "fp16")


def test_where_no_batch_fits_memory_ran_out(tmp_path: Path) -> None:
    one = ended({1: OutOfMemory("no room")}, tmp_path)
    assert (one.status, one.level) == ("out-of-memory", None)
    assert one.values["batches"] == {"1": {"status": "out-of-memory"}}


def test_whatever_ends_a_sweep_what_it_found_is_kept(tmp_path: Path) -> None:
    one = ended({8: TimedOut("too slow")}, tmp_path)
    assert (one.status, one.batch) == ("timeout", 4)
    assert one.values["batches"]["4"] == {"items_per_s": 2.0, "audio_s_per_s": 4.0}
    assert one.values["recommended"]["batch"] == 8
    assert list(one.samples) == ["batch_1_seconds", "batch_4_seconds"]


def test_all_else_runs_in_usual_batches(suites: Any, tmp_path: Path) -> None:
    """Even where a large batch is recommended, and would not fit."""
    run = suites.run(
        tmp_path,
        *("--full", "-k", "not throughput and not search and not sustained", *PLANTED),
        *("--weights=pretrained", "--targets=breaking-large-batches"),
    )
    found = {one.check: one for one in run.observations}
    assert {"accuracy.task", "latency.task", "memory.peak", "robustness.stress"} <= set(found)
    assert {one.status for one in found.values()} <= {"passed", "inconclusive"}, run.text
    assert found["robustness.stress"].values["changed_in_batch"] == 0.0


def test_the_core_profile_takes_the_largest_usual_batch(suites: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torch")
    command = suites.command(
        tmp_path,
        *("-k", "throughput", *PLANTED),
        *("--weights=pretrained", "--targets=sound-accelerator", "--recipes=fp32"),
    )
    command.remove("--quick")
    done = forks.run(command, suites.environment(), ROOT, timeout=600)
    (run,) = read_all([tmp_path]).runs
    (one,) = run.observations
    assert (one.status, one.batch) == ("passed", 2), done.stdout
    assert list(one.values["batches"]) == ["2"]
    assert one.values["recommended"]["batch"] == 8
    assert one.values["recommended"]["in_this_precision"]


def test_a_sweep_of_a_real_model(suites: Any, tmp_path: Path) -> None:
    options = ("--targets=cpu-torch", "--recipes=fp32", "--threads=2")
    one = sweep(suites, tmp_path, *options, models="whisper-nano")
    assert (one.status, one.batch) == ("passed", 8), one
    assert list(one.values["batches"]) == ["1", "4", "8"]
    assert one.values["recommended"]["in_this_precision"]
