"""`from_onnx` against PyTorch: networks of torchvision, as both exporters write them.

Command:   nice python experiments/oracle/onnx_exports.py
Needs:     pip install '.[oracle,onnx]' onnxscript torchvision
Hardware:  two CPU cores; about two minutes on idle ones.
Claim:     the logits of the exported file are those of the network, whichever exporter wrote it.
Measured:  four networks and 4 exports of each: the largest difference relative to the largest logit
           is below 1e-6 (parity_onnx.json in experiments/results).

The weights are random, and the running statistics of batch normalisation are drawn, too.
Both exporters, each with a batch axis of any size and for a batch of one; all files run on three
images.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import torchvision.models as tv

from robustjax import files, models, parallel, report

sys.path.append(str(Path(__file__).parents[1]))
import origins
from origins import RESULTS

NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "resnet18": lambda: tv.resnet18(num_classes=10),
    "mobilenet_v2": lambda: tv.mobilenet_v2(num_classes=10),
    "vit, depth 2": lambda: tv.VisionTransformer(64, 16, 2, 3, 48, 96, num_classes=10),
    "swin, depth 4": lambda: tv.SwinTransformer([4, 4], 24, [2, 2], [2, 2], [4, 4], num_classes=10),
}
SIDE = 64


def drawn(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """The network in evaluation mode; nothing of it is zero or one as it was born."""
    torch.manual_seed(0)
    net = make()
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if tensor.is_floating_point() and (tensor == tensor.flatten()[0]).all():
            positive = not name.endswith(("bias", "mean"))
            tensor.data.uniform_(*((0.5, 1.5) if positive else (-0.1, 0.1)))
        if name in ("heads.head.weight", "head.weight"):
            torch.nn.init.normal_(tensor.data)
    return net.eval().requires_grad_(False)


EXPORTS: dict[str, dict[str, Any]] = {
    "TorchScript, any batch": {
        "dynamo": False,
        "opset_version": 14,
        "input_names": ["images"],
        "dynamic_axes": {"images": {0: "batch"}},
    },
    "TorchScript, one image": {"dynamo": False, "opset_version": 17},
    "dynamo, any batch": {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},)},
    "dynamo, one image": {"dynamo": True, "opset_version": 23},
}


def difference(net: torch.nn.Module, how: dict[str, Any], images: np.ndarray) -> dict[str, Any]:
    """The largest difference of logits, relative to the largest logit, for one export."""
    x = torch.from_numpy(np.moveaxis(images, -1, 1).copy())
    wanted = net(x).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/net.onnx"
        given = x[:1] if "dynamic_axes" not in how and "dynamic_shapes" not in how else x
        try:
            torch.onnx.export(net, (given,), path, verbose=False, **how)
        except Exception as error:  # the exporter's own limits
            return {"not_exported": type(error).__name__}
        logits_fn = models.from_onnx(path)
    found = jax.jit(lambda f, x: f(x))(logits_fn, images)
    return {"difference": float(np.abs(found - wanted).max() / np.abs(wanted).max())}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    origins.add_flag(parser)
    options = parser.parse_args()
    origins.check(RESULTS, options.dirty)
    started = time.time()
    warnings.simplefilter("ignore")  # the exporters warn of themselves
    parallel.use_all_cores()
    images = np.random.default_rng(0).uniform(size=(3, SIDE, SIDE, 3)).astype(np.float32)
    found: dict[str, Any] = {}
    for name, make in NETWORKS.items():
        net = drawn(make)
        found[name] = {kind: difference(net, how, images) for kind, how in EXPORTS.items()}
        print(name, found[name], flush=True)
    files.write_json(
        RESULTS / "parity_onnx.json",
        {
            **report.provenance(report.command_line(), 0, started),
            "peers": {
                package: importlib.metadata.version(package)
                for package in ("onnx", "onnxscript", "torch", "torchvision")
            },
            "images": list(images.shape),
            "logits": found,
        },
    )


if __name__ == "__main__":
    main()
