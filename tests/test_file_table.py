"""The table of files in docs/layout.md: what it names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
ROWS = [row.split("|")[2] for row in TABLE.splitlines() if row.startswith("| ")][1:]


@pytest.mark.parametrize("row", ROWS)
def test_the_files_of_a_row_are_there_the_later_ones_beside_the_first(row):
    first, *others = re.findall(r"`([^`]+)`", row.partition(";")[0])
    folder = Path(first) if first.endswith("/") else Path(first).parent
    for name in (first, *(str(folder / other) for other in others)):
        assert list(ROOT.glob(name)), name
