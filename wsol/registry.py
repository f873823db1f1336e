"""Looking a name up in a registry: the one place that says what an unknown name could have meant."""

import difflib

from .errors import UserError


def lookup(registry, name, what):
    """registry[name]; an unknown name is a UserError that lists close and valid ones. `what`: the kind of thing."""
    if name not in registry:
        close = difflib.get_close_matches(str(name), registry)
        hint = f'did you mean {" or ".join(close)}? ' if close else ''
        raise UserError(f'unknown {what} {name!r}: {hint}choose one of {", ".join(registry)}')
    return registry[name]
