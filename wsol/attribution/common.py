"""Shared by all attribution methods: the explained scalar, target classes, noise, and safe execution.

B images of c channels and h x w pixels; C classes. A method is a function (model, images, target, options) -> maps
[B, H, W] at native size; the decorator `explainer` makes it safe for any batch and model.
"""

import functools
import operator
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from tqdm import tqdm

from ..errors import UserError
from .options import Options, combined
from .scalars import Function, Scalar

Target = int | list[int] | torch.Tensor | Function | None  # a class, one class per image, or a function


def scores_of(model, images):
    """The explained scalar per class [B, C]: CAM's logit, CALM's log p(y|x), a plain classifier's output.

    Raises UserError if the model returns neither a tensor [B, C] nor an object with `log_score`.
    """
    output = model(images)
    scores = output if torch.is_tensor(output) else getattr(output, 'log_score', None)
    if scores is None or scores.ndim != 2:
        what = f'a tensor of shape {tuple(output.shape)}' if torch.is_tensor(output) else type(output).__name__
        raise UserError(f'the model returns {what}: a tensor of logits [B, C] or an object with log_score is needed')
    return scores


def chosen(scores, target):
    """(score of the target [B], target [B]) from scores [B, C]; target None: the prediction.

    Raises UserError for a class outside 0..C-1.
    """
    if target is None:
        target = scores.detach().argmax(dim=1)
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < scores.shape[1]:
        raise UserError(f'target {target.tolist()} contains a class outside 0..{scores.shape[1] - 1}')
    return scores.gather(1, target[:, None]).squeeze(1), target


def groups_of(images, options):
    """Group the rows [B, ...] by image as in `options.of_image`.

    Returns (first row of each image [D], LongTensor [B]: index of each row's image, or None if every row is a different
    image).
    """
    numbers = options.of_image or range(len(images))
    firsts = [row for row, number in enumerate(numbers) if not row or number != numbers[row - 1]]
    if len(firsts) == len(images):
        return firsts, None
    owner = torch.zeros(len(images), dtype=torch.long, device=images.device)
    owner[firsts[1:]] = 1
    return firsts, owner.cumsum(dim=0)


def repeated(groups, count, times):
    """`groups_of` for `times` copies of a batch with `count` rows."""
    firsts, owner = groups
    rows = [count * t + first for t in range(times) for first in firsts]
    return rows, None if owner is None else torch.cat([owner + len(firsts) * t for t in range(times)])


def gradients_by_class(scores, target, owner, inputs, unused=False):
    """dS_y/dx per row, one [B, ...] for each x [D, ...] in `inputs`, which have a graph to the scores [D, C].

    target, owner: LongTensors [B], each row's class and image; owner None: rows are images. Each backward pass takes
    one class of every image, so the number of passes is the largest number of classes per image. `unused`: inputs that
    the scores do not depend on get gradient 0 instead of an error.
    """
    score = chosen(scores if owner is None else scores[owner], target)[0]  # [B]
    if owner is None:
        return list(torch.autograd.grad(score.sum(), inputs, materialize_grads=unused))
    turns = []  # one {image: row} per backward pass
    turn_of = {}  # (image, class) -> index of the pass
    pairs = list(zip(owner.tolist(), target.tolist()))
    for row, (image, y) in enumerate(pairs):
        if (image, y) not in turn_of:
            turn = turn_of[image, y] = sum(one == image for one, _ in turn_of)
            turns += [{}] if turn == len(turns) else []
            turns[turn][image] = row
    number = torch.tensor([turn_of[pair] for pair in pairs], device=owner.device)
    results = [x.new_empty(len(pairs), *x.shape[1:]) for x in inputs]
    for turn, rows in enumerate(turns):
        last = turn == len(turns) - 1
        score_sum = score[list(rows.values())].sum()
        found = torch.autograd.grad(score_sum, inputs, retain_graph=not last, materialize_grads=unused)
        mine = (number == turn).nonzero().flatten()
        for result, gradient in zip(results, found):
            result[mine] = gradient[owner[mine]]
    return results


def predicted(model, images, target):
    """The target, or if it is None the prediction on the unchanged images [B] (that on modified copies may differ)."""
    if target is not None:
        return target
    with torch.no_grad():
        return chosen(scores_of(model, images), None)[1]


def as_target(target, size):
    """A LongTensor [size] from an int, list or tensor of classes; None (the prediction) stays None."""
    if target is None:
        return None
    try:
        classes = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(
            f'target or contrast is {target!r}: give a whole number, or one per image; an Explainer takes names too'
        ) from None
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise UserError(f'target is of type {classes.dtype}: give whole class numbers')
    if classes.ndim == 0:
        return torch.full((size,), operator.index(classes.item()))
    if classes.shape != (size,):
        raise UserError(
            f'target of shape {tuple(classes.shape)} for {size} images: give one class, one per image, or None'
        )
    return classes.long()


TURNS = threading.RLock()  # threads take turns: hooks and modes are the model's, and would be those of all of them
CHECKPOINTING = 'grad_checkpointing'  # timm's attribute: run modules again in the backward pass


@contextmanager
def evaluating(model):
    """Put the model in eval mode (batch norm statistics must not change), without gradient checkpointing (hooks and
    modified gradients would miss its second forward pass), and restore every module's modes afterwards. Only one thread
    at a time is inside."""
    with TURNS:
        on = [(module, 'training') for module in model.modules() if module.training]
        on += [(module, CHECKPOINTING) for module in model.modules() if vars(module).get(CHECKPOINTING)]
        try:
            _set_modes(on, False)
            yield
        finally:
            _set_modes(on, True)


def _set_modes(modes, value):
    """Set these modes (module, name) of modules."""
    for module, name in modes:
        setattr(module, name, value)


def check_images(images):
    """Raise UserError unless images are a tensor [B, c, h, w] of at least two pixels."""
    if not torch.is_tensor(images):
        raise UserError(
            f'images are of type {type(images).__name__}: give a tensor; an Explainer takes paths and pictures'
        )
    if not images.is_floating_point():
        raise UserError(
            f'images are of type {images.dtype}, which has no gradients: give floats, normalised as the model expects; '
            'an Explainer takes photographs'
        )
    if images.ndim != 4 or not len(images):
        raise UserError(f'images of shape {tuple(images.shape)}: [B, c, h, w] with B of at least 1 is needed')
    if images.shape[2] * images.shape[3] < 2:
        raise UserError(f'images of {images.shape[2]} x {images.shape[3]} pixels have only one location')


def device_of(model, images):
    """Device of the model's first parameter or buffer; the images' if it has none.

    Raises UserError for a model on the device 'meta'.
    """
    device = next((t.device for group in (model.parameters(), model.buffers()) for t in group), images.device)
    if device.type == 'meta':
        raise UserError("the model is on the device 'meta' and has no values: load its weights")
    return device


def _numbers(name, given, count):
    """A list of whole numbers, one per image, from an option that is a list, an array or a tensor; None stays None."""
    if given is None:
        return None
    try:
        numbers = [operator.index(one) for one in given]
    except TypeError:
        raise UserError(f'{name} is {given!r}: give a list of whole numbers, one per image') from None
    if len(numbers) != count:
        raise UserError(f'{len(numbers)} {name} for {count} images: give one per image')
    return numbers


class Method(Protocol):
    """A method decorated by `explainer`."""

    __name__: str

    def __call__(
        self,
        model: torch.nn.Module,
        images: torch.Tensor,
        target: Target = None,
        options: Options = Options(),
        **changes: Any,
    ) -> torch.Tensor: ...


def explainer(method: Callable[..., torch.Tensor]) -> Method:
    """Turn method(model, images, target, options), for at most batch_size images, into a function for any batch that
    also takes options by name (`combined`) and functions as targets (`scalars.Scalar`).

    Checks images [B, c, h, w] and target, moves both to the model's device, runs chunks of the batch in eval mode with
    gradients enabled, and returns detached results. Restores the model afterwards, also after an exception.
    """

    @functools.wraps(method)
    def on_any_batch(model, images, target=None, options=Options(), **changes):
        options = combined(options, changes)
        if callable(target):
            model, target = Scalar(model, target), 0
        check_images(images)
        noise_seeds = _numbers('noise_seeds', options.noise_seeds, len(images))
        of_image = _numbers('of_image', options.of_image, len(images))
        target = as_target(target, len(images))
        size = options.batch_size
        made = []
        with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
            images = images.detach().to(device_of(model, images))
            images = images.clone() if images.is_inference() else images  # autograd refuses inference tensors
            target = None if target is None else target.to(images.device, copy=target.is_inference())
            start = baseline_of(images, options)
            for i in range(0, len(images), size):
                rows = slice(i, i + size)
                own = replace(
                    options,
                    baseline=start[rows],
                    noise_seeds=noise_seeds and noise_seeds[rows],
                    of_image=of_image and of_image[rows],
                    shared=None if options.shared is None else options.shared.setdefault(i, {}),
                )
                maps = method(model, images[rows], None if target is None else target[rows], own)
                made.append(maps.detach())
        return torch.cat(made)

    return cast(Method, on_any_batch)


def baseline_of(images, options):
    """options.baseline as a view [B, c, h, w]; raises UserError if it does not broadcast to the images."""
    start = torch.as_tensor(
        0 if options.baseline is None else options.baseline, dtype=images.dtype, device=images.device
    )
    try:
        return start.detach().expand_as(images)
    except RuntimeError as error:
        raise UserError(f'baseline of shape {tuple(start.shape)} does not fit images {tuple(images.shape)}') from error


def stream_of(seed, number):
    """A torch.Generator on the CPU for image `number` of a run with this seed."""
    words = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0]) >> 1)


def noise_seed(seed, number):
    """Seed of image `number`'s noise in a run with this seed; independent of batches and processes."""
    return int(torch.randint(2**62, (1,), generator=stream_of(seed, number)))


def noise_streams(images, options):
    """One torch.Generator per image from options.noise_seeds or `generator`, independent of batch boundaries."""
    seeds = options.noise_seeds
    if seeds is None:
        generator = options.generator
        device = images.device if generator is None else generator.device
        seeds = [int(torch.randint(2**62, (1,), generator=generator, device=device)) for _ in images]
    return [torch.Generator(device=images.device).manual_seed(seed) for seed in seeds]


def standard_normal(shape, streams, like):
    """Noise [len(streams), *shape], one draw per stream, drawn in float32 so that it is the same for every dtype."""
    draws = [torch.randn(shape, generator=stream, device=stream.device) for stream in streams]
    return torch.stack(draws).to(like)  # [len(streams), *shape]


def uniform(shape, streams, like):
    """Like `standard_normal`, but uniform in [0, 1)."""
    draws = [torch.rand(shape, generator=stream, device=stream.device) for stream in streams]
    return torch.stack(draws).to(like)  # [len(streams), *shape]


def chunks(total, size, options, what):
    """Slices of at most `size` that cover range(total), with a progress bar if the options ask for one."""
    starts = range(0, total, size)
    return (slice(i, min(i + size, total)) for i in tqdm(starts, desc=what, disable=not options.progress, leave=False))
