"""The help of the commands."""

import contextlib
import io
import re
import typing

import pytest
import tyro

from robustjax import cli, training
from robustjax.cli.detect import DetectOptions
from robustjax.cli.evaluate import EvaluateOptions
from robustjax.cli.flags import REGISTRY
from robustjax.cli.help import flags_of, meant
from robustjax.cli.plan import PlanOptions
from robustjax.cli.train import flags

METHODS = ("natural", "trades-he", "free", "mmc", "hat")
LONG = ["train pgd-at", "train mmlda", "train hat", "plan trades", "evaluate", "detect"]


def printed(capsys, *words):
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    assert end.value.code in (None, 0)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "kind", [*METHODS, EvaluateOptions, DetectOptions, PlanOptions], ids=lambda kind: str(kind)
)
def test_the_help_has_the_flags_that_are_read(kind):
    kind = flags(kind, []) if isinstance(kind, str) else kind

    def parsed(options):
        pass

    parsed.__annotations__ = {"options": typing.Annotated[kind, tyro.conf.arg(name="")]}
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        tyro.cli(parsed, args=["--help"], config=(tyro.conf.AvoidSubcommands,), registry=REGISTRY)
    read = set(re.findall(r"(?:^ *|, )(--[a-z][\w.-]*)", out.getvalue(), re.M))
    assert {word for flag in flags_of(kind) for word in flag.words} == read - {"--help"}


def test_every_flag_says_what_it_means():
    for name in training.METHODS:
        silent = [flag.name for flag in flags_of(flags(name, [])) if not flag.text]
        assert not silent, (name, silent)


@pytest.mark.parametrize("command", LONG)
def test_the_short_help_is_short_and_the_long_one_complete(command, capsys):
    short = printed(capsys, *command.split(), "--help")
    long = printed(capsys, *command.split(), "--help-all")
    rows = re.findall(r"^  (\S+)", short, re.M)
    assert 10 <= len(rows) <= 26 and len(short.splitlines()) <= 45
    assert all(re.search(rf"^  {re.escape(row)}", long, re.M) for row in rows)
    assert max(map(len, (short + long).splitlines())) <= 100
    assert "None" not in short and "{" not in short and "{None}" not in long
    count = re.search(r"explains these(?: and (\d+) more)?", short)
    assert len(re.findall(r"^  \S", long, re.M)) == len(rows) + int(count[1] or 0)


def test_a_groups_flags_exist():
    for kind in (EvaluateOptions, DetectOptions, PlanOptions, flags("trades", [])):
        known = {name for flag in flags_of(kind) for name in (flag.name, flag.part)}
        if kind is PlanOptions:
            known |= {flag.name for flag in flags_of(flags("trades", []))}
        groups = getattr(kind, "GROUPS", {})
        assert not [name for names in groups.values() for name in names if name not in known]


def test_none_is_said_in_words(capsys):
    text = printed(capsys, "evaluate", "--help")
    assert "--eps NUMBER " in text and "(default: as in training)" in text
    assert "RUN " in text and "[--no" not in text and "--[no-]adaptive" in text


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("--epoch", "--epochs"),
        ("--steps", "--attack.steps"),
        ("--momentum=0.9", "--optimizer.momentum"),
        ("--batch_sise", "--batch-size"),
        ("--no-normalise", "--no-normalize"),
        ("--learning-rate", ""),
        ("--xyzzy", ""),
    ],
)
def test_a_near_flag_is_meant(word, near):
    assert meant(word, list(flags_of(flags("pgd-at", [])))) == near


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train natural --epoch 3", "--out PATH is missing; unknown flag --epoch; did you mean"),
        ("pseudo-label r", "--data DATA, --out PATH are missing; see robustjax pseudo-label"),
        ("detect", "RUN is missing; see robustjax detect --help"),
        ("data shw", "unknown command 'data shw'; did you mean show? known: list, show, prepare"),
    ],
)
def test_what_is_missing_or_unknown_is_said_once(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(words.split())
    assert message in capsys.readouterr().err + str(end.value)
