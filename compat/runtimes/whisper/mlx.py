"""MLX, Apple's array library, on Metal and on processors, with the Whisper of mlx-whisper.

Only the model of mlx-whisper is used. Its ``decode`` knows the tokenizers of the published sizes
only, so that decoding is done here.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from compat.contract.case import Recipe, Target
from compat.contract.execution import Driver, Execution, only_scheme
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.runtime import Options, Probe, Runtime
from compat.contract.session import Placement
from compat.models.whisper import Decoded, traced_steps
from compat.runtimes.installed import installed
from compat.runtimes.whisper.checkpoint import WEIGHTS, exported

if TYPE_CHECKING:
    import torch

    from compat.contract.item import Prediction
    from compat.contract.source import Source
    from compat.models.whisper import WhisperModel
    from compat.models.whisper_prompts import Ask

INSTALL = 'pip install "mlx[cpu]==0.32.4" mlx-whisper==0.4.3'
GLIBC = (2, 35)
"""Oldest version of glibc that MLX's wheels for Linux run with."""
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8-weights": "float32"}
GROUP = 64
"""Number of weights of a row that share scale and offset when quantised."""


def round_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate 8-bit weights as MLX stores them: scale and offset for each group of a row.

    The end of a group's range that is farther from zero is exact, and so is zero. Tables of
    positions are plain arrays in mlx-whisper, which quantises layers only: they stay as they are.
    """
    import torch

    for name, child in module.named_modules():
        if isinstance(child, torch.nn.Linear | torch.nn.Embedding) and "positions" not in name:
            weight = child.weight.reshape(len(child.weight), -1, GROUP)
            low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
            edge = torch.where(low.abs() > high.abs(), low, high)
            scale = ((high - low) / 255).clamp(min=1e-7) * torch.where(edge == low, 1.0, -1.0)
            steps = (edge / scale).round()
            scale = torch.where(steps == 0, scale, edge / steps)
            rounded = ((weight - edge) / scale).round().clamp(0, 255) * scale + edge
            child.weight = torch.nn.Parameter(rounded.flatten(-2), requires_grad=False)
    return module


class Mlx(Runtime):
    """MLX on Metal, and on processors under Linux."""

    name = "mlx"
    packages = ("mlx", "mlx-whisper")
    modules = ("mlx.core", "mlx_whisper.whisper")
    oracles = {"int8-weights": round_weights}  # noqa: RUF012 (as the base class has it)
    targets = (
        Target(
            "cpu-mlx",
            "cpu",
            "mlx",
            "cpu",
            tuple(DTYPES),
            on_host_cpu=True,
            # MLX's wheels for Linux multiply with the reference BLAS, on one thread.
            on_request=True,
            families=("whisper",),
        ),
        Target("mps-mlx", "mps", "mlx", "gpu", tuple(DTYPES), families=("whisper",)),
    )

    def probe(self, target: Target) -> Probe:
        system, machine = platform.system(), platform.machine()
        if system == "Windows" or (system == "Darwin" and machine != "arm64"):
            return Probe("absent", f"MLX has no build for {system} on {machine}", "use a Mac")
        library, version = platform.libc_ver()
        if library == "glibc" and tuple(map(int, version.split(".")[:2])) < GLIBC:
            reason = f"MLX needs glibc {'.'.join(map(str, GLIBC))}, and this system has {version}"
            return Probe("absent", reason, "use a newer Linux: Debian 12 or Ubuntu 22.04")
        if target.device == "gpu" and system != "Darwin":
            return Probe("absent", "there is no Metal outside macOS", "run it on an Apple chip")
        missing = installed("mlx", "mlx.core", INSTALL)
        missing = missing or installed("mlx-whisper", "mlx_whisper.whisper", INSTALL)
        if missing:
            return missing
        import mlx.core as mx

        facts: dict[str, Any] = {name: metadata.version(name) for name in self.packages}
        if target.device == "gpu":
            if not mx.metal.is_available():
                return Probe("absent", "MLX finds no Metal device", "run it on an Apple chip")
            facts["device"] = mx.device_info()["device_name"]
        return Probe("here", facts=facts)

    def open(
        self,
        model: Driver,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> Execution:
        return MlxExecution(cast("WhisperModel", model), sources, target, recipe, options)


class MlxExecution(Execution):
    """An execution of mlx-whisper's model, decoded greedily with the model's own caches."""

    def __init__(
        self,
        model: WhisperModel,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> None:
        import mlx.core as mx
        from mlx import nn
        from mlx_whisper.whisper import ModelDimensions, Whisper

        self.scheme = only_scheme(recipe)
        self.host = model
        self.target = target
        mx.set_default_device(mx.Device(mx.cpu if target.device == "cpu" else mx.gpu))
        source = next(iter(sources.values()))
        folder, dimensions = exported(source, self.host)
        dtype = getattr(mx, DTYPES[self.scheme])
        self.model: Any = Whisper(ModelDimensions(**dimensions), dtype)
        stored: Any = mx.load(str(folder / WEIGHTS))
        weights = {name: tensor.astype(dtype) for name, tensor in stored.items()}
        # In mlx-whisper the encoder's positions are no parameter, but alignment_heads, which
        # timestamps of words use, is one.
        self.model.encoder._positional_embedding = weights.pop("encoder.positional_embedding")
        weights["alignment_heads"] = self.model.alignment_heads
        self.model.load_weights([_ported(*pair) for pair in weights.items()])
        if self.scheme == "int8-weights":
            nn.quantize(self.model, GROUP, 8)
        mx.eval(self.model.parameters())
        vocabulary = self.host.vocabulary
        mask = np.zeros((2, self.host.dimensions.vocabulary), np.float32)
        mask[:, list(vocabulary.suppress)] = -np.inf
        mask[0, list(vocabulary.begin_suppress)] = -np.inf
        self.first_mask, self.mask = mx.array(mask[0], dtype), mx.array(mask[1], dtype)

    def predict(self, items: Sequence[Item], stopwatch: Stopwatch) -> list[Prediction]:
        return self.host.transcribe(items, stopwatch, self._decode)

    def _decode(self, mel: np.ndarray, ask: Ask, stopwatch: Stopwatch) -> list[Decoded]:
        import mlx.core as mx

        with stopwatch("encoder"):
            encoded = self._encode(mel)
            level = np.array(mx.abs(encoded.astype(mx.float32)).mean(axis=(1, 2)))

        def detect(rows: Sequence[int]) -> list[int]:
            with stopwatch("language"):
                start = mx.array([[self.host.vocabulary.prompt[0]]] * len(mel))
                logits = self.model.decoder(start, encoded)[0][:, 0].astype(mx.float32)
                return self.host.vocabulary.spoken(np.array(logits)[rows])

        stop = self.host.vocabulary.end if self.host.folder else None
        tokens = mx.array(ask(detect))
        mask, caches = self.first_mask, None
        found: list[np.ndarray] = []
        ended = np.zeros(len(mel), bool)
        with stopwatch("decoder"):
            while len(found) < self.host.max_tokens and not ended.all():
                logits, caches, _ = self.model.decoder(tokens, encoded, kv_cache=caches)
                tokens = mx.argmax(logits[:, -1] + mask, axis=-1)[:, None]
                found.append(np.array(tokens)[:, 0])
                mask = self.mask
                ended |= found[-1] == stop
        rows = zip(np.stack(found, axis=1).tolist(), level, strict=True)
        return [Decoded(row, float(value)) for row, value in rows]

    def _encode(self, mel: np.ndarray) -> Any:
        import mlx.core as mx

        # Channels come last in MLX's convolutions.
        return self.model.encoder(mx.array(mel.transpose(0, 2, 1)).astype(self.first_mask.dtype))

    def trace(self, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        import mlx.core as mx

        mel, forced = self.host.traced_input(item, guide)
        encoded = self._encode(mel)
        logits, _, _ = self.model.decoder(mx.array([forced]), encoded)
        logits = logits[0, -traced_steps(guide) :]
        return {
            "encoder": np.array(encoded[0].astype(mx.float32)),
            "logits": np.array(logits.astype(mx.float32)),
        }

    def placement(self) -> Placement:
        import mlx.core as mx

        device = "cpu" if mx.default_device() == mx.Device(mx.cpu) else "gpu"
        return Placement({device: 1.0}, self.target.device, "default device: MLX has no fallback")

    def executed(self) -> Mapping[str, str]:
        weight = self.model.decoder.blocks[0].attn.query
        if hasattr(weight, "bits"):
            return {"model": f"int{weight.bits}-weights"}
        kinds = {f"mlx.core.{dtype}": scheme for scheme, dtype in reversed(DTYPES.items())}
        return {"model": kinds[str(weight.weight.dtype)]}

    def model_bytes(self) -> int:
        from mlx.utils import tree_flatten

        return sum(tensor.nbytes for _, tensor in tree_flatten(self.model.parameters()))


def _ported(name: str, tensor: Any) -> tuple[str, Any]:
    """Return the name and the tensor of a parameter of OpenAI's as mlx-whisper has them."""
    name = name.replace("mlp.0", "mlp1").replace("mlp.2", "mlp2")
    return name, tensor.swapaxes(1, 2) if "conv" in name and tensor.ndim == 3 else tensor


RUNTIME = Mlx()
