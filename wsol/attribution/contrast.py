"""Maps of a difference of scores: what speaks for class A and against class B, S_A - gamma S_B, explained at once.

Any map that explains a scalar explains this one: the pairs (A, B) of a batch take the place of the model's classes.
With Grad-CAM that is Finer-CAM (Zhang et al., CVPR 2025) with one class to compare with, gamma its comparison strength.
What a map holds above 0 speaks for A. Maps that are cut at 0 show nothing else: exchange A and B to see what speaks for
B.
"""

from contextlib import contextmanager

import torch

from ..errors import UserError
from ..network import Network
from .common import as_target
from .gradient import predictions
from .registry import MAPS


def is_linear(name, model):
    """Is it the map of a network that sums to the scalar, CAM's class scores? Its contrast is a difference of maps."""
    return name == 'vanilla' and isinstance(model, Network) and model.head.own_map == name


def check_contrast(name, model):
    """A UserError where the map explains no scalar of the model that could be a difference."""
    if '{scalar}' not in MAPS[name].unit and not is_linear(name, model):
        explaining = ', '.join(one for one, row in MAPS.items() if '{scalar}' in row.unit)
        raise UserError(
            f'{name} explains no score that a difference of scores could take the place of: subtract two maps, or '
            f'choose one of {explaining}, or vanilla of CAM'
        )


@contextmanager
def contrasting(model, pairs, gamma):
    """Within it the model's scores are [B, K]: S_a - gamma S_b of K pairs (a, b), a LongTensor [K, 2]."""

    a, b = pairs.T.tolist()

    def contrasts(scores):
        if not 0 <= min(a + b) <= max(a + b) < scores.shape[1]:
            raise UserError(f'target or contrast holds a class outside 0..{scores.shape[1] - 1}: {sorted({*a, *b})}')
        return scores[:, a] - gamma * scores[:, b]

    def hook(module, inputs, output):
        scores = output if torch.is_tensor(output) else getattr(output, 'log_score', None)
        return output if scores is None or scores.ndim != 2 else contrasts(scores)

    if not isinstance(model, Network):
        handle = model.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()
        return
    head = model.head  # scores are read off features too, where only the head runs again
    model.head = head._replace(log_score=lambda f, h: contrasts(head.log_score(f, h)), linear=False)
    try:
        yield
    finally:
        model.head = head


def explain_contrast(name, model, images, target, contrast, gamma, options):
    """Maps [B, h, w] of S_A - gamma S_B, A the target and B the contrast; arguments as for `attribution.explain`."""
    check_contrast(name, model)
    if callable(target) or callable(contrast):
        raise UserError('contrast is of classes: give a target function that returns the difference, and no contrast')
    function = MAPS[name].function
    a = as_target(target, len(images))
    a = predictions(model, images, options=options).cpu() if a is None else a.cpu()
    b = as_target(contrast, len(images)).cpu()
    if is_linear(name, model):
        return function(model, images, a, options) - gamma * function(model, images, b, options)
    pairs, number = torch.stack([a, b], dim=1).unique(dim=0, return_inverse=True)  # [K, 2], [B]
    with contrasting(model, pairs, gamma):
        return function(model, images, number, options)
