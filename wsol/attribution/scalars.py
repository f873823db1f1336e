"""What is explained in place of a class: any number that a function reads off the model's output, one an image."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..errors import UserError

Function = Callable[[Any], torch.Tensor]  # the output for n images -> [n], one number an image


class Scalar(nn.Module):
    """A model with a single class, whose score is `function` of its output: images [n, ...] -> [n, 1].

    What does not return one number an image is a UserError.
    """

    def __init__(self, model: nn.Module, function: Function) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.function(self.model(images))
        if not torch.is_tensor(values) or values.shape != (len(images),) or not values.is_floating_point():
            what = f'{list(values.shape)} of {values.dtype}' if torch.is_tensor(values) else type(values).__name__
            raise UserError(
                f'the target function returns {what} for {len(images)} images: a tensor of one float an image, '
                f'[{len(images)}], is needed'
            )
        return values[:, None]  # [n, 1]


def bare(model: nn.Module) -> nn.Module:
    """The model itself, without the function of its output that is explained."""
    return model.model if isinstance(model, Scalar) else model


def check_classes(model: nn.Module, name: str) -> None:
    """A UserError for a map that needs classes where a function is explained."""
    if isinstance(model, Scalar):
        raise UserError(f'{name} needs classes, and the target is a function: give a class, or choose another method')
