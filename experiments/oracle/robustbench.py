"""Which networks of RobustBench's CIFAR tables `models.from_torch` reads.

Command:   nice python experiments/oracle/robustbench.py
Needs:     pip install '.[oracle]' torchvision timm
Hardware:  one CPU core; about three minutes, and 4 GB for the largest network.
Claim:     at least 95 % of the entries for CIFAR-10 and CIFAR-100.
Measured:  experiments/results/robustbench.json.

No weights are fetched. An entry is readable if a network with the tensors of its architecture, by
their names and shapes, is read with the arguments that stand here; `foreign_nets` has the
architectures in our own words, and parity.py shows that the logits agree. The entries are those of
RobustBench 1.1 and of its leaderboards in 2024; those whose file holds one network of an ensemble
are read one at a time.
"""

from __future__ import annotations

import argparse
import gc
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign_nets as nets
import numpy as np
import torch

from robustjax import files, models, report

sys.path.append(str(Path(__file__).parents[1]))
import origins
from origins import RESULTS

ENTRIES = {
    "cifar10 Linf": {
        "preact-18-raw": "Andriushchenko2020Understanding Wong2020Fast",
        "wrn-28-10": "Carmon2019Unlabeled Sehwag2020Hydra Wang2020Improving Hendrycks2019Using "
        "Wu2020Adversarial_extra Zhang2020Geometry Sridhar2021Robust Standard",
        "wrn-34-20": "Rice2020Overfitting Cui2020Learnable_34_20 Chen2021LTD_WRN34_20 "
        "Chen2024Data_WRN_34_20",
        "wrn-34-10": "Zhang2019Theoretically Huang2020Self Zhang2019You Zhang2020Attacks "
        "Wu2020Adversarial Sehwag2021Proxy Sitawarin2020Improving Chen2020Efficient "
        "Cui2020Learnable_34_10 Addepalli2021Towards_WRN34 Chen2021LTD_WRN34_10 "
        "Jia2022LAS-AT_34_10 Addepalli2022Efficient_WRN_34_10",
        "wrn-34-15": "Sridhar2021Robust_34_15",
        "wrn-70-16": "Jia2022LAS-AT_70_16",
        "wrn-28-4": "Ding2020MMA",
        "boosted-34-20": "Pang2020Boosting",
        "resnet-50": "Engstrom2019Robustness",
        "chen-50": "Chen2020Adversarial",
        "resnet-18": "Sehwag2021Proxy_R18 Addepalli2021Towards_RN18 Addepalli2022Efficient_RN18",
        "dm-70-16": "Gowal2020Uncovering_70_16 Gowal2020Uncovering_70_16_extra "
        "Rebuffi2021Fixing_70_16_cutmix_ddpm Rebuffi2021Fixing_70_16_cutmix_extra "
        "Gowal2021Improving_70_16_ddpm_100m Pang2022Robustness_WRN70_16 Wang2023Better_WRN-70-16",
        "dm-34-20": "Gowal2020Uncovering_34_20",
        "dm-34-10": "Rade2021Helper_extra",
        "dm-28-10": "Gowal2020Uncovering_28_10_extra Rebuffi2021Fixing_28_10_cutmix_ddpm "
        "Rade2021Helper_ddpm Gowal2021Improving_28_10_ddpm_100m Pang2022Robustness_WRN28_10 "
        "Wang2023Better_WRN-28-10 Xu2023Exploring_WRN-28-10 Cui2023Decoupled_WRN-28-10",
        "dm-106-16": "Rebuffi2021Fixing_106_16_cutmix_ddpm",
        "dm-94-16": "Bartoldson2024Adversarial_WRN-94-16",
        "dm-82-8": "Bartoldson2024Adversarial_WRN-82-8",
        "dm-preact-18": "Rebuffi2021Fixing_R18_ddpm Rade2021Helper_R18_extra "
        "Rade2021Helper_R18_ddpm Gowal2021Improving_R18_ddpm_100m",
        "robust-wrn": "Huang2021Exploring Huang2021Exploring_ema",
        "wrn-a4": "Huang2022Revisiting_WRN-A4",
        "xcit-s": "Debenedetti2022Light_XCiT-S12",
        "xcit-m": "Debenedetti2022Light_XCiT-M12",
        "xcit-l": "Debenedetti2022Light_XCiT-L12",
        "ra": "Peng2023Robust",
        "ra-sparse": "Amini2024MeanSparse_Ra_WRN_70_16",
        "dm-sparse-94-16": "Amini2024MeanSparse_S-WRN-94-16",
        "ResNeSt-152": "Sehwag2021Proxy_ResNest152",
        "WRN with a trained activation": "Dai2021Parameterizing",
        "WRN with a neural ODE": "Kang2021Stable",
        "two networks and one that mixes them": "Bai2023Improving_edm Bai2024MixedNUTS",
    },
    "cifar10 L2": {
        "resnet-50": "Augustin2020Adversarial Engstrom2019Robustness",
        "preact-18-activated-bn": "Rice2020Overfitting",
        "wrn-28-10": "Rony2019Decoupling Standard",
        "wrn-28-4": "Ding2020MMA",
        "wrn-34-10": "Wu2020Adversarial Sehwag2021Proxy Augustin2020Adversarial_34_10 "
        "Augustin2020Adversarial_34_10_extra",
        "resnet-18": "Sehwag2021Proxy_R18",
        "dm-70-16": "Gowal2020Uncovering Gowal2020Uncovering_extra "
        "Rebuffi2021Fixing_70_16_cutmix_ddpm Rebuffi2021Fixing_70_16_cutmix_extra "
        "Wang2023Better_WRN-70-16",
        "dm-28-10": "Rebuffi2021Fixing_28_10_cutmix_ddpm Wang2023Better_WRN-28-10",
        "dm-preact-18": "Rebuffi2021Fixing_R18_cutmix_ddpm Rade2021Helper_R18_ddpm",
        "dm-sparse-70-16": "Amini2024MeanSparse_S-WRN-70-16",
    },
    "cifar10 corruptions": {
        "card": "Diffenderfer2021Winning_LRR Diffenderfer2021Winning_LRR_CARD_Deck",
        "card-binary": "Diffenderfer2021Winning_Binary Diffenderfer2021Winning_Binary_CARD_Deck",
        "dm-70-16": "Rebuffi2021Fixing_70_16_cutmix_extra_Linf "
        "Rebuffi2021Fixing_70_16_cutmix_extra_L2",
        "wrn-40-2": "Hendrycks2020AugMix_WRN",
        "resnext-29": "Hendrycks2020AugMix_ResNeXt",
        "preact-18-activated-bn": "Kireev2021Effectiveness_Gauss50percent "
        "Kireev2021Effectiveness_AugMixNoJSD Kireev2021Effectiveness_RLAT "
        "Kireev2021Effectiveness_RLATAugMixNoJSD Kireev2021Effectiveness_RLATAugMix",
        "wrn-28-10": "Standard",
        "wrn-34-10": "Addepalli2021Towards_WRN34 Addepalli2022Efficient_WRN_34_10",
        "resnet-18": "Modas2021PRIMEResNet18",
    },
    "cifar100 Linf": {
        "dm-70-16": "Gowal2020Uncovering Gowal2020Uncovering_extra "
        "Rebuffi2021Fixing_70_16_cutmix_ddpm Pang2022Robustness_WRN70_16 Wang2023Better_WRN-70-16",
        "dm-28-10": "Rebuffi2021Fixing_28_10_cutmix_ddpm Pang2022Robustness_WRN28_10 "
        "Wang2023Better_WRN-28-10 Cui2023Decoupled_WRN-28-10",
        "dm-preact-18": "Rebuffi2021Fixing_R18_ddpm Rade2021Helper_R18_ddpm",
        "dm-sparse-70-16": "Amini2024MeanSparse_S-WRN-70-16",
        "wrn-34-20": "Cui2020Learnable_34_20_LBGAT6 Jia2022LAS-AT_34_20",
        "wrn-34-10": "Cui2020Learnable_34_10_LBGAT0 Cui2020Learnable_34_10_LBGAT6 "
        "Cui2020Learnable_34_10_LBGAT9_eps_8_255 Chen2020Efficient Wu2020Adversarial "
        "Sehwag2021Proxy Sitawarin2020Improving Addepalli2021Towards_WRN34 Chen2021LTD_WRN34_10 "
        "Chen2024Data_WRN_34_10 Jia2022LAS-AT_34_10 Addepalli2022Efficient_WRN_34_10 "
        "Cui2023Decoupled_WRN-34-10 Cui2023Decoupled_WRN-34-10_autoaug",
        "wrn-28-10": "Hendrycks2019Using",
        "preact-18-activated-bn": "Rice2020Overfitting Addepalli2021Towards_PARN18",
        "resnet-18": "Addepalli2022Efficient_RN18",
        "xcit-s": "Debenedetti2022Light_XCiT-S12",
        "xcit-m": "Debenedetti2022Light_XCiT-M12",
        "xcit-l": "Debenedetti2022Light_XCiT-L12",
        "two networks and one that mixes them": "Bai2023Improving_edm Bai2023Improving_trades "
        "Bai2024MixedNUTS",
    },
    "cifar100 corruptions": {
        "card": "Diffenderfer2021Winning_LRR Diffenderfer2021Winning_LRR_CARD_Deck",
        "card-binary": "Diffenderfer2021Winning_Binary Diffenderfer2021Winning_Binary_CARD_Deck",
        "dm-70-16": "Gowal2020Uncovering_Linf Gowal2020Uncovering_extra_Linf",
        "wrn-40-2": "Hendrycks2020AugMix_WRN",
        "resnext-29": "Hendrycks2020AugMix_ResNeXt",
        "preact-18-activated-bn": "Addepalli2021Towards_PARN18",
        "wrn-34-10": "Addepalli2021Towards_WRN34 Addepalli2022Efficient_WRN_34_10",
        "resnet-18": "Modas2021PRIMEResNet18",
    },
}
UNREAD = "ResNeSt-152", "WRN with", "two networks"
"""Beginnings of the names of architectures that no layout reads."""

XCIT = {"s": (384, 8), "m": (512, 8), "l": (768, 16)}
SCALE = {"mean": nets.MEAN, "std": nets.STD}


def wide(depth: int, factor: int) -> torch.nn.Module:
    return nets.Wide(16, factor, (depth - 4) // 6)


def deepmind(depth: int, factor: int, **options: Any) -> torch.nn.Module:
    widths = (16, 16 * factor, 32 * factor, 64 * factor)
    return nets.DMWide(widths, ((depth - 4) // 6,) * 3, 5, **options)


def card() -> torch.nn.Module:
    net = nets.tv.ResNet(nets.tv.resnet.BasicBlock, [2, 2, 2, 2], 5)
    net.conv1 = nets.conv(3, 64)
    return net


def xcit(width: int, heads: int) -> torch.nn.Module:
    return nets.small_xcit(embed_dim=width, num_heads=heads, depth=12, num_classes=5)


FIXED: dict[str, tuple[Callable[[], torch.nn.Module], dict[str, Any]]] = {
    "preact-18-raw": (nets.preact(True), {"shortcut": "raw"}),
    "preact-18-activated-bn": (nets.preact(False, bn=True), {"shortcut": "activated"}),
    "resnet-18": (lambda: nets.Sixfold(nets.PostBlock, 64, nets.COUNTS, bn1=True), {}),
    "resnet-50": (nets.CIFAR["ResNet-50"].make, {}),
    "chen-50": (nets.CIFAR["PreActResNet-50 of Chen et al. (2020)"].make, {}),
    "boosted-34-20": (lambda: nets.Boosted(16, 20, 5), {"head": "cosine"}),
    "dm-preact-18": (nets.CIFAR["DMPreActResNet-18"].make, {}),
    "robust-wrn": (nets.CIFAR["RobustWRN"].make, {}),
    "wrn-a4": (nets.CIFAR["WRN-A4 with ReLU"].make, {"activation": "silu"}),
    "ra": (nets.CIFAR["RaWRN-70-16"].make, SCALE),
    "ra-sparse": (nets.CIFAR["RaWRN-70-16 with MeanSparse"].make, SCALE),
    "resnext-29": (nets.CIFAR["ResNeXt-29 (4x32)"].make, {}),
    "card": (card, {}),
    "card-binary": (nets.CIFAR["CARD's binary network"].make, {}),
} | {f"xcit-{k}": (lambda sizes=sizes: xcit(*sizes), {"patch": 4}) for k, sizes in XCIT.items()}


def architecture(name: str) -> tuple[Callable[[], torch.nn.Module], dict[str, Any]]:
    """The network of a name, and what `from_torch` is told."""
    if name in FIXED:
        return FIXED[name]
    kind, depth, factor = re.fullmatch(r"([a-z-]+)-(\d+)-(\d+)", name).groups()
    sizes = int(depth), int(factor)
    if kind == "wrn":
        return lambda: wide(*sizes), {}
    if kind == "dm":
        return lambda: deepmind(*sizes), {}
    return lambda: deepmind(*sizes, sparse=True, buffers=False), SCALE


def read(name: str) -> dict[str, Any]:
    """Whether it is read, with which arguments, and how many tensors it has."""
    if name.startswith(UNREAD):
        return {"read": False}
    make, options = architecture(name)
    with torch.device("meta"):
        net = make()
    tensors = net.state_dict().items()
    state = {key: np.broadcast_to(np.float32(1), tuple(value.shape)) for key, value in tensors}
    logits_fn, _ = models.from_torch(state, **options)
    del logits_fn
    gc.collect()
    return {"read": True, "arguments": options, "tensors": len(state)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    origins.add_flag(parser)
    options = parser.parse_args()
    origins.check(RESULTS, options.dirty)
    started, found = time.time(), {}
    for name in sorted({name for table in ENTRIES.values() for name in table}):
        found[name] = read(name)
        print(name, found[name], flush=True)
    entries = [
        {"table": table, "name": entry, "architecture": name, "read": found[name]["read"]}
        for table, rows in ENTRIES.items()
        for name, words in rows.items()
        for entry in words.split()
    ]
    count = sum(entry["read"] for entry in entries)
    print(f"{count} of {len(entries)} entries are read")
    files.write_json(
        RESULTS / "robustbench.json",
        {
            **report.provenance(report.command_line(), 0, started),
            "read": count,
            "entries": len(entries),
            "architectures": found,
            "networks": entries,
        },
    )


if __name__ == "__main__":
    main()
