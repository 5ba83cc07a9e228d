"""Write docs/results.md from the results in docs/results: `python docs/write_results.py`."""

import sys
from pathlib import Path

from dia_analysis.paper.read_sweeps import read_sweeps
from figures import tables

DOCS = Path(__file__).parent
PAGE = DOCS / "results.md"
HEAD = """# What came out here

The sweeps that were run, each with the command that makes it again, on two CPU cores, at laptop scale: small networks
that are trained briefly. The raw results are in `docs/results/`, and `python docs/write_results.py` writes this page
from them. How to read the tables: [sweeps](sweeps.md). They say what holds at this scale, not in the paper's networks.

## In short

Each of the paper's differences, beside ours, by one rule for all rows of a table. It *holds* or *does not hold* if the
difference is significant once it is corrected for all comparisons of the table, to the paper's side or to the other. It
is *smaller than the paper's* if our runs leave the paper's difference out, but not zero. Else it is *inconclusive*:
three to five runs of each network see large differences only, and each table says which. The verdicts are about the
data of our runs; where the paper's are others, they stand in brackets.

"""


def text() -> str:
    """The page."""
    results = read_sweeps([DOCS / "results"])
    return "\n".join([HEAD + tables.in_short(results), "", *map(tables.markdown, results)])


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
