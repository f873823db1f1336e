"""Every flag of every command, once: what it affects, which commands use it, its default and its allowed values.

`config.py` makes each command's parser from these tables, and --resume uses them to decide whether two commands are the
same.
"""

from .maps import EXPLANATION, PHOTOGRAPHS, SCORING
from .network import DATA, LEARNING, MODEL, RUN
from .row import COMMANDS, MAPS, NETWORK, NOTHING, PLACE, SCORES, TRAINING

__all__ = ['COMMANDS', 'FLAGS', 'GROUPS', 'MAPS', 'NETWORK', 'NOTHING', 'PLACE', 'SCORES', 'TRAINING', 'names_of']

GROUPS = {  # as --help shows them
    'run': RUN,
    'data': DATA,
    'network': MODEL,
    'training': LEARNING,
    'maps': EXPLANATION,
    'scores': SCORING,
    'photographs and pictures': PHOTOGRAPHS,
}
FLAGS = [flag for group in GROUPS.values() for flag in group]


def names_of(*affected, grows=None):
    """The names of the flags that affect one of these; grows: only flags with that value of `grows`."""
    return {flag.name for flag in FLAGS if flag.affects in affected and grows in (None, flag.grows)}
