"""Tables as text."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Rows in aligned columns: numbers to the right, the columns `left` (by number, also from the end) to the left."""
    columns = list(zip(*rows, strict=True))
    widths, names = [max(map(len, column)) for column in columns], {place % len(columns) for place in left}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
