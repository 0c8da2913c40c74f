"""CTranslate2, the library below faster-whisper.

It does Whisper's encoding and decoding itself; features and text come from the suite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from compat import catalog
from compat.contract.case import Recipe, Target
from compat.contract.execution import Driver, Execution, only_scheme
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.runtime import Options, Probe, Runtime
from compat.contract.session import Placement, Unsupported
from compat.models.whisper import Decoded, traced_steps
from compat.runtimes.whisper.checkpoint import hugging_face_folder

if TYPE_CHECKING:
    from compat.contract.item import Prediction
    from compat.contract.source import Source
    from compat.models.whisper import WhisperModel
    from compat.models.whisper_prompts import Ask

INSTALL = "pip install ctranslate2==4.8.5"
COMPUTE_TYPES = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "int8-dynamic": "int8",
}
"""CTranslate2's type of weights and arithmetic, by scheme. With ``int8``, activations are quantised
per row at run time."""
BESIDE = ("tokenizer.json", "preprocessor_config.json")
"""Files of a checkpoint that faster-whisper needs beside a converted model."""
EXECUTED = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "int8": "int8-dynamic",
    "int8_float32": "int8-dynamic",
    "int8_float16": "int8-dynamic",
    "int8_bfloat16": "int8-dynamic",
}


class CTranslate2(Runtime):
    """CTranslate2 on processors and on NVIDIA GPUs."""

    name = "ctranslate2"
    packages = ("ctranslate2", "transformers")
    modules = ("ctranslate2",)
    targets: ClassVar[tuple[Target, ...]] = (
        Target(
            "cpu-ctranslate2",
            "cpu",
            "ctranslate2",
            "cpu",
            tuple(COMPUTE_TYPES),
            on_host_cpu=True,
            families=("whisper",),
        ),
        Target(
            "cuda-ctranslate2",
            "cuda",
            "ctranslate2",
            "cuda",
            tuple(COMPUTE_TYPES),
            families=("whisper",),
        ),
    )

    def probe(self, target: Target) -> Probe:
        try:
            import ctranslate2
        except ImportError as error:
            try:
                metadata.version("ctranslate2")
            except metadata.PackageNotFoundError:
                return Probe("absent", "CTranslate2 is not installed", INSTALL)
            return Probe("broken", f"CTranslate2 does not import: {error}", f"{INSTALL} --force")
        facts: dict[str, Any] = {"ctranslate2": ctranslate2.__version__}
        if target.device == "cuda" and not ctranslate2.get_cuda_device_count():
            remedy = "check the driver with `nvidia-smi`; CUDA 12 and cuDNN 9 are needed"
            return Probe("absent", "CTranslate2 finds no CUDA device", remedy, facts)
        facts["compute_types"] = sorted(ctranslate2.get_supported_compute_types(target.device))
        return Probe("here", facts=facts)

    def open(
        self,
        model: Driver,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> Execution:
        return CTranslate2Execution(cast("WhisperModel", model), sources, target, recipe, options)


def convert(folder: Path, reference: Mapping[str, str], graph: str, compute_type: str) -> None:
    """Job: convert a model to CTranslate2, as ``ct2-transformers-converter`` does.

    The converter is given the module that every runtime executes, so that it neither loads another
    one nor uses the network.
    """
    import tempfile

    from ctranslate2.converters import TransformersConverter

    from compat.contract.model_reference import ModelReference

    host: Any = catalog.open_model(ModelReference(**reference))
    network = host.network
    network.generation_config.suppress_tokens = list(host.vocabulary.suppress)
    network.generation_config.begin_suppress_tokens = list(host.vocabulary.begin_suppress)

    class Converter(TransformersConverter):  # type: ignore[misc]
        def load_model(self, *arguments: Any, **options: Any) -> Any:
            return network

    with tempfile.TemporaryDirectory(prefix="compat-") as name:
        checkpoint = hugging_face_folder(host, Path(name))
        present = [name for name in BESIDE if (checkpoint / name).is_file()]
        Converter(str(checkpoint), copy_files=present).convert(
            str(folder / "model"), quantization=compute_type
        )


class CTranslate2Execution(Execution):
    """An execution of Whisper in CTranslate2, which does the whole decoding in one call."""

    def __init__(
        self,
        model: WhisperModel,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> None:
        import ctranslate2

        compute_type = COMPUTE_TYPES[only_scheme(recipe)]
        self.host = model
        self.target = target
        self.beams = 1
        """Width of beam search; the experiment ``beams`` sets more than 1."""
        supported = ctranslate2.get_supported_compute_types(target.device)
        if compute_type not in supported:
            names = ", ".join(sorted(supported))
            raise Unsupported(f"CTranslate2 computes in {names} on this {target.device}")
        source = next(iter(sources.values()))
        packages = ("ctranslate2", "transformers", "torch")
        converted = source.derive(convert, {"compute_type": compute_type}, packages)
        self.folder = converted.fetch() / "model"
        self.model = self.open(compute_type, options)

    def open(self, compute_type: str, options: Options) -> Any:
        """Return the converted model, loaded on the target's device."""
        import ctranslate2

        return ctranslate2.models.Whisper(
            str(self.folder),
            device=self.target.device,
            device_index=int(options.device or 0),
            compute_type=compute_type,
            intra_threads=options.threads,
        )

    def predict(self, items: Sequence[Item], stopwatch: Stopwatch) -> list[Prediction]:
        return self.host.transcribe(items, stopwatch, self._decode)

    def trace(self, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        mel, forced = self.host.traced_input(item, guide)
        encoded = self.model.encode(_view(mel), to_cpu=True)
        # The prompt holds all forced tokens: CTranslate2 returns logits for its steps too.
        (found,) = self._generate(
            encoded, [forced], len(forced) + 1, suppress=False, return_logits_vocab=True
        )
        steps = found.logits[0][: traced_steps(guide)]
        logits = [np.array(step).astype(np.float32) for step in steps]
        return {
            "encoder": np.array(encoded).astype(np.float32)[0],
            "logits": np.stack(logits),
        }

    def _decode(self, mel: np.ndarray, ask: Ask, stopwatch: Stopwatch) -> list[Decoded]:
        with stopwatch("encoder"):
            encoded = self.model.encode(_view(mel))

        def detect(rows: Sequence[int]) -> list[int]:
            self.check_detection()
            with stopwatch("language"):
                found = self.model.detect_language(encoded)
            return [self.token(found[row][0][0]) for row in rows]

        prompts = [list(prompt) for prompt in ask(detect)]
        with stopwatch("decoder"):
            most = self.host.max_tokens
            found = self._generate(encoded, prompts, len(prompts[0]) + most)
        return [Decoded(list(result.sequences_ids[0])[:most]) for result in found]

    def check_detection(self) -> None:
        """Check that the library can detect a language, which it would otherwise refuse later.

        Raises:
            Unsupported: the library takes the model for an English-only one.
        """
        if not self.model.is_multilingual:
            raise Unsupported(
                "CTranslate2 takes this vocabulary, which has no empty token, for one of English "
                "alone, and detects no language: say the language with --language, or set "
                '"language" in generation_config.json'
            )

    def token(self, name: str) -> int:
        """Return the token of a language, given by its name in the library, such as ``<|de|>``."""
        return self.host.vocabulary.languages[name.strip("<|>")]

    def _generate(
        self,
        encoded: Any,
        prompts: list[list[int]],
        length: int,
        suppress: bool = True,
        **options: Any,
    ) -> list[Any]:
        vocabulary = self.host.vocabulary
        found: list[Any] = self.model.generate(
            encoded,
            prompts,
            beam_size=self.beams,
            # CTranslate2 generates at most half of this, and leaves the rest for the prompt.
            max_length=2 * length,
            suppress_tokens=list(vocabulary.suppress) if suppress else [],
            suppress_blank=suppress and bool(vocabulary.begin_suppress),
            **options,
        )
        return found

    def placement(self) -> Placement:
        return Placement({self.model.device: 1.0}, self.target.device, "device of the model")

    def executed(self) -> Mapping[str, str]:
        return {"model": EXECUTED[self.model.compute_type]}

    def model_bytes(self) -> int:
        return (self.folder / "model.bin").stat().st_size

    def close(self) -> None:
        self.model.unload_model()


def _view(array: np.ndarray) -> Any:
    import ctranslate2

    return ctranslate2.StorageView.from_array(np.ascontiguousarray(array))


RUNTIME = CTranslate2()
