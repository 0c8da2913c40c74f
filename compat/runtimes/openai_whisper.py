"""openai-whisper: the baseline that the field compares with. It owns Whisper's decoding.

Only ``decode`` is used, for a fixed number of tokens: ``transcribe`` decodes again at other
temperatures where it does not trust the result, and no two runs would do the same work.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.case import Recipe, Target
from compat.corpus import Item
from compat.graph import Stopwatch
from compat.models.whisper import Decoded
from compat.runtimes.base import (
    Options,
    Pipeline,
    Placement,
    Probe,
    Runtime,
    Unsupported,
)

if TYPE_CHECKING:
    from compat.models.base import Prediction
    from compat.models.whisper import WhisperModel
    from compat.sources import Source

INSTALL = "pip install openai-whisper==20250625"
WEIGHTS, DIMENSIONS = "model.safetensors", "dimensions.json"
NAMES = (
    (r"^model\.", ""),
    (r"\blayers\.", "blocks."),
    (r"\b(encoder_attn|self_attn)_layer_norm\b", r"\1_ln"),
    (r"\bself_attn", "attn"),
    (r"\bencoder_attn", "cross_attn"),
    (r"\bq_proj\b", "query"),
    (r"\bk_proj\b", "key"),
    (r"\bv_proj\b", "value"),
    (r"\bout_proj\b", "out"),
    (r"\bfc1\b", "mlp.0"),
    (r"\bfc2\b", "mlp.2"),
    (r"\bfinal_layer_norm\b", "mlp_ln"),
    (r"^encoder\.layer_norm\b", "encoder.ln_post"),
    (r"^decoder\.layer_norm\b", "decoder.ln"),
    (r"\bembed_tokens\b", "token_embedding"),
    (r"\bembed_positions\.weight$", "positional_embedding"),
)
"""What a part is called in Hugging Face's checkpoints, and in OpenAI's."""


class OpenAIWhisper(Runtime):
    name = "openai-whisper"
    packages = ("openai-whisper", "torch")
    modules = ("whisper",)
    targets = (
        Target(
            "cpu-openai-whisper",
            "cpu",
            "openai-whisper",
            "cpu",
            # Its own command line runs float32 on processors, whatever it is asked for.
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

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> OpenAIWhisperSession:
        return OpenAIWhisperSession(sources, target, recipe, options)


def installed(distribution: str, module: str, install: str) -> Probe | None:
    """Return why a package cannot be used, and the remedy; None if it can. Imports it."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return Probe("absent", f"{distribution} is not installed", install)
    try:
        import_module(module)
    except Exception as error:  # Whatever a loader or a version check may raise.
        reason = f"{distribution} does not import: {type(error).__name__}: {error}"
        return Probe("broken", reason, f"{install} --force-reinstall")
    return None


def export(folder: Path, reference: Mapping[str, str], graph: str) -> None:
    """Job: write weights and dimensions under the names of OpenAI's checkpoints."""
    from safetensors.torch import save_file

    from compat.sources import ModelReference

    host: Any = ModelReference(**reference).load()
    state = host.network.state_dict()
    # The projection onto the vocabulary is the embedding of tokens, under another name.
    tensors = {
        openai_name(name): tensor.contiguous()
        for name, tensor in state.items()
        if not name.startswith("proj_out")
    }
    save_file(tensors, str(folder / WEIGHTS))
    size = host.dimensions
    dimensions = {
        "n_mels": size.mels,
        "n_audio_ctx": size.source_positions,
        "n_audio_state": size.width,
        "n_audio_head": size.heads,
        "n_audio_layer": size.encoder_layers,
        "n_vocab": size.vocabulary,
        "n_text_ctx": size.target_positions,
        "n_text_state": size.width,
        "n_text_head": size.heads,
        "n_text_layer": size.decoder_layers,
    }
    (folder / DIMENSIONS).write_text(json.dumps(dimensions), encoding="utf-8")


def openai_name(name: str) -> str:
    """Translate the name of a parameter of Hugging Face's Whisper into OpenAI's."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def exported(source: Source, host: WhisperModel) -> tuple[Path, dict[str, int]]:
    """Return the folder of :func:`export`, and the dimensions in it.

    Raises:
        Unsupported: OpenAI's architecture has no place for one of the weights.
    """
    if not host.tied:
        raise Unsupported(
            "its model projects onto the embedding of tokens, and this checkpoint has a projection "
            "of its own (tie_word_embeddings is false)"
        )
    folder = source.derive(f"{__name__}:export", {}, (__name__,), ("torch", "transformers"))
    dimensions: dict[str, int] = json.loads((folder / DIMENSIONS).read_text(encoding="utf-8"))
    return folder, dimensions


class OpenAIWhisperSession(Pipeline):
    """The model and the decoding loop of the package, on given weights."""

    def __init__(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> None:
        import torch
        from safetensors.torch import load_file
        from whisper.decoding import DecodingOptions
        from whisper.model import ModelDimensions, Whisper
        from whisper.tokenizer import get_tokenizer

        super().__init__(sources, recipe)
        torch.set_num_threads(options.threads)
        source = next(iter(sources.values()))
        self.host: WhisperModel = source.reference.load()  # type: ignore[assignment]
        self.folder, dimensions = exported(source, self.host)
        model = Whisper(ModelDimensions(**dimensions))
        vocabulary = self.host.vocabulary
        tokenizer = get_tokenizer(
            model.is_multilingual,
            num_languages=model.num_languages,
            language=vocabulary.language,
            task=vocabulary.task,
        )
        if tuple(tokenizer.sot_sequence_including_notimestamps) != vocabulary.prompt:
            raise Unsupported(
                "openai-whisper has tokenizers and prompts of the published sizes built in, and "
                f"{source.reference.variant} has another"
            )
        blank = {*tokenizer.encode(" "), tokenizer.eot}
        if vocabulary.begin_suppress and set(vocabulary.begin_suppress) != blank:
            raise Unsupported(
                f"openai-whisper suppresses the tokens {sorted(blank)} at the beginning, and this "
                f"checkpoint asks for {sorted(vocabulary.begin_suppress)}"
            )
        model.load_state_dict(load_file(str(self.folder / WEIGHTS)))
        device = torch.device(target.device + (f":{options.device}" if options.device else ""))
        # Parameters stay in float32, and layers cast them to the precision of what they are given.
        self.model: Any = model.to(device).eval()
        self._seen = ""
        self.options = DecodingOptions(
            language=vocabulary.language,
            task=vocabulary.task,
            without_timestamps=True,
            fp16=recipe.scheme == "fp16",
            temperature=0.0,
            sample_len=self.host.max_tokens,
            suppress_tokens=list(vocabulary.suppress),
            suppress_blank=bool(vocabulary.begin_suppress),
        )

    def perform(self, items: Sequence[Item], stopwatch: Stopwatch) -> list[Prediction]:
        return self.host.transcribe(items, stopwatch, self._decode)

    def _decode(self, mel: np.ndarray, stopwatch: Stopwatch) -> list[Decoded]:
        import torch
        from whisper.decoding import decode

        with torch.inference_mode():
            with stopwatch("encoder"):
                encoded = self.model.embed_audio(self._upload(mel))
                self._seen = str(encoded.dtype)
                # Fetched, so that the encoder has ended when its time is taken.
                level = encoded.float().abs().mean(dim=(1, 2)).cpu().numpy()
            with stopwatch("decoder"):
                found = decode(self.model, encoded, self.options)
        rows = zip(found, level, strict=True)
        return [Decoded(list(row.tokens), float(value)) for row, value in rows]

    def trace(self, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        import torch

        mel, forced = self.host.traced_input(item, guide)
        with torch.inference_mode():
            encoded = self.model.embed_audio(self._upload(mel))
            tokens = torch.tensor([forced], device=self.model.device)
            logits = self.model.logits(tokens, encoded)[0, len(self.host.vocabulary.prompt) - 1 :]
        return {
            "encoder": encoded[0].float().cpu().numpy(),
            "logits": logits.float().cpu().numpy(),
        }

    def _upload(self, mel: np.ndarray) -> Any:
        import torch

        dtype = torch.float16 if self.options.fp16 else torch.float32
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
