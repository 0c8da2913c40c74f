"""Every runtime that runs on a processor, held to the contract of compat/contract/session.py."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from compat import catalog
from compat.build.reference import oracle_session
from compat.build.schemes import apply_scheme
from compat.build.sources import GraphSource, sources
from compat.build.torch_session import TorchSession
from compat.contract.case import Recipe
from compat.contract.graph import Graph, State, Stopwatch, Tensor
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.named import resolve
from compat.contract.runtime import Options
from compat.contract.session import Placement, Session
from compat.inputs.corpus import load
from compat.models import whisper_vocabulary as v
from compat.models.base import Model
from compat.runtimes.openvino import oracles
from compat.runtimes.whisper.checkpoint import hugging_face_folder

TARGETS = ("cpu-torch", "cpu-onnxruntime", "openvino-cpu")
NANO = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")


def open_execution(target_name: str, recipe: str) -> Any:
    loaded = catalog.load()
    target = next(t for t in loaded.targets if t.name == target_name)
    if find_spec(target.runtime) is None:
        pytest.skip(f"{target.runtime} is not installed")
    model = catalog.open_model(NANO)
    opened = sources(NANO, model, 1)
    return loaded.runtime(target.runtime).open(model, opened, target, Recipe(recipe), Options(1))


def open_session(target_name: str, recipe: str) -> Session:
    session: Session = open_execution(target_name, recipe).session
    return session


@pytest.fixture(scope="module")
def model() -> Model:
    return catalog.open_model(NANO)


@pytest.fixture(scope="module")
def items(model: Model) -> list[Item]:
    return load().sets["clean"].items(model.sample_rate, 4)


@pytest.fixture(scope="module", params=TARGETS)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    opened = open_session(request.param, "fp32")
    yield opened
    opened.close()


def compiled(target_name: str, source: GraphSource) -> Session:
    loaded = catalog.load()
    target = next(t for t in loaded.targets if t.name == target_name)
    runtime: Any = loaded.runtime(target.runtime)
    graph = source.graph.name
    session: Session = runtime.compile({graph: source}, target, Recipe("fp32"), Options(1))
    return session


def step(session: Session, encoded: dict, tokens: list[int], position: int, point: str = "b1"):
    feeds = {
        **encoded,
        "token": np.array(tokens, np.int32),
        "position": np.array([position], np.int32),
    }
    return session.run("decoder", feeds, point)["logits"].numpy().copy()


def encode(model, session: Session, chunks: list[np.ndarray], point: str = "b1") -> dict:
    mel = model.padded_mel(chunks, session.graphs["encoder"].points[point]["batch"])
    return session.run("encoder", {"mel": mel}, point)


def test_agrees_with_float64(model: Model, items: list[Item], session: Session) -> None:
    reference = oracle_session(model, "fp64")
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
    encoded = encode(model, session, [items[0].audio])
    prompt = list(model.vocabulary.prompt)
    session.reset("decoder", "b1")
    first = [step(session, encoded, [token], i) for i, token in enumerate(prompt)]
    later = step(session, encoded, [prompt[0]], len(prompt))
    assert not np.array_equal(first[0], later)
    session.reset("decoder", "b1")
    np.testing.assert_array_equal(first[0], step(session, encoded, [prompt[0]], 0))


def test_a_snapshot_brings_state_back(model, items: list[Item], session: Session) -> None:
    encoded = encode(model, session, [items[0].audio])
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
    chunks = [item.audio for item in items]
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


@pytest.mark.parametrize("target", TARGETS)
def test_a_state_is_read_before_it_is_replaced(target: str, export: Any) -> None:
    """A delay line: one state's new value comes from the old value of another."""

    class Delay(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)

        def forward(self, x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> tuple:
            return self.b(x) + t, torch.tanh(self.a(x)), torch.tanh(self.b(s))

    network = Delay().eval().requires_grad_(False)
    states = {"s": State((1, 64)), "t": State((1, 64))}
    graph = Graph("g", {"x": Tensor((1, 64))}, ("y",), {"p": {}}, Delay, states)
    session = compiled(target, export(graph, network))
    s = t = np.zeros((1, 64), np.float32)
    for x in np.random.default_rng(0).standard_normal((6, 1, 64)).astype(np.float32):
        expected, s, t = (y.numpy() for y in network(*map(torch.from_numpy, (x, s, t))))
        np.testing.assert_allclose(
            session.run("g", {"x": x}, "p")["y"].numpy(), expected, atol=1e-5
        )
    session.close()


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_fetched_stays_when_the_graph_runs_again(target: str, export: Any) -> None:
    """A model may keep it: HTDemucs answered with the waves of the segment after."""
    network = torch.nn.Linear(64, 64).eval().requires_grad_(False)
    graph = Graph("g", {"x": Tensor((1, 64))}, ("y",), {"p": {}}, lambda: network)
    session = compiled(target, export(graph, Tupled(network)))
    inputs = np.random.default_rng(0).standard_normal((2, 1, 64)).astype(np.float32)
    first, second = (session.run("g", {"x": x}, "p")["y"].numpy() for x in inputs)
    for found, x in zip((first, second), inputs, strict=True):
        np.testing.assert_allclose(found, network(torch.from_numpy(x)).numpy(), atol=1e-5)
    session.close()


class Tupled(torch.nn.Module):
    """A module as a graph has it: it returns a tuple."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.inner(x),)


@pytest.mark.parametrize("target", TARGETS)
def test_a_carried_output_is_read_before_it_is_written(target: str, sampler: Any) -> None:
    """It stays on the device, where some runtimes write it into the same memory every time."""
    session = compiled(target, sampler.source)
    feeds, count = {"latent": sampler.latent}, len(sampler.times)
    for fetch in ((), ("denoised", "difference")):
        steps = session.steps(
            *("sampler", feeds, "p", count),
            along={"time": sampler.times},
            carry={"latent": "denoised"},
            fetch=fetch,
        )
        last = steps.last["denoised"].numpy()
        np.testing.assert_allclose(last, sampler.expected["denoised"][-1], atol=1e-5)
        assert steps.outputs.keys() == set(fetch) and steps.count == count
        for name, values in steps.outputs.items():
            np.testing.assert_allclose(values, sampler.expected[name], atol=1e-5, err_msg=name)
    session.close()


def test_a_prompt_is_forced_and_tokens_carried(
    model: Any, items: list[Item], session: Session
) -> None:
    """What a loop of runs gives, with every token handed over by the host."""
    chunks = [item.audio for item in items]
    prompt, most = model.vocabulary.prompt, 3
    encoded = encode(model, session, chunks, "b4")
    session.reset("decoder", "b4")
    tokens, expected = np.full(4, prompt[0], np.int32), []
    for position in range(len(prompt) - 1 + most):
        feeds = {**encoded, "token": tokens, "position": np.array([position], np.int32)}
        answer = session.run("decoder", feeds, "b4")["next_token"].numpy().astype(np.int32)
        if position + 1 < len(prompt):
            tokens = np.full(4, prompt[position + 1], np.int32)
        else:
            tokens = answer
            expected.append(answer.copy())
    count = len(prompt) - 1 + most
    steps = session.steps(
        *("decoder", encoded, "b4", count),
        along={
            "token": np.tile(np.array(prompt, np.int32)[:, None], 4),
            "position": np.arange(count, dtype=np.int32)[:, None],
        },
        carry={"token": "next_token"},
        fetch=("next_token", "key_0"),
    )
    np.testing.assert_array_equal(steps.outputs["next_token"], expected)
    np.testing.assert_array_equal(steps.last["next_token"].numpy(), expected[-1])
    keys = session.snapshot("decoder", "b4")["key_0"]
    np.testing.assert_array_equal(steps.outputs["key_0"][-1], keys)
    assert (steps.outputs["key_0"][0] != keys).any()
    assert steps.count == count and steps.first_s > 0


def test_a_module_of_buffers_alone_has_their_precision() -> None:
    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("factor", torch.full((1, 4), 1 / 3))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x * self.factor,)

    graph = Graph("g", {"x": Tensor((1, 4))}, ("y",), {"p": {}}, Scale)
    module = apply_scheme(Scale(), "fp64", torch.device("cpu"))
    session = TorchSession({"g": graph}, {"g": module}, {"g": "fp64"}, torch.device("cpu"))
    y = session.run("g", {"x": np.ones((1, 4), np.float32)}, "p")["y"].numpy()
    assert y.dtype == np.float64 and dict(session.executed()) == {"g": "fp64"}


@pytest.mark.parametrize(
    ("target", "recipe"),
    [("cpu-torch", "tf32+fp32-decoder"), ("cpu-onnxruntime", "fp32+bf16-decoder")],
)
def test_what_one_component_lacks_the_case_lacks(target: str, recipe: str) -> None:
    case = catalog.load().case(f"whisper-nano@trained/{target}/{recipe}")
    runtime = catalog.load().runtime(case.target.runtime)
    assert runtime.unsupported(case.target, case.recipe)


def test_a_whole_is_no_more_exact_than_its_parts() -> None:
    assert Recipe("fp32+int8-dynamic-decoder").precision == "int8"
    assert Recipe("int8-weights+fp16-decoder").precision == "int8"
    assert Recipe("tf32+fp32-decoder").precision == "tf32"
    assert Recipe("fp16").precision == "fp16"


def test_onnx_runtime_admits_that_it_casts_float16(model: Model, items: list[Item]) -> None:
    """On x86 its CPU provider has no float16 products: the graph says float16, the work is not."""
    import platform

    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("other processors have float16 kernels")
    session = open_session("cpu-onnxruntime", "fp16")
    model.run(session, items[:1], Stopwatch())
    assert set(session.executed().values()) == {"fp32"}


def test_ctranslate2_follows_the_tokens_it_is_given(model: Model, items: list[Item]) -> None:
    """Its logits along forced tokens are the reference's, also along tokens it would not choose."""
    execution = open_execution("cpu-ctranslate2", "fp32")
    reference = oracle_session(model, "fp32")
    item = max(items, key=lambda one: len(one.text.split()))
    (guide,) = model.run(reference, [item], Stopwatch())
    (found,) = execution.predict([item], Stopwatch())
    assert found["text"] == guide["text"] and len(guide["tokens"]) > 5
    other = {"tokens": guide["tokens"][::-1]}
    for forced in (guide, other):
        expected = model.trace(reference, item, forced)
        for name, array in execution.trace(item, forced).items():
            np.testing.assert_allclose(array, expected[name], atol=1e-3, err_msg=name)


def test_ctranslate2_takes_generated_weights() -> None:
    tiny = catalog.open_model(ModelReference("whisper", "whisper-tiny", "seeded"))
    with TemporaryDirectory() as folder:
        checkpoint = hugging_face_folder(tiny, Path(folder))
        words = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    assert words.get_vocab_size() == 51_865
    prompt = (v.START, v.ENGLISH, v.TRANSCRIBE, v.NO_TIMESTAMPS)
    assert [words.token_to_id(word) for word in prompt] == [50258, 50259, 50359, 50363]


def test_openvino_fp32_is_not_bfloat16(model: Model, items: list[Item]) -> None:
    """Its CPU plug-in would run float32 models in bfloat16, were it not told otherwise."""
    session = open_session("openvino-cpu", "fp32")
    model.run(session, items[:1], Stopwatch())
    assert set(session.executed().values()) == {"fp32"}
    session = open_session("openvino-cpu", "bf16")
    model.run(session, items[:1], Stopwatch())
    assert set(session.executed().values()) <= {"bf16", "fp32"}


def _levels(weight: torch.Tensor, channel: int) -> list[int]:
    rows = weight.detach().movedim(channel, 0).flatten(1)
    return [len(row.unique()) for row in rows]


def test_openvino_s_int8_is_simulated_in_every_layer() -> None:
    torch.manual_seed(0)
    layers = torch.nn.ModuleDict(
        {
            "linear": torch.nn.Linear(600, 3),
            "conv1d": torch.nn.Conv1d(200, 3, 3),
            "conv2d": torch.nn.Conv2d(70, 3, 3),
            "transposed": torch.nn.ConvTranspose1d(200, 3, 3),
            "lstm": torch.nn.LSTM(600, 2, bidirectional=True),
            "embedding": torch.nn.Embedding(3, 600),
            "norm": torch.nn.BatchNorm1d(3),
        }
    )
    before = {name: value.clone() for name, value in layers.named_parameters()}
    oracles.round_weights(layers)
    for name, value in layers.named_parameters():
        rounded = "weight" in name and not name.startswith("norm")
        assert torch.equal(value, before[name]) != rounded, name
        if rounded:
            channel = 1 if name.startswith("transposed") else 0
            others = [axis for axis in range(value.ndim) if axis != channel]
            low, high = before[name].amin(others, keepdim=True), before[name].amax(others, True)
            # Half a step of the scale, and half of one more where zero is moved onto the grid.
            assert ((value - before[name]).abs() <= (high - low) / 255 + 1e-6).all(), name
            if not name.startswith("lstm.weight_hh"):  # These are few.
                assert min(_levels(before[name], channel)) > 256 >= max(_levels(value, channel))
    assert layers["lstm"](torch.ones(1, 1, 600))[0].isfinite().all()


def test_four_bits_are_simulated_as_onnx_runtime_stores_them(tmp_path: Path) -> None:
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    from compat.build.onnx_schemes import SCHEMES
    from compat.build.reference import SIMULATIONS

    # Not a whole number of blocks, and one block of zeros.
    weight = np.random.default_rng(0).standard_normal((80, 40)).astype(np.float32)
    weight[:32, 5] = 0.0
    kind = onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(n, kind, [80, w]) for n, w in (("x", 80), ("y", 40))]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    stored = numpy_helper.from_array(weight, "w")
    graph = helper.make_graph([node], "product", ends[:1], ends[1:], [stored])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "x.onnx")
    SCHEMES["int4-weights"](tmp_path / "x.onnx", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {"x": np.eye(80, dtype=np.float32)})
    layer = torch.nn.Linear(80, 40, bias=False)
    layer.weight = torch.nn.Parameter(torch.from_numpy(weight.T.copy()), requires_grad=False)
    simulated = resolve(SIMULATIONS["int4-weights"])(torch.nn.Sequential(layer))
    np.testing.assert_allclose(found, simulated(torch.eye(80)).numpy(), atol=1e-6)
    assert 0.1 < np.abs(found - weight).max() < 0.5
    size = (tmp_path / "model.onnx.data").stat().st_size
    assert size < weight.nbytes / 4


def test_openvino_s_activations_share_a_scale_in_groups() -> None:
    layer = torch.nn.Linear(64, 64, bias=False)
    layer.weight = torch.nn.Parameter(torch.eye(64), requires_grad=False)
    oracles.round_activations(layer)
    values = torch.cat((torch.linspace(-1, 1, 32), torch.linspace(-1000, 1000, 32)))
    error = (layer(values[None])[0] - values).abs()
    # What is small beside another group keeps its own scale.
    assert 0 < error[:32].max() <= 0.5 / 127 + 1e-6
    assert error[32:].max() <= 500 / 127 + 1e-3
