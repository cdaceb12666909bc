"""mkdocs: pages that stand outside of docs/, with links that lead to where the site has them."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
#: Page of the site -> file of the repository.
OUTSIDE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "benchmarks/RESULTS.md": "benchmarks/RESULTS.md",
    "benchmarks/FAMILIES.md": "benchmarks/FAMILIES.md",
    "training/README.md": "training/README.md",
    "configs/paper/README.md": "configs/paper/README.md",
}


def on_files(files, config):
    for page, source in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=moved(text, source, page)))
    return files


def on_page_markdown(markdown, page, **_):
    """Links of the pages in docs/ to files outside of it."""
    if page.file.src_uri in OUTSIDE:
        return markdown
    return moved(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def moved(text: str, source: str, page: str) -> str:
    """A file's text with its relative links as the page of the site needs them."""
    pages = {path: name for name, path in OUTSIDE.items()}

    def link(match: re.Match) -> str:
        target, anchor = match[1], match[2] or ""
        path = (ROOT / source).parent.joinpath(target).resolve()
        if "://" in target or not path.is_relative_to(ROOT):
            return match[0]
        name = path.relative_to(ROOT).as_posix()
        name = pages.get(name, name.removeprefix("docs/"))
        up = "../" * page.count("/")
        return f"]({up}{name}{anchor})"

    return re.sub(r"\]\(([^)#\s]+)(#[^)]*)?\)", link, text)
