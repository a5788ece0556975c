"""What a command tells on stderr while it works: bars in a terminal, and what is being compiled."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import jax
from jax import monitoring

from robustjax import progress

LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
COMPILED = "/jax/core/compile/backend_compile_duration"
"""JAX's events at the beginning and the end of a compilation."""

PATIENCE = 1.0
"""A compilation that takes longer, in seconds, has a line; most take milliseconds."""


@contextlib.contextmanager
def narrated(quiet: bool) -> Iterator[None]:
    """Tell what a command does; nothing but results and errors if `quiet`.

    Bars are for terminals: in a file or a pipe they are thousands of lines.
    """
    with contextlib.ExitStack() as stack:
        if quiet or not sys.stderr.isatty():
            stack.enter_context(progress.hidden(lines=quiet))
        if quiet:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        else:
            stack.enter_context(Compilations().heard())
        yield


class Compilations:
    """A line for each compilation that takes long, and at its end how long it took."""

    def __init__(self):
        """Nothing is compiled yet."""
        self.seconds = 0.0
        """Of all compilations so far."""
        self._begun: float | None = None
        self._line = ""
        self._timer = threading.Timer(0, self._begin)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Listen to JAX."""
        monitoring.register_event_duration_secs_listener(self._hear)
        try:
            yield
        finally:
            self._timer.cancel()
            monitoring.unregister_event_duration_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        if event == LOWERED:
            self._timer.cancel()
            self._begun = time.monotonic()
            self._timer = threading.Timer(PATIENCE, self._begin)
            self._timer.daemon = True
            self._timer.start()
        elif event == COMPILED:
            self._timer.cancel()
            self.seconds += duration_secs
            self._end()

    def _begin(self) -> None:
        with self._lock:
            if self._begun is not None and jax.process_index() == 0:
                self._line = " ".join(["compiling", *progress.doing().split(), "..."])
                self._write(self._line)

    def _end(self) -> None:
        with self._lock:
            if self._line and self._begun is not None:
                taken = f" {time.monotonic() - self._begun:.1f} s\n"
                self._write(self._line + taken if sys.stderr.isatty() else taken)
            self._line, self._begun = "", None

    def _write(self, text: str) -> None:
        # In a terminal over the bar, which comes back below with its next step.
        print("\r\x1b[K" * sys.stderr.isatty() + text, end="", file=sys.stderr, flush=True)
