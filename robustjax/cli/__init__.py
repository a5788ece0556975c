"""The command line: `robustjax quickstart | train | methods | evaluate | detect | ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from robustjax import parallel
from robustjax.cli.data import data_command
from robustjax.cli.detect import Detecting, detect
from robustjax.cli.evaluate import Evaluation, evaluate
from robustjax.cli.flags import REGISTRY, choose_threat
from robustjax.cli.methods import methods
from robustjax.cli.pseudo_label import pseudo_label_command
from robustjax.cli.quickstart import quickstart
from robustjax.cli.report import show
from robustjax.cli.train import Options, train, train_command
from robustjax.cli.transfer import transfer

__all__ = [
    "Detecting",
    "Evaluation",
    "Options",
    "choose_threat",
    "detect",
    "evaluate",
    "main",
    "quickstart",
    "train",
]

READABLE = (ValueError, OSError, FloatingPointError, ImportError)
"""What robustjax raises: its message is a sentence. Others need their type's name to be read."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point; errors are one line, `--debug` shows where they come from."""
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    try:
        if words[:1] != ["train"]:  # it does so itself, when it knows its batches
            parallel.use_all_cores()
        tyro.extras.subcommand_cli_from_dict(
            {
                "quickstart": quickstart,
                "train": train_command(words),
                "methods": methods,
                "pseudo-label": pseudo_label_command,
                "evaluate": evaluate,
                "transfer": transfer,
                "detect": detect,
                "report": show,
                "data": data_command,
            },
            prog="robustjax",
            description="Train, attack and evaluate robust models. --debug shows tracebacks.",
            args=words,
            config=(tyro.conf.AvoidSubcommands,),
            registry=REGISTRY,
        )
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        sys.exit(f"robustjax: {one_line(error)}")


def one_line(error: Exception) -> str:
    """An error as a line; one that nobody foresaw with its type, and how to find where it was."""
    message = str(error).partition("\n")[0]
    if message and isinstance(error, READABLE):
        return message
    words = [type(error).__name__, message] if message else [type(error).__name__]
    return f"{': '.join(words)} (--debug shows where)"
