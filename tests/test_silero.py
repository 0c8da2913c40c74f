"""Voice activity: the metric, Silero's networks in every form that is shipped, and their driver."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compat import catalog
from compat.build.reference import oracle_session
from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.runtime import Options, Probe
from compat.contract.session import Session, Unsupported
from compat.inputs.checkpoints import CheckpointError, find_checkpoint
from compat.inputs.corpus import load
from compat.metrics.activity import Counts, covered_frames, frame_errors, task_activity
from compat.models import silero, silero_network
from compat.run.measurement import Finding
from compat.run.run import Run, Settings

RATE = silero.SAMPLE_RATE

# The metric --------------------------------------------------------------------------------------

TRUTH = [[1.0, 3.0, "a"], [2.0, 4.0, "b"]]
SPANS = st.lists(
    st.tuples(st.floats(0, 10), st.floats(0, 10)).map(lambda pair: [*sorted(pair), "x"]),
    max_size=6,
)
DECISIONS = st.lists(st.booleans(), min_size=1, max_size=20).map(np.array)


def decide(pattern: str) -> np.ndarray:
    return np.array([letter == "#" for letter in pattern])


def test_frames_belong_to_the_segment_that_holds_their_centre() -> None:
    assert covered_frames([[1.0, 2.5, "a"]], 4, 1.0).tolist() == [False, True, False, False]
    assert covered_frames([[1.0, 2.6, "a"]], 4, 1.0).tolist() == [False, True, True, False]
    assert not covered_frames([], 4, 1.0).any()
    for wrong in ([2.0, 1.0, "a"], [0.0, float("nan"), "a"]):
        with pytest.raises(ValueError, match="no segment"):
            covered_frames([wrong], 4, 1.0)


def test_errors_counted_by_hand() -> None:
    # Speech from second 1 to 4; found from 0 to 2 and from 4 to 5.
    whole = frame_errors(decide("##..#..."), TRUTH, [[0.0, 8.0]], 1.0)
    assert whole == Counts(missed=2, false_alarms=2, speech=3, frames=8)
    assert whole.rate == 0.5
    # Only seconds 2 to 6 are scored.
    part = frame_errors(decide("##..#..."), TRUTH, [[2.0, 6.0]], 1.0)
    assert part == Counts(missed=2, false_alarms=1, speech=2, frames=4)
    # The last frame is longer than the recording: its centre decides.
    assert frame_errors(decide("#" * 8), TRUTH, [[0.0, 7.4]], 1.0).frames == 7


def test_scores_of_a_corpus_by_hand() -> None:
    scores = task_activity(
        [TRUTH, []],
        [decide("##..#..."), decide("..#.")],
        [decide(".##....."), decide("....")],
        [[[0.0, 8.0]], [[0.0, 4.0]]],
        1.0,
    )
    expected = {
        "frame_error_rate": 5 / 12,
        "missed": 2 / 12,
        "false_alarm": 3 / 12,
        "miss_rate": 2 / 3,
        "false_alarm_rate": 3 / 9,
        "detection_error_rate": 5 / 3,
        "reference_frame_error_rate": 1 / 12,
        "degradation": 4 / 12,
        "changed": 4 / 12,
        "no_worse_share": 0.0,
        "scored_s": 12.0,
        "speech_s": 3.0,
        "recordings": 2,
        "worst_recording": 0,
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    low, high = scores["frame_error_rate_interval"]
    assert low <= 5 / 12 <= high
    with pytest.raises(ValueError, match="one decision"):
        task_activity([TRUTH], [], [], [], 1.0)


def test_a_frame_on_the_threshold_makes_no_recording_worse() -> None:
    quiet, one, many = (np.arange(1000) < count for count in (0, 5, 6))
    whole = [[0.0, 1000.0]]
    assert task_activity([[]], [one], [quiet], [whole], 1.0)["no_worse_share"] == 1.0
    assert task_activity([[]], [many], [quiet], [whole], 1.0)["no_worse_share"] == 0.0


@given(SPANS, DECISIONS, SPANS)
def test_a_decision_equals_itself(segments: Any, decided: np.ndarray, scored: Any) -> None:
    truth = covered_frames(segments, len(decided), 0.5)
    assert frame_errors(truth, segments, scored, 0.5).errors == 0
    scores = task_activity([segments], [decided], [decided], [scored], 0.5)
    assert scores["degradation"] == scores["changed"] == 0.0
    assert scores["no_worse_share"] == 1.0


@given(SPANS, DECISIONS, st.data())
def test_who_speaks_and_how_it_is_cut_changes_nothing(
    segments: Any, decided: np.ndarray, data: st.DataObject
) -> None:
    other = []
    for start, end, _ in data.draw(st.permutations(segments)):
        cut = data.draw(st.floats(start, end))
        names = data.draw(st.tuples(st.text(max_size=2), st.text(max_size=2)))
        other += [[start, cut, names[0]], [cut, end, names[1]]]
    whole = [[0.0, 10.0]]
    assert frame_errors(decided, segments, whole, 0.5) == frame_errors(decided, other, whole, 0.5)


@given(SPANS, DECISIONS, SPANS)
def test_errors_add_up(segments: Any, decided: np.ndarray, scored: Any) -> None:
    counts = frame_errors(decided, segments, scored, 0.5)
    opposite = frame_errors(~decided, segments, scored, 0.5)
    assert counts.errors + opposite.errors == counts.frames
    assert counts.missed <= counts.speech <= counts.frames <= len(decided)


# Segments ----------------------------------------------------------------------------------------


def seconds(*segments: tuple[int, int]) -> list[list[float]]:
    return [[start / RATE, end / RATE] for start, end in segments]


def test_segments_by_hysteresis() -> None:
    chunk, pad = silero.CHUNK, silero.PADDING
    speech, quiet = [0.9] * 10, [0.1] * 10
    whole = 30 * chunk
    found = silero.speech_segments(quiet + speech + quiet, whole)
    assert found == seconds((10 * chunk - pad, 20 * chunk + pad))
    # Between the two thresholds speech goes on, but does not begin.
    assert silero.speech_segments(quiet + [0.4] * 20, whole) == []
    undecided = silero.speech_segments(speech + [0.4] * 10 + quiet, whole)
    assert undecided == seconds((0, 20 * chunk + pad))
    # A pause below 0.1 s is none: three chunks are 96 ms, four are 128.
    assert len(silero.speech_segments(speech + [0.1] * 3 + speech, 23 * chunk)) == 1
    assert len(silero.speech_segments(speech + [0.1] * 5 + speech, 25 * chunk)) == 2
    # What is not longer than 0.25 s is no speech: seven chunks are 224 ms, eight are 256.
    assert silero.speech_segments(quiet + [0.9] * 7 + quiet, 27 * chunk) == []
    assert len(silero.speech_segments(quiet + [0.9] * 8 + quiet, 28 * chunk)) == 1
    # The end of the recording ends speech, and padding stays inside.
    assert silero.speech_segments(quiet + speech, 20 * chunk - 100) == seconds(
        (10 * chunk - pad, 20 * chunk - 100)
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=120), st.integers(0, silero.CHUNK - 1))
def test_segments_are_apart_and_inside(probabilities: list[float], missing: int) -> None:
    samples = len(probabilities) * silero.CHUNK - missing
    found = silero.speech_segments(probabilities, samples)
    edges = [edge for segment in found for edge in segment]
    assert edges == sorted(edges)
    assert all(0 <= edge <= samples / RATE for edge in edges)
    assert all(end - start > 0.25 for start, end in found)


# The networks ------------------------------------------------------------------------------------

RUNTIMES = {"torch": "cpu-torch", "onnxruntime": "cpu-onnxruntime", "openvino": "openvino-cpu"}
FORMS = [
    ("silero-vad", "onnxruntime"),
    ("silero-vad", "openvino"),
    ("silero-vad-shipped", "torch"),
    ("silero-vad-shipped", "onnxruntime"),
    ("silero-vad-shipped", "openvino"),
    ("silero-vad-opset15", "onnxruntime"),
    ("silero-vad-opset15", "openvino"),
    ("silero-vad-ifless", "onnxruntime"),
    ("silero-vad-ifless", "openvino"),
    ("silero-vad-sequence", "onnxruntime"),
    ("silero-vad-sequence", "openvino"),
    ("silero-vad-half", "onnxruntime"),
    ("silero-vad-half", "openvino"),
]


@pytest.fixture(scope="module")
def package() -> Path:
    """The folder with Silero's files."""
    try:
        return find_checkpoint(silero.CHECKPOINT)
    except CheckpointError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def items() -> list[Item]:
    """Three recordings of different length: 4, 2.5 and 3.3 s."""
    sets = load().sets
    found = [sets[name].item(index, RATE) for name, index in (("conversations", 2), ("long", 1))]
    cuts = [(found[0], 0.0, 4.0), (found[1], 3.5, 6.0), (found[0], 9.0, 12.3)]
    return [
        Item.from_audio(f"cut-{index}", item.audio[round(start * RATE) : round(end * RATE)])
        for index, (item, start, end) in enumerate(cuts)
    ]


@pytest.fixture(scope="module")
def reference(package: Path) -> ModelReference:
    return ModelReference("silero", "silero-vad", "pretrained", str(package))


@pytest.fixture(scope="module")
def session(reference: ModelReference) -> Session:
    """The rebuilt module in float32, on PyTorch."""
    torch.set_num_threads(1)
    return oracle_session(catalog.open_model(reference), "fp32")


@pytest.fixture(scope="module")
def exact(reference: ModelReference, items: list[Item]) -> Callable[[str], list[Any]]:
    """What the rebuilt module of a variant gives in float64."""

    @cache
    def traces(variant: str) -> list[Any]:
        named = replace(reference, variant=variant)
        model = catalog.open_model(named)
        opened = oracle_session(model, "fp64")
        return [model.trace(opened, item, {}) for item in items]

    return traces


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed here: artifacts are built in this process."""
    monkeypatch.setenv("COMPAT_BUILDING", "1")


def open_session(reference: ModelReference, runtime: str, recipe: str = "fp32") -> Session:
    if runtime == "torch":
        torch.set_num_threads(1)
    else:
        pytest.importorskip(runtime)
    loaded = catalog.load()
    target = next(target for target in loaded.targets if target.name == RUNTIMES[runtime])
    opened = sources(reference, catalog.open_model(reference), 1)
    return loaded.runtime(target.runtime).compile(opened, target, Recipe(recipe), Options(1))


def listen(model: Any, session: Session, items: list[Item]) -> list[np.ndarray]:
    found = model.run(session, items, Stopwatch())
    return [np.array(prediction["probabilities"]) for prediction in found]


def test_the_rebuilt_module_is_what_is_shipped(
    package: Path, reference: ModelReference, session: Session, items: list[Item]
) -> None:
    """Against ONNX Runtime on the shipped file, fed as Silero's own wrapper feeds it."""
    runtime = pytest.importorskip("onnxruntime")
    shipped = runtime.InferenceSession(
        package / silero.ONNX.name, providers=["CPUExecutionProvider"]
    )
    model = catalog.open_model(reference)
    for item in items:
        context = np.zeros((1, 64), np.float32)
        state = np.zeros((2, 1, 128), np.float32)
        expected = []
        for start in range(0, len(item.audio), 512):
            chunk = np.zeros((1, 512), np.float32)
            part = item.audio[start : start + 512]
            chunk[0, : len(part)] = part
            heard = np.concatenate([context, chunk], axis=1)
            rate = np.array(16_000, np.int64)
            probability, state = shipped.run(None, {"input": heard, "state": state, "sr": rate})
            context = heard[:, -64:]
            expected.append(probability[0, 0])
        found = model.trace(session, item, {})
        assert max(expected) > 0.9, "there is speech in it"
        assert min(expected) < 0.1, "there is silence in it"
        np.testing.assert_allclose(found["probability"][:, 0], expected, atol=1e-4)
        np.testing.assert_allclose(found["hidden"][-1], state[0, 0], atol=2e-4)


@pytest.mark.parametrize(("variant", "runtime"), FORMS)
def test_every_form_is_its_network(
    reference: ModelReference,
    exact: Callable[[str], list[Any]],
    items: list[Item],
    variant: str,
    runtime: str,
) -> None:
    named = replace(reference, variant=variant)
    model = catalog.open_model(named)
    opened = open_session(named, runtime)
    same = "silero-vad" if model.form.weights is silero.SCRIPT else variant
    for item, expected in zip(
        items, exact(variant if model.form.chunks > 1 else same), strict=True
    ):
        for name, array in model.trace(opened, item, {}).items():
            np.testing.assert_allclose(array, expected[name], atol=2e-4, err_msg=name)
    assert opened.executed() == {"vad": "fp32"}
    opened.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_batch_answers_as_its_recordings_do(
    reference: ModelReference, exact: Callable[[str], list[Any]], items: list[Item], runtime: str
) -> None:
    named = replace(reference, variant="silero-vad-shipped")
    model = catalog.open_model(named)
    opened = open_session(named, runtime)
    found = listen(model, opened, items)
    for one, expected in zip(found, exact("silero-vad"), strict=True):
        np.testing.assert_allclose(one, expected["probability"][:, 0], atol=2e-4)
    form = {"torch": "torchscript", "onnxruntime": "onnx"}.get(runtime, runtime)
    size = model.paths[model.form.shipped[form].name].stat().st_size
    # TorchScript holds both sampling rates, of which one is loaded.
    assert opened.model_bytes() == pytest.approx(size, rel=0.5 if runtime == "torch" else 0.01)
    opened.close()


@pytest.mark.parametrize(
    ("variant", "runtime", "recipe"),
    [
        ("silero-vad-shipped", "torch", "bf16"),
        ("silero-vad-shipped", "onnxruntime", "fp16"),
        ("silero-vad-shipped", "openvino", "int8-weights"),
        ("silero-vad-half", "onnxruntime", "fp16"),
        ("silero-vad-half", "torch", "fp32"),
    ],
)
def test_what_is_not_shipped_is_unsupported(
    reference: ModelReference, variant: str, runtime: str, recipe: str
) -> None:
    with pytest.raises(Unsupported, match=f"its makers ship no {recipe} "):
        open_session(replace(reference, variant=variant), runtime, recipe)


def test_which_files_hold_which_network(package: Path) -> None:
    main = silero_network.read_weights(package / silero.SCRIPT.name)
    plain = silero_network.read_weights(package / silero.SAFETENSORS.name)
    difference = {name: float((plain[name] - main[name]).abs().max()) for name in main}
    assert difference.pop("basis.weight") == 0.0
    assert min(difference.values()) > 0.01, "an earlier state of the same training"
    pytest.importorskip("onnx")
    half = silero_network.read_weights(package / silero.HALF.name)
    assert all(value.dtype == torch.float32 for value in half.values()), "half is not float16"
    assert not torch.allclose(half["encoder.0.weight"], main["encoder.0.weight"])


# The driver --------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.sampled_from([1, 3]))
def test_chunks_overlap_by_their_context(lengths: list[int], together: int) -> None:
    model = object.__new__(silero.SileroModel)
    model.form = silero.Form(silero.SCRIPT, chunks=together)
    items = [
        Item.from_audio(str(index), np.arange(1, length + 1, dtype=np.float32))
        for index, length in enumerate(lengths)
    ]
    chunks = model._chunks(items, 8)
    assert len(chunks) % together == 0
    assert chunks.flags.writeable and chunks.flags.c_contiguous
    for row, item in enumerate(items):
        heard = np.concatenate([np.zeros(64), chunks[:, row, 64:].reshape(-1)])
        np.testing.assert_array_equal(heard[64 : 64 + len(item.audio)], item.audio)
        assert not heard[64 + len(item.audio) :].any()
        for index, chunk in enumerate(chunks[:, row]):
            np.testing.assert_array_equal(chunk, heard[index * 512 : index * 512 + 576])
    assert not chunks[:, len(items) :].any()


def test_state_begins_anew_with_each_recording(
    reference: ModelReference, session: Session, items: list[Item]
) -> None:
    model = catalog.open_model(reference)
    first = listen(model, session, items[:1])
    listen(model, session, items[1:2])
    assert listen(model, session, items[:1])[0].tolist() == first[0].tolist()
    # The LSTM does remember: the same chunks sound otherwise after others.
    joined = Item.from_audio("joined", np.concatenate([items[1].audio[: 512 * 60], items[0].audio]))
    after = listen(model, session, [joined])[0][60:]
    assert np.abs(after - first[0])[:5].max() > 0.01


def test_a_stream_may_be_interrupted(
    reference: ModelReference, session: Session, items: list[Item]
) -> None:
    model = catalog.open_model(reference)
    chunks = model._chunks(items[:1], 1)
    (whole,) = model._listen(session, chunks)
    half = len(chunks) // 2
    parts = [*model._listen(session, chunks[:half])]
    kept = session.snapshot("vad", "b1")
    model._listen(session, model._chunks(items[1:2], 1))
    session.restore("vad", "b1", kept)
    for chunk in chunks[half:]:
        parts.append(session.run("vad", {"input": chunk}, "b1")["output"].numpy().copy())
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


def test_predictions_are_scored_as_recorded(
    reference: ModelReference, session: Session, package: Path
) -> None:
    model = catalog.open_model(reference)
    item = load().sets["long"].item(0, RATE)
    (prediction,) = model.run(session, [item], Stopwatch())
    scores = model.task.score([item], [prediction], [prediction])
    assert scores["frame_error_rate"] < 0.1
    assert scores["scored_s"] == pytest.approx(item.seconds, abs=silero.STEP)
    # What the results file keeps is enough.
    bare = model.task.restored(item.id, model.task.truth(item), item.seconds)
    assert model.task.score([bare], [prediction], [prediction]) == scores
    outside = replace(item, facts={**item.facts, "uem": []})
    assert model.task.score([outside], [prediction], [prediction])["scored_s"] == 0.0
    assert model.task.errors(outside, {"probabilities": [1.0]}, prediction)["errors"] == 0.0
    assert model.task.score_sets({"long": ([outside], [prediction], [prediction])}) == {}
    # Segments agree with the sentences, whose pauses are 0.6 s and more.
    assert len(prediction["segments"]) == len(item.facts["segments"])
    deaf = {"probabilities": [0.0] * len(prediction["probabilities"]), "segments": []}
    assert model.task.score([item], [deaf], [prediction])["miss_rate"] == 1.0
    assert model.task.errors(item, deaf, prediction)["errors"] > 10 * 0.1 * 31
    noise = Item.from_audio("noise", item.audio, facts={"stress": {"kind": "noise"}})
    assert model.task.errors(noise, deaf, prediction)["errors"] == 0.0
    unknown = Item.from_audio("unknown", item.audio, facts={"stress": {"kind": "speech"}})
    speech = sum(value >= 0.5 for value in prediction["probabilities"])
    assert model.task.errors(unknown, deaf, prediction) == {"errors": speech, "reference": 0.0}


# Files -------------------------------------------------------------------------------------------


def test_a_changed_file_is_refused(package: Path, tmp_path: Path) -> None:
    for file in (silero.SCRIPT, silero.ONNX, silero.OPENVINO):
        shutil.copyfile(package / file.name, tmp_path / file.name)
    assert silero.load("silero-vad-shipped", "pretrained", str(tmp_path)).fingerprint()
    changed = bytearray((tmp_path / silero.ONNX.name).read_bytes())
    changed[1000] ^= 1
    (tmp_path / silero.ONNX.name).write_bytes(changed)
    assert silero.load("silero-vad", "pretrained", str(tmp_path)).fingerprint()
    with pytest.raises(CheckpointError, match=r"silero_vad\.onnx is not the file"):
        silero.load("silero-vad-shipped", "pretrained", str(tmp_path))
    (tmp_path / silero.SCRIPT.name).unlink()
    with pytest.raises(CheckpointError, match="missing"):
        silero.load("silero-vad", "pretrained", str(tmp_path))


def test_without_the_package_cases_are_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", none)
    monkeypatch.setenv("COMPAT_PACKAGES", str(tmp_path))
    run = Run(Settings())
    monkeypatch.setattr(run, "prober", lambda target: Probe("here"))
    case = catalog.load().case("silero-vad@pretrained/cpu-torch/fp32")
    with pytest.raises(Finding, match="silero-vad are not here") as found:
        run.absent(case)
    assert found.value.status == "skipped"
    assert found.value.remedy == "compat fetch silero-vad"
