"""Rewriting of ONNX graphs around faults of Qualcomm's compiler, without changing their results.

The emulator of QAIRT 2.51 needs each of these changes. A test fails as soon as one is not needed
any more.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from compat.contract.source import Derived, Source

REWRITE = "compat.runtimes.qnn.convert:rewrite"


def rewritten(source: Source, point: str) -> Derived:
    """Return the artifact with a graph as an ONNX file in the form that the NPU is given."""
    return source.derive(REWRITE, {"point": point}, ("onnx",), made_from=[source.exported(point)])


def rewrite(model: Any) -> None:
    """Apply every change of this module to an exported ONNX model, in place."""
    unstride(model)
    repeat_constants(model)
    part_tangents(model)
    unroll(model)


def unstride(model: Any) -> None:
    """Turn one-channel convolutions with an odd stride into convolutions with stride 1.

    The input is cut into frames of one stride, which become channels: the same numbers are
    multiplied. With stride 5 over 64,000 samples the emulator of QAIRT 2.51 gets whole stretches of
    the output wrong (0.5 dB in float16); over 32,000 samples it is right.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = _shapes(model)
    nodes = list(model.graph.node)
    for place, node in reversed(list(enumerate(nodes))):
        if node.op_type != "Conv" or node.input[1] not in weights:
            continue
        given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        weight = onnx.numpy_helper.to_array(weights[node.input[1]])
        batch, channels, length = [*shapes.get(node.input[0], ()), 0, 0, 0][:3]
        stride = given.get("strides", [1])[0]
        plain = not any(given.get("pads", ())) and given.get("auto_pad", b"NOTSET") == b"NOTSET"
        plain = plain and given.get("dilations", [1])[0] == 1
        if weight.ndim != 3 or channels != 1 or stride % 2 == 0 or stride == 1 or not plain:
            continue
        if length % stride or weight.shape[2] % stride:
            continue
        name = f"{node.output[0]}_frames"
        folded = weight.reshape(len(weight), -1, stride).transpose(0, 2, 1)
        size = np.array([batch, length // stride, stride], np.int64)
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(value, f"{name}_{what}")
            for what, value in (("weight", folded), ("size", size))
        )
        cut = [
            helper.make_node(
                "Reshape", [node.input[0], f"{name}_size"], [f"{name}_rows"], f"{name}_cut"
            ),
            helper.make_node("Transpose", [f"{name}_rows"], [name], f"{name}_turn", perm=[0, 2, 1]),
        ]
        bias = list(node.input)[2:]
        made = helper.make_node(
            "Conv",
            [name, f"{name}_weight", *bias],
            list(node.output),
            node.name,
            kernel_shape=[folded.shape[2]],
        )
        nodes[place : place + 1] = [*cut, made]
        if not any(node.input[1] in other.input for other in nodes):
            model.graph.initializer.remove(weights[node.input[1]])
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def repeat_constants(model: Any) -> None:
    """Repeat constants that are added to a whole batch, once for each input of the batch.

    Where positions are added to a convolution's output before a layer norm, the emulator of QAIRT
    2.51 adds them to the first input of the batch only.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    shapes = _shapes(model)

    fixed = set(weights)
    for node in model.graph.node:  # ONNX lists nodes in order of computation.
        if len(node.output) == 1 and fixed.issuperset(filter(None, node.input)):
            fixed.update(node.output)

    @cache
    def constant(name: str) -> np.ndarray | None:
        if name not in fixed:
            return None
        if name in weights:
            array: np.ndarray = onnx.numpy_helper.to_array(weights[name])
            return array
        node = makers[name]
        inputs = {given: constant(given) for given in node.input if given}
        (computed,) = ReferenceEvaluator(node).run(None, inputs)
        return np.asarray(computed)

    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        batch, *rest = shapes.get(node.output[0]) or [1]
        for place, name in enumerate(node.input):
            value = constant(name) if batch > 1 else None
            if value is None or value.ndim > len(rest) + 1:
                continue
            value = value.reshape((1,) * (len(rest) + 1 - value.ndim) + value.shape)
            # A constant with one value per channel is a bias, which the emulator adds correctly.
            if len(value) == 1 and sum(size > 1 for size in value.shape) > 1:
                repeated = f"{node.output[0]}_repeated"
                tensor = onnx.numpy_helper.from_array(np.repeat(value, batch, 0), repeated)
                model.graph.initializer.append(tensor)
                node.input[place] = repeated


def part_tangents(model: Any) -> None:
    """Put a negation before and after every hyperbolic tangent.

    If only a tangent uses an operator's output, the emulator of QAIRT 2.51 fuses the two, and
    computes them coarsely. The last convolution of a vocoder has 29 dB when fused, and 57 dB with
    the negation between.
    """
    nodes: list[Any] = []
    for node in model.graph.node:
        if node.op_type != "Tanh":
            nodes.append(node)
            continue
        name = node.output[0]
        nodes += [
            helper.make_node("Neg", [node.input[0]], [f"{name}_less"], f"{name}_less"),
            helper.make_node("Tanh", [f"{name}_less"], [f"{name}_bent"], node.name),
            helper.make_node("Neg", [f"{name}_bent"], [name], f"{name}_more"),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def unroll(model: Any) -> None:
    """Replace every LSTM by the operators of its steps.

    QNN unrolls an LSTM itself, and its first step then has only 25 to 40 dB: the emulator of QAIRT
    2.51 fuses a hyperbolic tangent with the sum before it, and computes them coarsely. With a
    negation between they have 60 dB. An LSTM with attributes or inputs that PyTorch's exporter does
    not write is left as it is.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = _shapes(model)

    def constant(name: str, value: np.ndarray) -> str:
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        return name

    def plain(node: Any) -> bool:
        if node.op_type != "LSTM" or {one.name for one in node.attribute} - {
            "direction",
            "hidden_size",
        }:
            return False
        # The inputs after the weights: lengths, initial states (both or neither) and peepholes.
        lengths, h, c, peepholes = [*node.input[4:], "", "", "", ""][:4]
        known = bool(shapes.get(node.input[0], [0])[0]) and set(node.input[1:4]) <= set(weights)
        return known and not lengths and bool(h) == bool(c) and not peepholes

    def unrolled(node: Any) -> list[Any]:
        made: list[Any] = []
        prefix = node.name or node.output[0]

        def add(operator: str, *inputs: str, **given: Any) -> str:
            name = f"{prefix}_{len(made)}"
            made.append(helper.make_node(operator, inputs, [name], name, **given))
            return name

        def index(number: int) -> str:
            if number not in numbers:
                name = f"{prefix}_index_{number}"
                numbers[number] = constant(name, np.array(number, np.int64))
            return numbers[number]

        numbers: dict[int, str] = {}
        x = node.input[0]
        steps = shapes[x][0]
        ordinary, recurrent, biases = (
            onnx.numpy_helper.to_array(weights[name]) for name in node.input[1:4]
        )
        directions, gates, width = recurrent.shape
        quarters = constant(f"{prefix}_quarters", np.array([width] * 4, np.int64))
        axes = constant(f"{prefix}_axes", np.array([0], np.int64))
        backward = [_text(node, "direction") == "reverse"] if directions == 1 else [False, True]
        initial = [name for name in node.input[5:7] if name]
        found: list[tuple[str, str, str]] = []
        for direction in range(directions):
            own = f"{prefix}_{direction}"
            into = constant(f"{own}_into", ordinary[direction].T.copy())
            again = constant(f"{own}_again", recurrent[direction].T.copy())
            offset = constant(
                f"{own}_offset", biases[direction][:gates] + biases[direction][gates:]
            )
            given = add("Add", add("MatMul", x, into), offset)
            h, c = [add("Gather", name, index(direction), axis=0) for name in initial] or ["", ""]
            hidden = [""] * steps
            order = range(steps)[:: -1 if backward[direction] else 1]
            for step in order:
                z = add("Gather", given, index(step), axis=0)
                if h:
                    z = add("Add", z, add("MatMul", h, again))
                let_in, let_out, keep, new = (f"{own}_{step}_{gate}" for gate in "iofc")
                made.append(
                    helper.make_node(
                        "Split", [z, quarters], [let_in, let_out, keep, new], let_in, axis=1
                    )
                )
                new = add("Mul", add("Sigmoid", let_in), add("Tanh", new))
                c = add("Add", add("Mul", add("Sigmoid", keep), c), new) if c else new
                # The negations change nothing; they keep the sum and the tangent from being fused.
                bent = add("Neg", add("Tanh", add("Neg", c)))
                h = add("Mul", add("Sigmoid", let_out), bent)
                hidden[step] = add("Unsqueeze", h, axes)
            joined = add("Concat", *hidden, axis=0) if steps > 1 else hidden[0]
            once = constant(f"{own}_axis", np.array([1], np.int64))
            found.append(
                (add("Unsqueeze", joined, once), hidden[order[-1]], add("Unsqueeze", c, axes))
            )
        for place, name in enumerate(node.output):
            if name:
                parts = [results[place] for results in found]
                axis = 0 if place else 1
                made.append(helper.make_node("Concat", parts, [name], f"{name}_whole", axis=axis))
        return made

    nodes = [
        one for node in model.graph.node for one in (unrolled(node) if plain(node) else [node])
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _text(node: Any, attribute: str) -> str:
    return next((one.s.decode() for one in node.attribute if one.name == attribute), "")


def _shapes(model: Any) -> dict[str, list[int]]:
    """Return the sizes of every tensor whose shape a model states; 0 for an unknown size."""
    graph = model.graph
    return {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
