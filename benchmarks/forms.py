"""Execution modes of a network: precision, channels-last, compiled; for example `bf16+channels_last`."""

from contextlib import contextmanager
from typing import NamedTuple

import torch

from engine import models
from wsol.errors import UserError

PRECISIONS = {'float32': 'off', 'tf32': 'off', 'bf16': 'bf16', 'fp16': 'fp16'}  # -> a value of --amp
WORDS = (*PRECISIONS, 'channels_last', 'compile')


class Form(NamedTuple):
    """An execution mode of --forms. tf32: allow TF32 convolutions, as main.py does; evaluators forbid it."""

    name: str
    speed: models.Speed
    tf32: bool


def parse_form(name):
    """The `Form` of words joined by +."""
    words = name.split('+')
    unknown = [word for word in words if word not in WORDS]
    precision = [word for word in words if word in PRECISIONS]
    if unknown or len(precision) > 1:
        raise UserError(f'--forms={name}: join at most one precision and other words of {", ".join(WORDS)} with +')
    amp = PRECISIONS[precision[0]] if precision else 'off'
    speed = models.Speed(amp, 'channels_last' in words, 'compile' in words)
    return Form(name, speed, bool({'tf32', 'bf16', 'fp16'} & set(words)))


@contextmanager
def convolutions(form):
    """Allow or forbid TF32 convolutions as the form requires; no effect on a CPU."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = form.tf32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
