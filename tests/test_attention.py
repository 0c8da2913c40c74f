"""Decoders with caches, held to the uncached ones of their libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    SeamlessM4TConfig,
)
from transformers.models.seamless_m4t.modeling_seamless_m4t import SeamlessM4TDecoder

from compat.build.torch_session import TorchSession
from compat.contract.graph import Graph, Tensor
from compat.models.parts.attention import (
    SEAMLESS,
    CachedDecoder,
    at_position,
    cross_attention_module,
    forced,
    greedy,
    guided,
    step_module,
)

LAYERS, HEADS, WIDTH, PAST, CROSS, CODES, BOOKS = 2, 2, 16, 12, 5, 23, 4
SCALE = 3.0
Module = torch.nn.Module


@pytest.fixture(autouse=True)
def deterministic() -> None:
    torch.manual_seed(0)


def session(sizes: CachedDecoder, memory: Module, step: Module, ways: int, **more: Tensor) -> Any:
    """Open the two graphs of a decoder for one and for two rows."""
    points = {f"b{batch}": {"batch": batch} for batch in (1, 2)}
    memories = {f"memory_{way}": Tensor(("batch", CROSS, WIDTH)) for way in range(ways)}
    inputs = {**more, **sizes.inputs}
    graphs = {
        "cross": Graph("cross", memories, tuple(sizes.cross_inputs), points, lambda: memory),
        "decoder": Graph(
            "decoder", inputs, ("next_token", "logits"), points, lambda: step, sizes.state
        ),
    }
    modules = {"cross": memory.eval(), "decoder": step.eval()}
    return TorchSession(graphs, modules, dict.fromkeys(graphs, "fp32"), torch.device("cpu"))


# MusicGen: four codebooks, and guidance --------------------------------------------------------


@pytest.fixture
def musicgen() -> Any:
    config = MusicgenDecoderConfig(
        vocab_size=CODES,
        max_position_embeddings=PAST,
        num_hidden_layers=LAYERS,
        ffn_dim=32,
        num_attention_heads=HEADS,
        hidden_size=WIDTH,
        num_codebooks=BOOKS,
        initializer_factor=0.3,
    )
    return MusicgenForCausalLM(config).eval()


class GuidedStep(Module):
    """What a family of MusicGen has to write itself, with padded text masked."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        decoder = network.model.decoder
        self.books, self.norm = decoder.embed_tokens, decoder.layer_norm
        self.heads = network.lm_heads
        self.register_buffer("table", decoder.embed_positions.weights)
        self.step = step_module(decoder.layers, PAST)

    def forward(
        self, text: torch.Tensor, token: torch.Tensor, position: torch.Tensor, *tensors: Any
    ) -> tuple[torch.Tensor, ...]:
        embedded = sum(book(token[:, i : i + 1]) for i, book in enumerate(self.books))
        hidden = (embedded + at_position(self.table, position)).expand(-1, 2, -1)
        mask = ((text - 1.0) * 1e4)[:, None, None, :]
        hidden, *written = self.step(hidden, position, *tensors, cross_mask=mask)
        normed = self.norm(hidden)
        logits = torch.stack([head(normed) for head in self.heads], dim=2)
        logits = guided(logits, SCALE)
        return (logits.argmax(dim=-1).to(torch.int32), logits, *written)


def test_four_codebooks_are_guided_as_in_the_library(musicgen: Any) -> None:
    sizes = CachedDecoder(LAYERS, HEADS, WIDTH // HEADS, PAST, CROSS, BOOKS, guidance=True)
    memory = cross_attention_module([one.encoder_attn for one in musicgen.model.decoder.layers])
    text = Tensor(("batch", CROSS))
    opened = session(sizes, memory, GuidedStep(musicgen), 2, text=text)
    batch, steps = 2, PAST
    random = np.random.default_rng(0)
    prompted = random.standard_normal((batch, CROSS, WIDTH)).astype(np.float32)
    heard = np.ones((batch, CROSS), np.float32)
    heard[1, 3:] = 0.0
    codes = random.integers(0, CODES, (steps, batch, BOOKS)).astype(np.int32)
    feeds = {"memory_0": prompted, "memory_1": np.zeros_like(prompted)}
    across = opened.run("cross", feeds, "b2")
    found = forced(opened, {**across, "text": heard}, "b2", codes)
    with torch.inference_mode():
        expected = musicgen(
            input_ids=torch.from_numpy(codes).permute(1, 2, 0).repeat(2, 1, 1).flatten(0, 1).long(),
            encoder_hidden_states=torch.from_numpy(np.concatenate((prompted, 0 * prompted))),
            encoder_attention_mask=torch.from_numpy(np.tile(heard, (2, 1))).long(),
        ).logits.reshape(2, batch, BOOKS, steps, CODES)
    both = (expected[1] + SCALE * (expected[0] - expected[1])).permute(2, 0, 1, 3)
    np.testing.assert_allclose(found, both.numpy(), atol=2e-5)
    assert both.std() > 0.05


# SeamlessM4T: other names, and scaled embeddings -----------------------------------------------


@pytest.fixture
def seamless() -> Any:
    config = SeamlessM4TConfig(
        vocab_size=CODES,
        hidden_size=WIDTH,
        decoder_layers=LAYERS,
        decoder_ffn_dim=32,
        decoder_attention_heads=HEADS,
        max_position_embeddings=PAST,
        initializer_range=0.3,
    )
    return SeamlessM4TDecoder(config).eval()


class TextStep(Module):
    """What a family of SeamlessM4T has to write itself."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.tokens, self.norm = decoder.embed_tokens, decoder.layer_norm
        # The first rows of the table belong to padding.
        table = decoder.embed_positions.weights[decoder.padding_idx + 1 :]
        self.register_buffer("table", table)
        self.step = step_module(decoder.layers, PAST, SEAMLESS)

    def forward(
        self, token: torch.Tensor, position: torch.Tensor, *tensors: Any
    ) -> tuple[torch.Tensor, ...]:
        hidden = self.tokens(token).unsqueeze(1) + at_position(self.table, position)
        hidden, *written = self.step(hidden, position, *tensors)
        # Embeddings are scaled; the projection onto the vocabulary is not.
        logits = (self.norm(hidden) @ self.tokens.weight.T)[:, 0]
        return (logits.argmax(dim=-1).to(torch.int32), logits, *written)


def by_the_library(decoder: Any, memory: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the logits (steps, batch, vocabulary) along tokens (steps, batch), without a cache."""
    with torch.inference_mode():
        hidden = decoder(
            input_ids=torch.from_numpy(tokens.T.copy()).long(),
            encoder_hidden_states=torch.from_numpy(memory),
            use_cache=False,
        ).last_hidden_state
        logits: np.ndarray = (hidden @ decoder.embed_tokens.weight.T).numpy()
    return logits.transpose(1, 0, 2)


def test_a_text_decoder_with_other_names_writes_as_in_the_library(seamless: Any) -> None:
    sizes = CachedDecoder(LAYERS, HEADS, WIDTH // HEADS, PAST, CROSS)
    memory = cross_attention_module([one.cross_attention for one in seamless.layers])
    opened = session(sizes, memory, TextStep(seamless), 1)
    random = np.random.default_rng(0)
    heard = random.standard_normal((2, CROSS, WIDTH)).astype(np.float32)
    across = opened.run("cross", {"memory_0": heard}, "b2")
    tokens = random.integers(1, CODES, (PAST, 2)).astype(np.int32)  # 0 is padding.
    expected = by_the_library(seamless, heard, tokens)
    found = forced(opened, across, "b2", tokens)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    prompt, most = tokens[:3], PAST - 2
    written = greedy(opened, across, "b2", prompt, most).outputs["next_token"]
    assert written.shape == (most, 2)
    along = np.concatenate((prompt, written[:-1]))
    best = by_the_library(seamless, heard, along).argmax(axis=-1)[len(prompt) - 1 :]
    assert written.tolist() == best.tolist()
    end = int(written[2, 0])
    ended = greedy(
        opened, {n: h.numpy()[:1] for n, h in across.items()}, "b1", prompt[:, :1], most, end
    )
    assert ended.outputs["next_token"][-1, 0] == end
    assert len(ended.outputs["next_token"]) == written[:, 0].tolist().index(end) + 1


def test_shapes_follow_from_the_sizes() -> None:
    plain = CachedDecoder(2, 3, 8, past=10, cross=5)
    assert list(plain.inputs)[:3] == ["token", "position", "cross_key_0"]
    assert plain.inputs["token"].shape == ("batch",)
    assert plain.inputs["cross_key_1"].shape == ("batch", 3, 8, 5)
    assert plain.inputs["cross_value_1"].shape == ("batch", 3, 5, 8)
    assert list(plain.state) == ["key_0", "key_1", "value_0", "value_1"]
    assert (plain.state["key_1"].shape, plain.state["key_1"].axis) == (("batch", 3, 8, 10), 3)
    assert (plain.state["value_1"].shape, plain.state["value_1"].axis) == (("batch", 3, 10, 8), 2)
    both = CachedDecoder(1, 3, 8, past=10, cross=5, codebooks=4, guidance=True)
    assert both.inputs["token"].shape == ("batch", 4)
    assert both.state["key_0"].shape == ("batch", 6, 8, 10)
    assert both.inputs["cross_value_0"].shape == ("batch", 6, 5, 8)
