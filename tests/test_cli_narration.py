"""What a command tells on stderr while it works."""

import io
import time
import warnings

import jax
import pytest
from jax import monitoring

from robustjax import progress
from robustjax.cli import narration


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stderr(monkeypatch):
    """An stderr of either kind, with a compilation of a tenth of a second called long."""

    def made(kind):
        stream = kind()
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    monkeypatch.setattr(narration, "PATIENCE", 0.01)
    return made


def compile_something(seconds=0.1):
    monitoring.record_event_duration_secs(narration.LOWERED, 0.01)
    time.sleep(seconds)
    monitoring.record_event_duration_secs(narration.COMPILED, seconds)


def test_a_long_compilation_has_a_line(stderr):
    file = stderr(io.StringIO)
    with narration.narrated(quiet=False):
        assert progress.bar("pgd-20", total=3).disable  # a file is no terminal
        compile_something()
        compile_something(0)
    compile_something()
    assert file.getvalue() == "compiling pgd-20 ... 0.1 s\n"


def test_in_a_terminal_the_line_lies_over_the_bar(stderr):
    terminal = stderr(Terminal)
    with narration.narrated(quiet=False):
        assert not progress.bar("pgd-20", total=3, file=io.StringIO()).disable
        compile_something()
    over = "\r\x1b[Kcompiling pgd-20 ..."
    assert terminal.getvalue() == f"{over}{over} 0.1 s\n"


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_quiet_is_quiet(stderr, kind):
    stream = stderr(kind)
    with narration.narrated(quiet=True):
        assert progress.bar("pgd-20", total=3).disable
        compile_something()
        warnings.warn("a step is short", stacklevel=1)
    assert stream.getvalue() == ""


def test_jax_tells_of_its_compilations():
    listener = narration.Compilations()
    with listener.heard():
        jax.jit(lambda x: x * 3 + 1)(7.0)
    assert listener.seconds > 0
