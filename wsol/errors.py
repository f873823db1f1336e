"""What the user can mend. Every other exception is a defect of the code and shows its traceback.

A command ends one of these in a single line and exit code 2. Each is also the built-in exception that it is a case of,
so that callers of the library may catch the built-in one.
"""


class UserError(ValueError):
    """A value, file or combination that cannot be used: the message says what was given, what is allowed, what to
    do."""


class MissingFile(UserError, FileNotFoundError):
    """A file that is needed and is not there."""


class AlreadyThere(UserError, FileExistsError):
    """A file that would have to be replaced, and no flag allows it."""


class InUse(UserError, BlockingIOError):
    """A result that another run is making."""


class Unreachable(UserError, ConnectionError):
    """Something that only a network has."""


class Unwritable(UserError, OSError):
    """A file that the disk does not take, or a process that the machine ended."""


class NotFinite(UserError, FloatingPointError):
    """A training that left the finite numbers."""
