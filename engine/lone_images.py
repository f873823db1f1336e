"""Batches that leave a process one image: batch norm behind a pooling (ResNeSt, SKNet) has nothing to normalise by.

That is said before the first batch, not in the middle of an epoch.
"""

import copy

import torch

from engine import processes
from wsol.errors import UserError


def shares(count, batch_size, world=1):
    """How many images a process may get of a batch of an epoch of `count` images, a set of numbers from 1."""
    sizes = {min(batch_size, count), count % batch_size or batch_size}
    return {share for size in sizes for share in (size // world, -(-size // world)) if share}


def _takes_one(model, side, device):
    """Can the model be trained on a single image of `side` pixels? Its weights, statistics and random numbers stay."""
    other = copy.deepcopy(model).train()
    devices = [device] if device.type == 'cuda' else []
    with torch.random.fork_rng(devices), torch.no_grad(), torch.compiler.set_stance('force_eager'):
        try:
            other(torch.zeros(1, 3, side, side, device=device))
        except ValueError as error:
            if 'more than 1 value per channel' not in str(error):
                raise
            return False
    return True


def check_lone_images(trainer, count, side):
    """A UserError where some batch of `count` training images of `side` pixels leaves a process one, and the network
    cannot be trained on it."""
    recipe = trainer.recipe
    world = processes.world()
    size = recipe.batch_size
    if recipe.freeze_bn or recipe.sync_bn or 1 not in shares(count, size, world):
        return
    if _takes_one(trainer.model, side, trainer.device):
        return
    others = [near for step in range(1, size + count) for near in (size - step, size + step) if near > 1]
    fitting = next((near for near in others if 1 not in shares(count, near, world)), None)
    hint = f'give --batch_size={fitting}, or --freeze_bn' if fitting else 'give more images, or --freeze_bn'
    raise UserError(
        f'--batch_size={size} of {count} training images leaves a batch with one image, on which {recipe.architecture} '
        f'cannot be trained, as batch norm there needs several: {hint}'
    )
