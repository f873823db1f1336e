"""Explaining a function of the model's output, one number per image, instead of a class."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..errors import UserError

Function = Callable[[Any], torch.Tensor]  # model output for n images -> [n], one number per image


class Scalar(nn.Module):
    """A model with a single class whose score is `function` of the model's output: images [n, ...] -> [n, 1].

    Raises UserError if the function does not return one number per image.
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
                f'the target function returns {what} for {len(images)} images: return one float per image, a tensor '
                f'[{len(images)}]'
            )
        return values[:, None]  # [n, 1]


def bare(model: nn.Module) -> nn.Module:
    """The model without its `Scalar` wrapper."""
    return model.model if isinstance(model, Scalar) else model


def check_classes(model: nn.Module, name: str) -> None:
    """Raise UserError if a function is explained by a map that needs classes."""
    if isinstance(model, Scalar):
        raise UserError(f'{name} needs classes, but the target is a function: give a class, or choose another method')
