"""The executor of Core ML programs, held to PyTorch on what coremltools converts."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from compat.contract.named import resolve
from compat.contract.session import Unsupported
from compat.runtimes.coreml import convert as coreml_convert
from compat.runtimes.coreml import runtime as coreml
from compat.runtimes.coreml.convert import keep_log_softmax_exact, know_aliases
from compat.runtimes.coreml.mil import OPERATORS, Program
from compat.runtimes.coreml.palettes import PALETTES

coremltools: Any = pytest.importorskip("coremltools", exc_type=ImportError)


def convert(module: nn.Module, examples: tuple[torch.Tensor, ...], folder: Path) -> Program:
    """Convert a module as its runtime does, with inputs x0, x1 and so on."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = coremltools.convert(
            torch.jit.trace(module.eval(), examples, check_trace=False),
            inputs=[
                coremltools.TensorType(
                    f"x{index}",
                    tensor.shape,
                    np.int32 if tensor.dtype == torch.int32 else np.float32,
                )
                for index, tensor in enumerate(examples)
            ],
            minimum_deployment_target=coremltools.target.macOS15,
            skip_model_load=True,
        )
    folder.mkdir(exist_ok=True)
    model.save(str(folder / "model.mlpackage"))
    return Program(folder / "model.mlpackage")


def saved(function: Any, folder: Path) -> Program:
    """Write a program that was built operator by operator, and read it back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A folder of its own goes when the model does.
        model = coremltools.convert(
            function,
            minimum_deployment_target=coremltools.target.macOS15,
            skip_model_load=True,
        )
        model.save(str(folder / "model.mlpackage"))
        del model
        gc.collect()
    return Program(folder / "model.mlpackage")


class Function(nn.Module):
    def __init__(self, function: Any, *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.inner = nn.ModuleList(modules)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.function(*self.inner, *tensors)


def lstm(layer: nn.LSTM, x: torch.Tensor) -> torch.Tensor:
    return layer(x)[0]


CASES: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]] = {
    "conv1d": (nn.Conv1d(3, 8, 5, stride=2, padding=2), ((1, 3, 20),)),
    "conv1d grouped": (nn.Conv1d(4, 8, 3, dilation=2, groups=2), ((2, 4, 20),)),
    "conv2d": (nn.Conv2d(2, 4, 3, stride=(1, 2), padding=1), ((1, 2, 8, 9),)),
    "conv transpose": (nn.ConvTranspose1d(4, 3, 6, stride=3), ((2, 4, 7),)),
    "conv transpose, padded": (nn.ConvTranspose1d(4, 6, 5, 2, 2, groups=2), ((1, 4, 7),)),
    "layer norm": (nn.LayerNorm(16), ((2, 3, 16),)),
    "group norm": (nn.GroupNorm(2, 8), ((2, 8, 10),)),
    "batch norm": (nn.BatchNorm2d(4), ((1, 4, 5, 5),)),
    "instance norm": (nn.InstanceNorm1d(4, affine=True), ((2, 4, 12),)),
    "lstm": (Function(lstm, nn.LSTM(6, 5, 2, batch_first=True)), ((2, 7, 6),)),
    "lstm both ways": (
        Function(lstm, nn.LSTM(6, 5, 1, batch_first=True, bidirectional=True)),
        ((2, 7, 6),),
    ),
    "max pool": (nn.MaxPool1d(3), ((1, 2, 11),)),
    "upsample": (nn.Upsample(scale_factor=(2.0, 3.0)), ((1, 2, 4, 5),)),
    "gelu": (nn.GELU(), ((3, 7),)),
    "elu": (nn.ELU(0.5), ((3, 7),)),
    "leaky relu": (nn.LeakyReLU(0.1), ((3, 7),)),
    "attention": (Function(functional.scaled_dot_product_attention), ((1, 2, 5, 4),) * 3),
    "softmax": (Function(lambda x: x.softmax(dim=1)), ((2, 5, 3),)),
    "matmul": (Function(lambda x, y: x @ y.transpose(1, 2)), ((2, 3, 4), (2, 5, 4))),
    "slices": (Function(lambda x: torch.cat((x[:, 1:3], x[:, -1:], x[:, ::2]), 1)), ((2, 6, 3),)),
    "flip": (Function(lambda x: x.flip(1)), ((2, 6),)),
    "pad": (Function(lambda x: functional.pad(x, (1, 2), mode="reflect")), ((1, 2, 6),)),
    "statistics": (Function(lambda x: torch.cat((x.mean(1), x.std(1)), -1)), ((2, 9, 3),)),
    "norm": (Function(lambda x: x / x.norm(dim=-1, keepdim=True)), ((2, 9),)),
    "gather": (
        Function(lambda x: x.gather(2, torch.tensor([4, 0, 2]).expand(2, 3, -1))),
        ((2, 3, 5),),
    ),
    "where": (Function(lambda x, y: torch.where(x > y, x, -y)), ((2, 9), (2, 9))),
    "elementwise": (
        Function(lambda x, y: x.exp() * y.tanh() - x.sigmoid() / (1 + y.abs()) + (x**2 + 1).sqrt()),
        ((2, 9), (2, 9)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_executes_as_pytorch_does(name: str, tmp_path: Path) -> None:
    module, shapes = CASES[name]
    torch.manual_seed(0)
    examples = tuple(torch.randn(shape) for shape in shapes)
    program = convert(module, examples, tmp_path)
    assert not program.unknown
    with torch.no_grad():
        expected = module(*examples).numpy()
    (found,) = program.run({f"x{i}": tensor.numpy() for i, tensor in enumerate(examples)})
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=4e-3 * max(1.0, np.abs(expected).max()))


def test_a_mistake_of_the_converter_shows(tmp_path: Path) -> None:
    """coremltools 9.0 takes the root of a square for the number itself, whatever its sign."""
    program = convert(Function(lambda x: (x**2).sqrt()), (torch.ones(1, 3),), tmp_path)
    (found,) = program.run({"x0": np.array([[-2.0, 0.0, 3.0]], np.float32)})
    assert found.tolist() == [[-2.0, 0.0, 3.0]], "mended: let the matrix be measured again"


def test_scores_of_unlikely_classes_survive_float16(tmp_path: Path) -> None:
    """coremltools 9.0 takes the logarithm of a softmax, which is zero below 6e-8 (its #2728)."""
    from coremltools.converters.mil import register_torch_op
    from coremltools.converters.mil.frontend.torch import ops

    scores = torch.tensor([[0.0, -22.0, -90.0, 1.0], [300.0, 200.0, 5.0, 299.0]])
    expected = scores.log_softmax(-1).numpy()
    found = {}
    for name in ("its own", "ours"):
        if name == "ours":
            keep_log_softmax_exact()
        try:
            program = convert(
                Function(lambda x: x.log_softmax(-1)), (scores,), tmp_path / name.replace(" ", "-")
            )
        finally:
            register_torch_op(ops.log_softmax, torch_alias=["_log_softmax"], override=True)
        (found[name],) = program.run({"x0": scores.numpy()})
    np.testing.assert_allclose(found["ours"], expected, rtol=1e-3)
    assert np.abs(found["its own"] - expected).max() > 10, "mended: delete keep_log_softmax_exact"


def test_another_name_of_a_tensor_is_the_tensor(tmp_path: Path) -> None:
    """coremltools 9.0 lacks ``alias``, which EnCodec's convolutions have."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    known = _TORCH_OPS_REGISTRY.name_to_func_mapping
    ours = known.pop("alias", None)
    assert ours is None or ours.__module__ == coreml_convert.__name__, "mended: delete know_aliases"
    know_aliases()
    function = Function(lambda x: torch.ops.aten.alias(x) * 2)
    (found,) = convert(function, (torch.ones(1, 3),), tmp_path).run(
        {"x0": np.array([[1.0, -2.0, 3.0]], np.float32)}
    )
    assert found.tolist() == [[2.0, -4.0, 6.0]]


def test_rounds_to_float16_as_declared(tmp_path: Path) -> None:
    program = convert(Function(lambda x: x * 1000), (torch.ones(1, 3),), tmp_path)
    (found,) = program.run({"x0": np.array([[1 / 3, 1.0, 100.0]], np.float32)})
    assert found[0, 0] == np.float32(np.float16(np.float16(1 / 3) * 1000.0))
    assert np.isinf(found[0, 2]), "100,000 is beyond float16"


def test_embeddings_take_integers(tmp_path: Path) -> None:
    table = nn.Embedding(20, 4)
    program = convert(
        Function(lambda t, x: t(x), table), (torch.ones(3, dtype=torch.int32),), tmp_path
    )
    (found,) = program.run({"x0": np.array([3, 0, 19], np.int32)})
    np.testing.assert_allclose(found, table.weight.detach()[[3, 0, 19]], atol=2e-3)


def test_what_is_computed_is_not_remembered_as_a_setting(tmp_path: Path) -> None:
    """Constants are looked up once; where a slice begins may be another in every run."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    target = coremltools.target.macOS15
    specs = [mb.TensorSpec((6,)), mb.TensorSpec((1,), dtype=types.int32)]

    @mb.program(input_specs=specs, opset_version=target)  # type: ignore[untyped-decorator]
    def cut(x: Any, begin: Any) -> Any:
        return mb.slice_by_size(x=x, begin=begin, size=[2])

    program = saved(cut, tmp_path)
    samples = np.arange(6, dtype=np.float32)
    for begin in (1, 3):
        (found,) = program.run({"x": samples, "begin": np.array([begin], np.int32)})
        assert found.tolist() == [begin, begin + 1]


@pytest.mark.parametrize("tables", [(1, 1), (3, 1), (1, 2), (3, 2)])
def test_indices_are_looked_up_in_the_table_of_their_block(
    tables: tuple[int, int], tmp_path: Path
) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    generator = np.random.default_rng(0)
    indices = generator.integers(0, 16, (6, 8)).astype(types.np_uint4_dtype)
    table = generator.standard_normal((*tables, 16, 1)).astype(np.float16)
    target = coremltools.target.macOS15

    @mb.program(input_specs=[mb.TensorSpec((6, 8))], opset_version=target)  # type: ignore[untyped-decorator]
    def look_up(x: Any) -> Any:
        return mb.add(
            x=x, y=mb.cast(x=mb.constexpr_lut_to_dense(indices=indices, lut=table), dtype="fp32")
        )

    (found,) = saved(look_up, tmp_path).run({"x": np.zeros((6, 8), np.float32)})
    for row in range(6):
        for column in range(8):
            block = row // (6 // tables[0]), column // (8 // tables[1])
            assert found[row, column] == table[block][int(indices[row, column]), 0]


def test_groups_of_channels_have_tables_of_their_own(tmp_path: Path) -> None:
    """What coremltools stores is what is executed, and as good as the simulation says."""
    torch.manual_seed(0)
    layers = {
        "linear": nn.Linear(64, 48),
        "conv": nn.Conv1d(64, 45, 3),
        "up": nn.ConvTranspose1d(45, 32, 2),
        "prime": nn.Linear(64, 61),
    }
    groups = {"linear": (0, 16), "conv": (0, 15), "up": (1, 16), "prime": (0, 61)}
    exact = {}
    with torch.no_grad():
        for name, layer in layers.items():
            # A group's values are ten times those of the one before: no table could serve two.
            axis, size = groups[name]
            powers = 10.0 ** (torch.arange(layer.weight.shape[axis]) // size)
            shape = [-1 if other == axis else 1 for other in range(layer.weight.ndim)]
            layer.weight *= powers.reshape(shape)
            exact[name] = layer.weight.detach().clone()
    module = Function(
        lambda linear, conv, up, prime, x: linear(x).sum() + up(conv(x)).sum() + prime(x).sum(),
        *layers.values(),
    )
    plain = convert(module, (torch.randn(1, 64, 64),), tmp_path / "plain")
    for name in ("int4-palettized-group16", "int8-palettized-6bit-group16"):
        package = tmp_path / f"{name}.mlpackage"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Folders of models in between go when these do.
            model = coremltools.models.MLModel(str(plain.package), skip_model_load=True)
            coreml_convert._compressed(model, name).save(str(package))
            del model
            gc.collect()
        program = Program(package)
        assert coreml_convert.stored_scheme(program) == name
        assert sorted(weight.channels for weight in program.weights()) == [0, 15, 16, 16]
        own = {
            str(variable.name): variable.op.materialized_val_inference()
            for operation in program._function.operations
            for variable in operation.inputs.values()
            if getattr(getattr(variable, "op", None), "op_type", "") == "constexpr_lut_to_dense"
        }
        stored = {values.shape: values for values in own.values()}
        for variable, values in own.items():
            np.testing.assert_array_equal(program._constants[variable].numpy(), values)
        simulated = {kind: type(layer)(*_sizes(layer)) for kind, layer in layers.items()}
        for kind, layer in simulated.items():
            layer.weight = nn.Parameter(exact[kind], requires_grad=False)
            resolve(coreml.RUNTIME.oracles[name])(layer)
            axis, size = groups[kind]
            trio = (
                torch.from_numpy(stored[tuple(layer.weight.shape)].astype(np.float32)),
                layer.weight.detach(),
                exact[kind],
            )
            for found, honest, true in zip(*(one.split(size, axis) for one in trio), strict=True):
                entries = 2 ** PALETTES[name].bits
                assert len(found.unique()) == len(honest.unique()) == entries
                own_error = (honest - true).norm()
                assert 0.8 * own_error < (found - true).norm() < 1.3 * own_error


def _sizes(layer: Any) -> tuple[int, ...]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels, *layer.kernel_size


def test_an_operator_that_is_not_known_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = convert(nn.GELU(), (torch.ones(1, 3),), tmp_path)
    monkeypatch.delitem(OPERATORS, "gelu")  # type: ignore[arg-type]
    assert program.unknown == ["gelu"]
    with pytest.raises(Unsupported, match="no operator gelu"):
        program.run({"x0": np.ones((1, 3), np.float32)})
