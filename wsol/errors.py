"""Errors that the user can fix. Any other exception is a bug and shows its traceback.

Commands print these as one line and exit with code 2. Each class also derives from the matching built-in exception, so
library callers can catch that instead.
"""


class UserError(ValueError):
    """An unusable value, file or combination. The message says what was given, what is allowed and what to do."""


class MissingFile(UserError, FileNotFoundError):
    """A required file does not exist."""


class AlreadyThere(UserError, FileExistsError):
    """A file would be overwritten and no flag allows it."""


class InUse(UserError, BlockingIOError):
    """Another run is producing this result."""


class Unreachable(UserError, ConnectionError):
    """A download failed."""


class Unwritable(UserError, OSError):
    """The disk refuses a write, or the operating system killed a process."""


class NotFinite(UserError, FloatingPointError):
    """Training produced NaN or infinity."""
