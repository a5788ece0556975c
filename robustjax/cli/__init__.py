"""The command line: `robustjax COMMAND ...`. Only the requested command is imported."""

from __future__ import annotations

import difflib
import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Collection, Sequence

import robustjax

__all__ = ["main"]

COMMANDS = {
    "quickstart": "Train three models on bundled images, attack them, write reports and figures.",
    "train": "Train a model by one of the methods; `robustjax train METHOD --help` has its flags.",
    "plan": "Plan a run of `train` on TPUs; `robustjax plan METHOD --help` has its flags.",
    "evaluate": "Attack a trained model on test images; write a report and figures.",
    "detect": "Attack a trained model guarded by detectors; write detection.json and roc.png.",
    "transfer": "Attack every run with images crafted on every other run.",
    "pseudo-label": "Label unlabelled images by a trained model, for `train --extra`.",
    "sweep": "Train and evaluate every combination of a grid, here or on Slurm; print one table.",
    "report": "Print one table of several evaluated runs.",
    "methods": "List the training methods and their cards.",
    "attacks": "List the attacks, or the settings of one.",
    "detectors": "List the detectors, or the settings of one.",
    "models": "List the networks.",
    "data": "List the available data sets, show what one holds, or prepare another.",
}
"""Name -> summary. The module of that name has a function `command`, which takes words."""

READABLE = (ValueError, OSError, FloatingPointError, ImportError)
"""Errors that robustjax raises with a full message; others are printed with their type."""


class Stopped(Exception):
    """A signal stopped a command that can resume."""

    def __init__(self, status: int, text: str, *flags: str):
        """Keep the exit status, what to say, and the flags that make the command resume."""
        super().__init__(text)
        self.status, self._flags = status, flags

    def command(self, words: Sequence[str]) -> str:
        """The command that resumes, given the words of the one that was stopped."""
        more = (flag for flag in self._flags if flag not in words)
        return shlex.join(["robustjax", *words, *more])


def main(args: Sequence[str] | None = None) -> None:
    """Entry point; prints errors and warnings in one line, with `--debug` where they are from."""
    words = typed = list(sys.argv[1:] if args is None else args)
    debug, quiet = "--debug" in words, "--quiet" in words
    words = [w for w in words if w not in ("--debug", "--quiet")]
    usual = warnings.formatwarning
    if not debug:
        warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        words = import_modules(words)
        name = words[0] if words else ""
        if name in ("-h", "--help"):
            print(help_text())
        elif name == "--version":
            print(f"robustjax {robustjax.__version__}")
        elif name not in COMMANDS:
            raise ValueError(unknown_command(name, COMMANDS))
        else:
            command = importlib.import_module(f"robustjax.cli.{name.replace('-', '_')}").command
            with importlib.import_module("robustjax.cli.narration").narrated(quiet):
                command(words[1:])
    except Stopped as stop:
        if str(stop):
            print(f"robustjax: {stop}; resume: {stop.command(typed)}", file=sys.stderr)
        sys.exit(stop.status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `robustjax methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        sys.exit(f"robustjax: {one_line(error)}")
    finally:
        warnings.formatwarning = usual


def import_modules(words: Sequence[str]) -> list[str]:
    """Import each module of `--import MODULE`, so that its registrations apply.

    Installed modules come first, then those in the current folder.

    Returns:
      The other words.

    Raises:
      ImportError: there is no such module, or it cannot be imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    others, rest = [], iter(words)
    for word in rest:
        flag, equals, module = word.partition("=")
        if flag != "--import":
            others.append(word)
            continue
        module = module if equals else next(rest, "")
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name and (module + ".").startswith(error.name + "."):
                raise ImportError(
                    f"--import: no module {module!r} is installed or in the current folder"
                ) from error
            raise ImportError(f"--import {module}: {error}") from error
        except ValueError as error:  # an empty name
            raise ValueError("--import needs the name of a module: --import my_package") from error
    return others


def unknown_command(name: str, known: Collection[str], before: str = "") -> str:
    """The message about an unknown command, or part of one that comes after `before`."""
    near = difflib.get_close_matches(name, known, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    what = f"unknown command {before + name!r}; {meant}" if name else "a command is missing; "
    return f"{what}known: {', '.join(known)}; robustjax {before}--help describes them"


def help_text() -> str:
    """The text of `robustjax --help`."""
    commands = "\n".join(f"  {name:14s}{about}" for name, about in COMMANDS.items())
    return f"""usage: robustjax COMMAND ...

Train, attack and evaluate robust models.

{commands}

on every command:
  --help             show its flags; --help-all shows them all
  --import MODULE    import a module of your own first, which registers its own names
  --quiet            print only results and errors
  --debug            show tracebacks
robustjax --version prints the version."""


def one_line(error: Exception) -> str:
    """An error in one line; an unexpected one with its type and a hint at --debug."""
    message = str(error).partition("\n")[0]
    if message and isinstance(error, READABLE):
        return message
    words = [type(error).__name__, message] if message else [type(error).__name__]
    return f"{': '.join(words)} (--debug shows where)"
