"""Names that are looked up: the one place that says what an unknown name could have meant."""

import difflib

from .errors import UserError


def did_you_mean(name, names, count=3, prefix=''):
    """'did you mean A or B? ' of up to `count` names close to `name`, each behind `prefix`; '' where none is close."""
    return question(prefix + close for close in difflib.get_close_matches(str(name), names, n=count))


def question(close):
    """'did you mean A or B? ' of these names; '' of none."""
    names = ' or '.join(close)
    return f'did you mean {names}? ' if names else ''


def lookup(registry, name, what):
    """registry[name]; an unknown name is a UserError that lists close and valid ones. `what`: the kind of thing."""
    if name not in registry:
        hint = did_you_mean(name, registry)
        raise UserError(f'unknown {what} {name!r}: {hint}choose one of {", ".join(registry)}')
    return registry[name]
