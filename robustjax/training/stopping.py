"""Signals that end a run: it stops after the step that it is in, and saves that."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn

import jax

from robustjax import parallel


class Terminated(SystemExit):
    """Raised after SIGTERM or SIGHUP, once the run is saved; its text says where it stopped.

    Attributes:
      code: the exit status, 128 + the signal's number.

    >>> stopped = Terminated(143, "runs/a: stopped at step 3 of 8")
    >>> stopped.code, str(stopped)
    (143, 'runs/a: stopped at step 3 of 8')
    """

    def __init__(self, code: int, text: str):
        super().__init__(code)
        self._text = text

    def __str__(self) -> str:
        return self._text


class Stop:
    """The signal that asks a run to stop, if one has arrived."""

    def __init__(self):
        self._received: list[int] = []

    def receive(self, number: int, frame: object) -> None:
        """Handle a signal; the second Ctrl-C does not wait for the step."""
        if self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received.append(number)

    def asked(self) -> bool:
        """Whether to stop now: a signal to any process stops all, which ask at the same steps."""
        if jax.process_count() == 1:
            return bool(self._received)
        return parallel.any_process(bool(self._received))

    def leave(self, text: str) -> NoReturn:
        """Raise what the signal stands for: KeyboardInterrupt for Ctrl-C, else Terminated."""
        number = self._received[0] if self._received else signal.SIGTERM  # another process's
        if number == signal.SIGINT:
            raise KeyboardInterrupt(text)
        raise Terminated(128 + number, text)


@contextlib.contextmanager
def signals() -> Iterator[Stop]:
    """Keep SIGINT, SIGTERM and SIGHUP, except those that the process ignores, in a `Stop`."""
    stop, before = Stop(), {}
    try:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop.receive)
    except ValueError:  # not the main thread, which handles signals itself
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
