"""Plans: compiled programs are read, counted and judged as known programs ask."""

import dataclasses
import importlib
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from jax.experimental import topologies
from tiny import CLASSES, RECIPE, SHAPE, module

from robustjax import attacks, cli, data, models, parallel, training
from robustjax.attacks import PGD, AutoAttack
from robustjax.scale.chips import Chip
from robustjax.scale.evaluation import leaves, stages, steps
from robustjax.scale.flops import count
from robustjax.scale.forecast import forecast
from robustjax.scale.hlo import arrays, instruction, parse
from robustjax.scale.loops import Walk
from robustjax.scale.page import verdict
from robustjax.scale.program import DoesNotFit, Memory, compiled, read, refusal, usable_memory
from robustjax.scale.topology import Slice, slice_of
from robustjax.scale.training import Job
from robustjax.threats import Linf

N = 64
BLANK = data.Dataset(
    np.broadcast_to(np.uint8(0), (N, *SHAPE)),
    np.zeros(N, np.int32),
    np.arange(N),
    "blank",
    "train",
    CLASSES,
)
METHOD = training.PGDAT(PGD(Linf(0.05), steps=3))


def read_jitted(function, *arguments):
    return read(jax.jit(function).lower(*arguments).compile().as_text(), Memory(0, 0, 0))


def test_a_line_of_a_program_is_read():
    line = (
        "  %r.1 = (f32[8]{0:T(128)S(1)}, /*index=1*/bf16[2,3]{1,0}) all-reduce(%a, /*index=1*/%b), "
        'channel_id=1, to_apply=%add.2, metadata={op_name="psum(x)"}'
    )
    found = instruction(line)
    assert (found.name, found.opcode, found.operands) == ("r.1", "all-reduce", ("a", "b"))
    assert [array.bytes for array in found.arrays] == [32, 12]
    assert [array.on_chip for array in found.arrays] == [True, False]
    assert found.called("to_apply") == ["add.2"]


@pytest.mark.parametrize(
    ("text", "bytes_", "padded"),
    [
        ("f32[16,16]{1,0:T(8,128)}", 1024, 16 * 128 * 4),
        ("f32[16,16]{0,1:T(8,128)}", 1024, 16 * 128 * 4),
        ("bf16[4,32,32,3]{0,3,2,1:T(4,128)(2,1)}", 24576, 32 * 32 * 4 * 128 * 2),
        ("f32[]{:T(128)}", 4, 512),
        ("f32[5,7]{1,0}", 140, 140),
        ("pred[3]", 3, 3),
    ],
)
def test_a_layout_says_what_padding_costs(text, bytes_, padded):
    (array,) = arrays(text)
    assert (array.bytes, array.padded) == (bytes_, padded)


LOOP = """HloModule m
%body (p: (s32[], f32[4], s32[])) -> (s32[], f32[4], s32[]) {
  %one = s32[]{:T(128)} constant(1)
  %p = (s32[], f32[4], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %next = s32[] add(%i, %one)
  %x = f32[4] get-tuple-element(%p), index=1
  %y = f32[4] sine(%x)
  %n = s32[] get-tuple-element(%p), index=2
  ROOT %t = (s32[], f32[4], s32[]) tuple(%next, %y, %n)
}
%cond (q: (s32[], f32[4], s32[])) -> pred[] {
  %q = (s32[], f32[4], s32[]) parameter(0)
  %i.1 = s32[] get-tuple-element(%q), index=0
  %n.1 = s32[] get-tuple-element(%q), index=2
  ROOT %lt = pred[] compare(%i.1, %n.1), direction=LT
}
%most (a: s32[]) -> s32[] {
  %a = s32[] parameter(0)
  %ten = s32[] constant(10)
  ROOT %min = s32[] minimum(%a, %ten)
}
ENTRY %main (n.2: s32[], x.2: f32[4]) -> f32[4] {
  %n.2 = s32[] parameter(0), metadata={op_name="flat_args[3]"}
  %x.2 = f32[4] parameter(1), metadata={op_name="flat_args[1]"}
  %two = s32[] constant(2)
  %bound = s32[] fusion(%n.2), kind=kLoop, calls=%most
  %start = (s32[], f32[4], s32[]) tuple(%two, %x.2, %bound)
  %loop = (s32[], f32[4], s32[]) while(%start), condition=%cond, body=%body
  ROOT %out = f32[4] get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(("steps", "times"), [(7, 5), (40, 8), (1, 0), (None, 1)])
def test_the_bound_of_a_loop_is_followed_to_the_arguments(steps, times):
    walk = Walk(parse(LOOP), {"flat_args[3]": steps} if steps else {})
    found = {run.instruction.opcode: run.times for run in walk.runs()}
    assert found["sine"] == times
    assert walk.unknown == ([] if steps else ["loop"])


def test_loops_multiply():
    def inner(x):
        return lax.scan(lambda x, _: (jnp.sin(x @ x), None), x, length=5)[0]

    found = read_jitted(lambda x: lax.fori_loop(0, 3, lambda _, x: inner(x), x), jnp.eye(8))
    assert found.counts.get("sine", 0) + found.counts.get("fused sine", 0) == 15
    assert found.unknown == ()


def test_arguments_that_nothing_reads_do_not_shift_the_others():
    def run(*args):
        return lax.fori_loop(0, args[2], lambda _, x: jnp.sin(x) + x[::-1], args[0])

    found = compiled(jax.jit(run), (jnp.ones(1000), 3, 7))
    assert found.unknown == () and 7 in (found.counts.get("sine"), found.counts.get("fused sine"))


def test_a_loop_until_the_data_say_so_counts_once_and_is_named():
    found = read_jitted(
        lambda x: lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x + 1, x), jnp.eye(8)
    )
    assert len(found.unknown) == 1


def test_collectives_are_counted_with_their_bytes():
    def step(w, x):
        def one(w, _):
            return w - lax.pmean((x.T @ (x @ w)), parallel.AXIS), None

        return lax.scan(one, w, length=3)[0]

    run = parallel.data_parallel(step, (None, 0), None)
    found = compiled(run, (jnp.ones((6, 5)), jnp.ones((jax.device_count(), 8, 6))))
    (reduced,) = found.collectives
    assert (reduced.opcode, reduced.bytes, reduced.times) == ("all-reduce", 6 * 5 * 4, 3)
    assert found.exchanged == 360


def test_a_fusion_that_reads_rows_of_a_table_moves_no_more_than_these():
    found = read_jitted(lambda t, i: t[i] * 2, jnp.ones((1000, 50)), jnp.arange(3))
    assert 2 * 3 * 50 * 4 <= found.traffic < 3 * 3 * 50 * 4


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_flops_of_convolutions_are_those_that_xla_counts(stride):
    def plain(x, w):
        padding = ((1, 1), (1, 1))
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=numbers)

    def ours(x, w):
        return models.conv2d(x, w, stride)

    shapes = jnp.ones((2, 9, 9, 3)), jnp.ones((3, 3, 3, 5))

    def pull(function):  # without a sum, whose additions XLA counts
        return lambda x, w: jax.vjp(function, x, w)[1](jnp.ones(function(x, w).shape))

    want = jax.jit(pull(plain)).lower(*shapes).compile().cost_analysis()["flops"]
    for function in (plain, ours):
        assert count(jax.make_jaxpr(pull(function))(*shapes)).count == want


def test_flops_multiply_loops_and_leave_out_what_nobody_reads():
    def f(a, b):
        dead = b @ b

        def one(a, _):
            return lax.cond(a[0, 0] > 0, lambda a: a @ b, lambda a: a, a), dead.sum()

        return lax.scan(one, a, length=7)[0]

    found = count(jax.make_jaxpr(f)(jnp.ones((2, 3)), jnp.ones((3, 3))))
    assert found == (7 * 2 * 2 * 3 * 3, 0)


def test_flops_of_a_loop_until_the_data_say_so_count_once():
    def f(a):
        return lax.while_loop(lambda a: a[0, 0] < 9, lambda a: a @ a, a)

    assert count(jax.make_jaxpr(f)(jnp.ones((3, 3)))) == (54, 1)


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (47.68G) exceeds available HBM (15.75G). HLO module: f.",
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 47.68G of 15.75G hbm.",
    ],
)
def test_a_refusal_says_by_how_much(message):
    found = refusal(message)
    assert isinstance(found, DoesNotFit)
    assert (found.needed, found.available) == (47.68 * 2**30, 15.75 * 2**30)
    assert refusal(message.replace("RESOURCE_EXHAUSTED", "INTERNAL")) is None


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES, use_bias=False)(x.reshape(len(x), -1))


class Wide(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(256, use_bias=False)(x.reshape(len(x), -1))
        return nn.Dense(CLASSES, use_bias=False)(nn.relu(x))


def test_flops_of_a_step_on_a_linear_model():
    """Each attack step is a forward and an input's gradient; then both once more, of weights."""
    job = Job(METHOD, RECIPE, Linear(), BLANK, slice_of(None))
    forward = 2 * job.per_device * np.prod(SHAPE) * CLASSES
    assert job.flops() == ((2 * 3 + 2) * forward, 0)


@pytest.fixture(scope="module")
def planned():
    """A plan of the tiny network for four toy chips, too small for it."""
    toy = Chip("toy", (), memory=5e4, flops=1e12, bandwidth=1e11, link=1e10)
    where = Slice("toys", tuple(jax.devices()), toy, 4)
    job = Job(METHOD, RECIPE, module(METHOD), BLANK, where)
    return job, forecast(job, {}, 100, alternatives=True)


def test_a_step_that_does_not_fit_says_what_would_help(planned):
    _, found = planned
    assert found.needed == found.program.memory.total > 5e4 and not found.fits
    text = verdict(found)
    assert text.startswith("it does not fit") and "GiB too much" in text
    assert 0 < found.largest_batch < RECIPE.batch_size
    assert f"--batch-size {found.largest_batch // 4 * 4}" in text
    accumulate = next(c for c in found.choices if c.name.startswith("accumulate"))
    assert accumulate.bytes < found.needed


def test_seconds_are_those_of_the_slowest_part(planned):
    _, found = planned
    step = found.step
    assert step.compute == found.flops / 1e12
    assert step.memory == found.program.traffic / 1e11
    assert step.links == pytest.approx(1.5 * found.program.exchanged / 1e10)
    assert step.seconds == max(step)
    assert found.to_json()["seconds_per_step_at_best"] == step._asdict()


def test_a_plan_holds_the_examples_where_train_would_and_counts_one_step():
    """64 images of 128 bytes with labels of 4, on four devices; 8 a step and device."""
    found = {}
    for memory, residence in ((5e4, "replicated"), (2e4, "sharded"), (5e3, "streamed")):
        toy = Chip("toy", (), memory, flops=1e12, bandwidth=1e11, link=1e10)
        job = Job(METHOD, RECIPE, Linear(), BLANK, Slice("toys", tuple(jax.devices()), toy, 4))
        assert job.residence == residence
        found[residence] = program = job.compile()
        assert program.unknown == ()
        gradients = [c for c in program.collectives if c.bytes >= 4 * np.prod(SHAPE) * CLASSES]
        assert sum(c.times for c in gradients) == 1
        assert program.counts["all-reduce"] == found["replicated"].counts["all-reduce"]
    held = {name: program.memory.arguments for name, program in found.items()}
    rest = 2 * 8 * 4  # the rows of the two steps of an epoch
    more = {"replicated": N * (128 + 4) + rest, "sharded": N // 4 * (128 + 4) + rest}
    for residence, size in more.items():  # to within a few scalars
        grown = held[residence] - held["streamed"]
        assert grown == pytest.approx(size - 8 * (128 + 4 + 4), abs=16)


def test_one_all_reduce_carries_all_gradients(planned):
    _, found = planned
    gradients = [c for c in found.program.collectives if c.bytes >= 4 * found.parameters]
    assert sum(c.times for c in gradients) == 1


def test_a_state_in_parts_takes_less_and_is_gathered():
    """Of weights, their momentum and average each of four devices keeps a quarter."""
    toy = Chip("toy", (), 1e9, flops=1e12, bandwidth=1e11, link=1e10)
    where = Slice("toys", tuple(jax.devices()), toy, 4)
    job = Job(training.Natural(), RECIPE, Wide(), BLANK, where)
    found = forecast(job, {}, 100, alternatives=True)
    (choice,) = (c for c in found.choices if c.name == "shard-state")
    parts = dataclasses.replace(job, shard_state=True).compile()
    assert choice.bytes == parts.memory.total and parts.unknown == ()
    assert found.program is not None
    less = found.program.memory.arguments - parts.memory.arguments
    assert less == pytest.approx(3 * (128 * 256 + 256 * CLASSES) * 4 * 3 / 4, rel=0.01)
    assert {c.opcode for c in parts.collectives} > {"all-reduce"}
    assert parts.counts.keys() & {"all-gather", "all-gather-start"}


def test_an_attack_takes_its_steps_where_an_image_resists():
    assert steps(PGD(steps=7), SHAPE, CLASSES) == 7
    assert steps(attacks.Square(queries=20), SHAPE, CLASSES) == 20
    names = [type(stage).__name__ for stage in leaves(AutoAttack(), CLASSES)]
    assert names == ["APGD"] * 4 + ["FAB"] * 3 + ["Square"]


def test_an_evaluation_takes_the_largest_tile_that_fits(monkeypatch, planned):
    job, _ = planned
    asked = []

    def stages(*_, tile):
        asked.append(tile)
        if tile > 64:
            raise DoesNotFit(2.0, 1.0)
        return []

    module = importlib.import_module("robustjax.scale.forecast")
    monkeypatch.setattr(module, "stages", stages)
    monkeypatch.setattr(module, "_compile", lambda job: (None, 9.0))
    found = forecast(job, {"pgd": PGD()}, 100, alternatives=False)
    assert asked == [256, 128, 64] and found.stages == {"pgd": []}


def test_the_command_plans_what_train_would_run(capsys, tmp_path):
    words = ["pgd-at", "--model", "cnn", "--width", "1", "--batch-size", "16", "--quick"]
    words += ["--attack.steps", "2", "--attacks", "fgsm", "--n", "10"]
    cli.main(["plan", *words, "--json", str(tmp_path / "plan.json")])
    page = capsys.readouterr().out
    found = json.loads((tmp_path / "plan.json").read_text())
    assert "PGDAT, cnn" in page and "fgsm on 10 images" in page
    assert "the training set, on every device" in page
    assert found["batch_size"] == 16 and found["steps_per_epoch"] == 80
    assert found["evaluation"]["fgsm"][0]["steps"] == 1


def test_topologies_are_refused_in_words(monkeypatch):
    with pytest.raises(ValueError, match="no topology is named 'pod'"):
        slice_of("pod")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'robustjax\[tpu\]'"):
        slice_of("v5e:2x2")

    def locked(**_):
        raise jax.errors.JaxRuntimeError("ABORTED: Internal error: libtpu multi-process lockfile")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(topologies, "get_topology_desc", locked)
    with pytest.raises(OSError, match="one at a time"):
        slice_of("v5e:2x2")


@pytest.mark.tpu_compiler
@pytest.mark.parametrize("topology", ["v5e:2x2", "v6e:2x2"])
def test_steps_compile_for_tpus_and_one_all_reduce_carries_all_gradients(topology):
    where = slice_of(topology)
    job = Job(METHOD, RECIPE, module(METHOD), BLANK, where)
    program = job.compile()
    assert program.unknown == ()
    state = job.state()
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params))
    assert sum(c.times for c in program.collectives if c.bytes >= size) == 1
    # Of each batch normalisation one forward (of mean and mean of squares) and one backward; a flag
    others = sorted(c.bytes for c in program.collectives if c.bytes < size for _ in range(c.times))
    assert others == [4, *[2 * 4 * 4] * 2, *[2 * 6 * 4] * 2]


@pytest.mark.tpu_compiler
def test_a_tpu_keeps_no_second_copy_of_the_training_set():
    images = np.broadcast_to(np.uint8(0), (50_000, 32, 32, 3))
    many = data.Dataset(
        images, np.zeros(len(images), np.int32), np.arange(len(images)), "blank", "train", CLASSES
    )
    job = Job(training.Natural(), RECIPE, Linear(), many, slice_of("v5e:2x2"))
    program = job.compile()
    assert job.residence == "replicated" and program.memory.total < 1.1 * images.nbytes


@pytest.mark.tpu_compiler
def test_a_network_that_cannot_fit_is_refused():
    where = slice_of("v5e:2x2")
    have = usable_memory(where.devices, where.chip)
    assert 15 * 2**30 < have < 16 * 2**30
    wide = {"name": "cnn", "width": 12_000}  # 29 GB of weights
    job = Job(training.Natural(), RECIPE, wide, BLANK, where)
    with pytest.raises(DoesNotFit) as refused:
        job.compile()
    assert refused.value.available == have < refused.value.needed


@pytest.mark.tpu_compiler
def test_attacks_compile_for_tpus():
    where = slice_of("v5p:2x2x1")
    variables = jax.eval_shape(lambda: models.init(module(), jax.random.key(0), SHAPE))
    (found,) = stages(PGD(steps=5), module(), variables, SHAPE, CLASSES, where.devices, tile=8)
    assert found.steps == 5 and found.program.collectives == ()
