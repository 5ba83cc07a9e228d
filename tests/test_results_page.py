"""The page of results is what the committed results say."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_is_written_from_the_results():
    spec = importlib.util.spec_from_file_location("write_results", DOCS / "write_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (DOCS / "results.md").read_text(encoding="utf-8")
    assert written == module.text(), "run `python docs/write_results.py`"
    assert written.count("\n## ") - 1 == len(list((DOCS / "results").glob("*.json"))) >= 3
