"""Node classification by a graph convolutional network: which edges to flip.

Command:   python experiments/domains/graphs.py
Hardware:  one core, a minute.
Claim:     flips that PGD on the relaxed adjacency finds cost far more accuracy than random ones do.
Measured:  results/domains/graphs.json and .png.
Source:    Xu et al., "Topology attack and defense for graph neural networks", IJCAI 2019; the loss
           is the tanh of the margin of Geisler et al., NeurIPS 2021. Graphs: Zachary's karate club
           and stochastic block models of networkx. Training is over before the attack.
"""

from functools import partial
from pathlib import Path

import flax.linen as nn
import frame
import jax
import jax.numpy as jnp
import networkx
import numpy as np

from robustjax import losses
from robustjax.attacks import PGD, perturb
from robustjax.config import config
from robustjax.threats import L1

BLOCKS, WITHIN, BETWEEN, LABELLED = (40, 40, 40), 0.15, 0.02, 3
STEPS, ASCENT, DRAWS = 200, 100, 50
KINDS = ("karate club", "block model")
COLORS = {"random, mean": frame.RANDOM, "random, best": frame.BEST, "PGD, best": frame.ATTACK}
SHARES = (0, 0.02, 0.05, 0.1, 0.15)  # of the edges


@config
class EdgeFlips(L1):
    """At most eps edges appear or vanish; (n, n) is (n, 1, n) here, like a signal (T, C)."""

    def norm(self, d):
        return super().norm(d) / 2

    def project(self, x_adv, x):
        change = x_adv - x
        return L1(2 * self.eps, self.bounds, self.mask).project(x + (change + change.T) / 2, x)

    def step(self, x_adv, gradient, size, x):
        return self.project(x_adv + size * gradient / (jnp.abs(gradient).max() + 1e-12), x)


class GCN(nn.Module):
    classes: int  # two layers, Kipf & Welling (2017); nodes have no features but their number

    @nn.compact
    def __call__(self, adjacency):
        loops = adjacency + jnp.eye(adjacency.shape[-1])[None]
        root = loops.sum(-1) ** -0.5
        mean = root[:, :, None] * loops * root[:, None, :]
        return mean @ nn.Dense(self.classes)(nn.relu(nn.Dense(16)(mean)))


def graph_of(kind, seed):
    """(adjacency (1, n, n), classes (1, n), which nodes have labels (n,))."""
    if kind == "karate club":
        graph = networkx.karate_club_graph()
        classes = np.array([graph.nodes[i]["club"] != "Mr. Hi" for i in graph], int)
    else:
        chance = WITHIN * np.eye(len(BLOCKS)) + BETWEEN * (1 - np.eye(len(BLOCKS)))
        graph = networkx.stochastic_block_model(BLOCKS, chance, seed=seed)
        classes = np.repeat(range(len(BLOCKS)), BLOCKS)
    order = np.random.default_rng(seed).permutation(len(classes))
    first = [order[classes[order] == k][:LABELLED] for k in range(classes.max() + 1)]
    adjacency = networkx.to_numpy_array(graph, weight=None, dtype=np.float32)
    return adjacency[None], classes[None], np.isin(np.arange(len(order)), first)


def flipped(adjacency, weights, count, rng):
    """Graphs (DRAWS, n, n) with `count` flips: the heaviest, then random ones by weight."""
    upper = np.triu_indices(adjacency.shape[-1], 1)
    weight, graphs = np.log(weights[upper] + 1e-9), np.repeat(adjacency, DRAWS, 0)
    for i, graph in enumerate(graphs):  # Gumbel noise: drawn by weight without replacement
        chosen = (weight + (i > 0) * rng.gumbel(size=weight.size)).argsort()[len(weight) - count :]
        pairs = upper[0][chosen], upper[1][chosen]
        graph[pairs] = graph[pairs[::-1]] = 1 - graph[pairs]
    return graphs


def measured(kind, seed):
    adjacency, classes, labelled = graph_of(kind, seed)
    rng, key, test = np.random.default_rng(seed), jax.random.key(seed), ~labelled

    def over(part, loss):
        nodes = np.flatnonzero(part)
        return lambda logits, y: jax.vmap(loss)(logits[nodes], y[nodes]).mean()

    net, fit = GCN(classes.max() + 1), over(labelled, losses.cross_entropy)
    model = frame.trained(net, key, adjacency, classes, STEPS, batch=1, rate=0.02, loss=fit)
    near = over(test, lambda logits, y: jnp.tanh(losses.margin(logits, y)))
    found, edges = [], adjacency.sum() / 2
    for flips in [round(share * edges) for share in SHARES]:
        threat = EdgeFlips(flips, mask=1 - np.eye(len(test)))
        attack = PGD(threat, ASCENT, step_size=0.1, loss=near)
        relaxed = perturb(attack, model, key, adjacency, classes, success=lambda out, y: False)
        rights = []
        for weights in (np.abs(relaxed - adjacency), np.ones_like(relaxed)):
            graphs = flipped(adjacency, weights[0], flips, rng)
            rights.append((np.asarray(model(graphs)).argmax(-1) == classes)[:, test].mean(1))
        found.append((rights[1].mean(), rights[1].min(), rights[0].min()))
    return dict(zip(COLORS, np.transpose(found), strict=True))


def main() -> dict:
    found = {kind: frame.over_seeds(partial(measured, kind)) for kind in KINDS}
    return {"shares_of_edges": SHARES, "accuracy": found}


def draw(results: dict, png: Path) -> None:
    found = results["numbers"]["accuracy"]
    lines = {name: (f"{name} of {DRAWS}", color) for name, color in COLORS.items()}
    label, percent = "flips, % of the edges", [100 * share for share in SHARES]
    panels = [frame.Panel(kind, label, percent, found[kind], lines) for kind in KINDS]
    frame.curves(png, "accuracy on unlabelled nodes", panels)


if __name__ == "__main__":
    frame.run(__file__, __doc__, main, draw, "networkx")
