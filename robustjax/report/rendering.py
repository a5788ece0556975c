"""Blocks of a document as one HTML file that needs no other, or as Markdown."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

from robustjax.checks import checked
from robustjax.report.cells import align
from robustjax.report.document import Block, Flags, Heading, Paragraph, Picture, Table, document

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .5rem; }
h2 { border-bottom: 1px solid #8886; padding-bottom: .2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #8884; text-align: left; }
.number { text-align: right; }
.wide .numbers td { white-space: nowrap; }
.texts td { overflow-wrap: anywhere; }
figure { margin: 1rem 0; } img { max-width: 100%; background: white; }
figcaption { opacity: .75; }
.flags { border-left: .3rem solid #d33; background: #d331; padding: .4rem 1rem; margin: 1rem 0; }
.flags p { margin: .3rem 0; }
"""


@checked(host=True)
def html_page(runs: Sequence[str | Path]) -> str:
    """One self-contained HTML page about evaluated runs: tables, figures, flags, provenance.

    Args:
      runs: run directories, or results files (which have no figures).

    Raises:
      FileNotFoundError: a run has no report; the message has the command that makes it.

    >>> rj.report.html_page(["runs/missing"])
    Traceback (most recent call last):
    FileNotFoundError: runs/missing is not a run directory: it has no config.json
    """
    blocks = document(runs)
    body = "\n".join(map(_html, blocks))
    title = ", ".join(Path(run).name for run in runs)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Robustness report: {html.escape(title)}</title>\n<style>{STYLE}</style>\n"
        f"</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


@checked(host=True)
def model_card(runs: Sequence[str | Path]) -> str:
    """The same page as Markdown, with links to the figures.

    Raises:
      FileNotFoundError: a run has no report; the message has the command that makes it.

    >>> rj.report.model_card(["runs/missing"])
    Traceback (most recent call last):
    FileNotFoundError: runs/missing is not a run directory: it has no config.json
    """
    return "\n\n".join(map(_markdown, document(runs))) + "\n"


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Flags(texts):
            lines = "\n".join(f"<p>{html.escape(text)}</p>" for text in texts)
            return f'<div class="flags" role="note">\n{lines}\n</div>'
        case Table(cells, numbers_from):
            return _html_table(cells, numbers_from)
        case Picture(path, caption):
            data = base64.b64encode(path.read_bytes()).decode()
            text = html.escape(caption)
            return (
                f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
                f"<figcaption>{text}</figcaption></figure>"
            )


def _html_table(cells: Sequence[Sequence[str]], numbers_from: int) -> str:
    def line(row: Sequence[str], tag: str) -> str:
        kinds = [' class="number"' if i >= numbers_from else "" for i in range(len(row))]
        parts = zip(row, kinds, strict=True)
        return "<tr>" + "".join(f"<{tag}{k}>{html.escape(c)}</{tag}>" for c, k in parts) + "</tr>"

    head, *rows = cells
    kind = "numbers" if numbers_from < len(head) else "texts"
    body = "\n".join(line(row, "td") for row in rows)
    return (
        f'<div class="wide"><table class="{kind}">\n<thead>{line(head, "th")}</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return text
        case Flags(texts):
            return "\n>\n".join(f"> **Flag:** {text}" for text in texts)
        case Table(cells, numbers_from):
            safe = [[re.sub(r"([|])", r"\\\1", cell) for cell in row] for row in cells]
            return align(safe, numbers_from, markdown=True)
        case Picture(path, caption):
            return f"![{caption}]({path.name})"
