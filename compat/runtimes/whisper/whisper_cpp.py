"""whisper.cpp, from the wheel of pywhispercpp: what most people run Whisper with on a processor.

The C functions are called one by one: set the mel spectrum, encode, decode step by step. Every
checkpoint then gets its own prompt and suppresses its own tokens, small vocabularies too, and
logits can be compared. ``whisper_full`` would not do: it knows the tokens of the published sizes
only, and decodes again at other temperatures. The wheel's Python functions give no logits, but its
library does.
"""

from __future__ import annotations

import ctypes
import re
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from compat.contract.case import Recipe, Target
from compat.contract.errors import CompatError
from compat.contract.execution import Driver, Execution, only_scheme
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.runtime import Options, Probe, Runtime
from compat.contract.session import Placement, Unsupported
from compat.models.whisper import Decoded, traced_steps
from compat.runtimes.installed import installed
from compat.runtimes.whisper.ggml import KINDS, MODEL, convert, oracle, refuse

if TYPE_CHECKING:
    from pathlib import Path

    from compat.contract.item import Prediction
    from compat.contract.source import Source
    from compat.models.whisper import WhisperModel
    from compat.models.whisper_prompts import Ask, Prompts

INSTALL = "pip install pywhispercpp==1.5.1 gguf==0.19.0"
SERIES = "1.8."
"""Series of whisper.cpp versions that is supported. In others ``_Parameters`` may have other
fields."""
DEVICES = {"cuda": "CUDA", "mps": "MTL"}
"""Prefix of whisper.cpp's names of devices, by column."""
BUILD = {
    "cuda": "GGML_CUDA=1 pip install --no-binary pywhispercpp pywhispercpp==1.5.1",
    "mps": "run it on an Apple chip",
}
TROUBLE = ("fail", "error", "wrong", "invalid", "unknown", "not all")
"""Words in the lines of whisper.cpp's log that tell why it refuses a file."""
NEVER = -1e4
"""Number added to the logits of suppressed tokens, as in the graphs of other runtimes."""


class WhisperCpp(Runtime):
    """whisper.cpp on processors, on NVIDIA GPUs and on Metal."""

    name = "whisper-cpp"
    packages = ("pywhispercpp", "gguf")
    modules = ("_pywhispercpp",)
    oracles = {  # noqa: RUF012 (as the base class has it)
        scheme: oracle(scheme) for scheme in KINDS if scheme != "fp16"
    }
    targets = (
        Target(
            "cpu-whisper-cpp",
            "cpu",
            "whisper-cpp",
            "cpu",
            tuple(KINDS),
            on_host_cpu=True,
            core=("fp16", "int8-q8_0"),
            families=("whisper",),
        ),
        Target(
            "cuda-whisper-cpp", "cuda", "whisper-cpp", "gpu", tuple(KINDS), families=("whisper",)
        ),
        Target("mps-whisper-cpp", "mps", "whisper-cpp", "gpu", tuple(KINDS), families=("whisper",)),
    )

    def probe(self, target: Target) -> Probe:
        missing = installed("pywhispercpp", "_pywhispercpp", INSTALL)
        missing = missing or installed("gguf", "gguf", INSTALL)
        if missing:
            return missing
        try:
            found = library()
        except (OSError, AttributeError) as error:
            return Probe("broken", f"pywhispercpp hides whisper.cpp: {error}", INSTALL)
        version = found.whisper_version().decode()
        built = re.findall(r"(\w+) = 1", found.whisper_print_system_info().decode())
        facts = {"whisper.cpp": version, "features": built}
        if not version.startswith(SERIES):
            said = f"pywhispercpp carries whisper.cpp {version}, and {SERIES}* is known here"
            return Probe("broken", said, f"{INSTALL} --force-reinstall", facts)
        if target.device == "gpu":
            names = devices()
            if not any(name.startswith(DEVICES[target.hardware]) for name in names):
                said = f"whisper.cpp finds {' and '.join(names)}, and no {target.hardware} device"
                return Probe("absent", said, BUILD[target.hardware], facts)
        return Probe("here", facts=facts)

    def open(
        self,
        model: Driver,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> Execution:
        return WhisperCppExecution(cast("WhisperModel", model), sources, target, recipe, options)


class WhisperCppExecution(Execution):
    """An execution of a model in whisper.cpp, decoded greedily, one window after the other."""

    def __init__(
        self,
        model: WhisperModel,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> None:
        scheme = only_scheme(recipe)
        self.host = model
        self.target = target
        self.threads = options.threads
        refuse(model, scheme)
        source = next(iter(sources.values()))
        packages = ("gguf", "numpy", "torch", "transformers")
        self.path = source.derive(convert, {"scheme": scheme}, packages).fetch() / MODEL
        device = int(options.device or 0) if target.device == "gpu" else None
        self.context = Context(self.path, device)
        self.first_mask, self.mask = np.zeros((2, model.dimensions.vocabulary), np.float32)
        self.mask[list(model.vocabulary.suppress)] = NEVER
        self.first_mask[list(model.vocabulary.begin_suppress)] = NEVER
        self.first_mask += self.mask

    def predict(self, items: Sequence[Item], stopwatch: Stopwatch) -> list[Prediction]:
        def hear(windows: Sequence[np.ndarray], prompts: Prompts) -> list[Decoded]:
            return [
                self._hear(one, prompts.ask([number], 1), stopwatch)
                for number, one in enumerate(windows)
            ]

        return self.host.join(items, stopwatch, hear)

    def _hear(self, window: np.ndarray, ask: Ask, stopwatch: Stopwatch) -> Decoded:
        with stopwatch("features"):
            mel = self.host.padded_mel([window], 1)
        with stopwatch("encoder"):
            self.context.encode(mel[0], self.threads)

        def detect(rows: Sequence[int]) -> list[int]:
            with stopwatch("language"):
                start = [self.host.vocabulary.prompt[0]]
                logits = self.context.decode(start, 0, self.threads)
            return self.host.vocabulary.spoken(logits[None])

        (prompt,) = ask(detect)
        end = self.host.vocabulary.end if self.host.folder else None
        tokens: list[int] = []
        fed, past, mask = list(prompt), 0, self.first_mask
        with stopwatch("decoder"):
            while len(tokens) < self.host.max_tokens and end not in tokens[-1:]:
                logits = self.context.decode(fed, past, self.threads)
                tokens.append(int((logits + mask).argmax()))
                past += len(fed)
                fed, mask = tokens[-1:], self.mask
        # whisper.cpp does not give out the encoder's output, so that its level is not known.
        finite = bool(np.isfinite(logits).all())
        return Decoded(tokens, 0.0 if finite else float("nan"))

    def trace(self, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        mel, forced = self.host.traced_input(item, guide)
        self.context.encode(mel[0], self.threads)
        first = len(forced) - traced_steps(guide) + 1
        steps = [self.context.decode(forced[:first], 0, self.threads)]
        for position in range(first, len(forced)):
            steps.append(self.context.decode([forced[position]], position, self.threads))
        return {"logits": np.stack(steps)}

    def placement(self) -> Placement:
        wanted = "cpu" if self.target.device == "cpu" else DEVICES[self.target.hardware]
        device = wanted if self.context.device.startswith(wanted) else self.context.device
        return Placement({device: 1.0}, wanted, "backend that the library says it uses")

    def executed(self) -> Mapping[str, str]:
        schemes = {kind.file_type: scheme for scheme, kind in KINDS.items()}
        return {"model": schemes[self.context.file_type]}

    def model_bytes(self) -> int:
        return self.path.stat().st_size

    def notes(self) -> Mapping[str, Any]:
        # whisper.cpp's default is flash attention. With it half-precision logits of whisper-tiny.en
        # have 27 to 33 dB, without it 54 dB.
        return {"attention": "flash_attn off"}

    def close(self) -> None:
        self.context.close()


# The library -------------------------------------------------------------------------------------


class _Alignment(ctypes.Structure):
    _fields_ = (("count", ctypes.c_size_t), ("heads", ctypes.c_void_p))


class _Parameters(ctypes.Structure):
    """``whisper_context_params`` of whisper.cpp 1.8."""

    _fields_ = (
        ("use_gpu", ctypes.c_bool),
        ("flash_attn", ctypes.c_bool),
        ("gpu_device", ctypes.c_int),
        ("token_timestamps", ctypes.c_bool),
        ("preset", ctypes.c_int),
        ("top", ctypes.c_int),
        ("alignment", _Alignment),
        ("memory", ctypes.c_size_t),
    )


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_INT, _FLOATS, _TOKENS = ctypes.c_int, ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int)
_POINTER, _TEXT = ctypes.c_void_p, ctypes.c_char_p
FUNCTIONS: Mapping[str, tuple[Any, ...]] = {
    "whisper_version": (_TEXT,),
    "whisper_print_system_info": (_TEXT,),
    "whisper_log_set": (None, _LOG, _POINTER),
    "whisper_context_default_params": (_Parameters,),
    "whisper_init_from_file_with_params": (_POINTER, _TEXT, _Parameters),
    "whisper_free": (None, _POINTER),
    "whisper_model_ftype": (_INT, _POINTER),
    "whisper_set_mel": (_INT, _POINTER, _FLOATS, _INT, _INT),
    "whisper_encode": (_INT, _POINTER, _INT, _INT),
    "whisper_decode": (_INT, _POINTER, _TOKENS, _INT, _INT, _INT),
    "whisper_get_logits": (_FLOATS, _POINTER),
    "whisper_n_vocab": (_INT, _POINTER),
    "ggml_backend_dev_count": (ctypes.c_size_t,),
    "ggml_backend_dev_get": (_POINTER, ctypes.c_size_t),
    "ggml_backend_dev_name": (_TEXT, _POINTER),
}
"""C functions that are called, each with the type of its result, then those of its arguments."""

lines: deque[str] = deque(maxlen=200)
"""The last lines of the library's log."""


def _listen(level: int, text: bytes, data: object) -> None:
    lines.append(text.decode(errors="replace").strip())


_LISTENER = _LOG(_listen)


@cache
def library() -> Any:
    """Return the C library that pywhispercpp's module is linked with, its functions declared.

    Raises:
        OSError: the library cannot be opened.
        AttributeError: the library lacks a function.
    """
    import _pywhispercpp

    # The module is opened, as wheels mangle the library's file name. A function is looked up in the
    # libraries that the module is linked with, too.
    opened = ctypes.CDLL(_pywhispercpp.__file__)
    for name, (result, *arguments) in FUNCTIONS.items():
        function = getattr(opened, name)
        function.restype, function.argtypes = result, arguments
    opened.whisper_log_set(_LISTENER, None)
    return opened


def devices() -> list[str]:
    """Return the names of the devices that the library supports and finds, such as ``CUDA0``."""
    found = library()
    handles = [found.ggml_backend_dev_get(one) for one in range(found.ggml_backend_dev_count())]
    return [found.ggml_backend_dev_name(handle).decode() for handle in handles]


class Context:
    """A loaded model with its caches.

    Args:
        path: the model.
        gpu: number of the GPU; None for the processor.

    Raises:
        CompatError: the library refuses the file.
        Unsupported: a GPU is asked for, and the library finds none.
    """

    def __init__(self, path: Path, gpu: int | None) -> None:
        self.library = library()
        parameters = self.library.whisper_context_default_params()
        # Flash attention, the default in 1.8, pads keys with zeros that no mask hides: logits have
        # 27 dB in place of 54.
        parameters.flash_attn = False
        parameters.use_gpu = gpu is not None
        parameters.gpu_device = gpu or 0
        lines.clear()
        name = str(path).encode()
        self.handle = self.library.whisper_init_from_file_with_params(name, parameters)
        if not self.handle:
            said = "; ".join(line for line in lines if any(word in line for word in TROUBLE))
            raise CompatError(
                f"whisper.cpp does not load {path}: {said or ' '.join(list(lines)[-2:])}",
                "It is made anew once its folder is deleted: `compat cache clear whisper`.",
            )
        using = [line.split("using ")[1].split()[0] for line in lines if ": using " in line]
        self.device = next((name for name in using if name not in ("BLAS", "CPU")), "cpu")
        if gpu is not None and self.device == "cpu":
            raise Unsupported(f"whisper.cpp found no GPU: {' '.join(list(lines)[-3:])}")
        self.tokens = self.library.whisper_n_vocab(self.handle)

    @property
    def file_type(self) -> int:
        """Number of the loaded file's type (``ggml_ftype``)."""
        found: int = self.library.whisper_model_ftype(self.handle)
        return found

    def encode(self, mel: np.ndarray, threads: int) -> None:
        """Encode a window, given as its log-mel spectrum, float32 (mels, frames)."""
        mel = np.ascontiguousarray(mel, np.float32)
        pointer = mel.ctypes.data_as(_FLOATS)
        self._call("whisper_set_mel", pointer, mel.shape[1], mel.shape[0])
        self._call("whisper_encode", 0, threads)

    def decode(self, tokens: Sequence[int], past: int, threads: int) -> np.ndarray:
        """Decode tokens, and return the logits (vocabulary,) after the last one.

        ``past`` is the number of tokens that were decoded before, whose keys are in the cache.
        """
        given = (ctypes.c_int * len(tokens))(*tokens)
        self._call("whisper_decode", given, len(tokens), past, threads)
        rows = self.library.whisper_get_logits(self.handle)
        logits: np.ndarray = np.ctypeslib.as_array(rows, (len(tokens), self.tokens))[-1].copy()
        return logits

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.library, name)(self.handle, *arguments)
        if code != 0:
            raise RuntimeError(f"{name} returned {code}: {' '.join(list(lines)[-2:])}")

    def close(self) -> None:
        """Release the model's memory."""
        if self.handle:
            self.library.whisper_free(self.handle)
            self.handle = None


RUNTIME = WhisperCpp()
