"""Every runtime that runs on a processor, held to the contract of compat/runtimes/base.py."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

from compat import catalog
from compat.case import Recipe
from compat.corpus import Item, load
from compat.graph import Stopwatch
from compat.models.base import Model
from compat.reference import oracle_session
from compat.runtimes.base import Options, Placement, Session
from compat.sources import ModelReference, sources

TARGETS = ("cpu-torch", "cpu-onnxruntime", "openvino-cpu")
NANO = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")


def open_session(target_name: str, recipe: str) -> Session:
    loaded = catalog.load()
    target = next(t for t in loaded.targets if t.name == target_name)
    if find_spec(target.runtime) is None:
        pytest.skip(f"{target.runtime} is not installed")
    opened = sources(NANO, NANO.load(), 1)
    return loaded.runtime(target.runtime).compile(opened, target, Recipe(recipe), Options(1))


@pytest.fixture(scope="module")
def model() -> Model:
    return NANO.load()


@pytest.fixture(scope="module")
def items(model: Model) -> list[Item]:
    return load().sets["clean"].items(model.sample_rate, 4)


@pytest.fixture(scope="module", params=TARGETS)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    opened = open_session(request.param, "fp32")
    yield opened
    opened.close()


def step(session: Session, encoded: dict, tokens: list[int], position: int, point: str = "b1"):
    feeds = {
        **encoded,
        "token": np.array(tokens, np.int32),
        "position": np.array([position], np.int32),
    }
    return session.run("decoder", feeds, point)["logits"].numpy().copy()


def encode(model, session: Session, chunks: list[np.ndarray], point: str = "b1") -> dict:
    mel = model._mel(chunks, session.graphs["encoder"].points[point]["batch"])
    return session.run("encoder", {"mel": mel}, point)


def test_agrees_with_float64(model: Model, items: list[Item], session: Session) -> None:
    reference = oracle_session(NANO, model, "fp64")
    for item in items[:2]:
        (guide,) = model.run(reference, [item], Stopwatch())
        assert model.run(session, [item], Stopwatch())[0]["tokens"] == guide["tokens"]
        expected = model.trace(reference, item, guide)
        for name, found in model.trace(session, item, guide).items():
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(found, expected[name], atol=2e-4 * scale, err_msg=name)


def test_a_batch_answers_as_its_items_do(model: Model, items: list[Item], session: Session) -> None:
    together = model.run(session, items[:3], Stopwatch())
    alone = [model.run(session, [item], Stopwatch())[0] for item in items[:3]]
    assert [p["tokens"] for p in together] == [p["tokens"] for p in alone]


def test_reset_forgets(model, items: list[Item], session: Session) -> None:
    encoded = encode(model, session, [items[0].samples])
    prompt = list(model.vocabulary.prompt)
    session.reset("decoder", "b1")
    first = [step(session, encoded, [token], i) for i, token in enumerate(prompt)]
    later = step(session, encoded, [prompt[0]], len(prompt))
    assert not np.array_equal(first[0], later)
    session.reset("decoder", "b1")
    np.testing.assert_array_equal(first[0], step(session, encoded, [prompt[0]], 0))


def test_a_snapshot_brings_state_back(model, items: list[Item], session: Session) -> None:
    encoded = encode(model, session, [items[0].samples])
    prompt = list(model.vocabulary.prompt)
    session.reset("decoder", "b1")
    for position, token in enumerate(prompt):
        step(session, encoded, [token], position)
    kept = session.snapshot("decoder", "b1")
    expected = step(session, encoded, [300], len(prompt))
    step(session, encoded, [301], len(prompt) + 1)
    session.reset("decoder", "b1")
    session.restore("decoder", "b1", kept)
    np.testing.assert_array_equal(expected, step(session, encoded, [300], len(prompt)))


def test_gather_reorders_rows(model, items: list[Item], session: Session) -> None:
    chunks = [item.samples for item in items]
    encoded = encode(model, session, chunks, "b4")
    session.reset("decoder", "b4")
    step(session, encoded, [300, 301, 302, 303], 0, "b4")
    before = session.snapshot("decoder", "b4")
    rows = np.array([2, 0, 0, 3])
    session.gather("decoder", "b4", rows)
    after = session.snapshot("decoder", "b4")
    for name, value in before.items():
        np.testing.assert_array_equal(value[rows], after[name])
    # Rows that were gathered from one row go on alike, given the same audio.
    same = encode(model, session, [chunks[0]] * 4, "b4")
    logits = step(session, same, [300, 300, 300, 300], 1, "b4")
    np.testing.assert_allclose(logits[1], logits[2], rtol=1e-5, atol=1e-5)


def test_says_where_it_ran_and_how(model: Model, items: list[Item], session: Session) -> None:
    model.run(session, items[:1], Stopwatch())
    placement: Placement = session.placement()
    assert placement.share == 1.0 and sum(placement.devices.values()) == pytest.approx(1.0)
    assert set(session.executed().values()) == {"fp32"}
    assert session.model_bytes() > 3_000_000


@pytest.mark.parametrize("target", ["cpu-torch", "openvino-cpu", "cpu-onnxruntime"])
def test_components_may_have_schemes_of_their_own(
    model: Model, items: list[Item], target: str
) -> None:
    session = open_session(target, "int8-dynamic+fp32-decoder")
    model.run(session, items[:1], Stopwatch())
    assert dict(session.executed()) == {"encoder": "int8-dynamic", "decoder": "fp32"}
    session.close()


def test_onnx_runtime_admits_that_it_casts_float16(model: Model, items: list[Item]) -> None:
    """On x86 its CPU provider has no float16 products: the graph says float16, the work is not."""
    import platform

    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("other processors have float16 kernels")
    session = open_session("cpu-onnxruntime", "fp16")
    model.run(session, items[:1], Stopwatch())
    assert set(session.executed().values()) == {"fp32"}


def test_openvino_fp32_is_not_bfloat16(model: Model, items: list[Item]) -> None:
    """Its CPU plug-in would run float32 models in bfloat16, were it not told otherwise."""
    session = open_session("openvino-cpu", "fp32")
    model.run(session, items[:1], Stopwatch())
    assert set(session.executed().values()) == {"fp32"}
    session = open_session("openvino-cpu", "bf16")
    model.run(session, items[:1], Stopwatch())
    assert set(session.executed().values()) <= {"bf16", "fp32"}
