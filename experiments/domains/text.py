"""Language identification: which letters to swap, told by PGD on the embeddings.

Command:   python experiments/domains/text.py
Hardware:  one core, a minute.
Claim:     swaps that PGD's direction picks cost more accuracy than the best of as many random ones.
Measured:  results/domains/text.json and .png.
Source:    stop words (training) and sentences (test) in spaCy's wheel. On embeddings: Miyato et
           al., ICLR 2017; swaps by first-order gain: Ebrahimi et al. (HotFlip), ACL 2018.
"""

import ast
import importlib.util
from functools import partial
from pathlib import Path

import flax.linen as nn
import frame
import jax
import jax.numpy as jnp
import numpy as np

from robustjax import losses
from robustjax.attacks import PGD, perturb
from robustjax.threats import L2

LANGUAGES = ("cs", "da", "de", "en", "es", "fi", "fr", "id", "it", "nl", "pl", "tr")
LENGTH, SHUFFLES, STEPS, SWAPS, CANDIDATES = 40, 10, 1000, 6, 16
COLORS = {"random": frame.RANDOM, "random, best": frame.BEST, "PGD, best": frame.ATTACK}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
RADIUS = 1.0  # of the change of a sentence's embeddings, whose direction is what counts


def texts(language, file):
    """The strings of spaCy's examples.py or stop_words.py, which are not imported."""
    package = importlib.util.find_spec("spacy").submodule_search_locations[0]
    tree = ast.parse((Path(package) / "lang" / language / file).read_text("utf-8"))
    nodes = [node for part in tree.body if isinstance(part, ast.Assign) for node in ast.walk(part)]
    return [str(node.value).lower() for node in nodes if isinstance(node, ast.Constant)]


def corpus(rng):
    """Training pieces of stop words, test pieces of sentences: (codes, labels) each."""
    train, test = [], []
    for label, language in enumerate(LANGUAGES):
        words = " ".join(texts(language, "stop_words.py")).split()
        for _ in range(SHUFFLES):
            train += pieces(" ".join(rng.permutation(words)), label)
        test += [p for line in texts(language, "examples.py") for p in pieces(line, label)]
    code = {c: i + 1 for i, c in enumerate(sorted(set(LETTERS).union(*(p for p, _ in train))))}

    def coded(part):
        codes = [[code.get(letter, 0) for letter in piece] for piece, _ in part]
        return np.array(codes), np.array([label for _, label in part])

    return coded(train), coded(test), np.array([code[c] for c in LETTERS]), len(code) + 1


def pieces(line, label):
    starts = range(0, max(len(line) - LENGTH // 2, 1), LENGTH)  # short ones are repeated
    return [(((line + " ") * LENGTH)[i : i + LENGTH], label) for i in starts]


class Net(nn.Module):
    size: int  # of the alphabet; the input is letters or their embeddings

    @nn.compact
    def __call__(self, x):
        table = nn.Embed(self.size, 16, name="letters")
        x = table(x) if jnp.issubdtype(x.dtype, jnp.integer) else x
        x = [nn.relu(nn.Conv(32, (n,), padding="CIRCULAR")(x)) for n in (2, 3, 4)]
        return nn.Dense(len(LANGUAGES))(4 * jnp.concatenate(x, -1).mean(1))


def swapped(model, codes, labels, letters, gain, candidates):
    """Of the swaps with the largest gain (N, T, 26), the one after which the margin is worst."""
    rows, tried = np.arange(len(codes)), codes[:, None].repeat(candidates, 1)
    free = np.isin(codes, letters)[..., None] & (codes[..., None] != letters)
    order = np.where(free, gain, -np.inf).reshape(len(codes), -1).argsort(1)[:, -candidates:]
    place, letter = np.unravel_index(order, gain.shape[1:])
    tried[rows[:, None], range(candidates), place] = letters[letter]
    logits = model(tried.reshape(-1, LENGTH))
    margins = jax.vmap(losses.margin)(logits, labels.repeat(candidates)).reshape(-1, candidates)
    return tried[rows, np.asarray(margins).argmax(1)]


def attacked(model, key, codes, labels, letters, guided, candidates):
    """The accuracy after 0, 1, ..., SWAPS swaps; a sentence that fools the model stays."""
    table = np.asarray(model.args[0]["params"]["letters"]["embedding"])
    found, rng = [], np.random.default_rng(0)
    for _ in range(SWAPS + 1):
        right = np.asarray(model(codes)).argmax(1) == labels
        found.append(right.mean())
        gain = rng.uniform(size=(*codes.shape, len(letters)))
        if guided:
            given, mask = table[codes], np.isin(codes, letters)[..., None]
            attack = PGD(L2(RADIUS, bounds=None, mask=mask), loss=losses.margin)
            change = perturb(attack, model, key, given, labels) - given
            gain = change @ table[letters].T - (change * given).sum(-1, keepdims=True)
        tried = swapped(model, codes, labels, letters, gain, candidates)
        codes = np.where(right[:, None], tried, codes)
    return found


def measured(seed):
    (codes, labels), (test, truth), letters, size = corpus(np.random.default_rng(seed))
    model = frame.trained(Net(size), key := jax.random.key(seed), codes, labels, STEPS)
    tried = partial(attacked, model, key, test, truth, letters)
    return {n: tried("PGD" in n, CANDIDATES if "best" in n else 1) for n in COLORS}


def main() -> dict:
    return {"accuracy_after_swaps": frame.over_seeds(measured)}


def draw(results: dict, png: Path) -> None:
    found = results["numbers"]["accuracy_after_swaps"]
    lines = {n: (n.replace("best", f"best of {CANDIDATES}"), c) for n, c in COLORS.items()}
    shown = "Language of a sentence", f"swapped letters of {LENGTH}", range(SWAPS + 1), found, lines
    frame.curves(png, "accuracy", [frame.Panel(*shown)])


if __name__ == "__main__":
    frame.run(__file__, __doc__, main, draw, "spacy")
