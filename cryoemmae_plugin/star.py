"""STAR files: one reader, as tolerant as RELION's own, and one writer that RELION and starfile read back.

As in RELION, a value ends at a blank, quotation marks enclose values with blanks, and ``#`` begins a comment only where
a value could begin: ``grid#1.mrc`` and ``anna's.mrc`` are plain values. Rows may begin with ``data_`` or ``_``. Beyond
what RELION reads, blank lines, comments, tabs and the line ends of Windows may stand anywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.files import read_table

Row = dict[str, str]

_BLANKS = " \t\r\f\v"  # not those of Unicode: RELION and starfile take them for letters
_WORD = re.compile(rf"""'([^']*)'(?=[{_BLANKS}]|$)|"([^"]*)"(?=[{_BLANKS}]|$)|([^{_BLANKS}]+)""")
_RESERVED = re.compile(r"[\"'#$_;\[\]]|(data_|loop_|save_|stop_|global_)", re.IGNORECASE)

NAME_CHARACTERS = 60
"""Of a table's name in a message."""


@dataclass
class Table:
    """One block of a STAR file. A block without a loop has one row.

    Attributes
    ----------
    name : str
        What follows ``data_``.
    columns : list of str
        Labels without the underscore.
    rows : list of list of str
        Values as texts.
    lines : list of int
        Line of the file that each row stands in, counted from 1.
    source : str
        The file, for messages.
    """

    name: str
    source: str
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def __contains__(self, label: str) -> bool:
        return label in self.columns

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, label: str) -> list[str]:
        """Return the values of one column.

        Raises
        ------
        InputError
            When there is no such column.
        """
        if label not in self.columns:
            raise InputError(
                f"{self.source}: the table data_{_short(self.name)} has no column _{label}; "
                "write the file again, or give another"
            )
        at = self.columns.index(label)
        return [row[at] for row in self.rows]

    def numbers(self, label: str) -> list[float]:
        """Return the values of one column as finite numbers.

        Raises
        ------
        InputError
            When there is no such column, or a value is not a number; the message names the line.
        """
        found = []
        for value, line in zip(self.column(label), self.lines, strict=True):
            number = to_number(value)
            if number is None:
                raise InputError(
                    f"{self.source}, line {line}: _{label} is {value[:40]!r}, not a number; correct or delete the line"
                )
            found.append(number)
        return found

    def records(self) -> list[Row]:
        """Return the rows as one dictionary each."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def read_star(path: Path) -> list[Table]:
    """Read all blocks of a STAR file, in the order of the file.

    Raises
    ------
    InputError
        When it cannot be read, has no block, or a row has too few or too many values. The message names the line.
    """
    return parse_star(read_table(path, "a STAR file"), str(path))


def parse_star(text: str, source: str = "STAR") -> list[Table]:
    """Read all blocks of a STAR text; `source` names it in messages. Raises as :func:`read_star` does."""
    parser = _Parser(source)
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        parser.take(line, number)
    if not parser.tables:
        what = "the file is empty" if not text.strip() else "no line begins with data_, so it is not a STAR file"
        raise InputError(f"{source}: {what}; write it again, or give another file")
    return parser.tables


def find_table(tables: Iterable[Table], name: str) -> Table | None:
    """Return the first block of that name; None where there is none."""
    return next((table for table in tables if table.name == name), None)


def records_of(path: Path, name: str) -> list[Row]:
    """Return the rows of one block of a file; none where the file or the block is not there.

    Raises
    ------
    InputError
        As :func:`read_star` does for a file that is there.
    """
    if not path.exists():
        return []
    table = find_table(read_star(path), name)
    return [] if table is None else table.records()


class _Parser:
    """Takes a STAR file line by line."""

    def __init__(self, source: str) -> None:
        self.tables: list[Table] = []
        self._source = source
        self._looped = False
        self._after_row = False

    def take(self, line: str, number: int) -> None:
        words = split_line(line)
        if not words:
            self._after_row = self._after_row and line.lstrip(_BLANKS).startswith("#")
            return
        first, plain = words[0], line.lstrip(_BLANKS)[:1] not in ("'", '"')
        if plain and self._begins_block(words):
            self.tables.append(Table(first[len("data_") :], self._source))
            self._looped = self._after_row = False
        elif not self.tables:
            return
        elif plain and first.lower() == "loop_" and len(words) == 1 and not self.tables[-1].rows:
            self._looped = True
        elif plain and first.startswith("_") and not (self._looped and self.tables[-1].rows):
            self._take_label(words, number)
        elif self._looped:
            self._take_row(words, number)

    def _begins_block(self, words: Sequence[str]) -> bool:
        """Say whether a line is a block's head. In the middle of rows, RELION takes ``data_…`` for a value."""
        if len(words) != 1 or not words[0].lower().startswith("data_"):
            return False
        columns = len(self.tables[-1].columns) if self.tables and self._looped else 0
        return columns != 1 or not (self._after_row or "/" in words[0])

    def _take_label(self, words: Sequence[str], number: int) -> None:
        table = self.tables[-1]
        table.columns.append(words[0][1:])
        if self._looped:
            return
        if not table.rows:
            table.rows.append([])
            table.lines.append(number)
        table.rows[0].append(words[1] if len(words) > 1 else "")

    def _take_row(self, words: list[str], number: int) -> None:
        table = self.tables[-1]
        if len(words) != len(table.columns):
            raise InputError(
                f"{self._source}, line {number}: {len(words)} values where data_{_short(table.name)} has "
                f"{len(table.columns)} columns; complete the line, and put a value with blanks in quotation marks"
            )
        table.rows.append(words)
        table.lines.append(number)
        self._after_row = True


def split_line(line: str) -> list[str]:
    """Split a line into its values, without a comment at its end."""
    if "#" not in line and '"' not in line and "'" not in line:
        return line.split(None) if line.isascii() else [found[3] for found in _WORD.finditer(line)]
    words = []
    for found in _WORD.finditer(line):
        if found[0].startswith("#"):
            break
        words.append(next(group for group in found.groups() if group is not None))
    return words


def to_number(value: str) -> float | None:
    """Return a finite number, or None for any other text."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in value else None


def quote(text: str) -> str:
    """Return `text` as one STAR value: in quotation marks where it would be read as something else without.

    RELION and this reader give every text back that has no line break; a line break becomes a blank. The library
    starfile reads an apostrophe as a quotation mark.
    """
    text = " ".join(text.splitlines()) if "\n" in text or "\r" in text else text
    if text and not _RESERVED.match(text) and "#" not in text and not any(map(str.isspace, text)):
        return text
    mark = "'" if '"' in text else '"'
    return f"{mark}{text}{mark}"


def unquote(value: str) -> str:
    """Return the text that :func:`quote` has made `value` from."""
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def format_table(name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return the text of one table."""
    lines = [f"data_{name}", "", "loop_"]
    lines += [f"_{label} #{number}" for number, label in enumerate(columns, 1)]
    lines += [" ".join(quote(str(value)) for value in row) for row in rows]
    return "\n".join(lines) + "\n\n"


def format_pairs(name: str, values: Mapping[str, object]) -> str:
    """Return the text of one block without a loop."""
    lines = [f"_{label} {quote(str(value))}" for label, value in values.items()]
    return "\n".join([f"data_{name}", "", *lines]) + "\n\n"


def _short(name: str) -> str:
    """Cut a name that is too long for a message."""
    return name if len(name) <= NAME_CHARACTERS else f"{name[:NAME_CHARACTERS]}…"
