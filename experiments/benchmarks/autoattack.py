"""Standard AutoAttack, Linf: robustjax against pyautoattack 0.2.0, the authors' code, in one run.

Command:   python experiments/benchmarks/autoattack.py RUN --data-dir DIR --n 100
           python experiments/benchmarks/autoattack.py mnist --data-dir DIR --n 200
           python experiments/benchmarks/autoattack.py plain-lax --data-dir DIR --n 1000
           with --out experiments/results/NAME.json to keep it
Needs:     pip install '.[oracle]', and h5py for `mnist`, the network inside the pyautoattack wheel;
           RUN is a run directory of a preact-resnet-18 made by `robustjax train`; plain-lax,
           nn-conv and resnet-8 are networks without our layers (outside_nets.py), which are
           trained into runs/ if they are not there.
Hardware:  two CPU cores; six minutes for mnist, idle ones.
Claim:     on a CPU, at most half of pyautoattack's time at equal robust accuracy.
Measured:  missed: 0.57 of its time on 200 images of mnist, 0.68 on 160 of
           cifar10-pgd-10-width-8; see autoattack_*.json in experiments/results. Half of ours is
           Square's 5,000 forward passes of what has survived, and 99 % of that is the network:
           the target needs convolutions faster than XLA's on a CPU. plain-lax: 0.84 on 1,000
           images; tracing and compiling 14 programs takes about 9 s of its 73, so that the ratio is
           above 1 where 100 images are attacked. nn-conv: 0.84 on 200. resnet-8: 1.05 on 64. A GPU:
           not measured.

Both attack the same images with the same weights, in float32, at the radius that the network was
trained for, on a GPU if PyTorch sees one (there its matrix units round to TF32, for both). Ours is
timed from the first call in a fresh process, so compilation counts, and runs on one device per
core; theirs has as many threads as there are cores and all images in one batch, as is fastest for
it. On a GPU ours is timed once more: new weights or images compile nothing. The machine should be
idle. `--one-core` gives each one thread on one core and counts CPU seconds, which a busy machine
hardly changes.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import harness
import jax
import numpy as np
import outside_nets
import torch
from pgd_step import torch_network
from pyautoattack import AutoAttack as PyAutoAttack

from robustjax import data, evaluation, models, report
from robustjax.attacks import AutoAttack
from robustjax.threats import Linf

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
import nets
import torch_nets

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def bundled():
    """The network in pyautoattack's wheel, twice, the name of its data, eps."""
    return nets.mnist_net(nets.wheel(nets.MNIST)), torch_nets.mnist(), "mnist", 0.3


def trained(run: Path):
    """A run's network: ours, its twin in PyTorch, the name of its data, eps."""
    logits_fn, _, config = models.load(run, dtype="float32")
    variables = models.load_weights(run / "weights.npz")
    twin = torch_network(torch, config["model"]["width"] or 64).eval()
    copy_weights(twin, variables, config["model"])
    eps = config["threat"]["fields"]["eps"]
    return logits_fn, twin, config["data"]["name"], eps


def outside(name: str, data_dir: str | None):
    """A network without our layers, its twin, the name of its data, eps."""
    run, subject = Path("runs") / f"outside-{name}", outside_nets.SUBJECTS[name]
    outside_nets.train(name, data_dir, run)
    logits_fn, _, _ = models.load(run, module=subject.module)
    twin = outside_nets.Twin(name, models.load_weights(run / "weights.npz")).eval()
    return logits_fn, twin, subject.data, subject.eps


def copy_weights(twin, variables, about) -> None:
    """Our PreActResNet-18's weights into `torch_network`'s."""
    params, stats = variables["params"], variables["batch_stats"]["body"]
    state = {"mean": about["mean"], "std": about["std"], "stem.weight": params["stem"]["kernel"]}
    state |= {f"head.{name}": params["head"][ours] for name, ours in LINEAR.items()}
    for name, ours in NORM.items():
        state[f"norm.{name}"] = {**params["body"]["norm"], **stats["norm"]}[ours]
    blocks = [f"stage{s}_block{b}" for s in (1, 2, 3, 4) for b in (1, 2)]
    for i, block in enumerate(blocks):
        for layer, weights in params["body"][block].items():
            if "kernel" in weights:
                state[f"blocks.{i}.{layer}.weight"] = weights["kernel"]
            else:
                for name, ours in NORM.items():
                    both = {**weights, **stats[block][layer]}
                    state[f"blocks.{i}.{layer}.{name}"] = both[ours]
    shapes = {name: value.shape for name, value in twin.state_dict().items()}
    tensors = {name: torch.from_numpy(as_torch(value)) for name, value in state.items()}
    tensors = {name: value.reshape(shapes[name]) for name, value in tensors.items()}
    missing, unexpected = twin.load_state_dict(tensors, strict=False)
    assert not unexpected and all("num_batches" in name for name in missing), (missing, unexpected)


LINEAR = {"weight": "kernel", "bias": "bias"}
NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def as_torch(value) -> np.ndarray:
    """HWIO -> OIHW, (D, K) -> (K, D), the rest as it is."""
    value = np.asarray(value, np.float32)
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim)
    return np.ascontiguousarray(value.transpose(axes) if axes else value)


def theirs(twin, images, labels, eps, seed):
    """pyautoattack's standard evaluation -> (N,) bool, what resists."""
    x = torch.from_numpy(np.moveaxis(images, -1, 1).copy()).to(DEVICE)
    y, twin = torch.from_numpy(labels).long().to(DEVICE), twin.to(DEVICE)
    about = {"norm": "Linf", "eps": eps, "seed": seed, "version": "standard", "device": DEVICE}
    x_adv, _ = PyAutoAttack(twin, **about).run_standard_evaluation(x, y, batch_size=len(x))
    with torch.no_grad():
        return (twin(x_adv).argmax(1) == y).cpu().numpy()


def main():
    parser = harness.parser(__doc__.splitlines()[0])
    parser.add_argument("subject", help="a run directory, mnist, plain-lax, nn-conv or resnet-8")
    parser.add_argument("--data", help="arrays:DIR with the images; None: the network's own set")
    parser.add_argument("--data-dir", help="the folder of prepared TFDS sets")
    parser.add_argument("--n", type=int, default=100, help="the first n test images")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.time()

    clock = harness.start(options)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if options.subject in outside_nets.SUBJECTS:
        logits_fn, twin, name, eps = outside(options.subject, options.data_dir)
    elif options.subject == "mnist":
        logits_fn, twin, name, eps = bundled()
    else:
        logits_fn, twin, name, eps = trained(Path(options.subject))
    test = data.load(options.data or name, "test", options.data_dir).head(options.n)
    images, labels = np.asarray(data.to_float(test.images)), test.labels

    attack, key = {"autoattack": AutoAttack(Linf(eps))}, jax.random.key(options.seed)
    seconds = {}
    for name in ("robustjax", "robustjax, compiled")[: 1 + (DEVICE == "cuda")]:
        started = clock()
        found = evaluation.evaluate(logits_fn, images, labels, attack, key, diagnose=False)
        seconds[name] = clock() - started
    print(report.stage_table(found.stages["autoattack"]), flush=True)
    started = clock()
    resists = theirs(twin, images, labels, eps, options.seed)
    seconds["pyautoattack"] = clock() - started
    robust = dict.fromkeys(seconds, found.robust["autoattack"])
    robust["pyautoattack"] = float(resists.mean())
    ratio = seconds["robustjax"] / seconds["pyautoattack"]
    for contender, value in seconds.items():
        print(f"{contender:20s} {value:8.1f} s   robust {100 * robust[contender]:.1f} %")
    print(f"robustjax / pyautoattack = {ratio:.2f}")

    harness.keep(
        options,
        began,
        options.seed,
        n=len(labels),
        eps=eps,
        clean=found.clean,
        robust=robust,
        agree=float(np.mean(resists == ~found.examples["autoattack"]["fooled"])),
        seconds=seconds,
        ratio=ratio,
        stages=found.stages["autoattack"],
    )


if __name__ == "__main__":
    main()
