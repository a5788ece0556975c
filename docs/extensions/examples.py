"""The examples of docstrings, paragraphs of `>>>`, as code instead of quotations."""

import re

import griffe

EXAMPLE = re.compile(r"(?:^>>> .*\n(?:^.*\S.*\n?)*)", re.M)


class Examples(griffe.Extension):
    """Fence each paragraph that begins with `>>>`."""

    def on_object(self, *, obj, **settings):
        """Rewrite the docstring before it is parsed."""
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = EXAMPLE.sub(
                lambda match: f"```python\n{match[0].rstrip()}\n```\n", obj.docstring.value
            )
