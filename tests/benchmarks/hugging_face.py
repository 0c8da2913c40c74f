"""A catalog of one more runtime: Hugging Face's own Whisper, as ``generate`` runs it eagerly.

It is what people begin with, and a baseline of ``speed.py``; the matrix has PyTorch on the graphs
of this project instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from compat.contract.case import Recipe, Target
from compat.contract.execution import Driver, Execution, only_scheme
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.runtime import Options, Probe, Runtime
from compat.contract.session import Placement
from compat.models.whisper import Decoded
from compat.models.whisper_prompts import Ask

if TYPE_CHECKING:
    from compat.contract.item import Prediction
    from compat.contract.source import Source
    from compat.models.whisper import WhisperModel


class HuggingFace(Runtime):
    name = "hugging-face"
    packages = ("transformers", "torch")
    modules = ("torch", "transformers")
    targets = (
        Target(
            "cpu-hugging-face",
            "cpu",
            "hugging-face",
            "cpu",
            ("fp32",),
            on_host_cpu=True,
            on_request=True,
            families=("whisper",),
        ),
    )

    def probe(self, target: Target) -> Probe:
        import importlib.util

        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            return Probe("absent", f"no {' and no '.join(missing)}", 'pip install -e ".[torch]"')
        return Probe("here")

    def open(
        self,
        model: Driver,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> Execution:
        return HuggingFaceExecution(cast("WhisperModel", model), recipe, options)


class HuggingFaceExecution(Execution):
    """``generate``, greedy, with the attention that the library chooses."""

    def __init__(self, model: WhisperModel, recipe: Recipe, options: Options) -> None:
        import torch
        from transformers import GenerationConfig

        only_scheme(recipe)
        torch.set_num_threads(options.threads)
        self.host = model
        self.network = self.host.network.eval()
        vocabulary = self.host.vocabulary
        known = self.host.folder is not None
        self.generation = GenerationConfig(
            max_new_tokens=self.host.max_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=vocabulary.end if known else None,
            pad_token_id=vocabulary.end,
            suppress_tokens=list(vocabulary.suppress) or None,
            begin_suppress_tokens=list(vocabulary.begin_suppress) or None,
        )

    def predict(self, items: Sequence[Item], stopwatch: Stopwatch) -> list[Prediction]:
        return self.host.transcribe(items, stopwatch, self._decode)

    def _decode(self, mel: np.ndarray, ask: Ask, stopwatch: Stopwatch) -> list[Decoded]:
        import torch
        from transformers.generation.utils import GenerationMixin

        prompt = torch.tensor(ask(self._detect))
        with torch.inference_mode():
            with stopwatch("encoder"):
                encoded = self.network.model.encoder(torch.from_numpy(mel))
            with stopwatch("decoder"):
                # The loop itself: Whisper's own `generate` wraps it in fallbacks and windows.
                found = GenerationMixin.generate(
                    self.network,
                    encoder_outputs=encoded,
                    decoder_input_ids=prompt,
                    generation_config=self.generation,
                )
        return [Decoded(row[prompt.shape[1] :].tolist()) for row in found]

    def _detect(self, rows: Sequence[int]) -> list[int]:
        raise NotImplementedError("a baseline of speed only")

    def trace(self, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        raise NotImplementedError("a baseline of speed only")

    def placement(self) -> Placement:
        return Placement({"cpu": 1.0}, "cpu", "there is no other device")

    def executed(self) -> Mapping[str, str]:
        return {"model": {"torch.float32": "fp32"}[str(self.network.dtype)]}

    def model_bytes(self) -> int:
        tensors: dict[int, Any] = {p.data_ptr(): p for p in self.network.parameters()}
        return sum(p.numel() * p.element_size() for p in tensors.values())


RUNTIME = HuggingFace()
