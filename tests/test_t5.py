"""T5's text encoder and its tokenizers, held to those of the library."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from compat.inputs import generator
from compat.inputs.checkpoints import CheckpointError
from compat.models.parts.sentences import T5, hashed_words, read_pieces, read_tokenizer
from compat.models.parts.t5 import BASE, GAINS, _normed, text_graph, text_module

TOKENS = 10
SMALL = {**BASE, "vocab_size": 50, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_heads": 3}
SMALL |= {"num_layers": 2}
GATED = {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new"}
SENTENCES = ["a slow waltz", "drums", "", "waltz " * 30]
PIECES = [
    *(("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁slow", -3.0)),
    *(("▁waltz", -3.5), ("▁a", -2.5), ("drum", -4.0), ("s", -3.0), ("w", -9.0)),
]


@pytest.mark.parametrize("more", [{}, GATED], ids=["relu", "gated"])
def test_the_encoder_is_that_of_the_library(more: dict[str, Any]) -> None:
    network = T5EncoderModel(T5Config(**{**SMALL, **more})).eval()
    generator.seed(network, generator.gains(GAINS))
    module = text_module(network.encoder, TOKENS).eval()
    ids, mask = hashed_words(TOKENS, 0, 50, T5)(SENTENCES)
    with torch.inference_mode():
        (found,) = module(torch.from_numpy(ids), torch.from_numpy(mask))
        expected = network(
            input_ids=torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long()
        ).last_hidden_state
        for row, heard in enumerate(mask.sum(axis=1)):
            ours, theirs = found[row, :heard].numpy(), expected[row, :heard].numpy()
            np.testing.assert_allclose(ours, theirs, atol=2e-5)
        # Padding is not heard, and is finite.
        assert np.isfinite(found.numpy()).all()
        changed = np.where(mask == 1, ids, 17).astype(np.int32)
        (again,) = module(torch.from_numpy(changed), torch.from_numpy(mask))
    assert torch.equal(found[1, :2], again[1, :2])
    assert float(expected.std()) > 0.3
    # Another sentence gives another memory.
    assert abs(np.corrcoef(found[0, 0].numpy(), found[1, 0].numpy())[0, 1]) < 0.9


def test_normalisation_has_no_powers_and_the_librarys_bits() -> None:
    """Powers are what Qualcomm's compiler refuses."""
    network = T5EncoderModel(T5Config(**SMALL)).eval()
    generator.seed(network, generator.gains(GAINS))
    norm, hidden = network.encoder.final_layer_norm, torch.randn(2, TOKENS, 24)
    with torch.inference_mode():
        assert torch.equal(_normed(norm, hidden), norm(hidden))
    module = text_module(network.encoder, TOKENS)
    ids = torch.ones(1, TOKENS, dtype=torch.int32)
    program = torch.export.export(module.eval(), (ids, ids))
    assert not [node for node in program.graph.nodes if "pow" in str(node.target)]


def test_the_graph_has_batches_and_one_length() -> None:
    graph = text_graph(torch.nn.Identity, TOKENS, {"b2": {"batch": 2}})
    assert graph.examples("b2") == {"ids": ((2, TOKENS), "int32"), "mask": ((2, TOKENS), "int32")}
    assert graph.outputs == ("memory",)


def test_hashed_words_end_as_t5s_do() -> None:
    ids, mask = hashed_words(TOKENS, 0, 50, T5)(SENTENCES)
    assert mask.sum(axis=1).tolist() == [4, 2, 1, TOKENS]
    assert ids[2].tolist() == [1] + [0] * (TOKENS - 1)
    assert (ids[3, :-1] == ids[0, 2]).all() and ids[3, -1] == 1
    assert ids[0, :3].min() >= 3


def spiece(pieces: list[tuple[str, float]], unknown: int = 2) -> bytes:
    """Write the file of SentencePiece that holds these pieces."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    written = b""
    for index, (text, score) in enumerate(pieces):
        kind = bytes([3 << 3, 2 if index == unknown else 1])
        piece = field(1, text.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", score) + kind
        written += field(1, piece)
    return written + field(2, b"\x20\x01") + field(3, b"")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    T5Tokenizer(vocab=PIECES, extra_ids=0).save_pretrained(tmp_path)
    return tmp_path


def test_a_tokenizer_of_the_library_is_read(saved: Path) -> None:
    library = T5Tokenizer.from_pretrained(saved)
    expected = library(SENTENCES, padding="max_length", truncation=True, max_length=TOKENS)
    ids, mask = read_tokenizer(saved, TOKENS, 0, 50, T5)(SENTENCES)
    assert ids.tolist() == expected["input_ids"] and mask.tolist() == expected["attention_mask"]
    assert ids[0, :4].tolist() == [6, 4, 5, 1] and ids[3, -1] == 1
    # The pieces alone say the same.
    (saved / "tokenizer.json").unlink()
    (saved / "spiece.model").write_bytes(spiece(PIECES))
    again, heard = read_tokenizer(saved, TOKENS, 0, 50, T5)(SENTENCES)
    assert again.tolist() == ids.tolist() and heard.tolist() == mask.tolist()


def test_pieces_are_read_as_written() -> None:
    pieces, unknown, rules = read_pieces(spiece(PIECES))
    assert [text for text, _ in pieces] == [text for text, _ in PIECES]
    assert [score for _, score in pieces] == pytest.approx([score for _, score in PIECES])
    assert unknown == 2 and rules == b""


def test_a_damaged_tokenizer_is_an_error_that_names_it(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"ids up to 9, and the network 8"):
        read_tokenizer(saved, TOKENS, 0, 8, T5)
    (saved / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read .*tokenizer\.json"):
        read_tokenizer(saved, TOKENS, 0, 50, T5)
    (saved / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor spiece\.model"):
        read_tokenizer(saved, TOKENS, 0, 50, T5)
    written = spiece(PIECES)
    for damaged in (written[: len(written) // 2], b"\xff" * 40, spiece(PIECES, unknown=-1), b""):
        (saved / "spiece.model").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"cannot read .*spiece\.model"):
            read_tokenizer(saved, TOKENS, 0, 50, T5)
