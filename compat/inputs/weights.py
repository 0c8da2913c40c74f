"""Read the weights of a checkpoint, compare them with a module, and copy them into it.

Libraries fill tensors that a file lacks with random values and only warn, so that every process
would compute another network. Here names and shapes of file and module must agree, but for the
wrappers and old names of :func:`own_name`; any other difference is a :class:`CheckpointError`.
Filled modules are always float32, because every runtime exports them from float32.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compat.inputs.checkpoints import CheckpointError
from compat.inputs.ctranslate2 import specification_in

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"

WRAPPERS = frozenset(
    {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
)
"""Parts of names that torch.compile, DistributedDataParallel, FSDP and DeepSpeed insert."""
PEFT = "base_model.model."
"""Prefix of the names of a model that peft has wrapped."""
ADAPTER = re.compile(r"\.(lora_\w+|base_layer|modules_to_save|original_module)\.")
"""Part of names of a model wrapped by peft whose adapter is not merged."""
WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}
"""Maps old to new names of a kernel's length and direction under weight normalisation."""
POSITIONS = ("position_ids",)
"""Names of buffers that old versions of transformers stored and newer ones ignore."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Safetensors types that hold values; other types are codes of a quantised format."""
SHOWN = 3
"""Most names that a message gives of each kind of difference; the others are counted."""

MERGE = (
    "Merge the adapter into its base model and save the result: "
    "model = PeftModel.from_pretrained(base, folder).merge_and_unload(); "
    "model.save_pretrained(merged). Copy tokenizer and preprocessor of the base model beside it."
)
RESTORE = (
    "Save the whole model again with `save_pretrained`, or restore weights and config.json of one "
    "and the same checkpoint. Nothing is filled with random values."
)


# Files -------------------------------------------------------------------------------------------


def checkpoint_files(folder: Path, weights: str = WEIGHTS) -> list[Path]:
    """Return the safetensors files of a checkpoint folder in Hugging Face's layout.

    They are the files that transformers reads: ``model.safetensors``, or the shards that its index
    names. ``weights`` gives another file name, as Diffusers has one.

    Raises:
        CheckpointError: the folder, its configuration or its weights are missing, or the weights
            are pickled, which could run code, or in a format of other libraries.
    """
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint folder {folder}: check the path.")
    whole, index = folder / weights, folder / f"{weights}.index.json"
    if not whole.is_file() and not index.is_file():
        _refuse_other_forms(folder)
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} has no config.json, so it is no checkpoint in Hugging Face's layout. "
            "Name the folder that `save_pretrained` wrote."
        )
    if whole.is_file():
        return [whole]
    if index.is_file():
        return _shards(index)
    pickled = sorted((*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")))
    if pickled:
        raise CheckpointError(
            f"{folder} holds {pickled[0].name}, a pickle, which can run code when it is read. "
            "Convert it: model.save_pretrained(folder, safe_serialization=True)."
        )
    others = sorted(folder.glob("*.safetensors"))
    if others:
        raise CheckpointError(
            f"{folder} has neither {weights} nor {index.name}, only {others[0].name}. Rename it to "
            f"{weights} if it holds the whole model, or write the folder again with "
            "`save_pretrained`."
        )
    raise CheckpointError(
        f"{folder} has no weights (*.safetensors). Copy {weights} there, "
        "or write the folder again with `save_pretrained`."
    )


def _refuse_other_forms(folder: Path) -> None:
    """Raise :class:`CheckpointError` for an adapter, and for formats of other libraries."""
    if (folder / "adapter_config.json").is_file():
        base = ""
        try:
            settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            base = f" of {settings['base_model_name_or_path']}"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        raise CheckpointError(f"{folder} is a LoRA adapter{base}, and no whole model. {MERGE}")
    for path in sorted(folder.glob("*.bin")):
        with path.open("rb") as file:
            start = file.read(64)
        if kind := specification_in(start):
            raise CheckpointError(
                f"{folder} is a model that CTranslate2 converted ({path.name} holds a {kind}), "
                "which is read for Whisper alone. Name the Hugging Face checkpoint that it was "
                "made from; this suite converts that for CTranslate2 itself."
            )
        if start[:4] in (b"lmgg", b"GGUF"):
            raise CheckpointError(
                f"{path} is a model of whisper.cpp, which other runtimes cannot read. Name the "
                "Hugging Face checkpoint that it was made from."
            )


def _shards(index: Path) -> list[Path]:
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"cannot read {index}: {error!r}. Restore the file from the checkpoint."
        ) from error
    shards = [index.parent / name for name in sorted(map(str, named))]
    elsewhere = [str(path) for path in shards if path.parent != index.parent]
    if elsewhere:
        raise CheckpointError(
            f"{index} names {_listed(elsewhere)}, which do not lie beside it. Restore the file "
            "from the checkpoint."
        )
    missing = [path.name for path in shards if not path.is_file()]
    if missing:
        raise CheckpointError(
            f"{index.parent} lacks {_listed(missing)} of the {len(shards)} files that "
            f"{index.name} names. Copy what is missing from the checkpoint, or download it again."
        )
    return shards


def checkpoint_fingerprint(folder: Path) -> str:
    """Return 16 hex digits that identify the configuration and weights in a folder."""
    from compat.contract.digests import digest, file_digest

    weights = checkpoint_files(folder)
    for path in weights:
        stored_tensors([path])
    files = [*sorted(folder.glob("*.json")), *weights]
    return digest({path.name: file_digest(path) for path in files})


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a checkpoint.

    Raises:
        CheckpointError: the file is missing, or holds no JSON object.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(read, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}. Restore the file from the checkpoint."
        ) from error
    return read


# Tensors -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """A tensor as the header of a file describes it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    """Type by safetensors' name, such as ``F16``."""


def stored_tensors(files: Sequence[Path]) -> dict[str, Stored]:
    """Return the tensors of safetensors files by name, from the headers alone.

    Raises:
        CheckpointError: a header is damaged, a file was cut short, or two files hold a tensor of
            the same name.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, Stored] = {}
    for path in files:
        try:
            with safe_open(path, "numpy") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                    if name in tensors:
                        raise CheckpointError(
                            f"{tensors[name].file} and {path.name} both hold {name}. {RESTORE}"
                        )
                    part = opened.get_slice(name)
                    tensors[name] = Stored(path, tuple(part.get_shape()), str(part.get_dtype()))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"cannot read weights: {path} is damaged ({error}). Restore the file from the "
                "checkpoint."
            ) from error
    return tensors


@dataclass(frozen=True)
class Rules:
    """The differences that are allowed between file and module."""

    base: str = ""
    """Prefix of the module's names that a file lacks if the model was saved without its head."""
    needless: tuple[str, ...] = ()
    """Last parts of names of tensors that inference does not use; either side may lack them."""
    unused: tuple[str, ...] = ()
    """First parts of names of components that are not run; a file may have them."""
    remedy: str = ""
    """Last sentence of messages about differences, in place of :data:`RESTORE`."""

    def may_lack(self, name: str) -> bool:
        """Whether a tensor of this name may be missing on either side."""
        return (
            name.rpartition(".")[2] in self.needless
            or name.split(".", maxsplit=1)[0] in self.unused
        )


def own_name(name: str, names: Collection[str], base: str = "") -> str | None:
    """Return the module's name of a tensor that a file calls ``name``; None if it has none.

    Names of wrappers are removed, and old names of weight normalisation are replaced by new ones.
    """
    if name in names:
        return name
    parts = name.removeprefix("module.").split(".")
    plain = ".".join(part for part in parts if part not in WRAPPERS)
    for _ in range(2):
        plain = plain.removeprefix(PEFT)
    head, _, last = plain.rpartition(".")
    renamed = f"{head}.{WEIGHT_NORM.get(last, last)}" if head else plain
    for found in (plain, renamed, f"{base}.{plain}", f"{base}.{renamed}"):
        if found in names:
            return found
    return None


def match(
    where: Path | str,
    module: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, tuple[int, ...]],
    rules: Rules = Rules(),
    ties: Sequence[Collection[str]] = (),
) -> dict[str, str]:
    """Return the stored name of each tensor of a module that a file holds.

    Args:
        where: the file or folder that messages name.
        module: shapes of the module's tensors by name.
        stored: shapes of the file's tensors by name.
        rules: the allowed differences.
        ties: groups of names of one tensor; the file needs one name of each group.

    Raises:
        CheckpointError: a tensor is missing, unknown, stored twice or of another shape.
    """
    pairs: dict[str, str] = {}
    unexpected, twice = [], []
    for name in stored:
        own = own_name(name, module, rules.base)
        if own is None:
            if not rules.may_lack(name):
                unexpected.append(name)
        elif own in pairs:
            twice.append(name)
        else:
            pairs[own] = name
    tied = {name for tie in ties if any(one in pairs for one in tie) for name in tie}
    missing = [
        f"{name} should have shape {shape} and is missing"
        for name, shape in module.items()
        if name not in pairs and name not in tied and not rules.may_lack(name)
    ]
    reshaped = [
        f"{name} should have shape {module[own]} and has {stored[name]}"
        for own, name in pairs.items()
        if stored[name] != module[own]
    ]
    unknown = [f"the model has no {name}" for name in unexpected]
    repeated = [f"{name} is there twice" for name in twice]
    kinds = (missing, reshaped, unknown, repeated)
    if any(kinds):
        counts = zip(
            map(len, kinds), ("missing", "of another shape", "unknown", "doubled"), strict=True
        )
        told = [text for texts in kinds for text in texts[:SHOWN]]
        remedy = rules.remedy or RESTORE
        if any(ADAPTER.search(name) for name in unexpected):
            remedy = f"They contain a LoRA adapter that is not merged. {MERGE}"
        raise CheckpointError(
            f"{where} does not hold the weights of its model, which has {len(module)} tensors: "
            f"{'; '.join(told)}. In all: "
            f"{', '.join(f'{count} {kind}' for count, kind in counts if count)}. {remedy}"
        )
    return pairs


def _listed(names: Sequence[str]) -> str:
    """Join the first few names, and count the others."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def fill(
    network: torch.nn.Module,
    where: Path | str,
    stored: Mapping[str, tuple[int, ...]],
    read: Callable[[str], torch.Tensor],
    rules: Rules = Rules(),
) -> None:
    """Copy stored tensors into a float32 module, after :func:`match`.

    Args:
        network: the architecture, with any values; it becomes float32.
        where: the file or folder that messages name.
        stored: shapes of the file's tensors by name.
        read: returns a tensor by its stored name.
        rules: the allowed differences.

    Raises:
        CheckpointError: as :func:`match`, a tensor that should be one has two values, or one has
            values that are no finite numbers.
    """
    import torch

    network.float()
    tensors = network.state_dict(keep_vars=True)
    by_identity = defaultdict(list)
    for name, tensor in tensors.items():
        by_identity[id(tensor)].append(name)
    ties = [names for names in by_identity.values() if len(names) > 1]
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    pairs = match(where, shapes, stored, rules, ties)
    with torch.no_grad():
        for names in by_identity.values():
            stored_names = [pairs[name] for name in names if name in pairs]
            target = tensors[names[0]]
            if not stored_names:  # A tensor that is not needed must not hold uninitialised memory.
                target.zero_()
                continue
            first, *others = stored_names
            target.copy_(read(first))
            if not torch.isfinite(target).all():
                raise CheckpointError(
                    f"{where}: {first} has values that are NaN or infinite, also as float32, so "
                    "that no output could be judged. Restore the file from the checkpoint, or "
                    "take one from before its training diverged."
                )
            for other in others:
                if not torch.equal(read(other).to(target.dtype), target):
                    raise CheckpointError(
                        f"{where}: {first} and {other} differ, and the configuration "
                        "says that they are one. Set tie_word_embeddings to false in config.json "
                        "if they were trained apart."
                    )


def fill_from_folder(
    network: torch.nn.Module,
    folder: Path,
    rules: Rules = Rules(),
) -> None:
    """Fill a module from a folder in Hugging Face's layout, tensor by tensor.

    Raises:
        CheckpointError: as :func:`checkpoint_files` and :func:`fill`, or quantised weights.
    """
    files = checkpoint_files(folder)
    fill_from_files(network, files[0] if len(files) == 1 else folder, files, rules)


def fill_from_files(
    network: torch.nn.Module,
    where: Path,
    files: Sequence[Path],
    rules: Rules = Rules(),
) -> None:
    """Fill a module from safetensors files; ``where`` is the path that messages name.

    Raises:
        CheckpointError: as :func:`stored_tensors` and :func:`fill`, or quantised weights.
    """
    from contextlib import ExitStack

    from safetensors import safe_open

    tensors = stored_tensors(files)
    codes = [
        f"{name} ({stored.dtype})"
        for name, stored in tensors.items()
        if stored.dtype not in FLOATS and not rules.may_lack(name)
    ]
    if codes:
        raise CheckpointError(
            f"{where} holds quantised weights or other numbers than floats: {_listed(codes)}. "
            "Name the checkpoint before it was quantised: every recipe quantises for itself."
        )
    shapes = {name: stored.shape for name, stored in tensors.items()}
    with ExitStack() as stack:
        opened: dict[Path, Any] = {
            path: stack.enter_context(safe_open(path, "pt")) for path in files
        }
        fill(
            network,
            where,
            shapes,
            lambda name: opened[tensors[name].file].get_tensor(name),
            rules,
        )


def fill_from_state(
    network: torch.nn.Module,
    where: Path,
    state: Mapping[str, torch.Tensor],
    rules: Rules = Rules(),
) -> None:
    """Fill a module from tensors that were read already, such as those of a safe pickle."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    fill(network, where, shapes, state.__getitem__, rules)
