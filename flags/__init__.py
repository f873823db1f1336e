"""All flags of all commands: what each affects, which commands use it, its default and allowed values.

`config.py` builds the parsers from these tables; --resume uses them to decide whether two commands are the same.
"""

from .maps import EXPLANATION, PHOTOGRAPHS, SCORING
from .network import DATA, LEARNING, MODEL, RUN
from .row import COMMANDS, MAPS, NETWORK, NOTHING, PLACE, SCORES, TRAINING

__all__ = ['COMMANDS', 'FLAGS', 'GROUPS', 'MAPS', 'NETWORK', 'NOTHING', 'PLACE', 'SCORES', 'TRAINING', 'names_of']

GROUPS = {  # the groups in --help
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
    """The names of the flags that affect one of these; grows: only flags with this value of `grows`."""
    return {flag.name for flag in FLAGS if flag.affects in affected and grows in (None, flag.grows)}
