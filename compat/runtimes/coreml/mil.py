"""Execution of a Core ML program on any machine, operator by operator, in PyTorch.

Core ML itself exists on Apple's systems only. Its programs (MIL, the model intermediate language)
are documented, and their weights can be decompressed anywhere. Results that the program declares as
float16 are rounded to float16; sums are in float32. Measured is thus the program as converted, with
its weights as stored, and not the rounding of any of Apple's processors.

Semantics: the operators' reference in coremltools (``coremltools.converters.mil.mil.ops.defs``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compat.contract.session import Unsupported


@dataclass(frozen=True)
class Step:
    """One operation of a program, with everything that does not change between runs looked up."""

    operator: Operator
    inputs: Mapping[str, Any]
    """Variables by argument; a list of variables for an argument of several tensors."""
    outputs: Sequence[tuple[str, str]]
    """Name and declared type of each result, such as ``("x_1", "fp16")``."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Cache of constant arguments as Python values, filled when they are first asked for."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of one operation, by name."""

    step: Step
    values: Mapping[str, Any]
    """Tensors computed so far, by the name of their variable."""
    constants: Mapping[str, torch.Tensor]
    """The program's constants, by the name of their variable."""

    def __contains__(self, name: str) -> bool:
        return name in self.step.inputs

    def tensor(self, name: str) -> torch.Tensor:
        """Return an argument as a tensor."""
        return self._tensor(self.step.inputs[name])

    def tensors(self, name: str) -> list[torch.Tensor]:
        """Return an argument that is a list of tensors."""
        return [self._tensor(one) for one in self.step.inputs[name]]

    def optional(self, name: str) -> torch.Tensor | None:
        return self.tensor(name) if name in self else None

    def plain(self, name: str, default: Any = None) -> Any:
        """Return an argument as Python values, such as a shape, an axis or a mode."""
        if name in self.step.settings:
            return self.step.settings[name]
        if name not in self:
            return default
        variable = self.step.inputs[name]
        value = variable.val
        if value is None:
            return self.values[variable.name].tolist()
        found = value.tolist() if hasattr(value, "tolist") else value
        self.step.settings[name] = found
        return found

    def _tensor(self, variable: Any) -> torch.Tensor:
        if variable.name in self.values:
            return self.values[variable.name]  # type: ignore[no-any-return]
        return self.constants[variable.name]


@dataclass(frozen=True)
class Weight:
    """The form in which a constant of the program is stored."""

    elements: int
    bits: int
    """Bits of each element, or of its index."""
    lookup: bool
    """Whether elements are indices into a table, rather than numbers on an even grid."""
    channels: int = 0
    """Number of channels that share a table; 0 if one table serves all of them."""


@dataclass
class Program:
    """A converted model, ready to be executed."""

    package: Path
    _constants: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def _function(self) -> Any:
        import coremltools
        from coremltools.converters.mil.frontend.milproto.load import load

        model = coremltools.models.MLModel(str(self.package), skip_model_load=True)
        spec = model.get_spec()
        program = load(spec, spec.specificationVersion, model.weights_dir)
        function = program.functions["main"]
        for operation in _operations(function):
            # The compressed form of a constant is not kept beside the decompressed one.
            for variable in () if _is_constant(operation.op_type) else _inputs(operation):
                if variable.name not in self._constants:
                    self._keep(variable)
        for variable in function.outputs:
            self._keep(variable)
        return function

    def _keep(self, variable: Any) -> None:
        """Keep the value of a variable as a tensor if it is a constant, decompressed if needed."""
        value = variable.val
        if value is None and variable.op is not None and _is_compressed(variable.op):
            value = _decompressed(variable.op)
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub":
            array = np.asarray(value)
            wide = np.float32 if array.dtype.kind == "f" else array.dtype
            self._constants[variable.name] = torch.from_numpy(np.array(array, wide))

    @cached_property
    def _steps(self) -> list[Step]:
        """The operations in order of execution, constants left out."""
        steps = []
        for operation in _operations(self._function):
            if _is_constant(operation.op_type):
                continue
            if all(variable.name in self._constants for variable in operation.outputs):
                continue
            if operation.op_type not in OPERATORS:
                raise Unsupported(f"no operator {operation.op_type} is known here")
            inputs = {name: given for name, given in operation.inputs.items() if given is not None}
            outputs = [(variable.name, _kind(variable)) for variable in operation.outputs]
            steps.append(Step(OPERATORS[operation.op_type], inputs, outputs))
        return steps

    @property
    def unknown(self) -> list[str]:
        """Names of the program's operators that :data:`OPERATORS` lacks, sorted."""
        names = (operation.op_type for operation in _operations(self._function))
        return sorted({name for name in names if name not in OPERATORS and not _is_constant(name)})

    def weights(self) -> Iterator[Weight]:
        """Yield the form of each stored weight; indices and their table are one weight."""
        for operation in _operations(self._function):
            for name, variable in operation.inputs.items():
                if isinstance(variable, list | tuple) or variable is None or variable.op is None:
                    continue
                kind = variable.op.op_type
                if _is_compressed(operation) or name not in _WEIGHTS:
                    continue
                if kind == "constexpr_lut_to_dense":
                    table = variable.op.inputs["lut"].shape
                    entries = table[-2] if len(table) > 1 else table[0]
                    shared = [
                        length // tables
                        for length, tables in zip(variable.shape, table[:-2], strict=False)
                        if tables > 1
                    ]
                    elements, bits = math.prod(variable.shape), int(math.log2(entries))
                    yield Weight(elements, bits, True, math.prod(shared) if shared else 0)
                elif kind.startswith("constexpr"):
                    yield Weight(math.prod(variable.shape), 8, False)
                elif variable.val is not None and hasattr(variable.val, "dtype"):
                    bits = 8 * np.asarray(variable.val).dtype.itemsize
                    yield Weight(math.prod(variable.shape), bits, False)

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Execute the program on inputs by name, and return its outputs in order.

        Raises:
            Unsupported: :data:`OPERATORS` lacks an operator of the program.
        """
        function = self._function
        values: dict[str, Any] = {
            name: _rounded(torch.from_numpy(np.array(feeds[name])), _kind(variable))
            for name, variable in function.inputs.items()
        }
        with torch.inference_mode():
            for step in self._steps:
                found = step.operator(Arguments(step, values, self._constants))
                results = found if isinstance(found, list | tuple) else [found]
                for (name, kind), result in zip(step.outputs, results, strict=True):
                    values[name] = _rounded(result, kind)
        known = {**self._constants, **values}
        return [known[variable.name].numpy() for variable in function.outputs]


_WEIGHTS = ("weight", "weight_ih", "weight_hh", "weight_ih_back", "weight_hh_back", "x", "y")


def _operations(function: Any) -> Sequence[Any]:
    return list(function.operations)


def _inputs(operation: Any) -> Iterator[Any]:
    for value in operation.inputs.values():
        yield from (
            value if isinstance(value, list | tuple) else [value] if value is not None else []
        )


def _is_constant(name: str) -> bool:
    return name == "const" or name.startswith("constexpr_")


def _is_compressed(operation: Any) -> bool:
    return str(operation.op_type).startswith("constexpr_")


def _decompressed(operation: Any) -> Any:
    """Return the values of a compressed constant.

    Indices into tables of single numbers are looked up here. coremltools would first repeat the
    table for each index, which takes 10 GB for Whisper's embedding and tables of 256 values.
    """
    table = operation.inputs["lut"].val if operation.op_type == "constexpr_lut_to_dense" else None
    if table is None or table.ndim < 3 or table.shape[-1] != 1:
        return operation.materialized_val_inference()
    indices = operation.inputs["indices"].val
    which = np.zeros((1,) * indices.ndim, np.int64)
    for axis, (length, tables) in enumerate(zip(indices.shape, table.shape[:-2], strict=True)):
        along = (np.arange(length) // (length // tables)).reshape(
            [-1 if other == axis else 1 for other in range(indices.ndim)]
        )
        which = which * tables + (along if tables > 1 else 0)
    return table.reshape(-1, table.shape[-2])[which, indices.astype(np.uint8)]


def _kind(variable: Any) -> str:
    """Return the declared type of a variable's elements, such as ``fp16``."""
    from coremltools.converters.mil.mil import types

    kind: str = types.builtin_to_string(variable.dtype)
    return kind


def _rounded(tensor: torch.Tensor, kind: str) -> torch.Tensor:
    """Return a tensor in its declared type; float16 values are rounded, but held in float32."""
    if kind == "fp16":
        return tensor.to(torch.float16).to(torch.float32)
    if kind == "fp32":
        return tensor.to(torch.float32)
    return tensor.to(torch.bool if kind == "bool" else torch.int32)


# Operators ---------------------------------------------------------------------------------------

Operator = Callable[[Arguments], Any]


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    return lambda a: function(a.tensor("x"))


def _binary(function: Callable[[Any, Any], Any]) -> Operator:
    return lambda a: function(a.tensor("x"), a.tensor("y"))


def _reduction(name: str) -> Operator:
    def reduce(a: Arguments) -> torch.Tensor:
        x = a.tensor("x")
        axes = a.plain("axes") or list(range(x.ndim))
        keep = bool(a.plain("keep_dims", False))
        found: torch.Tensor = getattr(torch, name)(x, dim=axes, keepdim=keep)
        return found

    return reduce


def _matmul(a: Arguments) -> torch.Tensor:
    x, y = a.tensor("x"), a.tensor("y")
    x = x.transpose(-1, -2) if a.plain("transpose_x", False) else x
    y = y.transpose(-1, -2) if a.plain("transpose_y", False) else y
    return x @ y


def _linear(a: Arguments) -> torch.Tensor:
    return torch.nn.functional.linear(a.tensor("x"), a.tensor("weight"), a.optional("bias"))


def _padding(a: Arguments, kernel: Sequence[int], x: torch.Tensor) -> list[int]:
    """Return the padding before and after each spatial axis, flat, the first axis first."""
    kind = a.plain("pad_type", "valid")
    if kind == "valid":
        return [0] * (2 * len(kernel))
    if kind == "custom":
        return list(a.plain("pad"))
    strides = a.plain("strides") or [1] * len(kernel)
    dilations = a.plain("dilations") or [1] * len(kernel)
    found = []
    for size, width, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + (width - 1) * dilation + 1 - size)
        less, more = total // 2, total - total // 2
        found += [more, less] if kind == "same_lower" else [less, more]
    return found


def _pad_spatial(x: torch.Tensor, amounts: Sequence[int], value: float = 0.0) -> torch.Tensor:
    pairs = [list(amounts[i : i + 2]) for i in range(0, len(amounts), 2)]
    return torch.nn.functional.pad(x, [n for pair in reversed(pairs) for n in pair], value=value)


def _conv(a: Arguments) -> torch.Tensor:
    x, weight = a.tensor("x"), a.tensor("weight")
    rank = weight.ndim - 2
    convolve = getattr(torch.nn.functional, f"conv{rank}d")
    found: torch.Tensor = convolve(
        _pad_spatial(x, _padding(a, weight.shape[2:], x)),
        weight,
        a.optional("bias"),
        stride=a.plain("strides") or [1] * rank,
        dilation=a.plain("dilations") or [1] * rank,
        groups=a.plain("groups", 1),
    )
    return found


def _conv_transpose(a: Arguments) -> torch.Tensor:
    x, weight = a.tensor("x"), a.tensor("weight")
    rank = weight.ndim - 2
    if a.plain("pad_type", "valid") not in ("valid", "custom"):
        raise Unsupported("no conv_transpose of the same size is known here")
    pads = list(a.plain("pad") or [0] * (2 * rank))
    if a.plain("pad_type", "valid") == "valid":
        pads = [0] * (2 * rank)
    convolve = getattr(torch.nn.functional, f"conv_transpose{rank}d")
    found: torch.Tensor = convolve(
        x,
        weight,
        a.optional("bias"),
        stride=a.plain("strides") or [1] * rank,
        dilation=a.plain("dilations") or [1] * rank,
        groups=a.plain("groups", 1),
    )
    # The padding of a transposed convolution is cut off from its output.
    return _pad_spatial(found, [-amount for amount in pads])


def _pool(kind: str) -> Operator:
    def pool(a: Arguments) -> torch.Tensor:
        x, kernel = a.tensor("x"), a.plain("kernel_sizes")
        strides, amounts = a.plain("strides") or [1] * len(kernel), _padding(a, kernel, x)
        ceil = bool(a.plain("ceil_mode", False))
        function = getattr(torch.nn.functional, f"{kind}_pool{len(kernel)}d")
        if kind == "max":
            padded = _pad_spatial(x, amounts, -math.inf)
            return function(padded, kernel, strides, ceil_mode=ceil)  # type: ignore[no-any-return]
        if any(amounts):
            raise Unsupported("no avg_pool with padding is known here")
        return function(x, kernel, strides, ceil_mode=ceil)  # type: ignore[no-any-return]

    return pool


def _upsample(a: Arguments) -> torch.Tensor:
    """Repeat values along both last axes by whole factors, as nearest-neighbour upsampling does.

    Raises:
        Unsupported: a factor is fractional.
    """
    x = a.tensor("x")
    for axis, name in ((-2, "scale_factor_height"), (-1, "scale_factor_width")):
        factor = a.plain(name, 1)
        if factor != int(factor):
            raise Unsupported(f"no upsample_nearest_neighbor by {factor} is known here")
        x = x.repeat_interleave(int(factor), dim=axis)
    return x


def _layer_norm(a: Arguments) -> torch.Tensor:
    x = a.tensor("x")
    axes = [axis % x.ndim for axis in a.plain("axes")]
    if axes != list(range(x.ndim - len(axes), x.ndim)):
        raise Unsupported("no layer_norm but over the last axes is known here")
    shape = [x.shape[axis] for axis in axes]
    return torch.nn.functional.layer_norm(
        x, shape, a.optional("gamma"), a.optional("beta"), a.plain("epsilon", 1e-5)
    )


def _batch_norm(a: Arguments) -> torch.Tensor:
    return torch.nn.functional.batch_norm(
        a.tensor("x"),
        a.tensor("mean"),
        a.tensor("variance"),
        a.optional("gamma"),
        a.optional("beta"),
        eps=a.plain("epsilon", 1e-5),
    )


def _instance_norm(a: Arguments) -> torch.Tensor:
    return torch.nn.functional.instance_norm(
        a.tensor("x"),
        weight=a.optional("gamma"),
        bias=a.optional("beta"),
        eps=a.plain("epsilon", 1e-5),
    )


def _lstm(a: Arguments) -> tuple[torch.Tensor, ...]:
    activations = (
        a.plain("recurrent_activation", "sigmoid"),
        a.plain("cell_activation", "tanh"),
        a.plain("activation", "tanh"),
    )
    if activations != ("sigmoid", "tanh", "tanh") or "peephole" in a or "clip" in a:
        raise Unsupported("no such variety of lstm is known here")
    direction = a.plain("direction", "forward")
    both = direction == "bidirectional"
    x = a.tensor("x").flip(0) if direction == "reverse" else a.tensor("x")
    width = a.tensor("weight_hh").shape[1]

    def gates(name: str) -> torch.Tensor:
        # MIL orders gates as input, forget, output, cell; PyTorch as input, forget, cell, output.
        given, forget, output, cell = torch.split(a.tensor(name), width)
        return torch.cat((given, forget, cell, output))

    parameters = []
    for end in ("", "_back") if both else ("",):
        weights = [gates(f"weight_ih{end}"), gates(f"weight_hh{end}")]
        bias = gates(f"bias{end}") if f"bias{end}" in a else weights[0].new_zeros(4 * width)
        parameters += [*weights, bias, torch.zeros_like(bias)]

    def initial(name: str) -> torch.Tensor:
        return torch.stack(torch.split(a.tensor(name), width, dim=1))

    states = (initial("initial_h"), initial("initial_c"))
    every, hidden, cell = torch.lstm(x, states, parameters, True, 1, 0.0, False, both, False)
    every = every.flip(0) if direction == "reverse" else every
    last = torch.cat(tuple(hidden), dim=1)
    sequence = every if a.plain("output_sequence", False) else last.unsqueeze(0)
    return sequence, last, torch.cat(tuple(cell), dim=1)


def _slice_by_index(a: Arguments) -> torch.Tensor:
    x = a.tensor("x")
    no = [False] * x.ndim
    begin, end = a.plain("begin"), a.plain("end")
    strides = a.plain("stride") or [1] * x.ndim
    open_begin, open_end, squeeze = (
        a.plain(name) or no for name in ("begin_mask", "end_mask", "squeeze_mask")
    )
    where: list[Any] = []
    backwards = []
    for axis in range(x.ndim):
        if squeeze[axis]:
            where.append(begin[axis])
            continue
        stride = strides[axis]
        first = None if open_begin[axis] else begin[axis]
        last = None if open_end[axis] else end[axis]
        if stride < 0:
            if (first, last, stride) != (None, None, -1):
                raise Unsupported("no slice_by_index backwards but of a whole axis is known")
            backwards.append(axis)
            first, last, stride = None, None, 1
        where.append(slice(first, last, stride))
    return x.flip(backwards)[tuple(where)] if backwards else x[tuple(where)]


def _slice_by_size(a: Arguments) -> torch.Tensor:
    x = a.tensor("x")
    pairs = zip(a.plain("begin"), a.plain("size"), x.shape, strict=True)
    return x[tuple(slice(b, length if s == -1 else b + s) for b, s, length in pairs)]


def _gather(a: Arguments) -> torch.Tensor:
    x, indices = a.tensor("x"), a.tensor("indices")
    if a.plain("batch_dims", 0):
        raise Unsupported("no gather with batch_dims is known here")
    axis = a.plain("axis", 0) % x.ndim
    flat = indices.reshape(-1).long() % x.shape[axis]
    return x.index_select(axis, flat).reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_along_axis(a: Arguments) -> torch.Tensor:
    x, axis = a.tensor("x"), a.plain("axis", 0)
    return x.gather(axis, a.tensor("indices").long() % x.shape[axis])


def _split(a: Arguments) -> list[torch.Tensor]:
    x, axis = a.tensor("x"), a.plain("axis")
    sizes = a.plain("split_sizes") or x.shape[axis] // a.plain("num_splits")
    return list(torch.split(x, sizes, dim=axis))


def _pad(a: Arguments) -> torch.Tensor:
    x, amounts = a.tensor("x"), a.plain("pad")
    pairs = [amounts[i : i + 2] for i in range(0, len(amounts), 2)]
    flat = [n for pair in reversed(pairs) for n in pair]
    mode = a.plain("mode", "constant")
    if mode == "constant":
        return torch.nn.functional.pad(x, flat, value=a.plain("constant_val", 0.0))
    while flat[-2:] == [0, 0]:
        flat = flat[:-2]  # In these modes PyTorch takes only axes that are padded.
    return torch.nn.functional.pad(x, flat, mode={"reflect": "reflect"}.get(mode, "replicate"))


def _reduce_argmax(a: Arguments) -> torch.Tensor:
    return a.tensor("x").argmax(dim=a.plain("axis", -1), keepdim=bool(a.plain("keep_dims", True)))


def _expand_dims(a: Arguments) -> torch.Tensor:
    x = a.tensor("x")
    rank = x.ndim + len(a.plain("axes"))
    for axis in sorted(one % rank for one in a.plain("axes")):
        x = x.unsqueeze(axis)
    return x


def _squeeze(a: Arguments) -> torch.Tensor:
    x = a.tensor("x")
    return x.squeeze(tuple(a.plain("axes"))) if "axes" in a else x.squeeze()


def _attention(a: Arguments) -> torch.Tensor:
    mask = a.optional("attn_mask")
    return torch.nn.functional.scaled_dot_product_attention(
        a.tensor("query"), a.tensor("key"), a.tensor("value"), mask
    )


def _gelu(a: Arguments) -> torch.Tensor:
    mode = a.plain("mode", "EXACT")
    if mode == "SIGMOID_APPROXIMATION":
        raise Unsupported("no gelu by a sigmoid is known here")
    approximate = "tanh" if mode == "TANH_APPROXIMATION" else "none"
    return torch.nn.functional.gelu(a.tensor("x"), approximate=approximate)


def _select(a: Arguments) -> torch.Tensor:
    return torch.where(a.tensor("cond").bool(), a.tensor("a"), a.tensor("b"))


def _concat(a: Arguments) -> torch.Tensor:
    if a.plain("interleave", False):
        raise Unsupported("no concat that interleaves is known here")
    return torch.cat(a.tensors("values"), dim=a.plain("axis"))


def _stack(a: Arguments) -> torch.Tensor:
    return torch.stack(a.tensors("values"), dim=a.plain("axis"))


def _fill(a: Arguments) -> torch.Tensor:
    return torch.full(a.plain("shape"), a.plain("value", 0.0))


OPERATORS: Mapping[str, Operator] = {
    **{
        name: _unary(getattr(torch, name))
        for name in (
            *("exp", "tanh", "sigmoid", "relu", "abs", "sqrt", "square", "erf", "sin", "cos"),
            *("floor", "ceil", "round", "sign", "logical_not"),
        )
    },
    "identity": _unary(lambda x: x),
    "cast": _unary(lambda x: x),  # _rounded converts every output to its declared type.
    "log": lambda a: (a.tensor("x") + a.plain("epsilon", 1e-45)).log(),
    "rsqrt": lambda a: (a.tensor("x") + a.plain("epsilon", 1e-12)).rsqrt(),
    "inverse": lambda a: 1 / (a.tensor("x") + a.plain("epsilon", 1e-4)),
    "silu": _unary(lambda x: x * x.sigmoid()),
    "softplus": _unary(lambda x: x.exp().log1p()),
    "gelu": _gelu,
    "elu": lambda a: torch.nn.functional.elu(a.tensor("x"), a.plain("alpha", 1.0)),
    "leaky_relu": lambda a: (
        a.tensor("x").clamp(min=0) + a.plain("alpha", 0.01) * a.tensor("x").clamp(max=0)
    ),
    "clip": lambda a: a.tensor("x").clamp(a.plain("alpha"), a.plain("beta")),
    "threshold": lambda a: a.tensor("x").clamp(min=a.plain("alpha")),
    "add": _binary(lambda x, y: x + y),
    "sub": _binary(lambda x, y: x - y),
    "mul": _binary(lambda x, y: x * y),
    "real_div": _binary(lambda x, y: x / y),
    "floor_div": _binary(lambda x, y: x // y),
    "mod": _binary(lambda x, y: x % y),
    "pow": _binary(lambda x, y: x**y),
    "maximum": _binary(lambda x, y: x.maximum(y)),
    "minimum": _binary(lambda x, y: x.minimum(y)),
    "equal": _binary(lambda x, y: x == y),
    "not_equal": _binary(lambda x, y: x != y),
    "less": _binary(lambda x, y: x < y),
    "less_equal": _binary(lambda x, y: x <= y),
    "greater": _binary(lambda x, y: x > y),
    "greater_equal": _binary(lambda x, y: x >= y),
    "logical_and": _binary(lambda x, y: x & y),
    "logical_or": _binary(lambda x, y: x | y),
    "select": _select,
    "matmul": _matmul,
    "linear": _linear,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "max_pool": _pool("max"),
    "avg_pool": _pool("avg"),
    "upsample_nearest_neighbor": _upsample,
    "softmax": lambda a: a.tensor("x").softmax(dim=a.plain("axis", -1)),
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "scaled_dot_product_attention": _attention,
    "lstm": _lstm,
    "reduce_mean": _reduction("mean"),
    "reduce_sum": _reduction("sum"),
    "reduce_max": _reduction("amax"),
    "reduce_min": _reduction("amin"),
    "reduce_log_sum_exp": _reduction("logsumexp"),
    "reduce_l2_norm": _reduction("norm"),
    "reduce_argmax": _reduce_argmax,
    "reshape": lambda a: a.tensor("x").reshape(a.plain("shape")),
    "transpose": lambda a: a.tensor("x").permute(a.plain("perm")),
    "reverse": lambda a: a.tensor("x").flip(a.plain("axes") or list(range(a.tensor("x").ndim))),
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "concat": _concat,
    "stack": _stack,
    "split": _split,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "tile": lambda a: a.tensor("x").tile(a.plain("reps")),
    "pad": _pad,
    "fill": _fill,
}
