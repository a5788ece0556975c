"""Seven training methods in plain PyTorch, written from their formulas: one step of each.

Madry et al. 2018 (PGD-AT), Zhang et al. 2019 (TRADES), Wang et al. 2020 (MART), Wu et al. 2020
(AWP), Shafahi et al. 2019 (Free), Wong et al. 2020 (Fast AT) and de Jorge et al. 2022 (N-FGSM).

All is float64, so any difference is the other side's float32. Where a gradient is nearly zero,
float32 may err in its sign, and the pixel then moves the other way: such a problem is refused.

BatchNorm's running variance is the one departure from PyTorch, which normalises by the biased
variance of a batch and commits the unbiased one, n / (n - 1) times that. Flax, and so robustjax,
commits the biased one, as TensorFlow does. Attacks in eval mode feel the difference, so it cannot
be divided out afterwards. Which forwards commit, and in which order, is part of the comparison.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

CHANNELS, CLASSES = 1, 4
EPS, ATTACK_STEPS, REPLAYS, BETA = 8 / 255, 3, 3, 6
ALPHA = 2.5 * EPS / ATTACK_STEPS  # 2/255 at the ten steps of the papers
CLEAR = 5e-7  # an example's smallest gradient; float32 errs by 1e-7 where they are small


class BatchNorm(nn.BatchNorm2d):
    """PyTorch's, but it commits the variance that it normalises by."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        with torch.no_grad():
            self.running_mean.lerp_(x.mean((0, 2, 3)), self.momentum)
            self.running_var.lerp_(x.var((0, 2, 3), unbiased=False), self.momentum)
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


def network() -> nn.Module:
    """The network of tests/tiny.py."""
    return nn.Sequential(
        nn.Conv2d(CHANNELS, 4, 3, padding=1, bias=False),
        BatchNorm(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        BatchNorm(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    ).double()


class Batch(NamedTuple):
    """Images (B, C, H, W) in [0, 1], labels (B,), and draws for every pixel.

    `uniform` is in [-1, 1), `normal` has mean 0 and variance 1.
    """

    x: torch.Tensor
    y: torch.Tensor
    uniform: torch.Tensor
    normal: torch.Tensor


def box(x_adv, x):
    return x_adv.clamp(0, 1)


def ball(x_adv, x):
    """The ball around x and the box."""
    return box(x_adv.clamp(x - EPS, x + EPS), x)


def sign(gradient):
    """Of the gradient of a sum over the examples."""
    if gradient.abs().min() < CLEAR:
        raise RuntimeError("a gradient is too near to zero for its sign; choose another seed")
    return gradient.sign()


def ascend(net, objective, x, x_adv, alpha, steps, project=ball):
    """Sign steps of length alpha that increase objective(logits)."""
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(net(x_adv)), x_adv)
        x_adv = project(x_adv + alpha * sign(gradient), x)
    return x_adv.detach()


def cross_entropy(y):
    return lambda logits: F.cross_entropy(logits, y, reduction="sum")


def kl(reference, logits):
    """(B,) KL(p || q), p and q the softmax of the logits (B, K)."""
    p, q = reference.softmax(1), logits.softmax(1)
    return (p * (p.log() - q.log())).sum(1)


def craft_pgd(net, batch, training):
    """From U(-eps, eps). In train mode the forward of every step commits its statistics."""
    net.train(training)
    start = ball(batch.x + EPS * batch.uniform, batch.x)
    return ascend(net, cross_entropy(batch.y), batch.x, start, ALPHA, ATTACK_STEPS)


def near(batch):
    return ball(batch.x + 1e-3 * batch.normal, batch.x)


def craft_trades(net, batch):
    """From N(0, 0.001^2), up KL(p(x) || p(x')), in eval mode."""
    net.eval()
    clean = net(batch.x).detach()
    return ascend(net, lambda z: kl(clean, z).sum(), batch.x, near(batch), ALPHA, ATTACK_STEPS)


def craft_mart(net, batch):
    """From there too, up the cross-entropy, in eval mode."""
    net.eval()
    return ascend(net, cross_entropy(batch.y), batch.x, near(batch), ALPHA, ATTACK_STEPS)


def craft_fast(net, batch):
    """From U(-eps, eps), one step of 1.25 eps, in train mode."""
    net.train()
    start = ball(batch.x + EPS * batch.uniform, batch.x)
    return ascend(net, cross_entropy(batch.y), batch.x, start, 1.25 * EPS, 1)


def craft_n_fgsm(net, batch):
    """From U(-2 eps, 2 eps), one step of eps, never clipped to the ball, in train mode."""
    net.train()
    start = box(batch.x + 2 * EPS * batch.uniform, batch.x)
    return ascend(net, cross_entropy(batch.y), batch.x, start, EPS, 1, project=box)


def loss_at(net, batch, x_adv):
    return F.cross_entropy(net(x_adv), batch.y)


def loss_trades(net, batch, x_adv):
    """CE(x) + beta KL(p(x) || p(x')), nothing detached; x commits first, then x'.

    The authors' code makes a second forward of x, for the KL, and commits that too.
    """
    clean, adversarial = net(batch.x), net(x_adv)
    return F.cross_entropy(clean, batch.y) + BETA * kl(clean, adversarial).mean()


def loss_mart(net, batch, x_adv):
    """CE(x') - log(1 - max_{k != y} p_k(x')) + beta KL(p(x) || p(x')) (1 - p_y(x)), not detached.

    The authors' code adds small constants in the logarithms and the weight.
    """
    clean, adversarial = net(batch.x), net(x_adv)
    label = batch.y[:, None]
    wrong = adversarial.softmax(1).scatter(1, label, 0).amax(1)
    bce = F.cross_entropy(adversarial, batch.y, reduction="none") - (1 - wrong).log()
    doubt = 1 - clean.softmax(1).gather(1, label)[:, 0]
    return (bce + BETA * kl(clean, adversarial) * doubt).mean()


def perturbation(net, loss, gamma, batch, x_adv) -> dict[str, torch.Tensor]:
    """AWP's v: how a copy of the network moves in one step up the loss, made gamma ||w|| long.

    The statistics that the copy commits are lost with it.
    """
    proxy = copy.deepcopy(net)
    up = torch.optim.SGD(proxy.parameters(), lr=0.01)
    up.zero_grad()
    (-loss(proxy, batch, x_adv)).backward()
    up.step()
    moved, v = dict(proxy.named_parameters()), {}
    for name, w in net.named_parameters():
        if w.ndim > 1:  # kernels; neither biases nor BatchNorm
            step = (moved[name] - w).detach()
            v[name] = gamma * w.detach().norm() * step / step.norm()
    return v


@torch.no_grad()
def shift(net, v, factor):
    for name, change in v.items():
        net.get_parameter(name).add_(change, alpha=factor)


def take(net, optimizer, batch, delta, craft, loss, gamma=0.0):
    """One step; with a gamma the gradient, and the decay, are those of the perturbed weights.

    Only Free begins from the `delta` of the step before.
    """
    x_adv = craft(net, batch)
    net.train()
    v = perturbation(net, loss, gamma, batch, x_adv) if gamma else {}
    shift(net, v, 1)
    value = loss(net, batch, x_adv)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    shift(net, v, -1)
    return value, x_adv - batch.x


def take_free(net, optimizer, batch, delta):
    """Replays: one gradient moves the weights and delta, each from where it was.

    The part of another image's delta outside the box is cut off first. (The authors' code cuts only
    what the network sees, and such a pixel has no gradient there.)
    """
    net.train()
    x_adv = box(batch.x + delta, batch.x)
    for _ in range(REPLAYS):
        x_adv = x_adv.detach().requires_grad_()
        value = loss_at(net, batch, x_adv)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        x_adv = ball(x_adv.detach() + EPS * sign(len(x_adv) * x_adv.grad), batch.x)
    return value, x_adv - batch.x


METHODS: dict[str, Callable] = {
    "pgd-at": partial(take, craft=partial(craft_pgd, training=False), loss=loss_at),
    "trades": partial(take, craft=craft_trades, loss=loss_trades),
    "mart": partial(take, craft=craft_mart, loss=loss_mart),
    "fast-at": partial(take, craft=craft_fast, loss=loss_at),
    "n-fgsm": partial(take, craft=craft_n_fgsm, loss=loss_at),
    "free": take_free,
    "awp-pgd-at": partial(take, craft=partial(craft_pgd, training=True), loss=loss_at, gamma=1e-2),
    "awp-trades": partial(take, craft=craft_trades, loss=loss_trades, gamma=5e-3),
}
"""Name -> (network, optimiser, batch, delta of the step before) -> (loss, delta)."""
