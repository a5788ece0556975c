"""Numbers as text: decimals and fractions."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from robustjax.checks import INF, checked


@checked(host=True)
def parse_number(text: str | float) -> float:
    """Read a number written as a decimal or as a fraction.

    Raises:
      ValueError: `text` is neither, or too large or too small for a float.

    >>> rj.config.parse_number("8/255") == 8 / 255
    True
    """
    if not isinstance(text, str):
        return float(text)
    try:
        top, slash, bottom = text.partition("/")
        value = float(top) / (float(bottom) if slash else 1)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{text!r} is not a number; write 0.03 or 8/255") from error
    if not math.isfinite(value) or (value == 0 and re.search("[1-9]", re.split("[eE/]", text)[0])):
        raise ValueError(f"{text!r} is too large or too small a number; write 0.03 or 8/255")
    return value


@checked(host=True, value=(-INF, INF))
def format_number(value: float) -> str:
    """The inverse of `parse_number`: an exact short decimal or fraction, else all digits.

    >>> [rj.config.format_number(value) for value in (0.1, 8 / 255, 2**0.5)]
    ['0.1', '8/255', '1.4142135623730951']
    """
    if float(text := f"{value:g}") == value:
        return text
    fraction = Fraction(value).limit_denominator(1000)
    return str(fraction) if float(fraction) == value else repr(float(value))
