"""Networks trained in PyTorch: the same logits, and errors that name the keys."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import models
from robustjax.models.pytorch.file import read_state_dict

GOLDEN = pathlib.Path(__file__).parent / "golden" / "from_torch"
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "experiments" / "oracle"))
with np.load(GOLDEN.parent / "parity.npz") as file:
    PARITY = dict(file)
NARROW = ("bottlenecks", "adversarial", "sparse", "dm-preact", "card", "convnext", "vit", "xcit")
NARROW += ("xcit nano", "swin", "chain")
NORMALISATION = {"mean": (0.49, 0.48, 0.45), "std": (0.25, 0.24, 0.26)}
FILES = {
    "resnet": ("resnet.pt", NORMALISATION),
    "preact-final-bn": ("preact.pth", {"shortcut": "activated"}),
    "preact-raw": ("preact_raw.pt", {"shortcut": "raw"}),
    "wide": ("wide.safetensors", {}),
}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "logits.npz") as file:
        return dict(file)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("name", FILES)
def test_logits_are_those_that_pytorch_gave(name, golden):
    file, options = FILES[name]
    logits_fn, features_fn = models.from_torch(GOLDEN / file, **options)
    assert_close(jax.jit(lambda f, x: f(x))(logits_fn, golden["images"]), golden[name])
    head = logits_fn.args[0]["params"]["head"]
    features = jax.jit(lambda f, x: f(x))(features_fn, golden["images"])
    assert_close(features @ head["kernel"] + head["bias"][None], golden[name])


@pytest.mark.parametrize("name", FILES)
def test_logits_are_those_of_pytorch_here(name):
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    import torch_families

    state, net = torch_families.build(name, 3, (1, 2, 1), seed=7)
    x = torch.rand(3, 3, 12, 12)
    logits_fn, _ = models.from_torch(state, **torch_families.CASES[name].options)
    ours = jax.jit(lambda f, x: f(x))(logits_fn, jnp.asarray(x.permute(0, 2, 3, 1).numpy()))
    assert_close(ours, net(x).numpy())


def test_the_two_shortcuts_differ(golden):
    """What the weights do not tell matters: hence the question."""
    file, _ = FILES["preact-raw"]
    wrong, _ = models.from_torch(GOLDEN / file, shortcut="activated")
    logits = jax.jit(lambda f, x: f(x))(wrong, golden["images"])
    assert np.abs(logits - golden["preact-raw"]).max() > 0.1
    with pytest.raises(ValueError, match=r"the projections .* shortcut='activated' .* or 'raw'"):
        models.from_torch(GOLDEN / file)
    with pytest.raises(ValueError, match="shortcut must be one of activated, raw, got 'input'"):
        models.from_torch(GOLDEN / file, shortcut="input")


def test_resnet_18_by_name_is_the_resnet_of_the_file():
    """What `create` trains is what `from_torch` reads."""
    model = models.create("resnet-18", num_classes=5, width=2)
    ours = jax.eval_shape(lambda key: models.init(model, key, (16, 16, 3)), jax.random.key(0))
    state = read_state_dict(GOLDEN / "resnet.pt")
    for stage in range(2, 5):  # the file has one block there, the network two
        state |= {
            key.replace(".0.", ".1."): np.zeros((2**stage, 2**stage, 3, 3))
            if key.endswith(".conv1.weight")
            else value
            for key, value in state.items()
            if f"layer{stage}.0." in key and "shortcut" not in key
        }
    logits_fn, _ = models.from_torch(state)
    theirs = logits_fn.args[0]
    assert jax.tree.map(jnp.shape, theirs) == jax.tree.map(jnp.shape, ours)


def test_a_linear_layer_without_bias_has_a_bias_of_zero(golden):
    state = read_state_dict(GOLDEN / "wide.safetensors")
    bias = state.pop("fc.bias")
    with pytest.raises(ValueError, match=r"has no bias: pass head='cosine' .* head='linear'"):
        models.from_torch(state)
    logits_fn, _ = models.from_torch(state, head="linear")
    assert_close(
        jax.jit(lambda f, x: f(x))(logits_fn, golden["images"]) + bias[None], golden["wide"]
    )


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"block2.layer.0.bn1.weight": None}, {}, r"missing: block2\.layer\.0\.bn1\.weight$"),
        ({"block3.layer.0.conv3.weight": np.ones(1)}, {}, r"unexpected: block3\.layer\.0\.conv3"),
        ({"fc.weight": np.ones((5, 7))}, {}, r"of another shape: fc\.weight$"),
        ({"conv1.weight": np.ones((2, 3, 7, 7))}, {}, r"of another shape: conv1\.weight$"),
        ({"fc.weight": None}, {}, r"these weights have no fc\.weight"),
        (
            {"block1.layer.0.conv1.weight": None},
            {},
            r"these weights have no block1\.layer\.0\.conv1\.weight",
        ),
        ({"normalize.mean": np.ones(3)}, {"mean": (0, 0, 0)}, r"mean = .* not pass mean"),
        ({}, {"shortcut": "raw"}, "`shortcut` is for a PreActResNet; .* a WideResNet"),
        ({}, {"activation": "swish"}, "unknown activation 'swish'"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, options, message):
    state = read_state_dict(GOLDEN / "wide.safetensors") | change
    with pytest.raises(ValueError, match=message):
        models.from_torch({k: v for k, v in state.items() if v is not None}, **options)


def test_every_tensor_is_used_or_known_to_be_dead():
    """Without any one tensor that is not dead (or a last bias) the weights are refused."""
    state = read_state_dict(GOLDEN / "wide.safetensors")
    dead = [k for k in state if k.startswith("sub_block1.") or k.endswith("num_batches_tracked")]
    models.from_torch({k: v for k, v in state.items() if k not in dead})
    for key in sorted({*state} - {*dead, "fc.bias"}):
        with pytest.raises(ValueError):
            models.from_torch({k: v for k, v in state.items() if k != key})


def test_new_weights_compile_nothing():
    traces = []

    @jax.jit
    def call(f, x):
        traces.append(1)
        return f(x)

    state = read_state_dict(GOLDEN / "wide.safetensors")
    for factor in (1.0, 2.0):
        scaled = state | {"fc.weight": factor * state["fc.weight"]}
        call(models.from_torch(scaled)[0], jnp.zeros((1, 16, 16, 3)))
    assert len(traces) == 1


def drawn(name):
    """A narrow network that parity.py has run: its state, the images' side, the arguments."""
    import foreign_states

    about = json.loads(str(PARITY[f"{name} about"]))
    return foreign_states.draw(about["shapes"]), about["side"], about["options"]


@pytest.mark.parametrize("name", NARROW)
def test_narrow_networks_of_every_family(name):
    state, side, options = drawn(name)
    images = np.random.default_rng(side).random((2, side, side, 3)).astype(np.float32)
    logits_fn, features_fn = models.from_torch(state, **options)
    both = jax.jit(lambda logits_fn, features_fn, x: (logits_fn(x), features_fn(x)))
    logits, features = both(logits_fn, features_fn, images)
    assert_close(logits, PARITY[name])
    assert features.ndim == 2 and len(features) == 2


@pytest.mark.parametrize("name", [n for n in PARITY if " about" not in n and n not in NARROW])
def test_other_names_of_the_same_parts(name):
    state, _, options = drawn(name)
    logits_fn, _ = models.from_torch({f"module.{key}": v for key, v in state.items()}, **options)
    ours = sum(leaf.size for leaf in jax.tree.leaves(logits_fn.args[0]))
    counters = ("num_batches_tracked", "_index", ".mean", ".std")
    theirs = sum(v.size for key, v in state.items() if not f".{key}".endswith(counters))
    assert ours == theirs


@pytest.mark.parametrize(
    ("name", "change", "options", "message"),
    [
        ("xcit", {}, {"patch": None}, r"pass the side .* patch=16 .* patch=4"),
        ("xcit", {}, {"patch": 5}, "patch must be a power of two up to 16, got 5"),
        ("xcit", {}, {"tokens_norm": None}, "pass tokens_norm, .* XCiT of width 16 tells"),
        ("vit", {}, {"heads": None}, "pass the heads .* ViT of width 16 tells: heads=16 for ViT-H"),
        ("convnext", {}, {"heads": 3}, r"`heads` is for a ViT .* weights of a ConvNeXt"),
        (
            "vit",
            {"norm_pre.weight": np.ones(16)},
            {},
            r"a ViT .* unexpected: norm_pre\.weight$",
        ),
        ("swin", {"features.3.1.norm2.bias": None}, {}, r"missing: features\.3\.1\.norm2\.bias$"),
        ("chain", {}, {"layers": None}, r"layers='conv:padding=2 norm relu conv:padding=1 relu fl"),
        ("chain", {}, {"patch": 4}, "`patch` is not for a chain of layers"),
        ("chain", {}, {"layers": "conv relu"}, r"leaves weights over: 1, 4, 7, 9"),
        ("chain", {}, {"layers": "linear"}, r"has a linear where 0 \(6, 3, 5, 5\) is next"),
        ("chain", {}, {"layers": "conv:pad=1"}, "conv takes stride=NUMBER, padding=NUMBER"),
        ("chain", {}, {"layers": "conv swish"}, "unknown word 'swish' in `layers`; known: conv,"),
        ("chain", {"2.weight": np.ones((2, 2, 2))}, {"layers": "conv"}, "linear layers; 2 is none"),
    ],
)
def test_what_has_to_be_told_or_does_not_fit_is_named(name, change, options, message):
    state, _, usual = drawn(name)
    state = {key: value for key, value in {**state, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        models.from_torch(state, **{**usual, **options})


def test_an_unknown_layout_names_the_nearest():
    state, _, options = drawn("vit")
    odd = {key.replace("attn", "attention"): value for key, value in state.items()}
    with pytest.raises(ValueError, match=r"fit a ViT or DeiT of timm; missing: blocks\.0\.attn"):
        models.from_torch(odd, **options)
    odd = {f"encoder.{i}.w": np.ones((2, 2, 2)) for i in range(3)} | {"pos_embed": np.ones(3)}
    with pytest.raises(ValueError, match=r"the nearest: ViT .* no encoder\.0\.w. Known: WideRes"):
        models.from_torch(odd)


def test_networks_side_by_side_are_read_one_at_a_time():
    state, _, options = drawn("dm-wide")
    both = {f"models.{i}.{key}": value for i in range(2) for key, value in state.items()}
    with pytest.raises(ValueError, match=r"several networks; .* begin with 'models\.0\.'"):
        models.from_torch(both, **options)


def test_a_chain_of_vectors_and_its_features():
    layers = {"a": (8, 5), "b": (3, 8)}
    state = {f"{n}.weight": np.ones(s, np.float32) for n, s in layers.items()}
    logits_fn, features_fn = models.from_torch(state, layers="linear relu linear")
    x = jnp.ones((2, 5))
    assert logits_fn(x).tolist() == [[40.0] * 3] * 2
    assert features_fn(x).tolist() == [[5.0] * 8] * 2
    with pytest.raises(ValueError, match="a linear layer of 5 inputs gets 6: the images have"):
        logits_fn(jnp.ones((2, 6)))
