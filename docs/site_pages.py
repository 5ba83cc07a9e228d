"""A hook of MkDocs: the README and its neighbors are pages of the site, and links between them hold in both."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", **{name: name for name in ("MODELS.md", "CONTRIBUTING.md", "CHANGELOG.md")}}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand beside docs/."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links as they are on the site, where all pages stand in one folder."""
    return re.sub(r"\]\((?:docs/|\.\./(?=[A-Z]))([^)]*)\)", lambda link: f"]({PAGES.get(link[1], link[1])})", markdown)
