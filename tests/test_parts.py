"""Parts that families share: windows, batches, spectra."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compat.build.torch_session import TorchSession
from compat.contract.graph import Graph, Tensor
from compat.contract.item import Item
from compat.models.parts import batches, spectral
from compat.models.parts.windows import Windows, filled, triangular, window_at

# Windows -----------------------------------------------------------------------------------------

FLOATS = st.floats(-1, 1, width=32)


@st.composite
def layouts(draw: st.DrawFn) -> Windows:
    length = draw(st.integers(1, 40))
    return Windows(length, draw(st.integers(1, length)))


@given(layouts(), st.integers(0, 200))
def test_windows_cover_audio_and_none_is_needless(windows: Windows, samples: int) -> None:
    starts = windows.starts(samples)
    assert starts[0] == 0
    assert starts[-1] + windows.length >= samples
    assert len(starts) == 1 or starts[-2] + windows.length < samples
    assert all(np.diff(starts) == windows.step)


@given(
    layouts(),
    st.integers(0, 150).flatmap(lambda n: arrays(np.float32, (2, n), elements=FLOATS)),
    st.booleans(),
)
def test_an_identity_is_joined_exactly(windows: Windows, audio: np.ndarray, flat: bool) -> None:
    weights = np.ones(windows.length) if flat else triangular(windows.length)
    cut = windows.cut(audio)
    assert cut.shape == (len(windows.starts(audio.shape[-1])), 2, windows.length)
    joined = windows.join(cut, audio.shape[-1], weights)
    assert joined.dtype == np.float32
    np.testing.assert_array_equal(joined, audio)


@pytest.mark.parametrize(("seconds", "overlap", "rate"), [(7.8, 0.25, 44_100), (30, 0.1, 16_000)])
def test_long_audio_is_joined_exactly(seconds: float, overlap: float, rate: int) -> None:
    windows = Windows.overlapping(seconds, overlap, rate)
    assert windows.length == round(seconds * rate)
    assert windows.length - windows.step == pytest.approx(overlap * windows.length, abs=1)
    audio = np.random.default_rng(0).standard_normal((2, 2_000_001)).astype(np.float32)
    joined = windows.join(windows.cut(audio), audio.shape[1], triangular(windows.length))
    np.testing.assert_array_equal(joined, audio)


def test_windows_that_disagree_are_weighted() -> None:
    windows = Windows(4, 2)
    said = np.array([[1.0] * 4, [5.0] * 4])
    joined = windows.join(said, 6, np.array([1.0, 3.0, 3.0, 1.0]))
    np.testing.assert_allclose(joined, [1, 1, 1 + 4 / 4, 1 + 4 * 3 / 4, 5, 5])


def test_the_triangle_is_that_of_demucs() -> None:
    np.testing.assert_allclose(triangular(6), np.array([1, 2, 3, 3, 2, 1]) / 3)
    np.testing.assert_allclose(triangular(5), np.array([1, 2, 3, 2, 1]) / 3)


def test_windows_that_leave_audio_out_are_refused() -> None:
    for step in (0, 5):
        with pytest.raises(ValueError, match="leave some out"):
            Windows(4, step)
    with pytest.raises(ValueError, match="zip"):
        Windows(4, 4).join(np.zeros((1, 4)), 8, np.ones(4))


def test_a_window_at_the_end_is_filled_with_zeros() -> None:
    audio = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(window_at(audio, 2, 3), [[3, 0, 0], [6, 0, 0]])
    assert window_at(audio, 0, 3).base is not None  # No copy.


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [[1, 1, 2, 2]]), (3, [[1, 1, 2, 2], [3, 3, 3, 3]])]
)
def test_seeded_windows_are_filled_with_utterances(count: int, expected: list[list[int]]) -> None:
    lengths = {1: 2, 2: 3, 3: 5, 4: 2}
    utterances = [
        Item.from_audio(str(value), np.full(length, value, np.float32), 8000)
        for value, length in lengths.items()
    ]
    items = filled(utterances, 4, count)
    assert [item.audio.tolist() for item in items] == expected
    assert [item.id for item in items] == [f"window-{index}" for index in range(len(expected))]
    assert items[0].rate == 8000
    (short,) = filled(utterances[:2], 9, 2)
    assert short.audio.tolist() == [1, 1, 2, 2, 2]


# Batches -----------------------------------------------------------------------------------------


class Sums(torch.nn.Module):
    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return values.sum(dim=1), values * 2


def session_of(points: Mapping[str, Mapping[str, int]], shape: Any, **more: Any) -> TorchSession:
    graph = Graph("sums", {"values": Tensor(shape)}, ("sum", "twice"), points, Sums, **more)
    session = TorchSession({"sums": graph}, {"sums": Sums()}, {"sums": "fp32"}, torch.device("cpu"))
    session.ran = []  # type: ignore[attr-defined]
    run = session.run

    def recorded(graph: str, feeds: Any, point: str, fetch: Any = None) -> Any:
        session.ran.append((point, tuple(fetch)))  # type: ignore[attr-defined]
        return run(graph, feeds, point, fetch)

    session.run = recorded  # type: ignore[method-assign]
    return session


def ran(session: Any) -> list[str]:
    return [point for point, _ in session.ran]


@given(st.integers(0, 40), st.sets(st.integers(1, 9), min_size=1))
def test_parts_hold_every_row_once(rows: int, sizes: set[int]) -> None:
    found = list(batches.parts(rows, sorted(sizes, reverse=True)))
    assert [row for part, _ in found for row in range(part.start, part.stop)] == list(range(rows))
    for part, batch in found:
        left = rows - part.start
        assert batch in sizes
        assert part.stop - part.start == min(batch, left)
        assert all(batch <= size or size < left for size in sizes)


@pytest.mark.parametrize(("rows", "points"), [(1, ["b1"]), (3, ["b4"]), (5, ["b4", "b1"])])
def test_rows_go_through_in_batches(rows: int, points: list[str]) -> None:
    session = session_of({"b1": {"batch": 1}, "b4": {"batch": 4}}, ("batch", 3))
    values = np.random.default_rng(0).standard_normal((rows, 3)).astype(np.float32)
    found = batches.in_batches(session, "sums", {"values": list(values)})
    np.testing.assert_allclose(found["sum"], values.sum(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(found["twice"], values * 2)
    assert ran(session) == points
    one = batches.in_batches(session, "sums", {"values": values}, ("twice",))
    assert list(one) == ["twice"]
    assert session.ran[-1][1] == ("twice",)  # type: ignore[attr-defined]


def test_of_points_for_several_lengths_the_one_is_taken_that_rows_fit() -> None:
    points = {f"b{b}-{n}": {"batch": b, "samples": n} for n in (3, 5) for b in (1, 2)}
    session = session_of(points, ("batch", "samples"))
    for length in (5, 3):
        rows = np.ones((3, length), np.float32)
        found = batches.in_batches(session, "sums", {"values": rows})
        assert found["sum"].tolist() == [length] * 3
    assert ran(session) == ["b2-5", "b1-5", "b2-3", "b1-3"]


def test_a_graph_without_a_symbol_for_the_batch_takes_as_many_rows_as_it_says() -> None:
    for batch in (1, 2):
        session = session_of({"only": {}}, (batch, 3))
        rows = np.arange(9, dtype=np.float32).reshape(3, 3)
        found = batches.in_batches(session, "sums", {"values": rows})
        assert found["sum"].tolist() == [3, 12, 21]
        assert len(ran(session)) == -(-3 // batch)


@pytest.mark.parametrize(("inputs", "points"), [(1, ["b2", "b2", "b1"]), (2, None), (3, ["b8"])])
def test_large_batches_are_for_many_inputs(inputs: int, points: list[str] | None) -> None:
    session = session_of(
        {f"b{batch}": {"batch": batch} for batch in (1, 2, 8)}, ("batch", 3), large_batches=(8,)
    )
    rows = np.ones((5, 3), np.float32)
    batches.in_batches(session, "sums", {"values": rows}, inputs=inputs)
    assert ran(session) == (points or ["b2", "b2", "b1"])


def test_rows_that_fit_no_point_are_refused() -> None:
    session = session_of({"b1": {"batch": 1}}, ("batch", 3))
    with pytest.raises(ValueError, match=r"no point for rows of the shapes .*\(4,\)"):
        batches.in_batches(session, "sums", {"values": np.ones((2, 4))})
    with pytest.raises(ValueError, match="no rows for sums"):
        batches.in_batches(session, "sums", {"values": []})


# Spectra -----------------------------------------------------------------------------------------

SIZES = [(400, 160), (512, 128), (256, 256), (125, 25)]


def noise(samples: int) -> torch.Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(0))


def complex_of(spectrum: torch.Tensor) -> torch.Tensor:
    return torch.complex(*spectrum.chunk(2, dim=1))


@pytest.mark.parametrize(("size", "hop"), SIZES)
def test_a_spectrum_is_that_of_torch(size: int, hop: int) -> None:
    audio = noise(2000)
    window = torch.hann_window(size)
    expected = torch.stft(audio, size, hop, window=window, center=False, return_complex=True)
    found = spectral.fourier(size, hop)(audio[:, None])
    torch.testing.assert_close(complex_of(found), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(spectral.power(found), expected.abs().square(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("size", "hop"), [(400, 160), (512, 128), (125, 25)])
@pytest.mark.parametrize("kind", [torch.hann_window, torch.hamming_window])
def test_the_inverse_is_that_of_torch(size: int, hop: int, kind: Callable[..., Any]) -> None:
    length = 1990
    window = kind(size)
    audio = noise(length)
    spectrum = torch.stft(audio, size, hop, window=window, return_complex=True)
    # Of any spectrum, and not only of those that some audio has.
    changed = spectrum * torch.linspace(0.2, 2.0, spectrum.shape[1])[:, None]
    parts = torch.cat((changed.real, changed.imag), dim=1)
    frames = spectrum.shape[2]
    layer = spectral.inverse(size, hop, frames, (frames - 1) * hop, window.double().numpy())
    expected = torch.istft(changed, size, hop, window=window, length=(frames - 1) * hop)
    torch.testing.assert_close(layer(parts)[:, 0], expected, rtol=1e-4, atol=1e-4)
    # And the audio comes back.
    padded = torch.nn.functional.pad(audio[:, None], (size // 2, size // 2), mode="reflect")
    again = layer(spectral.fourier(size, hop, window.double().numpy())(padded))[:, 0]
    torch.testing.assert_close(again, audio[:, : again.shape[1]], rtol=1e-4, atol=1e-4)


def test_an_inverse_needs_frames_over_every_sample() -> None:
    with pytest.raises(ValueError, match="do not cover"):
        spectral.inverse(400, 160, 10, 1700)
    with pytest.raises(ValueError, match="do not cover"):
        spectral.inverse(400, 401, 10, 1600, np.ones(400))
    spectral.inverse(400, 160, 10, 1440)


def test_mel_bands_are_those_of_the_host() -> None:
    from compat.inputs.features import mel_filterbank

    values = np.random.default_rng(0).random((2, 241, 7)).astype(np.float32)
    found = spectral.mel_bands(64, 480, 48_000)(torch.from_numpy(values))
    expected = np.einsum("bft,fm->bmt", values, mel_filterbank(64, 480, 48_000))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-6)
    own = np.eye(241)[:, :5]
    passed = spectral.mel_bands(5, 480, 48_000, own)(torch.from_numpy(values)).detach().numpy()
    np.testing.assert_array_equal(passed, values[:, :5])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_spectra_export(export: Callable[[Any, Any], Any], runtime: str) -> None:
    """There and back, and mel bands on the way, in a file that runtimes execute."""
    size, hop, samples = 256, 64, 2048

    class Spectra(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.forth = spectral.fourier(size, hop)
            self.bands = spectral.mel_bands(20, size, 16_000)
            self.back = spectral.inverse(size, hop, samples // hop + 1, samples)

        def forward(self, audio: torch.Tensor) -> tuple[torch.Tensor, ...]:
            padded = torch.nn.functional.pad(audio, (size // 2, size // 2), mode="reflect")
            spectrum = self.forth(padded)
            return self.back(spectrum), self.bands(spectral.power(spectrum))

    network = Spectra().eval().requires_grad_(False)
    graph = Graph(
        "spectra", {"audio": Tensor((2, 1, samples))}, ("again", "mel"), {"p": {}}, Spectra
    )
    path = export(graph, network).onnx("p")
    audio = noise(samples)[:, None]
    if runtime == "onnxruntime":
        engine = pytest.importorskip("onnxruntime").InferenceSession(path)
        found = engine.run(None, {"audio": audio.numpy()})
    else:
        openvino = pytest.importorskip("openvino")
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        found = list(compiled([audio.numpy()]).values())
    np.testing.assert_allclose(found[0], audio.numpy(), atol=1e-4)
    np.testing.assert_allclose(found[1], network(audio)[1].numpy(), rtol=1e-3, atol=1e-3)
