"""Links from a page to files of the repository, which work on GitHub, work on the site as well.

A linked script becomes a page that shows it; a picture or a file of numbers is copied. CONTRIBUTING
and CHANGELOG of the repository are pages of the site.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, InclusionLevel

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
WHOLE = {
    f"project/{name.lower()}.md": ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG")
}
SHOWN = {".py": "python", ".cff": "yaml", ".txt": "text"}
FENCED = re.compile(r"(^```.*?^```)", re.M | re.S)
LINK = re.compile(r"(?<=\]\()(?!\w+:)[^)#\s]+")


def links(text: str) -> set[str]:
    """The paths that a page links to, those of pictures included."""
    return set(LINK.findall(FENCED.sub("", text)))


def uri(target: Path) -> str:
    """The site's source path of a file of the repository."""
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    for page, whole in WHOLE.items():
        if target == whole:
            return page
    path = f"repository/{target.relative_to(ROOT).as_posix()}"
    return f"{path}.md" if target.suffix in SHOWN else path


def generated(target: Path, config) -> File:
    """The file of the site for one outside docs."""
    if target in WHOLE.values():
        return File.generated(config, uri(target), content=target.read_text())
    beside = {"inclusion": InclusionLevel.NOT_IN_NAV}
    if target.suffix not in SHOWN:
        return File.generated(config, uri(target), abs_src_path=str(target), **beside)
    content = f"# {target.name}\n\n```{SHOWN[target.suffix]}\n{target.read_text()}```\n"
    return File.generated(config, uri(target), content=content, **beside)


def on_files(files, config):
    """Add what the pages link to outside docs."""
    outside = {path for path in WHOLE.values() if path.exists()}
    for page in {Path(file.abs_src_path) for file in files.documentation_pages()} | outside:
        for path in links(page.read_text()):
            target = (page.parent / path).resolve()
            if not target.is_file():
                raise PluginError(f"{page.relative_to(ROOT)}: no file {path}")
            if not target.is_relative_to(DOCS):
                outside.add(target)
    for target in sorted(outside):
        files.append(generated(target, config))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead links to where the site has their targets."""
    if page.file.src_uri.startswith("repository/"):
        return markdown
    origin, here = WHOLE.get(page.file.src_uri, DOCS / page.file.src_uri), page.file.src_uri

    def moved(match: re.Match) -> str:
        target = uri((origin.parent / match[0]).resolve())
        return posixpath.relpath(target, posixpath.dirname(here))

    parts = FENCED.split(markdown)
    return "".join(part if i % 2 else LINK.sub(moved, part) for i, part in enumerate(parts))
