"""``cryoemmae convert``, ``merge`` and ``dedup``: picks between programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from pydantic import Field

from cryoemmae_plugin.errors import SettingsError
from cryoemmae_plugin.settings import Options
from cryoemmae_plugin.star import to_number
from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import OPTIONS, Flag, option_name

if TYPE_CHECKING:
    from cryoemmae_plugin.picks.convert import Batch, Places
    from cryoemmae_plugin.picks.table import PickTable

Paths = Annotated[list[Path], Parameter(name="PICKS", negative="", consume_multiple=True)]
Optional = Annotated[float | None, Parameter(show_default=False)]
Several = Annotated[list[str], Parameter(negative="", consume_multiple=True, show_default=False)]


class PickFiles(Options):
    """Where picks go, and which micrographs they are of: the same for all commands. Frozen."""

    out: Path = Field(description="File to write; a folder for relion, cryolo and eman.")
    to: str | None = Field(
        default=None,
        description="star, relion, cryosparc (a STAR), cs, cryolo, eman, topaz or csv. [default: by the suffix of "
        "--out]",
    )
    micrographs: Several = Field(
        default=[],
        description="The micrographs: files, folders, a STAR file, or the .cs file of CryoSPARC's exposures. The picks "
        "get their names, and coordinates of another pixel size are multiplied to fit. [default: names as in the "
        "first file of picks]",
    )
    diameter_A: float | None = Field(default=None, description="Particle diameter in Å. [default: as the files say]")
    pixel_size_A: float | None = Field(
        default=None, description="Å per pixel of the micrographs. [default: as the files say]"
    )
    overwrite: Flag = Field(default=False, description="Replace what is there.")

    def places(self, picks_pixel_size_A: float | None = None) -> Places:
        """The micrographs that the picks belong to."""
        return _places(self.micrographs, self.pixel_size_A, picks_pixel_size_A)

    def write(self, tables: Sequence[PickTable]) -> None:
        """Write the picks for the program that was asked for."""
        from cryoemmae_plugin.picks.writing import choose_target, write

        write(choose_target(self.to, self.out), self.out, tables, overwrite=self.overwrite)

    def check_format(self) -> None:
        """Refuse a format that is not known before anything is read."""
        from cryoemmae_plugin.picks.writing import choose_target

        choose_target(self.to, self.out)


FileChoice = Annotated[PickFiles, Parameter(name="*", name_transform=option_name)]


def convert(
    paths: Paths,
    /,
    *,
    files: FileChoice,
    picks_pixel_size: Optional = None,
    min_score: Optional = None,
    scale: float = 1.0,
    flip_y: Flag = False,
    shift: Annotated[str | None, Parameter(show_default=False)] = None,
    check: Annotated[Path | None, Parameter(show_default=False)] = None,
    contrast: Literal["dark", "bright"] = "dark",
) -> None:
    """Write picks of one program for another.

    Read are STAR files of RELION 3.1 to 5 and CryoSPARC, CryoSPARC's .cs, crYOLO's .cbox, EMAN's .box, Topaz's .txt,
    CSV tables, and folders of them.

    Parameters
    ----------
    paths
        Files of picks, or folders with files of one program.
    picks_pixel_size
        Å per pixel of the coordinates, if they were made on binned micrographs. [default: as the files say]
    min_score
        Leave out picks with a lower score.
    scale
        Multiply coordinates by this factor: 4 for picks made on micrographs binned by 4.
    flip_y
        Count rows from the other end.
    shift
        Add X,Y in micrograph pixels.
    check
        Other picks of the same micrographs, or the micrographs themselves: say whether the picks to write are flipped,
        binned or shifted against them.
    contrast
        For --check with micrographs: particles are dark or bright.
    """
    reporter = _begin(paths)
    from cryoemmae_plugin.picks.convert import load, within
    from cryoemmae_plugin.picks.transform import Transform

    files.check_format()
    batch = load(paths, files.places(picks_pixel_size), Transform(scale, flip_y, _pair(shift)))
    _tell(reporter, batch)
    batch = within(batch, files.diameter_A, min_score)
    if check is not None:
        _check(reporter, batch, check, files, contrast)
    files.write(batch.tables)
    reporter.say(f"Wrote {batch.account()} to {files.out}")


def merge(
    paths: Paths,
    /,
    *,
    files: FileChoice,
    how: Literal["union", "intersection", "consensus"] = "union",
    least: Annotated[int | None, Parameter(show_default=False)] = None,
    distance: str = "0.5",
) -> None:
    """Merge picks of several sources into one table without duplicates.

    The merged score is the mean rank of a pick in the sources: 1 for the best of a source, 0 where a source has none.
    A STAR file keeps the score of each source in a column of its own.

    Parameters
    ----------
    paths
        A file or folder of picks for each source; NAME=PATH gives it a name.
    how
        union: what any source has; intersection: what all have; consensus: what more than half of them have.
    least
        Keep what at least this many sources have, in place of --how.
    distance
        Picks within this many diameters are one; with an A behind it, within so many Å: 0.5, or 60A.
    """
    reporter = _begin(paths)
    from cryoemmae_plugin.picks.convert import Batch, load, reach_of, within
    from cryoemmae_plugin.picks.merging import Source, align_names, remove_duplicates, votes_of
    from cryoemmae_plugin.picks.merging import merge as merge_tables

    if len(paths) < 2:
        raise SettingsError("one source only", remedy="give the picks of two or more sources")
    files.check_format()
    reach = reach_of(distance)
    sources: list[Source] = []
    for text in map(str, paths):
        name, path = _named(text, [source.name for source in sources])
        batch = within(load([path], files.places()), files.diameter_A)
        _tell(reporter, batch, f"{name}: ")
        sources.append(Source(name, [remove_duplicates(table, reach(table)) for table in batch.tables]))
        reporter.say(f"{name}: {batch.account()}")
    sources = align_names(sources)
    for source in sources[1:]:
        _compare(reporter, source.tables, source.name, sources[0].tables, sources[0].name)
    votes = least or votes_of(how, len(sources))
    if votes > len(sources):
        raise SettingsError(setting="least", value=votes, remedy=f"give at most {len(sources)}, as there are sources")
    merged = Batch(merge_tables(sources, reach, votes))
    files.write(merged.tables)
    of = "any" if votes == 1 else f"at least {votes}"
    reporter.say(f"Wrote {merged.account()} that {of} of {len(sources)} sources have to {files.out}")


def dedup(
    path: Annotated[Path, Parameter(name="PICKS")],
    /,
    *,
    files: FileChoice,
    distance: str = "0.5",
) -> None:
    """Of picks that lie close to each other, keep the best one.

    Parameters
    ----------
    path
        File or folder of picks.
    distance
        Least distance in diameters; with an A behind it, in Å: 0.5, or 60A.
    """
    reporter = _begin([path])
    from cryoemmae_plugin.picks.convert import Batch, load, reach_of, within
    from cryoemmae_plugin.picks.merging import remove_duplicates

    files.check_format()
    reach = reach_of(distance)
    batch = within(load([path], files.places()), files.diameter_A)
    _tell(reporter, batch)
    kept = Batch([remove_duplicates(table, reach(table)) for table in batch.tables])
    files.write(kept.tables)
    reporter.say(f"Wrote {kept.account()} to {files.out}; {batch.picks - kept.picks} duplicates left out")


def _begin(paths: Sequence[Path | str]) -> Reporter:
    """Say the first line before the imports, which take seconds."""
    reporter = Reporter()
    reporter.say(f"Reading picks of {', '.join(map(str, paths))}")
    return reporter


def _places(micrographs: Sequence[str], pixel_size_A: float | None, picks_pixel_size_A: float | None = None) -> Places:
    """The micrographs that picks belong to."""
    from cryoemmae_plugin.picks.convert import Places
    from cryoemmae_plugin.picks.cryosparc import read_exposures
    from cryoemmae_plugin.run.inputs import find_micrographs

    found, uids = [], []
    for text in micrographs:
        if text.lower().endswith(".cs"):
            for micrograph, uid in read_exposures(Path(text)):
                found.append(micrograph)
                uids.append(uid)
    others = [text for text in micrographs if not text.lower().endswith(".cs")]
    if others and uids:
        raise SettingsError(setting="micrographs", value=others[0], remedy="give .cs files alone, or none of them")
    found += find_micrographs(others, pixel_size_A=pixel_size_A) if others else []
    return Places(found, uids, pixel_size_A, picks_pixel_size_A)


def _named(text: str, taken: list[str]) -> tuple[str, Path]:
    """The name of a source and its path: NAME=PATH, or a path alone."""
    name, equals, rest = text.partition("=")
    path = Path(rest) if equals and name.isidentifier() and not Path(text).exists() else Path(text)
    if path == Path(text):
        name = path.stem or path.name
    name = "".join(letter if letter.isalnum() else "_" for letter in name)
    number = sum(other == name or other.startswith(f"{name}_") for other in taken)
    return (f"{name}_{number + 1}" if number else name), path


def _pair(text: str | None) -> tuple[float, float]:
    numbers = [to_number(part) for part in (text or "0,0").split(",")]
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        raise SettingsError(setting="shift", value=text, remedy="give X,Y in pixels, such as 12,-8")
    return numbers[0], numbers[1]


def _tell(reporter: Reporter, batch: Batch, before: str = "") -> None:
    """Say what a user should know of what was read."""
    for note in batch.notes:
        reporter.warn(f"{before}{OPTIONS(note)}")


def _check(reporter: Reporter, batch: Batch, check: Path, files: PickFiles, contrast: str) -> None:
    """Compare the frame of picks with other picks, or with the micrographs."""
    from cryoemmae_plugin.picks.convert import Places, centres_of, is_picks, load

    if is_picks(check):
        other = load([check], Places(pixel_size_A=files.pixel_size_A)).tables
    else:
        micrographs = _places([str(check)], files.pixel_size_A).micrographs
        other = centres_of(micrographs, files.diameter_A, bright=contrast == "bright")
    _compare(reporter, batch.tables, "the picks", other, str(check), always=True)


def _compare(
    reporter: Reporter,
    tables: Sequence[PickTable],
    name: str,
    other: Sequence[PickTable],
    other_name: str,
    *,
    always: bool = False,
) -> None:
    """Say whether picks are in another frame than others; `always` also where they are not."""
    from cryoemmae_plugin.picks.convert import compare_tables

    finding = compare_tables(tables, other)
    if finding is not None and finding.differs:
        reporter.warn(OPTIONS(finding.message(name, other_name)))
    elif always and finding is None:
        reporter.warn(f"Too few picks on the same micrographs to compare {name} with {other_name}")
    elif always and finding is not None:
        reporter.say(
            f"{finding.as_they_are:.0%} of the picks are those of {other_name}; no flip, binning or shift fits better"
        )
