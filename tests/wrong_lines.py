"""Wrong command lines, each a right one with a word that is wrong, and what becomes of them.

`lines(seed, count)` lists them, a pure function of the seed. `outcome` gives one to the command
line in this process.
"""

import contextlib
import io
import os
import pathlib
import shlex
import signal

import numpy as np

from robustjax import cli

NOTES = ("warning: ", "compiling ")
"""How lines on stderr begin that are no error."""

SECONDS = 20
"""After which a line counts as accepted: it is at work."""

RIGHT = {
    "train": "natural --out {new} --epochs 1 --batch-size 64 --width 2 --examples 128 --seed 1",
    "evaluate": "{run} --attacks fgsm --n 16 --curve none",
    "detect": "{run} --detectors confidence --attacks fgsm --n 16",
    "transfer": "{run} {twin} --attack mi-fgsm-2 --n 16",
    "pseudo-label": "{run} --data arrays:{pool} --out {new}",
    "report": "{run}",
    "attacks": "pgd fgsm",
    "detectors": "confidence",
    "methods": "trades",
    "models": "",
    "data": "list",
    "quickstart": "--out {new} --epochs 1 --seed 0",
}
"""Command -> the other words of a line that is right."""

COUNT = ("-1", "0", "2.5", "x", "''", "nan", "1e20", "99999999999999999999", "none!", "1e400")
SIZE = ("-0.5", "x", "''", "nan", "1e400", "1e-999999999", "8/0", "8/")
SHARE = ("-0.1", "1.5", "x", "''", "nan", "1/0", "1e999")
SEED = ("-1", "4294967296", "2.5", "x", "''", "1e3")
ATTACK = (
    *("pgdd", "fgms", "''", "pgd-", "pgd-x", "pgd-2.5", "pgd--3", "pgd-99999999999999999999"),
    *("pgd-2x0", "pgd-2xx2", "fgsm-10", "square-0", "pgd:steps=x", "pgd:stepz=3", "pgd:steps"),
    *("pgd:steps=-1", "pgd:step_size=nan", "pgd:start=zeros", "pgd:start.sigma=2", "pgd:eot=0"),
    *("pgd:steps=2:steps=3", "pgd:loss=mergin", "apgd-ce-0", "cw:rounds=0", "autoattack-1e9"),
)
DETECTOR = (
    *("confidense", "''", "k-density:count=1.5", "k-density:sigma2=x", "k-density:sigma2=-1"),
    *("k-density:sigma=1", "confidence:t=1", "lid:k=0", "energy:temperature=0", "confidence-3"),
)
NO_RUN = ("{missing}", "{empty}", "{file}", "''", "{torn}")
NO_DATA = (
    "digit",
    "''",
    "cifar11",
    "arrays:{missing}",
    "arrays:{empty}",
    "arrays:",
    "digits:size=4",
)

FLAGS = {
    "train": {
        **dict.fromkeys(("--epochs", "--batch-size", "--width", "--examples"), COUNT),
        **dict.fromkeys(("--checkpoint-every", "--accumulate"), COUNT),
        **dict.fromkeys(("--eps", "--awp", "--optimizer.weight-decay"), SIZE),
        **dict.fromkeys(("--dropout", "--optimizer.momentum", "--label-smoothing", "--ema"), SHARE),
        **dict.fromkeys(("--lr-warmup", "--eps-warmup", "--mixup"), ("-1", "x", "''", "nan")),
        "--lr": ("-1", "x", "''", "nan", "1e400", "1/0"),
        "--optimizer.clip": ("0", "-1", "x", "nan"),
        "--cutout": ("-1", "100", "2.5", "x"),
        "--seed": SEED,
        "--data": NO_DATA,
        "--extra": ("{missing}", "arrays:{missing}", "arrays:{empty}", "''", "digits"),
        "--init-from": NO_RUN,
        "--model": (
            "cn",
            "''",
            "resnet",
            "wrn-34",
            "resnet-1000000",
            "no_package:net",
            "json:loads",
        ),
        "--activation": ("relo", "''", "3"),
        "--dtype": ("float16", "''", "3"),
        "--augment": ("crops", "''", "crop:pad=-1", "crop:padd=2", "shift:shift=2", "crop:pad=99"),
        "--card": ("bott", "''", "table2"),
        "--threat": ("linff", "''", "l3", "linf:eps=-1", "linf:epz=1", "l2:bounds=1"),
        "--schedule": (
            "piecewize",
            "''",
            "piecewise:factor=-1",
            "one-cycle:peak=2",
            "constant:a=1",
        ),
        "--validation-attack": ATTACK,
        "--optimizer.name": ("sdg", "''", "adamw2"),
        "--out": ("''", "{file}", "{file}/run"),
    },
    "evaluate": {
        **dict.fromkeys(("--n", "--batch-size", "--levels"), COUNT),
        "--eps": SIZE,
        "--seed": SEED,
        "--attacks": (*ATTACK, *ATTACK, ""),
        "--curve": (*ATTACK, "spatial"),
        "--weights": ("worst", "''"),
        "--dtype": ("float16", "''"),
        "--threat": ("linff", "''", "linf:eps=-1"),
        "--data": NO_DATA,
        "--model": ("no_package:net", "''", "json"),
    },
    "detect": {
        **dict.fromkeys(("--n", "--batch-size", "--fit", "--steps"), COUNT),
        "--eps": SIZE,
        "--seed": SEED,
        "--attacks": ATTACK,
        "--detectors": (*DETECTOR, *DETECTOR, ""),
        "--false-rejection": SHARE,
        "--substitute": NO_RUN,
        "--weights": ("worst", "''"),
    },
    "transfer": {
        **dict.fromkeys(("--n", "--batch-size"), COUNT),
        "--eps": SIZE,
        "--seed": SEED,
        "--attack": ATTACK,
        "--out": ("''", "{empty}", "{file}/a.json"),
    },
    "pseudo-label": {
        "--batch-size": COUNT,
        "--data": ("digits", "''", "arrays:{missing}", "arrays:{empty}", "{pool}", "arrays:{file}"),
        "--out": ("''", "{file}", "{pool}"),
        "--weights": ("worst", "''"),
    },
    "quickstart": {"--epochs": COUNT, "--seed": SEED, "--out": ("''", "{file}")},
}
"""Command -> flag -> values that it cannot have."""

WORDS = {
    "train": ("naturel", "''", "pgdat", "trade", "natural:beta=1", "NATURAL!"),
    "evaluate": NO_RUN,
    "detect": NO_RUN,
    "transfer": (*NO_RUN, "{twin}"),
    "pseudo-label": NO_RUN,
    "report": NO_RUN,
    "attacks": ("pgdd", "''", "pgd:steps=x"),
    "detectors": ("confidense", "''"),
    "methods": ("trade", "''", "pgdat"),
    "models": ("cnn", "''"),
    "data": ("lists", "''", "prepare", "prepare mnits"),
}
"""Command -> first words that it cannot have."""

TOGETHER = (
    *(
        "train {right} --awp-start 0.5",
        "train {right} --extra-fraction 0.3",
        "train {right} --extra-smoothing 0.1",
    ),
    *("train {right} --cutmix --mixup 1", "train {right} --processes 2"),
    *(
        "train {right} --process 1",
        "train {right} --card table1 --card repo",
    ),
    *(
        "train hat --out {new} --epochs 1",
        "train natural --out {run} --epochs 1",
        "train {right} --batch-size 63 --accumulate 2",
    ),
    *(
        "evaluate {run} --data cifar10 --attacks fgsm",
        "evaluate {run} --attacks none",
        "evaluate {run} --model json:loads",
    ),
    *(
        "detect {run} --detectors uncertainty --attacks fgsm",
        "detect {run} --detectors all all --attacks fgsm",
    ),
    *(
        "detect {run} --substitute {run} --attacks fgsm",
        "transfer {run}",
        "transfer {run} {run}",
        "report",
        "data prepare",
    ),
    *(
        "--import",
        "--import no_package train",
        "evaluate",
        "detect",
        "pseudo-label {run}",
        "train",
        "train natural",
    ),
)
"""Lines whose words do not go together."""


def lines(seed, count):
    """Texts with fields in braces for the paths of `places`."""
    rng = np.random.default_rng(seed)
    return [_line(rng) for _ in range(count)]


def _line(rng):
    command = str(rng.choice(list(RIGHT), p=_SHARES))
    words, kind = RIGHT[command].split(), rng.random()
    if kind < 0.05:
        return f"{_misspelled(rng, command)} {RIGHT[command]}"
    if kind < 0.12:
        return str(rng.choice(TOGETHER)).format_map(_Right(command))
    if kind < 0.25 and command in WORDS:
        return f"{command} {rng.choice(WORDS[command])} {' '.join(words[1:])}"
    if kind < 0.4 or command not in FLAGS:
        named = [i for i, word in enumerate(words) if word.startswith("--")]
        if not named or rng.random() < 0.3:
            return f"{command} {RIGHT[command]} {rng.choice(['--no-such 1', 'word word2 --x'])}"
        place = int(rng.choice(named))
        flag = words[place]
        words[place] = f"--{_misspelled(rng, flag[2:])}"
        if rng.random() < 0.3:
            words[place : place + 2] = [flag]  # without its value
        return " ".join([command, *words])
    flag = str(rng.choice(list(FLAGS[command])))
    value = str(rng.choice(FLAGS[command][flag]))
    if flag in words:
        words[words.index(flag) : words.index(flag) + 2] = []
    return " ".join([command, *words, flag, value])


_SHARES = np.array([12 if command in FLAGS else 2 for command in RIGHT], float)
_SHARES[0] = 30
_SHARES /= _SHARES.sum()


class _Right(dict):
    """The fields of a text that are paths stay; `right` is the line of the command train."""

    def __missing__(self, key):
        return RIGHT["train"] if key == "right" else f"{{{key}}}"

    def __init__(self, command):
        super().__init__()


def _misspelled(rng, word):
    """With two letters in another order, or one more."""
    place = int(rng.integers(1, len(word) + 1))
    if word[place : place + 1] in ("", word[place - 1]) or rng.random() < 0.3:
        return f"{word[:place]}z{word[place:]}"
    return f"{word[: place - 1]}{word[place : place + 1]}{word[place - 1]}{word[place + 1 :]}"


def places(folder, run):
    """Name -> a path for the fields of lines, given a trained run: what is there and what not."""
    folder, run = pathlib.Path(folder), pathlib.Path(run)
    (folder / "empty").mkdir()
    (folder / "file").write_text("no run")
    (folder / "torn").mkdir()
    (folder / "torn" / "config.json").write_text((run / "config.json").read_text()[:100])
    (folder / "twin").symlink_to(run, target_is_directory=True)
    (folder / "pool").mkdir()
    np.save(folder / "pool" / "train_images.npy", np.zeros((4, 8, 8, 1), np.uint8))
    names = ("empty", "file", "torn", "twin", "pool", "missing", "new")
    return {name: str(folder / name) for name in names} | {"run": str(run)}


class _Late(BaseException):
    """A line is at work."""


def outcome(line, paths):
    """`refused` in one line by exit code 1 or 2; or what is wrong, and what the line said."""
    words, before = shlex.split(line.format_map(paths)), _seen(paths)
    out, said, code = io.StringIO(), io.StringIO(), 0

    def late(*_):
        raise _Late

    usual = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            cli.main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            said.write(end.code)
    except _Late:
        code = None
    except BaseException as error:
        return f"traceback {type(error).__name__}", repr(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, usual)
    text = [row for row in said.getvalue().splitlines() if row and not row.startswith(NOTES)]
    if code not in (1, 2):
        return "accepted", "\n".join(text) or out.getvalue()[-200:]
    if len(text) != 1:
        return f"{len(text)} lines", "\n".join(text)
    if "(--debug shows where)" in text[0]:
        return "unexpected", text[0]
    return ("refused" if _seen(paths) == before else "written"), text[0]


def _seen(paths):
    """Every file and folder there, with its size and date."""
    folders = {pathlib.Path(paths["empty"]).parent, pathlib.Path(paths["run"])}
    found = [path for folder in folders for path in folder.rglob("*") if path.name != ".lock"]
    return {(str(p), s.st_size, s.st_mtime_ns) for p in found for s in [os.stat(p)] if p.is_file()}
