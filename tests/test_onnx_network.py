"""Networks of ONNX files against the package's own reference, and files that are refused."""

import jax
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from robustjax import attacks, models
from robustjax.threats import Linf

IMAGES = np.random.default_rng(0).uniform(size=(3, 6, 6, 3)).astype(np.float32)


def nodes(*rows):
    """(operator, inputs, output, attributes) in one text and a dictionary each -> nodes."""
    made = []
    for text, attributes in rows:
        operator, given, output = text.split(" ")
        given = [name.removeprefix("-") for name in given.split(",")]
        made.append(helper.make_node(operator, given, [output], operator, **attributes))
    return made


def model(rows, arrays, shape=("batch", 3, 6, 6), outputs=("y",), opset=18):
    graph = helper.make_graph(
        nodes(*rows),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def floats(seed=0, **shapes):
    draw = np.random.default_rng(seed)
    return {name: draw.uniform(0.1, 1, s).astype(np.float32) - 0.4 for name, s in shapes.items()}


def whole(*values):
    return np.array(values, np.int64)


PERCEPTRON = [
    ("Flatten x h", {}),
    ("Gemm h,w1,b1 g", {"transB": 1}),
    ("Relu g r", {}),
    ("MatMul r,w2 m", {}),
    ("Add m,b2 y", {}),
]


def perceptron(seed=0, **how):
    arrays = floats(seed, w1=(5, 108), b1=(5,), w2=(5, 4), b2=(4,))
    return model(PERCEPTRON, arrays, **how)


def convolutional():
    """With batch normalisation, and the flattening of torch.onnx: the shape's first number."""
    arrays = floats(k=(4, 3, 3, 3), s=(4,), b=(4,), m=(4,), w=(5, 36), k2=(4, 1, 3, 3))
    rows = [
        ("Conv x,k c", {"pads": [1, 1, 1, 1]}),
        ("BatchNormalization c,s,b,m,v n", {}),
        ("Clip n,-,six r", {}),
        ("Conv r,k2 d", {"group": 4, "auto_pad": "SAME_UPPER"}),
        ("MaxPool d p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Shape p t", {}),
        ("Gather t,zero f", {"axis": 0}),
        ("Unsqueeze f,axes u", {}),
        ("Concat u,rest l", {"axis": 0}),
        ("Reshape p,l h", {}),
        ("Gemm h,w y", {"transB": 1}),
    ]
    arrays |= {"v": np.ones(4, np.float32), "six": np.float32(6), "zero": np.array(0)}
    return model(rows, arrays | {"axes": whole(0), "rest": whole(-1)})


def transformer():
    """Patches, a class token and a block of attention, exported for a batch of one."""
    arrays = floats(k=(8, 3, 3, 3), t=(1, 1, 8), p=(1, 5, 8), qkv=(8, 24), o=(8, 8))
    arrays |= floats(1, g=(8,), b=(8,), w=(8, 4))
    rows = [
        ("Conv x,k c", {"strides": [3, 3]}),
        ("Reshape c,flat f", {}),
        ("Transpose f s", {"perm": [0, 2, 1]}),
        ("Concat t,s j", {"axis": 1}),
        ("Add j,p e", {}),
        ("LayerNormalization e,g,b n", {"epsilon": 1e-6}),
        ("MatMul n,qkv a", {}),
        ("Reshape a,heads h", {}),
        ("Transpose h i", {"perm": [2, 0, 3, 1, 4]}),
        *[(f"Gather i,n{k} z{k}", {"axis": 0}) for k in range(3)],
        ("Transpose z1 z1t", {"perm": [0, 1, 3, 2]}),
        ("MatMul z0,z1t q", {}),
        ("Div q,root qs", {}),
        ("Softmax qs weights", {"axis": -1}),
        ("MatMul weights,z2 v", {}),
        ("Transpose v vt", {"perm": [0, 2, 1, 3]}),
        ("Reshape vt,tokens vr", {}),
        ("MatMul vr,o out", {}),
        ("Add e,out sum", {}),
        ("Gelu sum act", {}),
        ("Gather act,n0 first", {"axis": 1}),
        ("MatMul first,w y", {}),
    ]
    arrays |= {"flat": whole(1, 8, -1), "heads": whole(1, 5, 3, 2, 4), "tokens": whole(1, 5, 8)}
    arrays |= {f"n{k}": np.array(k) for k in range(3)} | {"root": np.float32(2)}
    return model(rows, arrays, shape=(1, 3, 6, 6), opset=20)


@pytest.mark.parametrize("make", [perceptron, convolutional, transformer])
def test_a_graph_computes_what_the_reference_does(make):
    made = make()
    reference = ReferenceEvaluator(made)
    wanted = [reference.run(None, {"x": x[None].transpose(0, 3, 1, 2)})[0] for x in IMAGES]
    logits_fn = models.from_onnx(made.SerializeToString())
    found = jax.jit(lambda f, x: f(x))(logits_fn, IMAGES)
    np.testing.assert_allclose(found, np.concatenate(wanted), rtol=1e-5, atol=1e-6)


def test_networks_of_one_graph_share_a_program():
    one, two = (models.from_onnx(perceptron(seed).SerializeToString()) for seed in (0, 1))
    traced = []
    run = jax.jit(lambda f, x: traced.append(1) or f(x))
    assert not np.allclose(run(one, IMAGES), run(two, IMAGES)) and len(traced) == 1
    attack = attacks.FGSM(Linf(0.1))
    z = attacks.perturb(attack, one, jax.random.key(0), IMAGES, [0, 1, 2])
    assert np.isclose(np.abs(z - IMAGES).max(), 0.1)


def test_a_softmax_at_the_end_is_left_out_and_any_tensor_can_be_had():
    made = perceptron()
    made.graph.node.append(helper.make_node("Softmax", ["y"], ["p"]))
    made.graph.output[0].name = "p"
    data = made.SerializeToString()
    wanted = models.from_onnx(perceptron().SerializeToString())(IMAGES)
    np.testing.assert_array_equal(models.from_onnx(data)(IMAGES), wanted)
    probabilities = models.from_onnx(data, output="p")(IMAGES)
    np.testing.assert_allclose(probabilities, jax.nn.softmax(wanted, -1), rtol=1e-6)
    assert models.from_onnx(data, output="r")(IMAGES).shape == (3, 5)


def test_the_shape_says_where_the_channels_are():
    rows = [("Transpose x t", {"perm": [0, 3, 1, 2]}), *PERCEPTRON]
    rows[1] = ("Flatten t h", {})
    arrays = floats(0, w1=(5, 108), b1=(5,), w2=(5, 4), b2=(4,))
    last = model(rows, arrays, shape=("n", 6, 6, 3)).SerializeToString()
    first = perceptron().SerializeToString()
    np.testing.assert_array_equal(models.from_onnx(last)(IMAGES), models.from_onnx(first)(IMAGES))
    silent = perceptron(shape=("n", "c", "h", "w")).SerializeToString()
    with pytest.raises(ValueError, match="pass channels_first=True"):
        models.from_onnx(silent)
    told = models.from_onnx(silent, channels_first=True)
    np.testing.assert_array_equal(told(IMAGES), models.from_onnx(first)(IMAGES))
    with pytest.raises(ValueError, match=r"reads images of shape \(3, 6, 6\), got \(3, 5, 5\)"):
        models.from_onnx(first)(IMAGES[:, :5, :5])


def test_a_file_for_several_images_is_read_where_each_counts_alone():
    logits_fn = models.from_onnx(perceptron(shape=(8, 3, 6, 6)).SerializeToString())
    assert logits_fn(IMAGES).shape == (3, 4)
    mean = [("ReduceMean x,n m", {}), ("Sub x,m c", {}), ("Flatten c y", {})]
    built_in = [("Reshape x,n y", {})]
    for rows, n in ((mean, whole(0)), (built_in, whole(8, 108))):
        made = model(rows, {"n": n}, shape=(8, 3, 6, 6))
        with pytest.raises(ValueError, match="for batches of 8 images only: export it with a dyn"):
            models.from_onnx(made.SerializeToString())


def test_weights_beside_a_file_are_read_from_its_own_folder(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    wanted = models.from_onnx(perceptron().SerializeToString())(IMAGES)
    how = {"save_as_external_data": True, "size_threshold": 0}
    onnx.save_model(perceptron(), str(inner / "net.onnx"), location="weights", **how)
    np.testing.assert_array_equal(models.from_onnx(inner / "net.onnx")(IMAGES), wanted)
    with pytest.raises(ValueError, match="pass the path of the file"):
        models.from_onnx((inner / "net.onnx").read_bytes())
    made = onnx.load_model(str(inner / "net.onnx"), load_external_data=False)
    (inner / "weights").rename(tmp_path / "weights")
    for place, message in (("weights", "there is no 'weights' beside"), ("../weights", "outside")):
        for tensor in made.graph.initializer:
            tensor.external_data[0].value = place
        (inner / "net.onnx").write_bytes(made.SerializeToString())
        with pytest.raises(ValueError, match=message):
            models.from_onnx(inner / "net.onnx")


NORM = floats(s=(3,), b=(3,), m=(3,), v=(3,))
REFUSED = {
    "NonMaxSuppression": (
        [("NonMaxSuppression x y", {})],
        {},
        r"NonMaxSuppression \(node 'NonMaxSuppression'\) is not known: export without it",
    ),
    "an attribute": ([("Relu x y", {"beta": 1})], {}, "Relu .* has 'beta'"),
    "a draw": ([("RandomNormalLike x y", {})], {}, r"draws random numbers: .* \(model.eval\(\)\)"),
    "dropout": (
        [("Dropout x,-,t y", {})],
        {"t": np.array(True)},
        "Dropout .*: it is in training mode",
    ),
    "statistics": (
        [("BatchNormalization x,s,b,m,v y", {"training_mode": 1})],
        NORM,
        "BatchNormalization .*: it is in training mode",
    ),
    "a shape of pixels": (
        [("Cast x i", {"to": TensorProto.INT64}), ("Reshape x,i y", {})],
        {},
        "'i' depends on the pixels, and decides a shape",
    ),
    "a misfit": ([("Reshape x,s y", {})], {"s": whole(1, 7)}, r"Reshape \(node 'Reshape'\): "),
    "nothing": ([("Relu nothing y", {})], {}, "reads 'nothing', which nothing computes"),
    "an output": ([("Relu x z", {})], {}, "computes no 'y'; the last of its tensors are z"),
    "a bomb": (
        [("ConstantOfShape s c", {}), ("Add x,c y", {})],
        {"s": whole(1 << 20, 1 << 20)},
        "it makes an array of 1.09951e.12 numbers",
    ),
    "no batch": ([("ReduceMean x y", {"keepdims": 0})], {}, "for a batch of 1: export the network"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused_by_its_name(case):
    rows, arrays, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"the model: .*{message}"):
        models.from_onnx(model(rows, arrays).SerializeToString())


def test_files_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="opset 9, and 11 is the oldest"):
        models.from_onnx(perceptron(opset=9).SerializeToString())
    with pytest.raises(FileNotFoundError, match="is no ONNX file"):
        models.from_onnx(tmp_path / "net.onnx")
    (tmp_path / "net.onnx").write_bytes(b"\x93NUMPY and more")
    with pytest.raises(ValueError, match=r"net.onnx: it is damaged or not an ONNX file"):
        models.from_onnx(tmp_path / "net.onnx")
    made = perceptron()
    made.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, (1,)))
    with pytest.raises(ValueError, match="the inputs of this one are x, mask"):
        models.from_onnx(made.SerializeToString())
    made = perceptron()
    made.graph.initializer[0].raw_data = b"123"
    with pytest.raises(ValueError, match="the tensor 'w1' is damaged"):
        models.from_onnx(made.SerializeToString())
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'robustjax\[onnx\]'"):
        models.from_onnx(b"")
