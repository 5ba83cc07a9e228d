"""The rows of CSV files that people give, of bounded size."""

import csv
from pathlib import Path

from dia_models.errors import ModelInputError, one_line

LARGEST_BYTES = 256 * 2**20


def csv_rows(path: Path, argument: str, wanted: str) -> list[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line that it ends in.

    Raises ModelInputError for the `argument`, saying what is `wanted`, if the file cannot be read or is too large.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ModelInputError(argument, f"{path} has more than 256 MiB; {wanted}")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelInputError(argument, f"{path} cannot be read ({one_line(error, 80)}); {wanted}") from error
