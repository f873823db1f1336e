"""What every attribution method shares: the explained scalar, the target class, the noise, a safe call.

B images of c channels and h x w pixels; C classes. A method is a function (model, images, target, options) -> maps
[B, H, W] at its native size; the decorator `explainer` makes it safe to call on any batch and any model.
"""

import functools
import operator
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

Target = int | list[int] | torch.Tensor | Function | None  # what is explained: a class, one an image, a function


def scores_of(model, images):
    """The explained scalar of every class [B, C]: CAM's logit, CALM's log p(y|x), a plain classifier's output.

    A model that returns neither a tensor [B, C] nor an object with `log_score` is a UserError.
    """
    output = model(images)
    scores = output if torch.is_tensor(output) else getattr(output, 'log_score', None)
    if scores is None or scores.ndim != 2:
        what = f'a tensor of shape {tuple(output.shape)}' if torch.is_tensor(output) else type(output).__name__
        raise UserError(f'the model returns {what}: a tensor of logits [B, C] or an object with log_score is needed')
    return scores


def chosen(scores, target):
    """(score of the target [B], target [B]) from scores [B, C]; a target of None is the prediction.

    A class outside 0..C-1 is a UserError.
    """
    if target is None:
        target = scores.detach().argmax(dim=1)
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < scores.shape[1]:
        raise UserError(f'target {target.tolist()} holds a class outside 0..{scores.shape[1] - 1}')
    return scores.gather(1, target[:, None]).squeeze(1), target


def groups_of(images, options):
    """(the first row of each image [D], LongTensor [B]: each row's place among the images, or None where every row is
    an image of its own), as `options.of_image` says of the rows [B, ...]."""
    numbers = options.of_image or range(len(images))
    firsts = [row for row, number in enumerate(numbers) if not row or number != numbers[row - 1]]
    if len(firsts) == len(images):
        return firsts, None
    owner = torch.zeros(len(images), dtype=torch.long, device=images.device)
    owner[firsts[1:]] = 1
    return firsts, owner.cumsum(dim=0)


def repeated(groups, count, times):
    """What `groups_of` would say of `times` blocks of such images, `count` rows each."""
    firsts, owner = groups
    rows = [count * t + first for t in range(times) for first in firsts]
    return rows, None if owner is None else torch.cat([owner + len(firsts) * t for t in range(times)])


def gradients_by_class(scores, target, owner, inputs, unused=False):
    """dS_y/dx of each row, one [B, ...] for each x [D, ...] of `inputs`, which have a graph to the scores [D, C].

    target, owner: LongTensors [B], the row's class and image; None: the rows are the images. One backward pass takes a
    class of every image, so there are as many as an image has classes. With `unused`, an x on which the scores do not
    depend has a gradient of 0; else it is an error.
    """
    score = chosen(scores if owner is None else scores[owner], target)[0]  # [B]
    if owner is None:
        return list(torch.autograd.grad(score.sum(), inputs, materialize_grads=unused))
    turns = []  # of each backward pass {image: its row}
    turn_of = {}  # (image, class) -> the pass
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
    """The target, or the prediction for the images [B] where it is None: changed copies may be predicted otherwise."""
    if target is not None:
        return target
    with torch.no_grad():
        return chosen(scores_of(model, images), None)[1]


def as_target(target, size):
    """A LongTensor [size], or None (= the prediction), from an int, a list or a tensor of classes; else a
    UserError."""
    if target is None:
        return None
    classes = torch.as_tensor(target)
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise UserError(f'target is of type {classes.dtype}: give whole class numbers')
    if classes.ndim == 0:
        return torch.full((size,), operator.index(classes.item()))
    if classes.shape != (size,):
        raise UserError(
            f'target of shape {tuple(classes.shape)} for {size} images: give one class, one per image, or None'
        )
    return classes.long()


@contextmanager
def evaluating(model):
    """The model in eval mode (batch norm must not learn from an explanation); every module's own mode comes back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        _set_modes((module, False) for module, _ in modes)
        yield
    finally:
        _set_modes(modes)


def _set_modes(modes):
    """Each module's mode where it is another: to set an attribute of a module costs more than to read it."""
    for module, training in modes:
        if module.training != training:
            module.training = training


def check_images(images):
    """A UserError unless it is a tensor [B, c, h, w] of several pixels."""
    if not torch.is_tensor(images):
        raise UserError(
            f'images are of type {type(images).__name__}: give a tensor; an Explainer takes paths and pictures'
        )
    if not images.is_floating_point():
        raise UserError(
            f'images are of type {images.dtype}, which has no gradients: give floats, normalised as the model takes '
            'them; an Explainer takes photographs'
        )
    if images.ndim != 4 or not len(images):
        raise UserError(f'images of shape {tuple(images.shape)}: [B, c, h, w] with B of at least 1 is needed')
    if images.shape[2] * images.shape[3] < 2:
        raise UserError(f'images of {images.shape[2]} x {images.shape[3]} pixels have no places to tell apart')


def device_of(model, images):
    """The device of the model's first parameter or buffer; without any, that of the images.

    A model without values, on the device 'meta', is a UserError.
    """
    device = next((t.device for group in (model.parameters(), model.buffers()) for t in group), images.device)
    if device.type == 'meta':
        raise UserError("the model is on the device 'meta', without values: load its weights")
    return device


class Method(Protocol):
    """What `explainer` makes of a method."""

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
    """method(model, images, target, options) on at most batch_size images, made a function of any batch, of options by
    name (`combined`), and of targets that are functions (`scalars.Scalar`).

    Checks images [B, c, h, w] and target, moves both to the model's device, runs in eval mode with gradients whatever
    the caller's mode, a chunk of the batch at a time, and returns detached results of the whole batch. The model is
    afterwards as before, also after an exception.
    """

    @functools.wraps(method)
    def on_any_batch(model, images, target=None, options=Options(), **changes):
        options = combined(options, changes)
        if callable(target):
            model, target = Scalar(model, target), 0
        check_images(images)
        for name in ('noise_seeds', 'of_image'):
            given = getattr(options, name)
            if given is not None and len(given) != len(images):
                raise UserError(f'{len(given)} {name} for {len(images)} images: give one an image')
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
                    noise_seeds=options.noise_seeds and options.noise_seeds[rows],
                    of_image=options.of_image and options.of_image[rows],
                )
                maps = method(model, images[rows], None if target is None else target[rows], own)
                made.append(maps.detach())
        return torch.cat(made)

    return cast(Method, on_any_batch)


def baseline_of(images, options):
    """The path's beginning [B, c, h, w], a view; one that does not broadcast to the images is a UserError."""
    start = torch.as_tensor(
        0 if options.baseline is None else options.baseline, dtype=images.dtype, device=images.device
    )
    try:
        return start.detach().expand_as(images)
    except RuntimeError as error:
        raise UserError(f'baseline of shape {tuple(start.shape)} does not fit images {tuple(images.shape)}') from error


def noise_seed(seed, number):
    """The seed of image `number`'s noise under the run's seed: it depends on nothing else, not on a batch or a
    process."""
    words = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(words[0]) >> 1)
    return int(torch.randint(2**62, (1,), generator=generator))


def noise_streams(images, options):
    """One torch.Generator an image, from options.noise_seeds or else `generator`, however a batch is cut."""
    seeds = options.noise_seeds
    if seeds is None:
        generator = options.generator
        device = images.device if generator is None else generator.device
        seeds = [int(torch.randint(2**62, (1,), generator=generator, device=device)) for _ in images]
    return [torch.Generator(device=images.device).manual_seed(seed) for seed in seeds]


def standard_normal(shape, streams, like):
    """Noise [len(streams), *shape], one draw from each stream, in float32 so that it is the same for every dtype."""
    draws = [torch.randn(shape, generator=stream, device=stream.device) for stream in streams]
    return torch.stack(draws).to(like)  # [len(streams), *shape]


def uniform(shape, streams, like):
    """`standard_normal`, but uniform in [0, 1)."""
    draws = [torch.rand(shape, generator=stream, device=stream.device) for stream in streams]
    return torch.stack(draws).to(like)  # [len(streams), *shape]


def chunks(total, size, options, what):
    """Slices of at most `size` that cover range(total), with a bar when the options ask for one."""
    starts = range(0, total, size)
    return (slice(i, min(i + size, total)) for i in tqdm(starts, desc=what, disable=not options.progress, leave=False))
