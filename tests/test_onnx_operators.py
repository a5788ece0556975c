"""Each operator of ONNX against the package's own reference, which is NumPy."""

import itertools

import jax
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx.reference import ReferenceEvaluator

from robustjax.models.onnx.file import _node
from robustjax.models.onnx.network import compute
from robustjax.models.onnx.operators import OPERATORS

RNG = np.random.default_rng(0)
OPSET = 22
CURRENT = min(onnx.defs.onnx_opset_version(), 24)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def positive(*shape):
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def number(value):
    return np.array(value, np.float32)


X, VECTORS, FLAT = normal(2, 4, 7, 6), normal(2, 5, 6), normal(3, 4)
INTEGERS = np.array([[7, -7, 5], [-2, 3, 6]], np.int64)
KERNEL = normal(6, 2, 3, 3)
CHANNELS = (positive(4), normal(4))

PLAIN = (
    *("Abs", "Exp", "Floor", "Ceil", "Sign", "Sin", "Cos", "Tan", "Sinh", "Cosh", "Tanh", "Atan"),
    *("Neg", "Round", "Erf", "Relu", "Sigmoid", "Softplus", "Softsign", "Mish", "HardSwish"),
    *("GlobalAveragePool", "GlobalMaxPool", "Identity", "Shape", "Size"),
)
CASES = [
    *[(name, [X]) for name in PLAIN],
    *[(name, [positive(3, 4)]) for name in ("Log", "Sqrt", "Reciprocal")],
    *[(name, [FLAT / 9]) for name in ("Asin", "Acos", "IsNaN")],
    *[(name, [FLAT, normal(4)]) for name in ("Add", "Sub", "Mul", "Div")],
    *[(name, [np.round(FLAT), np.round(normal(4))]) for name in ("Equal", "Less", "Greater")],
    *[(name, [np.round(FLAT), normal(4)]) for name in ("LessOrEqual", "GreaterOrEqual")],
    *[(name, [FLAT > 0, FLAT > 0.5]) for name in ("And", "Or", "Xor")],
    *[(name, [FLAT, normal(3, 1), normal(4)]) for name in ("Max", "Min", "Sum", "Mean")],
    ("Not", [FLAT > 0]),
    ("Div", [INTEGERS, ints(2, -3, 4)]),
    ("Mod", [INTEGERS, ints(2, -3, 4)]),
    ("Mod", [FLAT, normal(4)], {"fmod": 1}),
    ("Pow", [FLAT, number(2)]),
    ("Pow", [positive(3, 4), normal(4)]),
    ("Clip", [X, number(-0.5), number(0.5)]),
    ("Clip", [X, None, number(0.5)]),
    ("IsInf", [np.array([1, np.inf, -np.inf], np.float32)]),
    ("Where", [FLAT > 0, FLAT, normal(4)]),
    ("LeakyRelu", [X]),
    ("PRelu", [X, normal(4, 1, 1)]),
    ("Elu", [X], {"alpha": 0.7}),
    ("Celu", [X], {"alpha": 0.7}),
    ("Selu", [X]),
    ("Gelu", [X]),
    ("Gelu", [X], {"approximate": "tanh"}),
    ("HardSigmoid", [X]),
    ("ThresholdedRelu", [X]),
    ("Swish", [X], {}, CURRENT),
    ("Softmax", [X], {"axis": 1}),
    ("LogSoftmax", [X]),
    ("ReduceLogSumExp", [X], {"axes": [1], "keepdims": 0}, 13),
    *[
        (f"Reduce{name}", [X, ints(-1, 2)], {"keepdims": keep})
        for name, keep in zip(
            ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare"],
            itertools.cycle([0, 1]),
            strict=False,
        )
    ],
    ("ReduceMean", [X], {"axes": [2, 3], "keepdims": 0}, 13),
    ("ReduceSum", [X], {"noop_with_empty_axes": 1}),
    ("ReduceMax", [X]),
    ("ArgMax", [X], {"axis": 1, "keepdims": 0}),
    ("ArgMin", [X], {"axis": -1}),
    ("ArgMax", [np.round(X)], {"axis": 1, "select_last_index": 1}),
    ("Cast", [X], {"to": 6}),
    ("Cast", [FLAT > 0], {"to": 1}),
    ("CastLike", [np.round(X), ints(1)]),
    ("Reshape", [X, ints(0, -1, 6)]),
    ("Flatten", [X]),
    ("Flatten", [X], {"axis": -1}),
    ("Transpose", [X], {"perm": [0, 2, 3, 1]}),
    ("Transpose", [X]),
    ("Squeeze", [normal(1, 3, 1), ints(0, -1)]),
    ("Squeeze", [normal(1, 3, 1)]),
    ("Squeeze", [normal(1, 3, 1)], {"axes": [0]}, 11),
    ("Unsqueeze", [FLAT, ints(0, 3)]),
    ("Unsqueeze", [FLAT], {"axes": [1]}, 11),
    ("Concat", [X, normal(2, 1, 7, 6)], {"axis": 1}),
    ("Split", [X, ints(1, 3)], {"axis": 1}),
    ("Split", [X], {"axis": 2, "num_outputs": 2}),
    ("Split", [X], {"axis": 1, "split": [3, 1]}, 11),
    ("Slice", [X, ints(1, -3), ints(2**63 - 1, -1), ints(1, 2), ints(2, 1)]),
    ("Slice", [X, ints(-1), ints(-(2**63)), ints(3), ints(-2)]),
    ("Slice", [X, ints(0, 1), ints(1, 3)]),
    ("Gather", [X, ints(2, -1)], {"axis": 1}),
    ("Gather", [X, np.array(-2, np.int64)], {"axis": 3}),
    ("GatherElements", [FLAT, np.array([[1, 2], [0, -1], [3, 3]])], {"axis": 1}),
    ("GatherND", [X, np.array([[0, 1], [1, 3]])]),
    ("ScatterND", [FLAT, np.array([[0], [2]]), normal(2, 4)]),
    ("Expand", [normal(3, 1), ints(2, 1, 5)]),
    ("Tile", [FLAT, ints(2, 3)]),
    ("Shape", [X], {"start": 1, "end": -1}),
    ("ConstantOfShape", [ints(2, 3)]),
    ("ConstantOfShape", [ints(2)], {"value": onnx.numpy_helper.from_array(ints(5))}),
    ("Range", [np.array(1), np.array(9), np.array(3)]),
    ("OneHot", [ints(1, -1, 0), np.array(3), number([2, 5])]),
    ("Trilu", [FLAT, np.array(1)], {"upper": 1}),
    ("Trilu", [FLAT], {"upper": 0}),
    ("CumSum", [FLAT, np.array(1)]),
    ("CumSum", [FLAT, np.array(0)], {"exclusive": 1, "reverse": 1}),
    ("NonZero", [INTEGERS > 3]),
    ("Dropout", [X, number(0.5), np.array(False)]),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 0, 3), number(7)]),
    ("Pad", [X, ints(1, 0, 2, 1), None, ints(2, 3)]),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 0, 3)], {"mode": "reflect"}),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 0, 3)], {"mode": "edge"}),
    ("DepthToSpace", [X], {"blocksize": 2}),
    ("DepthToSpace", [X], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [normal(1, 2, 4, 6)], {"blocksize": 2}),
    ("Resize", [X, None, number([1, 1, 2, 1.5])]),
    ("Resize", [X, None, None, ints(2, 4, 3, 9)], {"mode": "linear"}),
    *[
        ("Resize", [X, None, number([1, 1, 2, 0.5])], {"mode": mode} | how)
        for mode in ("nearest", "linear", "cubic")
        for how in (
            {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            {"coordinate_transformation_mode": "align_corners", "nearest_mode": "ceil"},
            {"coordinate_transformation_mode": "pytorch_half_pixel"},
            {"coordinate_transformation_mode": "half_pixel_symmetric", "exclude_outside": 1},
        )
        if mode == "cubic" or "exclude_outside" not in how
    ],
    ("Conv", [X, normal(3, 4, 3, 2), normal(3)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", [X, KERNEL], {"group": 2, "dilations": [2, 1]}),
    ("Conv", [X, normal(4, 1, 3, 3)], {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", [X, normal(3, 4, 2, 2)], {"auto_pad": "SAME_LOWER"}),
    ("Conv", [X, normal(3, 4, 2, 2)], {"auto_pad": "VALID"}),
    ("Conv", [VECTORS, normal(3, 5, 3)]),
    (
        "ConvTranspose",
        [X, normal(4, 3, 3, 3), normal(3)],
        {"strides": [2, 2], "pads": [1, 0, 1, 2]},
    ),
    (
        "ConvTranspose",
        [X, normal(4, 3, 2, 2)],
        {"output_padding": [1, 0], "strides": [2, 1]},
    ),
    *[
        ("MaxPool", [X], {"kernel_shape": [3, 2], "strides": [2, 2]} | how)
        for how in ({}, {"pads": [1, 0, 1, 1]}, {"ceil_mode": 1}, {"auto_pad": "SAME_UPPER"})
    ],
    ("MaxPool", [X], {"kernel_shape": [2, 2], "dilations": [2, 1]}),
    *[
        ("AveragePool", [X], {"kernel_shape": [3, 2], "strides": [2, 2]} | how)
        for how in (
            {},
            {"pads": [1, 0, 1, 1]},
            {"pads": [1, 0, 1, 1], "count_include_pad": 1},
            {"ceil_mode": 1},
            {"ceil_mode": 1, "pads": [0, 1, 0, 1], "count_include_pad": 1},
            {"auto_pad": "SAME_LOWER"},
        )
    ],
    ("BatchNormalization", [X, *CHANNELS, normal(4), positive(4)], {"epsilon": 1e-3}),
    ("BatchNormalization", [FLAT, *CHANNELS, normal(4), positive(4)]),
    ("InstanceNormalization", [X, *CHANNELS]),
    ("GroupNormalization", [X, *CHANNELS], {"num_groups": 2}),
    ("LayerNormalization", [X, normal(6), normal(6)]),
    ("LayerNormalization", [X, normal(7, 6)], {"axis": 2, "epsilon": 1e-3}),
    ("RMSNormalization", [X, normal(6)], {}, CURRENT),
    ("LpNormalization", [X], {"axis": 1}),
    ("LpNormalization", [abs(X)], {"p": 1}),
    ("LRN", [normal(4, 4, 3, 3)], {"size": 3, "alpha": 0.1}),
    ("MeanVarianceNormalization", [X], {"axes": [2, 3]}),
    ("Gemm", [FLAT, normal(5, 4), normal(5)], {"transB": 1}),
    ("Gemm", [FLAT, normal(3, 5), normal(4, 1)], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    ("MatMul", [X, normal(6, 3)]),
    ("Einsum", [VECTORS, normal(2, 6, 3)], {"equation": "bij,bjk->bki"}),
    ("Attention", [normal(1, 2, 5, 4), normal(1, 2, 3, 4), normal(1, 2, 3, 4)], {}, CURRENT),
    (
        "Attention",
        [normal(2, 5, 8), normal(2, 5, 4), normal(2, 5, 4), normal(5, 5)],
        {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": 1},
        CURRENT,
    ),
]
LABELS = [f"{place}-{case[0]}" for place, case in enumerate(CASES)]


def node_of(name, inputs, attributes=None, opset=OPSET):
    """(the node, its opset)."""
    given = ["" if a is None else f"x{i}" for i, a in enumerate(inputs)]
    outputs = ["y", "z"] if name == "Split" else ["y"]
    return onnx.helper.make_node(name, given, outputs, **(attributes or {})), opset


def reference(name, inputs, attributes=None, opset=OPSET):
    node, opset = node_of(name, inputs, attributes, opset)
    given = {f"x{i}": a for i, a in enumerate(inputs) if a is not None}
    infos = [
        onnx.helper.make_tensor_value_info(
            n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape
        )
        for n, a in given.items()
    ]
    results = [onnx.helper.make_empty_tensor_value_info(n) for n in node.output]
    graph = onnx.helper.make_graph([node], "one", infos, results)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return ReferenceEvaluator(model).run(None, given)


@pytest.fixture(scope="module")
def found():
    """The outputs of all cases, in one program."""

    def all_of(traced):
        outputs = []
        for case, given in zip(CASES, traced, strict=True):
            inputs = [given.get(i, a) for i, a in enumerate(case[1])]
            node, opset = node_of(*case)
            outputs.append(compute(_node(onnx, node), inputs, opset))
        return outputs

    traced = [
        {
            i: a
            for i, a in enumerate(case[1])
            if a is not None and a.dtype == np.float32 and i not in OPERATORS[case[0]].host
        }
        for case in CASES
    ]
    return jax.jit(all_of)(traced)


@pytest.mark.parametrize("place", range(len(CASES)), ids=LABELS)
def test_an_operator_computes_what_the_reference_does(found, place):
    wanted = reference(*CASES[place])
    assert len(wanted) == len(found[place])
    for ours, theirs in zip(found[place], wanted, strict=True):
        assert ours.shape == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def test_every_operator_has_a_case():
    assert set(OPERATORS) == {case[0] for case in CASES}


def test_groups_of_a_transposed_convolution_are_convolutions_of_their_own():
    """The reference fails on groups."""
    node, _ = node_of("ConvTranspose", [0, 0], {"group": 2, "strides": [2, 1]})
    kernel = normal(4, 3, 2, 2)
    (both,) = compute(_node(onnx, node), [X, kernel], OPSET)
    halves = [
        reference("ConvTranspose", [X[:, part], kernel[part]], {"strides": [2, 1]})[0]
        for part in (slice(2), slice(2, 4))
    ]
    np.testing.assert_allclose(both, np.concatenate(halves, 1), atol=2e-6)


def test_negative_padding_crops():
    """The reference fails on it."""
    node, _ = node_of("Pad", [0, 0, None, 0])
    (found,) = compute(_node(onnx, node), [X, ints(1, -1, -2, 0), None, ints(2, 3)], OPSET)
    wanted = np.pad(X[:, :, :-2, 1:], [(0, 0), (0, 0), (1, 0), (0, 0)])
    np.testing.assert_array_equal(found, wanted)
