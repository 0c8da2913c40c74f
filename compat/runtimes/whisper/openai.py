"""openai-whisper, OpenAI's own library: the baseline that the field compares with.

Only ``decode`` is used, for a fixed number of tokens. ``transcribe`` decodes again at other
temperatures if it does not trust a result, so that two runs would do different work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from compat.contract.case import Recipe, Target
from compat.contract.execution import Driver, Execution, only_scheme
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.runtime import Options, Probe, Runtime
from compat.contract.session import Placement, Unsupported
from compat.models.whisper import Decoded, traced_steps
from compat.models.whisper_prompts import Prompt, grouped
from compat.runtimes.installed import installed
from compat.runtimes.whisper.checkpoint import WEIGHTS, exported

if TYPE_CHECKING:
    from compat.contract.item import Prediction
    from compat.contract.source import Source
    from compat.models.whisper import WhisperModel
    from compat.models.whisper_prompts import Ask

INSTALL = "pip install openai-whisper==20250625"


class OpenAIWhisper(Runtime):
    """openai-whisper on processors and on NVIDIA GPUs."""

    name = "openai-whisper"
    packages = ("openai-whisper", "torch")
    modules = ("whisper",)
    targets = (
        Target(
            "cpu-openai-whisper",
            "cpu",
            "openai-whisper",
            "cpu",
            # The library's own command line always runs float32 on processors.
            ("fp32",),
            on_host_cpu=True,
            families=("whisper",),
        ),
        Target(
            "cuda-openai-whisper",
            "cuda",
            "openai-whisper",
            "cuda",
            ("fp32", "fp16"),
            families=("whisper",),
        ),
    )

    def probe(self, target: Target) -> Probe:
        missing = installed("openai-whisper", "whisper", INSTALL)
        if missing:
            return missing
        import torch

        versions = {name: metadata.version(name) for name in self.packages}
        if target.device == "cuda" and not (torch.cuda.is_available() and torch.version.cuda):
            remedy = "check the driver with `nvidia-smi`, and install PyTorch's CUDA build"
            return Probe("absent", "PyTorch finds no CUDA device", remedy, versions)
        return Probe("here", facts=versions)

    def open(
        self,
        model: Driver,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> Execution:
        return OpenAIWhisperExecution(cast("WhisperModel", model), sources, target, recipe, options)


class OpenAIWhisperExecution(Execution):
    """An execution of the package's model and decoding loop, on given weights."""

    def __init__(
        self,
        model: WhisperModel,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> None:
        import torch
        from safetensors.torch import load_file
        from whisper.model import ModelDimensions, Whisper
        from whisper.tokenizer import get_tokenizer

        scheme = only_scheme(recipe)
        self.host = model
        self.beams = 1
        """Width of beam search; the experiment ``beams`` sets more than 1."""
        torch.set_num_threads(options.threads)
        source = next(iter(sources.values()))
        self.folder, dimensions = exported(source, self.host)
        network = Whisper(ModelDimensions(**dimensions))
        vocabulary = self.host.vocabulary
        self.fp16 = scheme == "fp16"
        device = torch.device(target.device + (f":{options.device}" if options.device else ""))
        # Parameters stay in float32: the layers cast them to the precision of their inputs.
        self.model: Any = network.to(device).eval()
        self._options(vocabulary.prompt)
        tokenizer = get_tokenizer(network.is_multilingual, num_languages=network.num_languages)
        blank = {*tokenizer.encode(" "), tokenizer.eot}
        if vocabulary.begin_suppress and set(vocabulary.begin_suppress) != blank:
            raise Unsupported(
                f"openai-whisper suppresses the tokens {sorted(blank)} at the beginning, and this "
                f"checkpoint asks for {sorted(vocabulary.begin_suppress)}"
            )
        network.load_state_dict(load_file(str(self.folder / WEIGHTS)))
        self._seen = ""

    def _options(self, prompt: Prompt) -> Any:
        """Return the package's options for decoding with a prompt.

        Raises:
            Unsupported: the package makes another prompt for this language.
        """
        from whisper.decoding import DecodingOptions
        from whisper.tokenizer import LANGUAGES, get_tokenizer

        vocabulary = self.host.vocabulary
        language = vocabulary.language_of(prompt)
        known = language in LANGUAGES
        tokenizer = get_tokenizer(
            self.model.is_multilingual,
            num_languages=self.model.num_languages,
            language=language if known else None,
            task=vocabulary.task,
        )
        if not known or tuple(tokenizer.sot_sequence_including_notimestamps) != prompt:
            raise Unsupported(
                "openai-whisper has tokenizers and prompts of the published sizes built in, and "
                f"this checkpoint has another prompt for the language {language}"
            )
        return DecodingOptions(
            language=language,
            task=vocabulary.task,
            without_timestamps=True,
            fp16=self.fp16,
            temperature=0.0,
            beam_size=self.beams if self.beams > 1 else None,
            sample_len=self.host.max_tokens,
            suppress_tokens=list(vocabulary.suppress),
            suppress_blank=bool(vocabulary.begin_suppress),
        )

    def predict(self, items: Sequence[Item], stopwatch: Stopwatch) -> list[Prediction]:
        return self.host.transcribe(items, stopwatch, self._decode)

    def _decode(self, mel: np.ndarray, ask: Ask, stopwatch: Stopwatch) -> list[Decoded]:
        import torch
        from whisper.decoding import decode

        with torch.inference_mode():
            with stopwatch("encoder"):
                encoded = self.model.embed_audio(self._upload(mel))
                self._seen = str(encoded.dtype)
                # Copied to the CPU, so that the encoder has ended when its time is taken.
                level = encoded.float().abs().mean(dim=(1, 2)).cpu().numpy()

            def detect(rows: Sequence[int]) -> list[int]:
                with stopwatch("language"):
                    tokens, _ = self.model.detect_language(encoded)
                return [int(tokens[row]) for row in rows]

            found: dict[int, list[int]] = {}
            # The package decodes one language at a time.
            for prompt, rows in grouped(ask(detect)).items():
                with stopwatch("decoder"):
                    part = decode(self.model, encoded[rows], self._options(prompt))
                found |= {row: list(one.tokens) for row, one in zip(rows, part, strict=True)}
        return [Decoded(found[row], float(value)) for row, value in enumerate(level)]

    def trace(self, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        import torch

        mel, forced = self.host.traced_input(item, guide)
        with torch.inference_mode():
            encoded = self.model.embed_audio(self._upload(mel))
            tokens = torch.tensor([forced], device=self.model.device)
            logits = self.model.logits(tokens, encoded)[0, -traced_steps(guide) :]
        return {
            "encoder": encoded[0].float().cpu().numpy(),
            "logits": logits.float().cpu().numpy(),
        }

    def _upload(self, mel: np.ndarray) -> Any:
        import torch

        dtype = torch.float16 if self.fp16 else torch.float32
        return torch.from_numpy(mel).to(self.model.device, dtype)

    def placement(self) -> Placement:
        counts: dict[str, int] = {}
        for parameter in self.model.parameters():
            counts[parameter.device.type] = counts.get(parameter.device.type, 0) + 1
        shares = {device: count / sum(counts.values()) for device, count in counts.items()}
        return Placement(shares, self.model.device.type, "device of every parameter")

    def executed(self) -> Mapping[str, str]:
        return {"model": {"torch.float32": "fp32", "torch.float16": "fp16"}[self._seen]}

    def model_bytes(self) -> int:
        state = self.model.state_dict().values()
        return sum(tensor.numel() * tensor.element_size() for tensor in state)


RUNTIME = OpenAIWhisper()
