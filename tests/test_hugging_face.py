"""The part around classes of transformers: a model is its class, its settings and its gains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compat.contract.graph import Graph, Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.session import Session
from compat.inputs.checkpoints import CheckpointError
from compat.models.parts.hugging_face import HuggingFaceModel, read_checkpoint, read_features

SETTINGS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30}
SETTINGS |= {"intermediate_size": 32, "max_position_embeddings": 20}


class Text(HuggingFaceModel):
    """Nothing but the network: what a family has to say of it is two lines."""

    architecture = "RobertaModel"
    gains = {"query": 2.0}  # noqa: RUF012 (a mapping that nobody changes)

    def graphs(self) -> tuple[Graph, ...]:
        return ()

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        return []

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        return {}


class Louder(Text):
    gains = {"query": 3.0}  # noqa: RUF012


class Doubled(Text):
    """Changes a tensor of a checkpoint, and of generated weights before they are generated."""

    def adapt(self, network: Any) -> None:
        with torch.no_grad():
            network.pooler.dense.weight.mul_(2.0)


QUERY = "encoder.layer.0.attention.self.query.weight"


def test_generated_weights_depend_on_settings_and_gains() -> None:
    one, again, louder = Text(SETTINGS), Text(SETTINGS), Louder(SETTINGS)
    weights = [model.network.state_dict()[QUERY] for model in (one, again, louder)]
    assert torch.equal(weights[0], weights[1])
    torch.testing.assert_close(weights[2], 1.5 * weights[0])
    assert not one.network.training
    assert one.content() == again.content()
    others = (louder, Text({**SETTINGS, "num_hidden_layers": 2}))
    assert len({json.dumps(model.content()) for model in (one, *others)}) == 3


def test_a_checkpoint_is_read_as_it_was_saved(tmp_path: Path) -> None:
    generated = Text(SETTINGS)
    generated.network.half().save_pretrained(tmp_path)
    folder, config = read_checkpoint(str(tmp_path), "roberta", "RoBERTa", "text", SETTINGS)
    read, doubled = Text(config, folder), Doubled(config, folder)
    for name, tensor in read.network.state_dict().items():
        assert torch.equal(tensor, generated.network.state_dict()[name].to(tensor.dtype)), name
    assert read.network.dtype == torch.float32
    pooler = [model.network.pooler.dense.weight for model in (read, doubled)]
    assert torch.equal(2.0 * pooler[0], pooler[1])
    assert torch.equal(
        Doubled(SETTINGS).network.pooler.dense.weight, Text(SETTINGS).network.pooler.dense.weight
    )
    before = read.content()
    (tmp_path / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert read.content() != before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_type": "bert"}, "describes a 'bert' model, not 'roberta': name the folder of a "),
        ({"model_type": "roberta", "vocab_size": 3}, r"config.json has no hidden_size\. Restore"),
        ({}, "describes a None model"),
    ],
)
def test_another_configuration_is_refused(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(str(tmp_path), "roberta", "RoBERTa", "text", ("vocab_size", "hidden_size"))


def test_audio_of_another_rate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"sampling_rate": 48000, "n": 1}')
    assert read_features(tmp_path, 48_000)["n"] == 1
    with pytest.raises(CheckpointError, match="audio at 48000 Hz; only 16000 is supported"):
        read_features(tmp_path, 16_000)
