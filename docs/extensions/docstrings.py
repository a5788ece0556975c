"""Docstrings as the site shows them: examples as code, guarantees as a list, configs' defaults."""

import re

import griffe

EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^.*\S.*\n?)*)", re.M)
GUARANTEES = re.compile(r"(?<=^Guarantees:\n)(?:^ .*\n?)+", re.M)


def fenced(example: re.Match) -> str:
    """A paragraph of `>>>`, which Markdown would take for a quotation."""
    return f"```python\n{example[0].rstrip()}\n```\n"


def listed(guarantees: re.Match) -> str:
    """An item for each sentence that begins a line."""
    sentences = re.split(r"(?<=[.])\n", re.sub(r"^  ", "", guarantees[0], flags=re.M).rstrip())
    return "".join("  - " + re.sub(r"\n", "\n    ", text) + "\n" for text in sentences)


def is_config(cls: griffe.Class) -> bool:
    """Whether the class is decorated by `config`."""
    return any(str(decorator.value) == "config" for decorator in cls.decorators)


def fields(cls: griffe.Class):
    """The parameters of a config, those of its bases first; a later field takes the place."""
    found = {}
    for owner in (*reversed(cls.mro()), cls):
        if not is_config(owner) and not any("dataclass" in str(d.value) for d in owner.decorators):
            continue
        for name, field in owner.members.items():
            if field.is_attribute and "instance-attribute" in field.labels and field.annotation:
                default = field.value
                if isinstance(default, griffe.ExprCall):  # number(default=10), static(default=f)
                    named = (a for a in default.arguments if isinstance(a, griffe.ExprKeyword))
                    default = next((a.value for a in named if a.name == "default"), default)
                kind = griffe.ParameterKind.positional_or_keyword
                found[name] = griffe.Parameter(
                    name, annotation=field.annotation, kind=kind, default=default
                )
    return found.values()


class Docstrings(griffe.Extension):
    """Rewrite each docstring before it is parsed, and give configs the `__init__` they have."""

    def on_object(self, *, obj, **settings):
        """Examples and guarantees."""
        if obj.docstring:
            text = EXAMPLE.sub(fenced, obj.docstring.value)
            obj.docstring.value = GUARANTEES.sub(listed, text)

    def on_package(self, *, pkg, **settings):
        """Configs, once their bases are known."""
        modules = [pkg]
        for module in modules:
            modules += [m for m in module.modules.values() if not m.is_alias]
            for cls in module.classes.values():
                if not cls.is_alias and is_config(cls):
                    parameters = griffe.Parameters(griffe.Parameter("self"), *fields(cls))
                    cls.set_member("__init__", griffe.Function("__init__", parameters=parameters))
