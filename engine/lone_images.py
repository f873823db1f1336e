"""Refuses batches with one image for a process before training starts, where batch norm cannot train on one.

That is batch norm after global pooling (ResNeSt, SKNet): one value per channel has no variance.
"""

import copy

import torch

from engine import processes
from wsol.errors import UserError


def shares(count, batch_size, world=1):
    """The set of batch shares (1 or more images) that a process can get in an epoch of `count` images."""
    sizes = {min(batch_size, count), count % batch_size or batch_size}
    return {share for size in sizes for share in (size // world, -(-size // world)) if share}


def _takes_one(model, side, device):
    """Can the model train on one image of `side` pixels? Changes neither its state nor the random numbers."""
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
    """UserError if a process would get a single image of a batch, and the network cannot train on one.

    count: training images; side: their side in pixels.
    """
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
        f'--batch_size={size} of {count} training images leaves a batch with one image, and batch norm in '
        f'{recipe.architecture} cannot train on one: {hint}'
    )
