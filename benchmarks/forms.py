"""How a network is run: its precision, and whether channels-last or compiled: `bf16+channels_last`."""

from contextlib import contextmanager
from typing import NamedTuple

import torch

from engine import models
from wsol.errors import UserError

PRECISIONS = {'float32': 'off', 'tf32': 'off', 'bf16': 'bf16', 'fp16': 'fp16'}  # -> a value of --amp
WORDS = (*PRECISIONS, 'channels_last', 'compile')


class Form(NamedTuple):
    """A word of --forms. tf32: convolutions may take it, as in a training by main.py; evaluators forbid it."""

    name: str
    speed: models.Speed
    tf32: bool


def parse_form(name):
    """The `Form` that the words of --forms, joined by +, stand for."""
    words = name.split('+')
    strange = [word for word in words if word not in WORDS]
    precision = [word for word in words if word in PRECISIONS]
    if strange or len(precision) > 1:
        raise UserError(f'--forms={name}: join a precision and others of {", ".join(WORDS)} with +')
    amp = PRECISIONS[precision[0]] if precision else 'off'
    speed = models.Speed(amp, 'channels_last' in words, 'compile' in words)
    return Form(name, speed, bool({'tf32', 'bf16', 'fp16'} & set(words)))


@contextmanager
def convolutions(form):
    """Convolutions in TF32 or not, as the form says; nothing on a CPU."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = form.tf32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
