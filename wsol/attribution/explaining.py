"""Explain images by method name: `explain` for tensors; `Explainer` also for photographs and class names."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ..class_words import parse_class
from ..errors import UserError
from ..preprocessing import PAPER, Preprocessing, of_timm
from .common import Target, as_target, check_images, evaluating
from .contrast import explain_contrast
from .inputs import as_batch, picture
from .options import Options, combined
from .pictures import overlay
from .registry import LAYER, MAPS, doubt, resolve
from .watching import Logits, watched

SIZE = 224  # default side of network input, px


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
    """Attribution maps [B, h, w] at native size, unscaled; signed if the method is.

    name: in MAPS, in any spelling that `resolve` accepts, or the method itself, such as `grad_cam`. model: a
    `wsol.network.Network`, or for post-hoc maps any classifier that returns logits [B, C]. images [B, 3, H, W]. target:
    the explained class, an int, a list or LongTensor [B], or None for the prediction; or a function that maps the
    model's output for n images to one number per image, [n], which is then explained (works with any model output; not
    for maps that need classes). contrast: a class B, or one per image, as for target: explains S_target - gamma S_B
    directly (Finer-CAM if the method is Grad-CAM); see contrast.py. Raises UserError for maps that do not explain a
    score. changes: fields of `Options`, such as target_layer='layer4'; they override `options`, and None means the
    default. Warns about a field that the map does not read, and about a map that means nothing on the model's head. The
    model, its gradients, hooks and modes are restored afterwards. Raises UserError for unknown names, wrong lengths and
    classes that the model does not have.

    >>> import torch
    >>> from torchvision import models
    >>> classifier = models.resnet18(weights=None).eval()
    >>> explain('grad_cam', classifier, torch.zeros(2, 3, 64, 64), target=[3, 5], target_layer='layer3').shape
    torch.Size([2, 4, 4])
    """
    name = _name_of(name)
    options = _changed_options(name, options, changes)
    line = doubt(name, getattr(model, 'attribution_method', 'classifier')) if MAPS[name].readout else None
    if line:
        warnings.warn(line)
    if contrast is not None:
        return explain_contrast(name, model, images, target, contrast, gamma, options)
    return MAPS[name].function(model, images, target, options)


def _name_of(method: str | Callable) -> str:
    """The name in MAPS of a method given by name or as the function itself."""
    return resolve(method if isinstance(method, str) else getattr(method, '__name__', repr(method)))


def _changed_options(name: str, options: Options, changes: dict[str, Any]) -> Options:
    """The options with changes applied; warns about changes that the map does not read."""
    options = combined(options, changes)
    idle = [word for word, value in changes.items() if value is not None and word not in MAPS[name].options]
    if idle:
        warnings.warn(f'{name} does not read {", ".join(idle)}: its options are {", ".join(MAPS[name].options)}')
    return options


@dataclass(frozen=True)
class Result:
    """Maps of a batch of B images and the model's output for them."""

    maps: torch.Tensor  # [B, h, w] at native size, unscaled; signed if the method is
    logits: torch.Tensor | None  # [B, C]; CALM: log p(y|x); None if the model returns something else
    probs: torch.Tensor | None  # [B, C], the model's p(y|x), or the softmax of its logits
    targets: torch.Tensor | None  # LongTensor [B], the explained classes; None: a function was explained
    images: torch.Tensor  # [B, 3, H, W], the network's input
    preprocessing: Preprocessing  # of these images
    photographs: list[Image.Image | None]  # crops seen by the network, at photograph resolution; None for tensors

    @property
    def pictures(self) -> list[Image.Image]:
        """The network's view of each image: photographs at their own resolution, tensors at theirs."""
        pairs = zip(self.photographs, self.images, strict=True)
        return [one or picture(image, self.preprocessing) for one, image in pairs]

    def overlay(self, index: int = 0, colormap: str = 'inferno', opacity: float = 0.7) -> Image.Image:
        """The map of one image overlaid on it, a Pillow image; see `pictures.overlay`."""
        return overlay(self.pictures[index], self.maps[index], colormap, opacity)


class Explainer:
    """An attribution method bound to a model: `explainer(images, target)` -> `Result`.

    model: any torch.nn.Module on images [B, 3, h, w]. method: as `name` in `explain`. preprocessing (a
    `wsol.preprocessing.Preprocessing`), image_size (px), class_names: default to the model's attributes of these names,
    set by `wsol.load_classifier`, or for timm networks to their pretrained_cfg; otherwise photographs become squares of
    224 px with ImageNet's mean and deviation. options, changes: as for `explain`; `explainer(…, option=value)` changes
    them for one call.

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
        config = getattr(model, 'pretrained_cfg', None)  # timm's
        own, size = (of_timm(config), config['input_size'][-1]) if config else (PAPER, SIZE)
        self.model = model
        self.method = _name_of(method)
        self.options = _changed_options(self.method, options, changes)
        self.preprocessing = preprocessing or getattr(model, 'preprocessing', own)
        self.image_size = image_size or getattr(model, 'image_size', size)
        self.class_names = class_names or getattr(model, 'class_names', None)
        self._layers: dict[Any, list] = {}  # {(height, width) of images: target layers}

    def __call__(
        self, images: Any, target: Any = None, contrast: Any = None, gamma: float = 1, **changes: Any
    ) -> Result:
        """The `Result` of one or several images: a path, Pillow image, array or tensor, or a list of those.

        Float tensors [B, 3, h, w] or [3, h, w] are used as they are, anything else is a photograph; see
        `inputs.as_batch`. target, contrast: as for `explain`, also by class name ('tiger cat') or rank ('@1': the
        prediction); lists have one entry per image. Maps and logits share one pass over the images.
        """
        batch = as_batch(images, self.preprocessing, self.image_size)
        check_images(batch.images)
        if any(batch.pictures):  # float tensors are used as they are, photographs as the model's weights are
            floats = (weight.dtype for weight in self.model.parameters() if weight.is_floating_point())
            batch = batch._replace(images=batch.images.to(next(floats, torch.float32)))
        options = _changed_options(self.method, self.options, changes)
        watching = watched(self.model, batch.images, options.batch_size)
        with torch.inference_mode(False), evaluating(self.model), watching as seen:
            target = self._classes(target, seen)
            contrast = self._classes(contrast, seen)
            options = combined(options, self._found_layers(seen.images, options))
            maps = explain(
                self.method, self.model, seen.images, target, contrast=contrast, gamma=gamma, options=options
            )
            logits, probs = seen.logits()
        names = self.class_names
        if names and logits is not None and len(names) != logits.shape[1]:
            raise UserError(f'{len(names)} class_names for a model of {logits.shape[1]} classes: give one name a class')
        targets = _targets(target, logits)
        return Result(maps, logits, probs, targets, seen.images, self.preprocessing, batch.pictures)

    def _found_layers(self, images: torch.Tensor, options: Options) -> dict[str, Any]:
        """{'target_layer': modules}, searched once per image size; {} if the map reads no layer."""
        row = MAPS[self.method]
        if LAYER not in row.needs or options.target_layer is not None:
            return {}
        size = tuple(images.shape[2:])
        if size not in self._layers:
            self._layers[size] = row.layers(self.model, None, images)
        return {'target_layer': self._layers[size]}

    def _classes(self, target: Any, seen: Logits) -> Any:
        """A target or contrast with names and ranks replaced by numbers."""
        words = [target] if isinstance(target, str) else target
        if not isinstance(words, (list, tuple)) or not any(isinstance(word, str) for word in words):
            return target
        if len(words) not in (1, len(seen.images)):
            raise UserError(f'{len(words)} classes for {len(seen.images)} images: give one class, or one per image')
        count = len(self.class_names) if self.class_names else getattr(self.model, 'num_classes', None)
        words = [word if isinstance(word, str) else f'number:{word}' for word in words]
        chosen = [parse_class(word, count or _logits(seen).shape[1], self.class_names) for word in words]
        chosen = chosen * len(seen.images) if len(chosen) == 1 else chosen
        if min(chosen) >= 0:
            return chosen
        ranked = _logits(seen).argsort(dim=1, descending=True)  # [B, C]
        return [int(ranked[b, -y - 1]) if y < 0 else y for b, y in enumerate(chosen)]


def _logits(seen: Logits) -> torch.Tensor:
    """The logits [B, C]; raises UserError if the model returns none."""
    logits, _ = seen.logits()
    if logits is None:
        raise UserError('the model returns no logits [B, C]: give a function of its output as target')
    return logits


def _targets(target: Any, logits: torch.Tensor | None) -> torch.Tensor | None:
    """The explained classes, a LongTensor [B]; None if there are none."""
    if callable(target) or logits is None:
        return None
    if target is None:
        return logits.argmax(dim=1)
    return as_target(target, len(logits)).to(logits.device)
