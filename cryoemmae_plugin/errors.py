"""Every error that a user can meet, as a short tree, and the one place that turns an error into text.

An error keeps its parts: what is wrong, the setting concerned, its value, and what to do about it. Texts name a setting
as ``$field``, and a setting with a value as ``$field=value``. Each front end spells these in its own words with
:func:`render`: ``--diameter`` on a command line, ``diameter`` in a job form. ``str(err)`` uses the keywords of Python.

Examples
--------
>>> err = SettingsError(setting="device", value="gpu", remedy="give auto, cpu or cuda:N")
>>> str(err)
"device is 'gpu'; give auto, cpu or cuda:N"
>>> options = ParameterNames(spell=lambda field: "--" + field.replace("_", "-"))
>>> render(err, options)
"--device is 'gpu'; give auto, cpu or cuda:N"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

_SETTING = re.compile(r"(?<![^\s(])\$([a-z]\w*)(?:=(\w[\w.,:/=-]*\w|\w))?(?![\w/]|[.$-]\w)")
"""A word of its own: ``$`` in the middle of a file's name, or before its suffix, is none."""

_NUMBER = re.compile(r"\d+(\.\d+)?")


def _assign_keyword(name: str, value: str) -> str:
    words = {"yes": "True", "no": "False"}
    return f"{name}={words.get(value) or (value if _NUMBER.fullmatch(value) else repr(value))}"


@dataclass(frozen=True)
class ParameterNames:
    """How one front end names the settings.

    Attributes
    ----------
    spell : callable
        Turns a settings field into the name of the parameter; None where this front end has no such parameter.
    assign : callable
        Turns the spelled name and a value ("yes" and "no" for switches) into what a user has to write.
    instead : mapping
        What to do where a remedy names a field that this front end does not have. Other such remedies are left out.
    """

    spell: Callable[[str], str | None] = lambda name: name
    assign: Callable[[str, str], str] = _assign_keyword
    instead: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        """Spell every ``$field`` in a text; a field that this front end does not have keeps its plain name."""

        def spelled(match: re.Match[str]) -> str:
            name = self.spell(match[1])
            if name is None:
                return match[1] if match[2] is None else f"{match[1]} {match[2]}"
            return name if match[2] is None else self.assign(name, match[2])

        return _SETTING.sub(spelled, text)

    def remedies(self, texts: Sequence[str]) -> list[str]:
        """Spell the remedies that are possible in this front end."""
        possible = []
        for text in texts:
            absent = [match[1] for match in _SETTING.finditer(text) if self.spell(match[1]) is None]
            other = next((self.instead[name] for name in absent if name in self.instead), None)
            possible.append(other if absent else self(text))
        return list(dict.fromkeys(text for text in possible if text))


PYTHON = ParameterNames()
"""Settings as keywords of the Python API."""

UNSPELLED = ParameterNames(spell=lambda name: f"${name}", assign=lambda name, value: f"{name}={value}")
"""Settings as ``$field``, for text that a front end is going to spell."""


class CryoemmaeError(Exception):
    """Base of all errors raised on purpose by this package.

    Parameters
    ----------
    what : str
        What is wrong, with the file that it concerns. May be empty where setting and value say it.
    setting : str, optional
        Field of the settings that is wrong, such as "diameter_A". The message begins with it, unless `what` names it.
    value : object, optional
        Its value.
    remedy : str or sequence of str
        What to do about it; several are alternatives.
    """

    def __init__(
        self, what: str = "", *, setting: str | None = None, value: object = None, remedy: str | Sequence[str] = ()
    ) -> None:
        super().__init__(what)
        self.what = what
        self.setting = setting
        self.value = value
        self.remedies = (remedy,) if isinstance(remedy, str) else tuple(remedy)

    def __str__(self) -> str:
        return render(self, PYTHON)


def render(err: BaseException, names: ParameterNames) -> str:
    """The message of an error, with the settings named as one front end names them.

    Errors that are not of this package are taken as they are.
    """
    if not isinstance(err, CryoemmaeError):
        return str(err)
    if isinstance(err, SettingsError) and err.problems:
        return "; ".join(render(problem, names) for problem in err.problems)
    parts = [names(err.what)] if err.what else []
    if err.setting is not None and f"${err.setting}" not in err.what:
        name = names(f"${err.setting}")
        parts.insert(0, name if err.value is None else f"{name} is {_shown(err.value)}")
    return "; ".join([": ".join(parts), *filter(None, [", or ".join(names.remedies(err.remedies))])])


def _shown(value: object) -> str:
    try:
        return f"{value:g}" if isinstance(value, float) else repr(value)
    except ValueError:  # a number of thousands of digits
        return "a huge number"


class SettingsError(CryoemmaeError):
    """A setting is missing, out of range, or contradicts another.

    Attributes
    ----------
    problems : tuple of SettingsError
        Where several settings are wrong, an error for each; else empty.
    """

    problems: tuple[SettingsError, ...] = ()

    @classmethod
    def together(cls, problems: Sequence[SettingsError]) -> SettingsError:
        """One error for one or several problems."""
        if len(problems) == 1:
            return problems[0]
        err = cls()
        err.problems = tuple(problems)
        return err


class CannotTellError(SettingsError):
    """A setting was left to the micrographs, and they do not say; the way out is to give it."""


class InputError(CryoemmaeError):
    """A path leads to no micrograph, or a table (STAR, CSV) cannot be read as what it should be."""


class ImageError(CryoemmaeError):
    """A micrograph cannot be read or cannot be picked: missing, truncated, empty, constant, not an image."""


class PixelSizeError(ImageError):
    """A micrograph's pixel size is unknown or obviously unset."""


class ModelError(CryoemmaeError):
    """A model cannot be found, read or verified."""


class TrainingError(CryoemmaeError):
    """A training diverged, or its model has learned nothing."""


class DeviceError(CryoemmaeError):
    """The requested device is not there, or has not enough memory."""


class ClusterError(CryoemmaeError):
    """A scheduler is not there, or a worker cannot do its part: other version, files out of sight, no Dask."""


class OutputError(CryoemmaeError):
    """A result cannot be written: no permission, no space, not a folder."""


class StoreError(OutputError):
    """A result folder belongs to other settings, another model, or another version."""


class Interrupted(CryoemmaeError):
    """A run was stopped from outside before it was complete."""
