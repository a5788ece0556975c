"""The command line: `robustjax COMMAND ...`. Only the command that is asked for is imported."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata

__all__ = ["main"]

COMMANDS = {
    "quickstart": "Train three models on bundled images, attack them, write reports and figures.",
    "train": "Train a model by one of the methods; `robustjax train METHOD --help` has its flags.",
    "evaluate": "Attack a trained model on test images; write a report and figures.",
    "detect": "Attack a trained model that detectors watch; write detection.json and roc.png.",
    "transfer": "Attack every run with the images crafted on every other one.",
    "pseudo-label": "Let a trained model label images that have no labels, for `train --extra`.",
    "report": "Print one table of several evaluated runs.",
    "methods": "List the training methods and their cards.",
    "attacks": "List the attacks, or the settings of one.",
    "detectors": "List the detectors, or the settings of one.",
    "models": "List the networks.",
    "data": "List the data sets that can be read now, or prepare another.",
}
"""Name -> a line about it. The module of its name has a function `command`, which takes words."""

READABLE = (ValueError, OSError, FloatingPointError, ImportError)
"""What robustjax raises: its message is a sentence. Others need their type's name to be read."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point; errors are one line, `--debug` shows where they come from."""
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    try:
        words = import_modules(words)
        name = words[0] if words else ""
        if name in ("-h", "--help"):
            print(help_text())
        elif name == "--version":
            print(f"robustjax {metadata.version('robustjax')}")
        elif name not in COMMANDS:
            raise ValueError(unknown_command(name))
        else:
            importlib.import_module(f"robustjax.cli.{name.replace('-', '_')}").command(words[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        sys.exit(f"robustjax: {one_line(error)}")


def import_modules(words: Sequence[str]) -> list[str]:
    """Import what `--import MODULE` names, so that what it registers is known; the other words.

    Modules in the current folder are found, too, after all that is installed.

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
                    f"--import: there is no module {module!r} among those installed and in this "
                    "folder"
                ) from error
            raise ImportError(f"--import {module}: {error}") from error
        except ValueError as error:  # an empty name
            raise ValueError("--import needs the name of a module: --import my_package") from error
    return others


def unknown_command(name: str) -> str:
    """The message about a word that is no command."""
    near = difflib.get_close_matches(name, COMMANDS, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    what = f"unknown command {name!r}; {meant}" if name else "a command is missing; "
    return f"{what}known: {', '.join(COMMANDS)}; robustjax --help tells what they do"


def help_text() -> str:
    """What `robustjax --help` prints."""
    commands = "\n".join(f"  {name:14s}{about}" for name, about in COMMANDS.items())
    return f"""usage: robustjax COMMAND ...

Train, attack and evaluate robust models.

{commands}

on every command:
  --help             show its flags
  --import MODULE    import a module of your own first: what it registers is known by name
  --debug            show tracebacks
robustjax --version prints the version."""


def one_line(error: Exception) -> str:
    """An error as a line; one that nobody foresaw with its type, and how to find where it was."""
    message = str(error).partition("\n")[0]
    if message and isinstance(error, READABLE):
        return message
    words = [type(error).__name__, message] if message else [type(error).__name__]
    return f"{': '.join(words)} (--debug shows where)"
