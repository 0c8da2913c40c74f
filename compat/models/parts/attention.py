"""Autoregressive decoders with key and value caches: the step's tensors, its layers, and the loop.

Libraries append to their caches. That copies the caches at every step and gives each step another
shape. Here a step attends to its own key and value directly and returns both as slices, which the
runtime writes into the cache: shapes stay the same, and nothing copies a cache. The layers are
those of the library, so that its checkpoints load unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.contract.graph import POSITION, State, Tensor
from compat.contract.session import Handle, Session, Steps

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CachedDecoder:
    """Sizes of a decoder with self-attention to its past and cross-attention to an encoder."""

    layers: int
    heads: int
    head: int
    """Features of each head."""
    past: int
    """Positions of the caches: the largest number of steps."""
    cross: int | str
    """Positions of the encoder's output, or the symbol of the graph's points that gives them."""
    codebooks: int = 0
    """Codes that each step takes, as (batch, codebooks); 0 for one token, as (batch,)."""
    guidance: bool = False
    """Whether every row is decoded both with its prompt and without (classifier-free guidance).

    One step computes both ways: hidden is (batch, 2, width), and there are twice as many heads.
    """

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The graph's inputs: ``token``, ``position`` and :attr:`cross_inputs`, in this order."""
        token = ("batch", self.codebooks) if self.codebooks else ("batch",)
        first = {"token": Tensor(token, "int32"), POSITION: Tensor((1,), "int32")}
        return {**first, **self.cross_inputs}

    @property
    def cross_inputs(self) -> dict[str, Tensor]:
        """Keys and then values of all layers, which :func:`cross_attention_module` makes once."""
        shapes = self._shapes(self.cross)
        return {f"cross_{name}": Tensor(shape) for name, (shape, _) in shapes.items()}

    @property
    def state(self) -> dict[str, State]:
        """The caches: keys and then values of all layers."""
        shapes = self._shapes(self.past)
        return {n: State(shape, update="write", axis=axis) for n, (shape, axis) in shapes.items()}

    def _shapes(self, positions: int | str) -> Mapping[str, tuple[tuple[int | str, ...], int]]:
        """Return shapes, and the axis of the positions in each."""
        heads = self.heads * (2 if self.guidance else 1)
        # Keys are kept transposed (…, head width, positions), as the product with a query wants.
        key = (("batch", heads, self.head, positions), 3)
        value = (("batch", heads, positions, self.head), 2)
        layers = range(self.layers)
        return {f"key_{i}": key for i in layers} | {f"value_{i}": value for i in layers}


@dataclass(frozen=True)
class Layout:
    """A library's names of the parts of a decoder's layer, whose order is the same in all."""

    cross: str
    """The cross-attention. Its normalisation has the same name with ``_layer_norm`` appended."""
    norm: str
    """The normalisation before the feed-forward part."""
    feed: tuple[str, ...]
    """The feed-forward part: modules and functions, in the order in which they are applied."""


BART = Layout("encoder_attn", "final_layer_norm", ("fc1", "activation_fn", "fc2"))
"""The layout of Whisper, MusicGen and other decoders modelled on BART."""
SEAMLESS = Layout("cross_attention", "ffn_layer_norm", ("ffn",))
"""The layout of SeamlessM4T's text decoder."""


def cross_attention_module(attentions: Sequence[Any]) -> torch.nn.Module:
    """Return the module that makes the keys and values of cross-attention, once for all steps.

    It maps an encoder's output (batch, positions, width) to the keys of each layer
    (batch, heads, head width, positions), then to the values (batch, heads, positions, head width).
    With guidance it takes two such inputs: one with the prompt, one without.

    Args:
        attentions: a library's modules, with ``k_proj``, ``v_proj`` and ``num_heads``.
    """
    import torch

    class CrossAttention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.keys = torch.nn.ModuleList(attention.k_proj for attention in attentions)
            self.values = torch.nn.ModuleList(attention.v_proj for attention in attentions)
            self.heads = attentions[0].num_heads

        def forward(self, *ways: torch.Tensor) -> tuple[torch.Tensor, ...]:
            made = [self._one_way(hidden) for hidden in ways]
            if len(ways) == 1:
                return made[0]
            return tuple(torch.cat(tensors, dim=1) for tensors in zip(*made, strict=True))

        def _one_way(self, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
            keys = [self._split(project(hidden)).transpose(2, 3) for project in self.keys]
            values = [self._split(project(hidden)) for project in self.values]
            return tuple(tensor.contiguous() for tensor in (*keys, *values))

        def _split(self, tensor: torch.Tensor) -> torch.Tensor:
            batch, positions, width = tensor.shape
            return tensor.view(batch, positions, self.heads, width // self.heads).transpose(1, 2)

    return CrossAttention()


def step_module(layers: Any, past: int, layout: Layout = BART) -> torch.nn.Module:
    """Return the module that runs all layers of a decoder for one position.

    It maps hidden (batch, ways, width), position (1,) and the tensors of :class:`CachedDecoder`
    (cross-attention keys and values, then the caches) to hidden, and then the new keys
    (batch, heads, head width, 1) and values (batch, heads, 1, head width) of every layer.
    ``ways`` is 2 with guidance, else 1.

    Args:
        layers: the library's ``ModuleList``.
        past: positions of the caches.
        layout: the library's names of the parts of a layer.

    The optional ``cross_mask`` (batch, 1, 1, positions) is added to the scores of cross-attention:
    0 for positions that count, -10,000 for padding.
    """
    import torch

    class Step(torch.nn.Module):
        positions: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.layers = layers
            self.register_buffer("positions", torch.arange(past, dtype=torch.int32))

        def forward(
            self,
            hidden: torch.Tensor,
            position: torch.Tensor,
            *tensors: torch.Tensor,
            cross_mask: torch.Tensor | None = None,
        ) -> tuple[torch.Tensor, ...]:
            # (positions,): 0 for earlier positions. The others get a finite number, because a mask
            # of infinities becomes NaN in reduced precision on some targets.
            mask = torch.where(self.positions < position, 0.0, -1e4).to(hidden.dtype)
            keys, values = [], []
            for index, layer in enumerate(self.layers):
                cross_key, cross_value, past_key, past_value = tensors[index :: len(self.layers)]
                normed = layer.self_attn_layer_norm(hidden)
                own, key, value = _own(layer.self_attn, normed, past_key, past_value, mask)
                hidden = hidden + own
                normed = getattr(layer, f"{layout.cross}_layer_norm")(hidden)
                attention = getattr(layer, layout.cross)
                hidden = hidden + _across(attention, normed, cross_key, cross_value, cross_mask)
                fed = getattr(layer, layout.norm)(hidden)
                for name in layout.feed:
                    fed = getattr(layer, name)(fed)
                hidden = hidden + fed
                keys.append(key)
                values.append(value)
            return (hidden, *keys, *values)

    return Step()


def _own(
    attention: Any,
    hidden: torch.Tensor,
    past_key: torch.Tensor,
    past_value: torch.Tensor,
    mask: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """Return the output of attention to the past and to itself, and the new key and value."""
    import torch

    query = _split(attention.q_proj(hidden), attention) * attention.scaling
    key = _split(attention.k_proj(hidden), attention).transpose(2, 3)
    value = _split(attention.v_proj(hidden), attention)
    scores = torch.cat((query @ past_key + mask, query @ key), dim=-1).softmax(dim=-1)
    mixed = scores[..., :-1] @ past_value + scores[..., -1:] * value
    return attention.out_proj(_join(mixed, hidden)), key, value


def _across(
    attention: Any,
    hidden: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Return the output of cross-attention to the encoder's positions."""
    query = _split(attention.q_proj(hidden), attention) * attention.scaling
    scores = query @ key
    mixed = (scores if mask is None else scores + mask).softmax(dim=-1) @ value
    joined: torch.Tensor = attention.out_proj(_join(mixed, hidden))
    return joined


def _split(tensor: torch.Tensor, attention: Any) -> torch.Tensor:
    """Return (batch, ways, width) as (batch, heads of all ways, 1, head width)."""
    batch, ways, width = tensor.shape
    head = attention.head_dim
    return tensor.view(batch, 1, ways * width // head, head).transpose(1, 2)


def _join(tensor: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Undo :func:`_split`: return the tensor in the shape of ``hidden``."""
    return tensor.transpose(1, 2).reshape(hidden.shape)


def at_position(table: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Return the row (1, 1, width) of a table of positions (positions, width)."""
    import torch

    return torch.nn.functional.embedding(position, table).unsqueeze(0)


def guided(logits: torch.Tensor, scale: float) -> torch.Tensor:
    """Return guided logits (batch, …) from logits (batch, 2, …) with the prompt and without it.

    The result is ``without + scale * (with - without)``. Source: Ho and Salimans, "Classifier-Free
    Diffusion Guidance", 2022.
    """
    prompted, free = logits[:, 0], logits[:, 1]
    return free + scale * (prompted - free)


def greedy(
    session: Session,
    feeds: Mapping[str, np.ndarray | Handle],
    point: str,
    prompt: np.ndarray,
    most: int,
    end: int | None = None,
    along: Mapping[str, np.ndarray] | None = None,
) -> Steps:
    """Decode greedily: run the graph ``decoder`` over a prompt, then over its own ``next_token``.

    Args:
        session: the session that has the graph.
        feeds: the graph's inputs except token and position.
        point: name of the static shape point.
        prompt: int32 (steps, batch), or (steps, batch, codebooks).
        most: largest number of tokens after the prompt.
        end: the token that ends a row; None if no token does.
        along: values of other inputs step by step, such as the noise by which codes are drawn.
    """
    count = len(prompt) - 1 + most
    return session.steps(
        "decoder",
        feeds,
        point,
        count,
        along={"token": prompt, POSITION: _positions(count), **(along or {})},
        carry={"token": "next_token"},
        stop=None if end is None else ("next_token", end),
        fetch=("next_token",),
    )


def forced(
    session: Session, feeds: Mapping[str, np.ndarray | Handle], point: str, tokens: np.ndarray
) -> np.ndarray:
    """Return the ``logits`` (steps, batch, …) of the graph ``decoder`` along given tokens.

    ``tokens`` has the shape of the prompt of :func:`greedy`.
    """
    count = len(tokens)
    along = {"token": tokens, POSITION: _positions(count)}
    steps = session.steps("decoder", feeds, point, count, along=along, fetch=("logits",))
    return steps.outputs["logits"]


def _positions(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int32)[:, None]
