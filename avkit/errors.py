"""The errors avkit raises on purpose. Each message says what was given, what was wanted, and what to do."""


class AvkitError(Exception):
    """Base of every error that a user can mend. The command line prints it without a traceback."""


class InputError(AvkitError, ValueError):
    """An argument has the wrong shape, type, length or content."""


class DataError(AvkitError):
    """A file or folder of data is missing, unreadable, or not what its name promises."""


class CheckpointError(AvkitError):
    """A file of weights cannot be read, or does not fit the network it is meant for."""


class MissingPackageError(AvkitError, ImportError):
    """An optional package is needed here and is not installed."""


class DownloadError(AvkitError):
    """A file could not be fetched whole; the message says how to go on without it, or by hand."""
