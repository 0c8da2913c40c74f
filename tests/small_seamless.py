"""A SeamlessM4T of two layers and 64 tokens, for tests that need a checkpoint of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import SeamlessM4TConfig, SeamlessM4TModel, SeamlessM4Tv2Config
from transformers import SeamlessM4Tv2Model as SeamlessM4TModel2

PIECES = ("<pad>", "<unk>", "<s>", "</s>", "▁one", "▁two", "▁ei", "ns", "▁zwei", "▁tr", "ois")
VOCABULARY = 64
LANGUAGES = {"eng": 60, "deu": 61, "fra": 62}
SMALL: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "speech_encoder_layers": 2,
    "speech_encoder_attention_heads": 2,
    "speech_encoder_intermediate_size": 48,
    "encoder_layers": 1,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_layers": 2,
    "decoder_ffn_dim": 48,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 64,
    "t2u_encoder_layers": 1,
    "t2u_decoder_layers": 1,
    "t2u_encoder_ffn_dim": 32,
    "t2u_decoder_ffn_dim": 32,
    "t2u_encoder_attention_heads": 2,
    "t2u_decoder_attention_heads": 2,
    "t2u_vocab_size": 24,
    "upsample_initial_channel": 64,
    "unit_embed_dim": 8,
    "lang_embed_dim": 4,
    "spkr_embed_dim": 4,
    "unit_hifi_gan_vocab_size": 20,
}
"""Settings of either version."""
FIRST: Mapping[str, Any] = {**SMALL, "max_source_positions": 1600}
SECOND: Mapping[str, Any] = {
    **SMALL,
    "left_max_position_embeddings": 6,
    "right_max_position_embeddings": 2,
    "char_vocab_size": 12,
    "t2u_variance_predictor_embed_dim": 32,
    "t2u_variance_predictor_hidden_dim": 8,
}
FEATURES = {
    "feature_extractor_type": "SeamlessM4TFeatureExtractor",
    "feature_size": 80,
    "num_mel_bins": 80,
    "sampling_rate": 16_000,
    "stride": 2,
}
GENERATION = {
    "decoder_start_token_id": 3,
    "eos_token_id": 3,
    "max_new_tokens": 256,
    "pad_token_id": 0,
    "text_decoder_lang_to_code_id": LANGUAGES,
    "vocoder_lang_code_to_id": {"eng": 0},
}


def build(second: bool = False) -> Any:
    """Return the whole model with all its components, whose answers depend on the audio."""
    kind, settings, network = (
        (SeamlessM4Tv2Config, SECOND, SeamlessM4TModel2)
        if second
        else (SeamlessM4TConfig, FIRST, SeamlessM4TModel)
    )
    torch.manual_seed(0)
    made = network(kind(**settings)).eval()
    for name, parameter in made.named_parameters():
        # Were embeddings larger, whose transposition chooses tokens, each would repeat itself.
        torch.nn.init.normal_(parameter, std=0.3 if name == "shared.weight" else 0.5)
    for name, values in made.named_buffers():
        if name.endswith("running_mean"):
            values.normal_(std=0.3)
    made.tie_weights()
    return made


def save(folder: Path, second: bool = False, pieces: bool = False) -> Path:
    """Write a checkpoint in the published layout, in shards; ``pieces``: without tokenizer.json."""
    build(second).save_pretrained(folder, max_shard_size="100KB")
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    (folder / "preprocessor_config.json").write_text(json.dumps(FEATURES))
    if pieces:
        (folder / "sentencepiece.bpe.model").write_bytes(sentencepiece(PIECES[1:]))
    else:
        vocabulary = {piece: number for number, piece in enumerate(PIECES)}
        tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token=PIECES[1]))
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def sentencepiece(pieces: Sequence[str]) -> bytes:
    """Return a model of SentencePiece: pieces with scores and types, and settings behind them."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number * 8 + 2, len(content)]) + content

    entries = [
        field(1, field(1, piece.encode()) + bytes([2 * 8 + 5, 0, 0, 0, 0, 3 * 8, 1]))
        for piece in pieces
    ]
    return b"".join(entries) + field(2, bytes([3 * 8, 200, 1]))
