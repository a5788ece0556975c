"""PGD-10 (Linf, eps 8/255, step 2/255, eval-mode BN) on PreActResNet-18, 128 images of 32x32x3.

Command:   python experiments/benchmarks/pgd_step.py --out experiments/results/pgd_step_cpu.json
Needs:     the package; with PyTorch and torchattacks installed it compares, without it says so.
Hardware:  two idle CPU cores, or a GPU; some minutes.
Claim:     on a CPU, robustjax / best PyTorch <= 1.1 at width 16; on a GPU, the attack of one
           example, vmapped, is as fast as one written for the batch.
Measured:  see the .json in experiments/results; every number in it is the best of `repeats` rounds.

robustjax: `attacks.PGD` for one example, vmapped, over one CPU device per core (or all GPUs).
best PyTorch: a bare loop, channels_last, `requires_grad_(False)` on the parameters, as many
threads as there are cores. torchattacks: `torchattacks.PGD` on the same network as it comes.

All contenders run in one process, in turn; PyTorch's threads spin for a while after work, hence
the pause between turns. Wall time needs an idle machine: PyTorch's threads wait for each other at
every operator, so whatever else runs hurts it more. `--one-core` gives every contender one thread
on one core and counts CPU seconds, which a busy machine hardly changes.
"""

from __future__ import annotations

import importlib.util
import os
import time

import harness
import jax
import jax.numpy as jnp
import numpy as np

from robustjax import models, parallel
from robustjax.attacks import PGD
from robustjax.threats import Linf

STEPS, EPS, STEP_SIZE = 10, 8 / 255, 2 / 255
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
TORCH = "2.13.0"  # the release compared with, as the extra `oracle` pins it
PEAK_FLOPS = {  # dense, of the matrix units, by what the device calls itself; float32 runs as TF32
    "H100": {"bfloat16": 989e12, "float32": 495e12},
    "H200": {"bfloat16": 989e12, "float32": 495e12},
    "A100": {"bfloat16": 312e12, "float32": 156e12},
}


def network(width, dtype="float32"):
    model = models.create(
        "preact-resnet-18", num_classes=10, width=width, dtype=dtype, mean=MEAN, std=STD
    )
    return model, models.init(model, jax.random.key(0), (32, 32, 3))


def flops(params, batch):
    """Multiply-adds of the convolutions count two; the input gradient costs another forward."""
    forward = 0
    for path, kernel in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        if kernel.ndim == 4:
            stage = int(name.split("stage")[1][0]) if "stage" in name else 1
            forward += 2 * kernel.size * (32 // 2 ** (stage - 1)) ** 2
    return 2 * forward * STEPS * batch


def example_wise(model, variables, key, x, y):
    """The product's form: the attack of one example, vmapped."""
    logits_fn, _ = models.apply(model, variables)
    attack = PGD(threat=Linf(EPS), steps=STEPS, step_size=STEP_SIZE)

    def one(key, x, y):
        return attack(lambda z: logits_fn(z[None])[0], key, x, y)

    return jax.vmap(one, axis_name="example")(jax.random.split(key, len(y)), x, y)


def batched(model, variables, key, x, y):
    """The same attack written for a whole batch by hand: what vmap must not lose against."""
    logits_fn, _ = models.apply(model, variables)

    def loss(z):
        return -jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(logits_fn(z)), y[:, None], 1))

    def ascend(_, z):
        z = z + STEP_SIZE * jnp.sign(jax.grad(loss)(z))
        return jnp.clip(jnp.clip(z, x - EPS, x + EPS), 0, 1)

    noise = jax.random.uniform(key, x.shape, minval=-EPS, maxval=EPS)
    return jax.lax.fori_loop(0, STEPS, ascend, jnp.clip(x + noise, 0, 1))


def jax_contender(form, width, x, y, dtype="float32"):
    model, variables = network(width, dtype)
    devices = jax.device_count()
    step = parallel.data_parallel(lambda *args: form(model, *args), (None, 0, 0, 0), 0)
    arguments = (
        parallel.place(variables, None),
        jax.random.split(jax.random.key(1), devices),
        *(parallel.place(parallel.split(a, devices), 0) for a in (x, y)),
    )
    return lambda: jax.block_until_ready(step(*arguments))


def torch_contenders(width, x, y):
    import torch  # noqa: PLC0415  (this file runs without it)
    import torchattacks  # noqa: PLC0415

    if torch.__version__.split("+")[0] != TORCH:  # torchvision likes to bring another one
        raise SystemExit(f"compare with torch {TORCH}, not {torch.__version__}: install that one")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(y)
    packed = images.to(memory_format=torch.channels_last)
    net = torch_network(torch, width).eval()
    fast = torch_network(torch, width).eval().requires_grad_(False)
    fast = fast.to(memory_format=torch.channels_last)

    def bare_loop():
        z = (packed + torch.empty_like(packed).uniform_(-EPS, EPS)).clamp_(0, 1)
        for _ in range(STEPS):
            z.requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(fast(z), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, z)
            z = z.detach() + STEP_SIZE * gradient.sign()
            z = torch.clamp(torch.min(torch.max(z, packed - EPS), packed + EPS), 0, 1)
        return z

    attack = torchattacks.PGD(net, eps=EPS, alpha=STEP_SIZE, steps=STEPS)
    return {"best PyTorch": bare_loop, "torchattacks": lambda: attack(images, labels)}


def torch_network(torch, width):
    nn, relu = torch.nn, torch.nn.functional.relu

    class Block(nn.Module):
        def __init__(self, c, d, stride):
            super().__init__()
            self.norm1, self.norm2 = nn.BatchNorm2d(c), nn.BatchNorm2d(d)
            self.conv1 = nn.Conv2d(c, d, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(d, d, 3, 1, 1, bias=False)
            self.shortcut = nn.Conv2d(c, d, 1, stride, bias=False) if c != d else None

        def forward(self, x):
            h = relu(self.norm1(x))
            x = x if self.shortcut is None else self.shortcut(h)
            return x + self.conv2(relu(self.norm2(self.conv1(h))))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            widths = (width, *(w * width for w in (1, 1, 2, 2, 4, 4, 8, 8)))
            strides = (1, 1, 2, 1, 2, 1, 2, 1)
            self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
            self.blocks = nn.Sequential(*map(Block, widths, widths[1:], strides))
            self.norm, self.head = nn.BatchNorm2d(widths[-1]), nn.Linear(widths[-1], 10)
            self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

        def forward(self, x):
            h = self.blocks(self.stem((x - self.mean) / self.std))
            return self.head(relu(self.norm(h)).mean((2, 3)))

    return Network()


def main():
    parser = harness.parser(__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    began = time.time()

    clock = harness.start(options)
    device = jax.devices()[0].device_kind
    on_cpu = jax.default_backend() == "cpu"
    with_torch = on_cpu and all(map(importlib.util.find_spec, ("torch", "torchattacks")))
    if not with_torch:
        print("PyTorch is not compared: it and torchattacks are needed, and the CPU backend.")
    rng = np.random.default_rng(0)
    x = rng.random((options.batch, 32, 32, 3), np.float32)
    y = rng.integers(0, 10, options.batch)
    results = []
    for width in options.widths:
        print(f"width {width}, batch {options.batch}, {jax.device_count()} x {device}")
        contenders = {"robustjax": jax_contender(example_wise, width, x, y)}
        if with_torch:
            contenders |= torch_contenders(width, x, y)
        if not on_cpu:
            contenders["robustjax, batched"] = jax_contender(batched, width, x, y)
            for name, form in (("", example_wise), (", batched", batched)):
                run = jax_contender(form, width, x, y, "bfloat16")
                contenders[f"robustjax, bfloat16{name}"] = run
        rounds = harness.race(contenders, options.repeats, clock)
        work = flops(network(width)[1]["params"], options.batch)
        result = {"width": width, "flops": work, "seconds": rounds}
        peak = next((p for name, p in PEAK_FLOPS.items() if name in device), None)
        for name, seconds in rounds.items():
            rate = work / min(seconds)
            result.setdefault("flops_per_second", {})[name] = rate
            if peak and name.startswith("robustjax"):
                dtype = "bfloat16" if "bfloat16" in name else "float32"
                mfu = rate / peak[dtype] / jax.device_count()
                result.setdefault("mfu", {})[name] = mfu
                print(f"  {name:28s} {rate / 1e12:.1f} TFLOP/s, {100 * mfu:.1f} % of {dtype} peak")
        if with_torch:
            best = {name: min(seconds) for name, seconds in rounds.items()}
            ratio = best["robustjax"] / min(best["best PyTorch"], best["torchattacks"])
            result["ratio"] = ratio
            print(f"  robustjax / best PyTorch = {ratio:.2f}")
        results.append(result)

    harness.keep(options, began, batch=options.batch, results=results)


if __name__ == "__main__":
    main()
