"""The config is the object: a frozen dataclass that JAX traces, JSON stores and people read.

Attacks, threats, methods and schedules are declared with `@config`. Every field is a leaf of a
pytree, so three eps compile once, and a schedule may replace a float by a traced one; except fields
declared `static(...)`: functions, names and flags, which change the program. `number(...)` declares
the range of a number.
"""

from robustjax.config.declare import config, number, static, type_name
from robustjax.config.encoding import decode, encode, rewrites_older
from robustjax.config.numbers import format_number, parse_number

__all__ = [
    "config",
    "decode",
    "encode",
    "format_number",
    "number",
    "parse_number",
    "rewrites_older",
    "static",
    "type_name",
]
