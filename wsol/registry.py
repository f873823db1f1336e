"""Registry look-up with suggestions for misspelt names."""

import difflib

from .errors import UserError


def did_you_mean(name, names, count=3, prefix=''):
    """'did you mean A or B? ' with up to `count` names similar to `name`, each prefixed; '' if none is similar."""
    return question(prefix + close for close in difflib.get_close_matches(str(name), names, n=count))


def question(close):
    """'did you mean A or B? ' for these names; '' if there are none."""
    names = ' or '.join(close)
    return f'did you mean {names}? ' if names else ''


def lookup(registry, name, what):
    """registry[name]; raises UserError listing similar and valid names. `what`: the kind of thing, for the message."""
    if name not in registry:
        hint = did_you_mean(name, registry)
        raise UserError(f'unknown {what} {name!r}: {hint}choose one of {", ".join(registry)}')
    return registry[name]
