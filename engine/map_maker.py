"""Attribution maps of batches for evaluators and pictures: several classes per image, resized."""

import copy
from dataclasses import replace

import numpy as np
import torch

from engine import processes
from wsol import attribution
from wsol.attribution.readouts import check_sets
from wsol.errors import UserError
from wsol.scoring import maps as scoring_maps


class MapMaker:
    """Computes one kind of map for several classes per image, from one forward pass if it is a readout."""

    def __init__(self, model, name, options=attribution.Options(), seed=0, ksize=1):
        """name: of attribution.MAPS; seed: noise depends on (seed, image number); ksize: smoothing of gradient maps."""
        self.row = attribution.lookup(name)
        doubt = attribution.doubt(name, getattr(model, 'attribution_method', 'classifier'))
        if doubt:
            processes.tell_once(doubt)
        self.model = model
        self.name = name
        self.options = options
        self.seed = seed
        self.ksize = ksize
        self.from_output = self.row.kind == 'readout'
        if self.from_output and self.row.readout.sets:
            if options.superclass is None:
                raise UserError(f'--score_map_process={name} sums over sets of classes: give --superclass=FILE.json')
            check_sets(options.superclass, model.num_classes)

    def of(self, model):
        """A copy for another model."""
        other = copy.copy(self)
        other.model = model
        return other

    def tensors(self, images, output, classes, numbers, contrasts=None, shared=None):
        """A list of B tensors [K, h, w] on the model's device: the maps of each image for its K classes.

        images [B, 3, H, W]; output: the model's `Output` on them, or None; classes: B LongTensors [K]; numbers: the
        images' numbers, which with the seed determine the noise; contrasts: like classes, the classes that the maps
        argue against (`attribution.explain`), not for readouts; shared: of `Options`.
        """
        if self.from_output:
            assert contrasts is None
            with torch.no_grad():
                output = output or self.model(images)
                return [self._read(output.image(b), y) for b, y in enumerate(classes)]
        rows = torch.cat([image.expand(len(y), -1, -1, -1) for image, y in zip(images, classes)])
        seeds = None
        if self.row.noisy:  # all classes of an image share its noise
            seeds = [attribution.noise_seed(self.seed, n) for n, y in zip(numbers, classes) for _ in y]
        maps = attribution.explain(
            self.name,
            self.model,
            rows,
            torch.cat(classes),
            contrast=torch.cat(contrasts) if contrasts else None,
            options=replace(self.options, of_image=[b for b, y in enumerate(classes) for _ in y], shared=shared),
            noise_seeds=seeds,
        )
        return list(maps.split([len(y) for y in classes]))

    def _read(self, output, y):
        """The readout [K, h, w] of one image for its classes y [K]."""
        return attribution.class_maps(self.row.readout, output, y[None], self.options.superclass)[0]

    def __call__(self, *arguments, **more):
        """`tensors` as float32 arrays; gradient maps are smoothed with ksize."""
        maps = [one.float().cpu().numpy() for one in self.tensors(*arguments, **more)]
        return [scoring_maps.smooth(one, self.ksize) for one in maps] if self.row.kind == 'gradient' else maps


def target_maps(maker, images, output, labels, numbers, shared=None):
    """The maps of the labels [B] at native size: float32 [B, h, w] on the images' device; see `MapMaker.tensors`."""
    given = images, output, list(labels.view(-1, 1)), numbers, None, shared
    if maker.ksize > 1:  # OpenCV smooths, on the host
        return torch.from_numpy(np.concatenate(maker(*given))).to(images.device)
    return torch.cat(maker.tensors(*given)).float()


def at_image_size(maps, size):
    """Maps [B, h, w] resized bilinearly to [B, size, size] on their device.

    OpenCV resizes on the host, as in the protocol; on an accelerator PyTorch does, equal up to rounding.
    """
    if maps.device.type == 'cpu':
        return torch.from_numpy(scoring_maps.resize(maps.numpy(), size))
    return attribution.upsample(maps, size)


def split_score_maps(maker, loader, size):
    """Yield (image id, score map [size, size] in [0, 1] of the image's label) for each image of an `ImageLoader`."""
    for numbers, (images, labels, image_ids) in zip(loader.batch_sampler, loader):
        maps = maker(images, None, list(labels.to(images.device).view(-1, 1)), numbers)
        for image_id, one in zip(image_ids, maps):
            yield image_id, scoring_maps.score_maps(one, size)[0]
