"""Attribution maps by name: `explain`, the registry MAPS, and `normalize` and `upsample` as the caller's choice.

The names in __all__ are the public door; the modules say what each map is and where it comes from.
"""

from dataclasses import fields, replace

import torch

from ..errors import UserError
from .classifier import Classifier, logits_of
from .common import Options, chosen, explainer, noise_seed, scores_of
from .contrast import check_contrast, explain_contrast
from .gradient import guided_gradients, integrated_gradients_by_channel, integrated_gradients_with_gap, target_scores
from .maps import NORMALIZATIONS, fuse, normalize, upsample
from .readouts import class_maps
from .registry import MAPS, READOUTS, SUPERCLASS_READOUTS, Map, lookup, suited, unit_of

__all__ = [
    'MAPS',
    'NORMALIZATIONS',
    'READOUTS',
    'SUPERCLASS_READOUTS',
    'Classifier',
    'Map',
    'Options',
    'check_contrast',
    'chosen',
    'class_maps',
    'explain',
    'explainer',
    'fuse',
    'guided_gradients',
    'integrated_gradients_by_channel',
    'integrated_gradients_with_gap',
    'logits_of',
    'lookup',
    'noise_seed',
    'normalize',
    'scores_of',
    'suited',
    'target_scores',
    'unit_of',
    'upsample',
]


def explain(
    name: str,
    model: torch.nn.Module,
    images: torch.Tensor,
    target: int | list[int] | torch.Tensor | None = None,
    *,
    contrast: int | list[int] | torch.Tensor | None = None,
    gamma: float = 1,
    options: Options = Options(),
    **changes,
) -> torch.Tensor:
    """Attribution maps [B, h, w] at native size, unscaled, signed where the map is.

    name: of MAPS. model: a `wsol.network.Network`, or for the post-hoc maps any classifier that returns logits [B, C].
    images [B, 3, H, W]. target: the explained class, an int, a list or LongTensor [B], or None for the prediction.
    contrast: a class B or one an image, as target is: what is explained is then S_target - gamma S_B at once (Finer-CAM
    with Grad-CAM), for maps that explain a score; for others that is a UserError. See contrast.py.
    changes: fields of `Options`, such as target_layer='layer4', which is where each is described; they win over
    `options`. The model, its gradients, hooks and modes are afterwards as before.
    Unknown names, wrong lengths and classes outside the model's are a UserError.

    >>> import torch
    >>> from torchvision import models
    >>> classifier = models.resnet18(weights=None).eval()
    >>> explain('grad_cam', classifier, torch.zeros(2, 3, 64, 64), target=[3, 5], target_layer='layer3').shape
    torch.Size([2, 4, 4])
    """
    known = [field.name for field in fields(Options)]
    unknown = [word for word in changes if word not in known]
    if unknown:
        raise UserError(f'unknown option {", ".join(unknown)}: the options are {", ".join(known)}')
    changes = {word: value for word, value in changes.items() if value is not None}
    row = lookup(name)
    options = replace(options, **changes)
    if contrast is not None:
        return explain_contrast(name, model, images, target, contrast, gamma, options)
    return row.function(model, images, target, options)
