"""What a run or a training settles before its work, kept as a small JSON file in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from cryoemmae_plugin.errors import StoreError
from cryoemmae_plugin.run.atomic import atomic_write

Note = TypeVar("Note", bound=BaseModel)


def read_note(path: Path, kind: type[Note], way_out: str) -> Note | None:
    """Read a note; None where there is none.

    Raises
    ------
    StoreError
        When the file is there and cannot be read; the message ends in `way_out`.
    """
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError, ValidationError) as err:
        raise StoreError(f"{path}: cannot be read ({str(err).splitlines()[0]}); {way_out}") from err


def write_note(path: Path, note: BaseModel) -> None:
    """Write a note, at once or not at all; raises OutputError where that cannot be."""
    with atomic_write(path) as file:
        file.write(json.dumps(note.model_dump(), indent=2, ensure_ascii=False) + "\n")
