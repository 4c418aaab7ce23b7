"""RELION's own STAR files, row by row: pipelines, job settings, coordinates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryoemmae_plugin.run.record import quote, unquote

Row = dict[str, str]
_WORD = re.compile(r"""'[^']*'(?=\s|$)|"[^"]*"(?=\s|$)|\S+""")


def read_blocks(path: Path) -> dict[str, list[Row]]:
    """Read all blocks of a STAR file, see :func:`parse_blocks`; none where there is no such file."""
    try:
        return parse_blocks(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}


def parse_blocks(text: str) -> dict[str, list[Row]]:
    """The blocks of a STAR file as rows of texts; a block without a loop is one row."""
    blocks: dict[str, list[Row]] = {}
    rows: list[Row] = []
    columns: list[str] = []
    in_loop = False
    for line in text.splitlines():
        words = _WORD.findall(line)
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith("data_"):
            rows, columns, in_loop = blocks.setdefault(words[0][5:], []), [], False
        elif words[0] == "loop_":
            in_loop = True
        elif words[0].startswith("_") and in_loop:
            columns.append(words[0][1:])
        elif words[0].startswith("_"):
            rows[:] = [{**(rows[0] if rows else {}), words[0][1:]: unquote(words[1]) if len(words) > 1 else ""}]
        elif in_loop:
            rows.append(dict(zip(columns, map(unquote, words), strict=False)))
    return blocks


def loop(block: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The text of one table."""
    lines = [f"data_{block}", "", "loop_"]
    lines += [f"_{name} #{i}" for i, name in enumerate(columns, 1)]
    lines += [" ".join(quote(str(value)) for value in row) for row in rows]
    return "\n".join(lines) + "\n\n"
