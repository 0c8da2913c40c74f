"""Basic Pitch against the file that its package ships, its notes, their scores, planted defects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
import torch

from compat import catalog
from compat.build import calibration
from compat.build.reference import oracle_session
from compat.contract.graph import Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.model_reference import ModelReference
from compat.contract.profile import FULL, QUICK
from compat.contract.session import Session
from compat.inputs import corpus
from compat.inputs.checkpoints import CheckpointError, find_checkpoint
from compat.judge import thresholds
from compat.judge.results import CaseFacts, facts_of
from compat.metrics.notes import note_scores, task_notes
from compat.models import basic_pitch, basic_pitch_network
from compat.models.basic_pitch import BasicPitchModel, joined, windows
from compat.models.basic_pitch_notes import SAMPLE_RATE, SAMPLES, frame_times, notes

TASK = BasicPitchModel.task
CASE = "basic-pitch@pretrained/cpu-onnxruntime/fp32"


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return find_checkpoint(basic_pitch.FAMILY.variants[0].checkpoint)
    except CheckpointError:
        pytest.skip("the weights are not here: compat fetch basic-pitch")


@pytest.fixture(scope="module")
def model(folder: Path) -> BasicPitchModel:
    torch.set_num_threads(1)
    return basic_pitch.load("basic-pitch", "pretrained", str(folder))


@pytest.fixture(scope="module")
def session(model: BasicPitchModel) -> Session:
    return oracle_session(model, "fp32")


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return list(TASK.items(corpus.load(), SAMPLE_RATE, QUICK).task["notes"])


@pytest.fixture(scope="module")
def answers(model: BasicPitchModel, session: Session, items: list[Item]) -> list[Prediction]:
    return model.run(session, items, Stopwatch())


def snr_db(found: np.ndarray, expected: np.ndarray) -> float:
    noise = np.square(found.astype(np.float64) - expected).sum()
    return float(10 * np.log10(np.square(expected, dtype=np.float64).sum() / noise))


# The network -------------------------------------------------------------------------------------


def test_the_network_is_the_published_file(
    model: BasicPitchModel, folder: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, by ONNX Runtime; octaves, harmonics and heads are all heard in it."""
    runtime = pytest.importorskip("onnxruntime")
    published = runtime.InferenceSession(
        folder / basic_pitch.FILE, providers=["CPUExecutionProvider"]
    )
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLES).astype(np.float32)
    waveform = np.stack([windows(items[0].audio)[1], 6 * windows(items[2].audio)[0], noise])
    names = [f"StatefulPartitionedCall:{number}" for number in (1, 2, 0)]
    expected = published.run(names, {"serving_default_input_2:0": waveform[..., None]})

    def least_snr() -> float:
        with torch.no_grad():
            found = model.network(torch.from_numpy(waveform))
        return min(snr_db(one.numpy(), other) for one, other in zip(found, expected, strict=True))

    assert least_snr() > 110
    # A harmonic that is a bin off, and levels that do not fill their range.
    for name, wrong in (("SHIFTS", (-36, 0, 36, 57, 72, 84, 93, 100)), ("SILENT", 80.0)):
        with monkeypatch.context() as patch:
            patch.setattr(basic_pitch_network, name, wrong)
            assert least_snr() < 40, name
    with torch.no_grad():
        silent = model.network(torch.zeros(1, SAMPLES))
    assert all(bool(one.isfinite().all()) for one in silent)
    assert float(silent[0].max()) < 0.3, "nothing is heard in silence"


def test_another_file_is_refused(folder: Path, tmp_path: Path) -> None:
    content = (folder / basic_pitch.FILE).read_bytes()
    (tmp_path / basic_pitch.FILE).write_bytes(content[:-1] + b"\0")
    with pytest.raises(CheckpointError, match=r"is not the file that this project knows"):
        basic_pitch.load("basic-pitch", "pretrained", str(tmp_path))


def test_half_precision_holds_faint_bins(model: BasicPitchModel, items: list[Item]) -> None:
    waveform = torch.from_numpy(windows(items[0].audio)[:1])
    with torch.no_grad():
        exact = model.network(waveform)
        kept = {name: value.clone() for name, value in model.network.state_dict().items()}
        rounded = model.network.half()(waveform.half())
        model.network.float().load_state_dict(kept)
    for one, other in zip(rounded, exact, strict=True):
        assert snr_db(one.float().numpy(), other.numpy()) > 20


def test_a_graph_of_one_window_is_calibrated_although_no_recording_has_a_single_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "ITEMS", 1)
    reference = ModelReference("basic-pitch", "basic-pitch", "pretrained", str(folder))
    for point, batch in (("b1", 1), ("b4", 4)):
        recorded = calibration.record(reference, "posteriorgrams", point, "")
        shapes = {feed["waveform"].shape for feed in recorded.feeds}
        assert shapes == {(batch, SAMPLES)} and recorded.said == "1 recordings of music-train"


# Windows and notes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "count", "frames"),
    [(1, 1, 0), (5_000, 1, 19), (32_324, 1, 126), (32_325, 2, 126), (99_225, 3, 387)],
)
def test_windows_are_those_of_the_package(samples: int, count: int, frames: int) -> None:
    audio = np.arange(1, samples + 1, dtype=np.float32)
    cut = windows(audio)
    assert cut.shape == (count, 43_844)
    assert not cut[0, :3_840].any() and cut[0, 3_840] == 1
    assert count == 1 or cut[1, 0] == 36_164 - 3_840 + 1
    numbered = np.arange(count * 172).reshape(count, 172, 1)
    kept = joined(numbered, samples)[:, 0]
    assert len(kept) == frames
    assert kept[:3].tolist() == [15, 16, 17][:frames]
    assert frames < 143 or kept[141:144].tolist() == [156, 187, 188]


def posteriorgrams() -> tuple[np.ndarray, np.ndarray]:
    """Fourteen notes, faint ones and such without onset among them, over noise."""
    draw = np.random.default_rng(7)
    note, onset = np.zeros((2, 300, 88), np.float32)
    for _ in range(14):
        key, start, length = (int(draw.integers(*ends)) for ends in ((2, 86), (2, 250), (8, 60)))
        loud = draw.uniform(0.25, 0.9)
        part = note[start : start + length, key]
        part[:] = np.maximum(part, loud * np.linspace(1, 0.6, len(part), dtype=np.float32))
        if draw.random() < 0.6:
            onset[start, key] = draw.uniform(0.4, 0.95)
    return note + draw.uniform(0, 0.2, note.shape).astype(np.float32), onset


THEIRS = [
    *((247, 278, 62, 0.5472), (214, 252, 75, 0.3415), (199, 212, 34, 0.4665)),
    *((198, 242, 90, 0.8115), (157, 200, 102, 0.7078), (128, 184, 38, 0.6336)),
    *((119, 131, 94, 0.5807), (117, 167, 104, 0.6197), (96, 114, 100, 0.2978)),
    *((91, 132, 80, 0.333), (57, 72, 73, 0.7141), (166, 181, 54, 0.4455), (72, 124, 98, 0.2979)),
]
"""What ``output_to_notes_polyphonic`` of basic-pitch 0.4.0 gives for :func:`posteriorgrams`."""


def test_notes_are_those_of_the_package() -> None:
    found = notes(*posteriorgrams())
    assert [note[:3] for note in found] == [note[:3] for note in THEIRS]
    assert [note[3] for note in found] == pytest.approx([note[3] for note in THEIRS], abs=1e-4)
    note, onset = posteriorgrams()
    assert notes(note[:2], onset[:2]) == [] == notes(np.zeros((9, 88)), np.zeros((9, 88)))


def test_times_are_those_of_the_package() -> None:
    times = frame_times(400)[[0, 1, 171, 172, 343, 344, 399]]
    theirs = [0.0, 0.01161, 1.985306, 1.98659, 3.971896, 3.97318, 4.611729]
    assert times == pytest.approx(theirs, abs=1e-6)


# Scores ------------------------------------------------------------------------------------------

TRUTH = [[0.0, 1.0, 60], [1.0, 2.0, 64], [2.0, 3.0, 67], [2.0, 2.2, 48]]


@pytest.mark.parametrize(
    ("found", "precision", "recall", "f1", "offset_f1"),
    [
        (TRUTH, 1, 1, 1, 1),
        ([], 0, 0, 0, 0),
        # Two of four, and one that nobody played.
        ([TRUTH[0], TRUTH[1], [3.0, 3.5, 60]], 2 / 3, 1 / 2, 4 / 7, 4 / 7),
        # Just within and just beyond 50 ms.
        ([[0.049, 1.0, 60], [1.051, 2.0, 64]], 1 / 2, 1 / 4, 1 / 3, 1 / 3),
        # Just within and just beyond 50 cents.
        ([[0.0, 1.0, 60.49], [1.0, 2.0, 64.51]], 1 / 2, 1 / 4, 1 / 3, 1 / 3),
        # A fifth of a second-long note, and 50 ms of a short one.
        ([[0.0, 1.19, 60], [2.0, 2.26, 48]], 1, 1 / 2, 2 / 3, 1 / 3),
        # One true note is found once.
        ([TRUTH[0], TRUTH[0]], 1 / 2, 1 / 4, 1 / 3, 1 / 3),
    ],
)
def test_scores_by_hand(
    found: list[list[float]], precision: float, recall: float, f1: float, offset_f1: float
) -> None:
    scores = note_scores(TRUTH, found)
    assert scores == pytest.approx(
        {"precision": precision, "recall": recall, "f1": f1, "offset_f1": offset_f1}
    )


def test_a_set_is_the_mean_of_its_recordings() -> None:
    half = TRUTH[:2]
    values = task_notes([TRUTH, half, []], [half, half, [TRUTH[0]]], [TRUTH, half, []])
    assert values["note_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert values["reference_note_f1"] == 1
    assert values["degradation"] == pytest.approx(1 - values["note_f1"])
    assert values["no_worse_share"] == pytest.approx(1 / 3)
    assert (values["notes"], values["recordings"], values["worst_recording"]) == (6, 3, 2)
    low, high = values["note_f1_interval"]
    assert low == 0 and high == 1
    assert json.loads(json.dumps(values)) == values
    assert task_notes([half], [half], [half])["note_f1_interval"] is None


@pytest.mark.parametrize("note", [[1.0, 0.5, 60], [-1.0, 0.5, 60], [0.0, 1.0, float("nan")]])
def test_what_is_no_note(note: list[float]) -> None:
    with pytest.raises(ValueError, match="no note"):
        note_scores([note], [])
    with pytest.raises(ValueError, match="at least one recording"):
        task_notes([], [], [])


def test_scores_are_those_of_mir_eval(items: list[Item], answers: list[Prediction]) -> None:
    transcription = pytest.importorskip("mir_eval.transcription")
    draw = np.random.default_rng(3)
    pairs = [(item.facts["notes"], one["notes"]) for item, one in zip(items, answers, strict=True)]
    for truth, _ in tuple(pairs):
        # Many near misses, and several answers near one note.
        twice = np.repeat(np.array(truth), 2, axis=0)
        pairs.append((truth, (twice + draw.normal(0, (0.04, 0.06, 0.4), twice.shape)).clip(0)))
    for truth, found in pairs:
        notes = [np.array([note[:3] for note in some]) for some in (truth, found)]
        notes[1][:, 1] = np.maximum(notes[1][:, 1], notes[1][:, 0] + 0.01)
        columns = [
            column
            for some in notes
            for column in (some[:, :2], 440 * 2 ** ((some[:, 2] - 69) / 12))
        ]
        scores = note_scores(*(some.tolist() for some in notes))
        theirs = transcription.precision_recall_f1_overlap(*columns, offset_ratio=None)
        assert [scores[name] for name in ("precision", "recall", "f1")] == pytest.approx(theirs[:3])
        theirs = transcription.precision_recall_f1_overlap(*columns)
        assert scores["offset_f1"] == pytest.approx(theirs[2])


# The task, and planted defects -------------------------------------------------------------------


def judged(values: dict[str, Any]) -> str:
    """Return the level of a set's values in float32, by the shipped limits."""
    limits = thresholds.load([thresholds.default_path()])
    facts: CaseFacts = facts_of(catalog.load().case(CASE))
    level, _, _ = limits.judge("accuracy.task", facts, {"notes": values})
    return str(level)


def heard_at_double_rate(item: Item) -> Item:
    faster = soxr.resample(item.audio, SAMPLE_RATE, 2 * SAMPLE_RATE)
    return Item.from_audio(item.id, faster, SAMPLE_RATE, item.facts)


def without_last_window(item: Item) -> Item:
    return item.with_audio(item.audio[: len(windows(item.audio)[:-1]) * basic_pitch.STEP])


def moved(seconds: float, semitones: int) -> Callable[[Prediction], Prediction]:
    def move(answer: Prediction) -> Prediction:
        found = [
            [on + seconds, off + seconds, pitch + semitones, sure]
            for on, off, pitch, sure in answer["notes"]
        ]
        return {**answer, "notes": found}

    return move


def test_what_is_sound_is_strict(items: list[Item], answers: list[Prediction]) -> None:
    values = TASK.scores(items, answers, answers)
    assert 0.7 < values["note_f1"] < 0.75 and 0.5 < values["note_offset_f1"] < 0.6
    assert judged(values) == "strict"
    assert TASK.faults(answers, answers) == []
    again = [json.loads(json.dumps(TASK.stored(answer))) for answer in answers]
    assert TASK.scores(items, again, again) == values, "scores need no more than what is stored"


@pytest.mark.parametrize("defect", [heard_at_double_rate, without_last_window])
def test_a_defect_of_audio_fails_even_if_the_reference_has_it(
    model: BasicPitchModel,
    session: Session,
    items: list[Item],
    answers: list[Prediction],
    defect: Callable[[Item], Item],
) -> None:
    wrong = model.run(session, [defect(item) for item in items], Stopwatch())
    assert judged(TASK.scores(items, wrong, answers)) == "failed"
    assert judged(TASK.scores(items, wrong, wrong)) != "strict"


@pytest.mark.parametrize("defect", [moved(0.0, 1), moved(0.1, 0)], ids=["semitone", "late"])
def test_a_defect_of_notes_fails_even_if_the_reference_has_it(
    items: list[Item], answers: list[Prediction], defect: Callable[[Prediction], Prediction]
) -> None:
    wrong = [defect(answer) for answer in answers]
    assert judged(TASK.scores(items, wrong, answers)) == "failed"
    assert judged(TASK.scores(items, wrong, wrong)) == "failed"


def test_equal_answers_and_errors(items: list[Item], answers: list[Prediction]) -> None:
    one, other = answers[:2]
    assert TASK.same(one, moved(0.01, 0)(one)) and not TASK.same(one, moved(0.03, 0)(one))
    assert not TASK.same(one, moved(0.0, 1)(one)) and not TASK.same(one, other)
    nothing = {"notes": [], "level": 0.0}
    assert TASK.same(nothing, nothing)
    assert TASK.errors(items[0], one, one)["errors"] == 0
    assert TASK.errors(items[0], nothing, one)["errors"] == len(one["notes"])
    missing = {**one, "notes": one["notes"][1:]}
    assert TASK.errors(items[0], missing, one)["errors"] == 1


def test_inputs_by_profile() -> None:
    shipped = corpus.load()
    quick = TASK.items(shipped, SAMPLE_RATE, QUICK)
    assert [len(found) for found in quick.task.values()] == [4] and list(quick.task) == ["notes"]
    assert len(TASK.items(shipped, SAMPLE_RATE, FULL).task["notes"]) == 8


def test_the_set_is_what_its_script_makes(items: list[Item]) -> None:
    """Its notes begin where the audio rises, and their pitches are in it."""
    for item in items:
        truth = item.facts["notes"]
        assert truth == sorted(truth) and len(truth) > 7
        assert all(0 < on + 0.19 < off < item.seconds for on, off, _ in truth)
        for on, off, pitch in truth[:3]:
            part = item.audio[round(on * item.rate) : round(off * item.rate)]
            spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 16))
            hertz = 440 * 2 ** ((pitch - 69) / 12)
            near = round(hertz * (1 << 16) / item.rate)
            peak = spectrum[round(near * 0.97) : round(near * 1.03)].max()
            assert peak > 4 * np.median(spectrum), (item.id, pitch)
