"""Each cleaning pass on small graphs, judged by the ONNX reference evaluator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgemamba.stages import onnx_passes as passes
from edgemamba.stages.onnx_graph import facts, tensor_types

X = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)


def build(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: tuple[int, ...] = X.shape
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    model.graph.output[0].CopyFrom(inferred.graph.output[0])
    return model


def evaluate(model: onnx.ModelProto, x: np.ndarray = X) -> np.ndarray:
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


def apply(run: Callable[[onnx.ModelProto], None], model: onnx.ModelProto) -> list[str]:
    """Run one pass, check that the result is the same, and list the operators that are left."""
    expected = evaluate(model)
    run(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(evaluate(model), expected)
    return [node.op_type for node in model.graph.node]


def node(operator: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], name=f"/model/{operator}_{output}", **attributes)


def test_constant_nodes_become_initializers() -> None:
    value = numpy_helper.from_array(np.float32(2), "ignored")
    model = build([node("Constant", "", "two", value=value), node("Mul", "x two", "y")], {})
    assert apply(passes.constants_to_initializers, model) == ["Mul"]
    assert [tensor.name for tensor in model.graph.initializer] == ["two"]


def test_shape_arithmetic_and_negative_exponential_fold() -> None:
    rates = np.linspace(0.0, 2.0, 5, dtype=np.float32)
    nodes = [
        node("Exp", "model.A_log", "e"),
        node("Neg", "e", "a"),
        node("Mul", "x a", "m"),
        node("Shape", "x", "s"),
        node("Gather", "s first", "n"),
        node("Concat", "n rest", "target", axis=0),
        node("Reshape", "m target", "y"),
    ]
    constants = {"model.A_log": rates, "first": np.array([0]), "rest": np.array([-1])}
    model = build(nodes, constants)
    assert apply(passes.fold_constants, model) == ["Mul", "Reshape"]
    folded = [tensor.name for tensor in model.graph.initializer if "/Neg" in tensor.name]
    assert len(folded) == 1 and folded[0].startswith("model.A_log/")


def test_constant_that_would_grow_is_not_folded() -> None:
    nodes = [node("Expand", "one large", "e"), node("ReduceMax", "e axes", "m"), node("Add", "x m", "y")]
    constants = {"one": np.ones(1, np.float32), "large": np.array([100_000]), "axes": np.array([0])}
    assert "Expand" in apply(passes.fold_constants, build(nodes, constants))


@pytest.mark.parametrize(
    ("operator", "constants", "attributes", "left"),
    [
        ("Identity", {}, {}, 0),
        ("Cast", {}, {"to": TensorProto.FLOAT}, 0),
        ("Transpose", {}, {"perm": [0, 1, 2, 3]}, 0),
        ("Transpose", {}, {"perm": [0, 1, 3, 2]}, 1),
        ("Reshape", {"shape": np.array(X.shape)}, {}, 0),
        ("Reshape", {"shape": np.array([6, 20])}, {}, 1),
        ("Pad", {"pads": np.zeros(8, np.int64)}, {}, 0),
        ("Mul", {"one": np.ones(1, np.float32)}, {}, 0),
        ("Mul", {"model.skip_scale": np.ones(1, np.float32)}, {}, 1),
        ("Mul", {"two": np.array([1, 1, 2, 1, 1], np.float32)}, {}, 1),
        ("Slice", {"s": np.array([0]), "e": np.array([99]), "a": np.array([1]), "t": np.array([1])}, {}, 0),
        ("Slice", {"s": np.array([-1]), "e": np.array([-99]), "a": np.array([1]), "t": np.array([-1])}, {}, 1),
        ("Concat", {}, {"axis": 1}, 0),
    ],
)
def test_only_true_identities_are_dropped(
    operator: str, constants: dict[str, np.ndarray], attributes: dict[str, object], left: int
) -> None:
    first = node(operator, " ".join(["x", *constants]), "i", **attributes)
    model = build([first, node("Relu", "i", "y")], constants)
    assert len(apply(passes.drop_identities, model)) == left + 1


def test_chain_of_reshapes_becomes_one() -> None:
    nodes = [
        node("Flatten", "x", "f", axis=2),
        node("Unsqueeze", "f axes", "u"),
        node("Reshape", "u shape", "r"),
        node("Relu", "r", "y"),
    ]
    model = build(nodes, {"axes": np.array([0]), "shape": np.array([3, -1, 4])})
    apply(passes.merge_reshapes, model)
    assert apply(passes.drop_dead, model) == ["Reshape", "Relu"]


def test_slices_on_two_axes_become_one_and_on_the_same_axis_stay() -> None:
    one = {"s1": np.array([1]), "e1": np.array([3]), "a1": np.array([2]), "t": np.array([1])}
    two = {"s2": np.array([0]), "e2": np.array([2]), "a2": np.array([3])}
    nodes = [node("Slice", "x s1 e1 a1 t", "p"), node("Slice", "p s2 e2 a2 t", "y")]
    model = build(nodes, {**one, **two})
    apply(passes.merge_slices, model)
    assert apply(passes.drop_dead, model) == ["Slice"]
    for axis in (2, -2):
        same = build(nodes, {**one, **two, "a2": np.array([axis])})
        apply(passes.merge_slices, same)
        assert apply(passes.drop_dead, same) == ["Slice", "Slice"]


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_folds_into_the_convolution(operator: str, bias: bool) -> None:
    rng = np.random.default_rng(1)
    shape = (6, 3, 2, 2) if operator == "Conv" else (3, 6, 2, 2)
    constants = {"w": rng.standard_normal(shape).astype(np.float32)}
    if bias:
        constants["b"] = rng.standard_normal(6).astype(np.float32)
    convolution = node(operator, " ".join(["x", *constants]), "c")
    statistics = {name: rng.uniform(0.5, 2, 6).astype(np.float32) for name in ("scale", "shift", "mean", "variance")}
    model = build(
        [convolution, node("BatchNormalization", "c scale shift mean variance", "y0"), node("Relu", "y0", "y")],
        {**constants, **statistics},
    )
    expected = evaluate(model)
    passes.fold_batch_norm(model)
    assert [one.op_type for one in model.graph.node] == [operator, "Relu"]
    np.testing.assert_allclose(evaluate(model), expected, atol=1e-5)


def test_batch_norm_stays_where_the_convolution_has_another_reader() -> None:
    ones = np.ones(3, np.float32)
    constants = {"w": np.ones((3, 3, 1, 1), np.float32), "scale": ones, "shift": ones, "mean": ones, "variance": ones}
    nodes = [
        node("Conv", "x w", "c"),
        node("BatchNormalization", "c scale shift mean variance", "n"),
        node("Add", "n c", "y"),
    ]
    assert "BatchNormalization" in apply(passes.fold_batch_norm, build(nodes, constants))


def test_equal_nodes_merge_but_equal_parameters_stay_apart() -> None:
    zeros = np.zeros(5, np.float32)
    nodes = [
        node("Add", "x c1", "a"),
        node("Add", "x c2", "b"),
        node("Mul", "a b", "m"),
        node("Add", "m model.one.bias", "n"),
        node("Add", "n model.two.bias", "y"),
    ]
    model = build(nodes, {"c1": zeros + 1, "c2": zeros + 1, "model.one.bias": zeros, "model.two.bias": zeros})
    assert apply(passes.merge_equal, model) == ["Add", "Mul", "Add", "Add"]
    passes.drop_dead(model)
    assert {t.name for t in model.graph.initializer} == {"c1", "model.one.bias", "model.two.bias"}


def test_names_carry_the_module_path() -> None:
    first = helper.make_node("Relu", ["x"], ["t"], name="/model/encoder4/encoder4.0/mamba/Relu")
    second = helper.make_node("Add", ["t", "model.layer.bias"], ["y"], name="/Add_7", doc_string="/home/me/net.py")
    model = build([first, second], {"model.layer.bias": np.ones(5, np.float32)})
    model.graph.doc_string = "secret"
    passes.rename(model)
    passes.strip(model)
    assert [one.name for one in model.graph.node] == ["encoder4.0/mamba/Relu.1", "Add.1"]
    assert model.graph.initializer[0].name == "layer.bias"
    assert b"/home/me" not in model.SerializeToString() and b"secret" not in model.SerializeToString()
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("x", "y")
    assert evaluate(model).shape == X.shape


STEPS = st.lists(
    st.sampled_from(["identity", "transpose", "flip", "slice", "flat", "back", "scale", "unit", "pad", "twin", "exp"]),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_clean_never_changes_what_is_computed(steps: list[str]) -> None:
    constants: dict[str, np.ndarray] = {"model.A_log": np.float32([0.5])}
    nodes: list[onnx.NodeProto] = []
    shape = list(X.shape)
    name = "x"

    def add(operator: str, *inputs: np.ndarray | str, **attributes: object) -> None:
        nonlocal name
        names = [name]
        for value in inputs:
            if isinstance(value, str):
                names.append(value)
            else:
                constants[f"k{len(constants)}"] = value
                names.append(f"k{len(constants) - 1}")
        nodes.append(node(operator, " ".join(names), f"t{len(nodes)}", **attributes))
        name = nodes[-1].output[0]

    for step in steps:
        if step == "identity":
            add("Identity")
        elif step == "transpose":
            order = list(range(len(shape)))[::-1]
            add("Transpose", perm=order)
            shape = [shape[i] for i in order]
        elif step in ("flip", "slice"):
            ends = (-1, -(10**9), -1) if step == "flip" else (1 if shape[0] > 1 else 0, 10**9, 1)
            add("Slice", *(np.array([v]) for v in (ends[0], ends[1], 0, ends[2])))
            shape[0] -= step == "slice" and shape[0] > 1
        elif step == "flat":
            add("Reshape", np.array([-1]))
            shape = [int(np.prod(shape))]
        elif step == "back":
            add("Unsqueeze", np.array([0]))
            shape = [1, *shape]
        elif step in ("scale", "unit"):
            add("Mul", np.float32([3.0 if step == "scale" else 1.0]))
        elif step == "pad":
            add("Pad", np.array([1] + [0] * (2 * len(shape) - 1)))
            shape[0] += 1
        elif step == "twin":
            before = name
            add("Relu")
            first, name = name, before
            add("Relu")
            add("Add", first)
        else:
            nodes.append(node("Exp", "model.A_log", f"e{len(nodes)}"))
            add("Mul", nodes[-1].output[0])
    nodes.append(node("Relu", name, "y"))
    model = build(nodes, constants)
    result = passes.clean(model)
    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_array_equal(evaluate(result), evaluate(model))
    assert facts(result)["nodes"] <= facts(model)["nodes"]
    assert set(tensor_types(result)) >= {name for one in result.graph.node for name in one.output}


@pytest.mark.parametrize(
    ("pads", "axes", "left"),
    [
        ([0, 0, 0, 2, 0, 0, 0, -2], None, ["Slice", "Pad"]),
        ([-1, 3, 0, -2, 0, -1, 2, 0], None, ["Slice", "Pad"]),
        ([-1, -2], [2], ["Slice", "Pad"]),
        ([1, 2], [-1], ["Pad"]),
    ],
)
def test_negative_pads_become_slices(pads: list[int], axes: list[int] | None, left: list[str]) -> None:
    """Judged by ONNX Runtime: the reference evaluator has no negative pads."""
    constants = {"pads": np.array(pads), **({} if axes is None else {"axes": np.array(axes)})}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    def run(model: onnx.ModelProto) -> np.ndarray:
        return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": X})[0]

    inputs = ["x", "pads", *([] if axes is None else ["", "axes"])]
    model = build([helper.make_node("Pad", inputs, ["y"], name="/model/Pad")], constants)
    expected = run(model)
    passes.slice_negative_pads(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run(model), expected)
    assert [node.op_type for node in model.graph.node] == left
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert (known[model.graph.node[-1].input[1]] >= 0).all()
