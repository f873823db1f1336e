"""Explaining images by name: `explain` for tensors, and `Explainer`, which also takes photographs and class names."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ..class_words import parse_class
from ..errors import UserError
from ..preprocessing import PAPER, Preprocessing, of_timm
from .common import Target, as_target, check_images
from .contrast import explain_contrast
from .inputs import as_batch, picture
from .options import Options, combined
from .pictures import overlay
from .registry import LAYER, MAPS, resolve
from .watching import Logits, watched

SIZE = 224  # side of photographs where a model does not say its own


def explain(
    name: str | Callable,
    model: torch.nn.Module,
    images: torch.Tensor,
    target: Target = None,
    *,
    contrast: int | list[int] | torch.Tensor | None = None,
    gamma: float = 1,
    options: Options = Options(),
    **changes: Any,
) -> torch.Tensor:
    """Attribution maps [B, h, w] at native size, unscaled, signed where the map is.

    name: of MAPS, in any spelling that `resolve` knows, or the method itself, such as `grad_cam`. model: a
    `wsol.network.Network`, or for the post-hoc maps any classifier that returns logits [B, C].
    images [B, 3, H, W]. target: the explained class, an int, a list or LongTensor [B], or None for the prediction; or
    a function of the model's output for any number n of images that returns one number an image, [n], which is then
    explained (of whatever the model returns; not for maps that need classes).
    contrast: a class B or one an image, as target is: what is explained is then S_target - gamma S_B at once (Finer-CAM
    with Grad-CAM), for maps that explain a score; for others that is a UserError. See contrast.py.
    changes: fields of `Options`, such as target_layer='layer4', which is where each is described; they win over
    `options`, and None is the option's default. One that the map does not read is a warning. The model, its gradients,
    hooks and modes are afterwards as before.
    Unknown names, wrong lengths and classes outside the model's are a UserError.

    >>> import torch
    >>> from torchvision import models
    >>> classifier = models.resnet18(weights=None).eval()
    >>> explain('grad_cam', classifier, torch.zeros(2, 3, 64, 64), target=[3, 5], target_layer='layer3').shape
    torch.Size([2, 4, 4])
    """
    name = _name_of(name)
    options = _told(name, options, changes)
    if contrast is not None:
        return explain_contrast(name, model, images, target, contrast, gamma, options)
    return MAPS[name].function(model, images, target, options)


def _name_of(method: str | Callable) -> str:
    """The name in MAPS of a method, which is given by a name or as the function itself."""
    return resolve(method if isinstance(method, str) else getattr(method, '__name__', repr(method)))


def _told(name: str, options: Options, changes: dict[str, Any]) -> Options:
    """The options with their changes, with a warning for those that the map does not read."""
    options = combined(options, changes)
    idle = [word for word, value in changes.items() if value is not None and word not in MAPS[name].options]
    if idle:
        warnings.warn(f'{name} does not read {", ".join(idle)}: its options are {", ".join(MAPS[name].options)}')
    return options


@dataclass(frozen=True)
class Result:
    """Maps of a batch of B images, and what the model said of them."""

    maps: torch.Tensor  # [B, h, w], at native size, unscaled, signed where the map is
    logits: torch.Tensor | None  # [B, C], of CALM log p(y|x); None where the model returns something else
    probs: torch.Tensor | None  # [B, C], the model's own p(y|x), or the softmax of its logits
    targets: torch.Tensor | None  # LongTensor [B], the explained classes; None: a function was explained
    images: torch.Tensor  # [B, 3, H, W], as the network took them
    preprocessing: Preprocessing  # of these images
    photographs: list[Image.Image | None]  # what the network saw, at the photographs' own resolution; None: of a tensor

    @property
    def pictures(self) -> list[Image.Image]:
        """What the network saw of each image: of a photograph at its own resolution, of a tensor at the tensor's."""
        pairs = zip(self.photographs, self.images, strict=True)
        return [one or picture(image, self.preprocessing) for one, image in pairs]

    def overlay(self, index: int = 0, colormap: str = 'inferno', opacity: float = 0.7) -> Image.Image:
        """The map of one of the images over it: a Pillow image; see `pictures.overlay`."""
        return overlay(self.pictures[index], self.maps[index], colormap, opacity)


class Explainer:
    """A method for a model, made once and called on images: `explainer(images, target)` -> `Result`.

    model: any torch.nn.Module on images [B, 3, h, w]; one of `wsol.load_classifier` knows its preprocessing and its
    class names. method: a name as for `explain`. preprocessing, image_size, class_names: how photographs are prepared
    (a `wsol.preprocessing.Preprocessing`, the side of the square), and what the classes are called, where the model
    does not say so itself in attributes of these names; timm's networks say how in theirs. Without either, photographs
    become squares of 224 pixels with ImageNet's mean and deviation.
    options, changes: as for `explain`; `explainer(…, option=value)` changes them for one call.

    >>> import torch
    >>> from torchvision import models
    >>> explainer = Explainer(models.resnet18(weights=None).eval(), 'Grad-CAM', target_layer='layer3')
    >>> result = explainer(torch.zeros(2, 3, 64, 64), target=[3, 5])
    >>> result.maps.shape, result.probs.shape, result.targets.tolist(), result.overlay(1).size
    (torch.Size([2, 4, 4]), torch.Size([2, 1000]), [3, 5], (64, 64))
    """

    def __init__(
        self,
        model: torch.nn.Module,
        method: str | Callable = 'grad_cam',
        *,
        preprocessing: Preprocessing | None = None,
        image_size: int | None = None,
        class_names: list[str] | None = None,
        options: Options = Options(),
        **changes: Any,
    ) -> None:
        own_preprocessing, own_size = _own_preparation(model)
        self.model = model
        self.method = _name_of(method)
        self.options = _told(self.method, options, changes)
        self.preprocessing = preprocessing or own_preprocessing
        self.image_size = image_size or own_size
        self.class_names = class_names or getattr(model, 'class_names', None)
        self._layers: dict[Any, list] = {}  # {(height, width) of images: the layers found for them}

    def __call__(
        self, images: Any, target: Any = None, contrast: Any = None, gamma: float = 1, **changes: Any
    ) -> Result:
        """The `Result` of an image or several: a path, a Pillow image, an array or a tensor, or a list of those.

        Tensors of floats [B, 3, h, w] or [3, h, w] are taken as they are, everything else is a photograph; see
        `inputs.as_batch`. target, contrast: as for `explain`, and classes by name too ('tiger cat'), or by rank ('@1'
        is the prediction); lists have one an image. The model passes over the images once for maps and logits together.
        """
        batch = as_batch(images, self.preprocessing, self.image_size)
        check_images(batch.images)
        options = _told(self.method, self.options, changes)
        with watched(self.model, batch.images, options.batch_size) as seen:
            target = self._classes(target, seen)
            contrast = self._classes(contrast, seen)
            options = combined(options, self._found_layers(seen.images, options))
            maps = explain(
                self.method, self.model, seen.images, target, contrast=contrast, gamma=gamma, options=options
            )
            logits, probs = seen.logits()
        targets = _targets(target, logits)
        return Result(maps, logits, probs, targets, seen.images, self.preprocessing, batch.pictures)

    def _found_layers(self, images: torch.Tensor, options: Options) -> dict[str, Any]:
        """{'target_layer': the modules}, found once for images of a size; nothing where the map reads no layer."""
        row = MAPS[self.method]
        if LAYER not in row.needs or options.target_layer is not None:
            return {}
        size = tuple(images.shape[2:])
        if size not in self._layers:
            self._layers[size] = row.layers(self.model, None, images)
        return {'target_layer': self._layers[size]}

    def _classes(self, target: Any, seen: Logits) -> Any:
        """A target, or contrast, with names and ranks as numbers."""
        words = [target] if isinstance(target, str) else target
        if not isinstance(words, (list, tuple)) or not any(isinstance(word, str) for word in words):
            return target
        if len(words) not in (1, len(seen.images)):
            raise UserError(f'{len(words)} classes for {len(seen.images)} images: give one class, or one an image')
        count = len(self.class_names) if self.class_names else getattr(self.model, 'num_classes', None)
        words = [word if isinstance(word, str) else f'number:{word}' for word in words]
        chosen = [parse_class(word, count or _some(seen).shape[1], self.class_names) for word in words]
        chosen = chosen * len(seen.images) if len(chosen) == 1 else chosen
        if min(chosen) >= 0:
            return chosen
        ranked = _some(seen).argsort(dim=1, descending=True)  # [B, C]
        return [int(ranked[b, -y - 1]) if y < 0 else y for b, y in enumerate(chosen)]


def _some(seen: Logits) -> torch.Tensor:
    """The logits [B, C]; a model without them is a UserError."""
    logits, _ = seen.logits()
    if logits is None:
        raise UserError('the model returns no logits [B, C]: give a function of its output as target')
    return logits


def _own_preparation(model: torch.nn.Module) -> tuple[Preprocessing, int]:
    """(preprocessing, side of its images) as the model has them, or as timm's networks do; else the paper's and
    SIZE."""
    config = getattr(model, 'pretrained_cfg', None)  # of timm
    own, size = (of_timm(config), config['input_size'][-1]) if config else (PAPER, SIZE)
    return getattr(model, 'preprocessing', own), getattr(model, 'image_size', size)


def _targets(target: Any, logits: torch.Tensor | None) -> torch.Tensor | None:
    """The explained classes, a LongTensor [B]; None where there are none."""
    if callable(target) or logits is None:
        return None
    if target is None:
        return logits.argmax(dim=1)
    return as_target(target, len(logits)).to(logits.device)
