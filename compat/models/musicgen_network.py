"""The graphs of MusicGen as PyTorch modules, made of the networks of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compat.models.musicgen_settings import POSITIONS, PROMPT_TOKENS
from compat.models.parts import t5
from compat.models.parts.attention import at_position, cross_attention_module, guided, step_module

if TYPE_CHECKING:
    import torch


def text_module(network: Any) -> torch.nn.Module:
    """Return the module that reads a prompt: ids and mask (1, tokens) to memory, keys and values.

    Memory (1, tokens, width) is T5's output in the decoder's width, with zeros at padding. Keys and
    values are those of both ways of guidance. The way without the prompt attends to zeros; as the
    projections have no biases, its keys and values are zeros too.
    """
    import torch

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = t5.text_module(network.text_encoder.encoder, PROMPT_TOKENS)
            # The checkpoint has no projection if both widths are equal.
            self.project = getattr(network, "enc_to_dec_proj", torch.nn.Identity())
            layers = network.decoder.model.decoder.layers
            self.across = cross_attention_module([layer.encoder_attn for layer in layers])

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
            (hidden,) = self.encoder(ids, mask)
            memory = self.project(hidden) * mask[..., None].to(hidden.dtype)
            both = [torch.cat((one, one * 0.0), dim=1) for one in self.across(memory)]
            return (memory, *both)

    return Text()


def decoder_step(network: Any, scale: float) -> torch.nn.Module:
    """Return one step of the decoder, with guidance.

    It maps the mask of the prompt (batch, tokens), noise (batch, codebooks, codes), which codebooks
    write (codebooks,), and the inputs of ``CachedDecoder`` to the codes of the next step
    (batch, codebooks), the logits without noise (batch, codebooks, codes), and new keys and values.
    A codebook that does not write gives padding.
    """
    import torch

    decoder = network.decoder.model.decoder

    class Step(torch.nn.Module):
        table: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.books, self.heads = decoder.embed_tokens, network.decoder.lm_heads
            self.norm = decoder.layer_norm
            self.step = step_module(decoder.layers, POSITIONS)
            self.padding = int(network.decoder.config.pad_token_id)
            self.embed_scale = float(decoder.embed_scale)
            self.register_buffer("table", decoder.embed_positions.weights[:POSITIONS])

        def forward(
            self,
            mask: torch.Tensor,
            noise: torch.Tensor,
            writes: torch.Tensor,
            token: torch.Tensor,
            position: torch.Tensor,
            *tensors: torch.Tensor,
        ) -> tuple[torch.Tensor, ...]:
            embedded = sum(book(token[:, i : i + 1]) for i, book in enumerate(self.books))
            placed = embedded * self.embed_scale + at_position(self.table, position)
            unheard = ((1 - mask).to(placed.dtype) * -1e4)[:, None, None, :]
            hidden = placed.expand(-1, 2, -1)  # Two ways: with the prompt, and without.
            hidden, *written = self.step(hidden, position, *tensors, cross_mask=unheard)
            normed = self.norm(hidden)
            logits = guided(torch.stack([head(normed) for head in self.heads], dim=2), scale)
            drawn = (logits + noise).argmax(dim=-1).to(torch.int32)
            written_codes = drawn * writes + self.padding * (1 - writes)
            return (written_codes, logits, *written)

    return Step()
