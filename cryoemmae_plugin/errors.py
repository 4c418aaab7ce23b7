"""Every error that a user can meet, as a short tree.

A message names the file, the value and the way out. Code that catches :class:`CryoemmaeError` has caught all of them.
"""


class CryoemmaeError(Exception):
    """Base of all errors raised on purpose by this package."""


class SettingsError(CryoemmaeError):
    """A setting is missing, out of range, or contradicts another."""


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
