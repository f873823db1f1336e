"""Maps of a network's images, as evaluators and pictures ask for them: of several classes, several maps, at a size."""

import copy
from dataclasses import replace

import numpy as np
import torch

from wsol import attribution
from wsol.attribution.readouts import check_sets
from wsol.errors import UserError
from wsol.scoring import maps as scoring_maps


class MapMaker:
    """One attribution map of a model's images: of several classes an image from one forward pass where it can be."""

    def __init__(self, model, name, options=attribution.Options(), seed=0, ksize=1):
        """name: of attribution.MAPS; seed: noise is drawn from (seed, image number); ksize: smoothing of gradient
        maps."""
        self.row = attribution.lookup(name)
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
        """The same maps of another model."""
        other = copy.copy(self)
        other.model = model
        return other

    def tensors(self, images, output, classes, numbers, contrasts=None):
        """Maps for each image, a tensor [K, h, w] for its K classes, on the model's device.

        images [B, 3, H, W]; output: the model's `Output` on them, None where the caller has none; classes: a list of B
        LongTensors [K]; numbers: the B images' numbers, on which with the seed alone the noise depends. contrasts: like
        classes, what the maps speak against (`attribution.explain`); not of readouts.
        """
        if self.from_output:
            assert contrasts is None
            with torch.no_grad():
                output = output or self.model(images)
                return [self._read(output.image(b), y) for b, y in enumerate(classes)]
        rows = torch.cat([image.expand(len(y), -1, -1, -1) for image, y in zip(images, classes)])
        seeds = None
        if self.row.noisy:  # an image's noise is the same for all its classes
            seeds = [attribution.noise_seed(self.seed, n) for n, y in zip(numbers, classes) for _ in y]
        maps = attribution.explain(
            self.name,
            self.model,
            rows,
            torch.cat(classes),
            contrast=torch.cat(contrasts) if contrasts else None,
            options=replace(self.options, of_image=[b for b, y in enumerate(classes) for _ in y]),
            noise_seeds=seeds,
        )
        return list(maps.split([len(y) for y in classes]))

    def _read(self, output, y):
        """The readout [K, h, w] of one image's output for its classes y [K]."""
        return attribution.class_maps(self.row.readout, output, y[None], self.options.superclass)[0]

    def __call__(self, images, output, classes, numbers, contrasts=None):
        """`tensors` as float32 arrays, maps of gradient methods smoothed where ksize asks for it."""
        maps = [one.float().cpu().numpy() for one in self.tensors(images, output, classes, numbers, contrasts)]
        return [scoring_maps.smooth(one, self.ksize) for one in maps] if self.row.kind == 'gradient' else maps


def target_maps(maker, images, output, labels, numbers):
    """The labels' maps at their own size, a float32 tensor [B, h, w] on the images' device; the rest as for
    `MapMaker`."""
    classes = list(labels.view(-1, 1))
    if maker.ksize > 1:  # smoothing is OpenCV's
        return torch.from_numpy(np.concatenate(maker(images, output, classes, numbers))).to(images.device)
    return torch.cat(maker.tensors(images, output, classes, numbers)).float()


def at_image_size(maps, size):
    """Maps [B, h, w] resized bilinearly to [B, size, size], where they are.

    On the host OpenCV resizes, as the protocol has it; on an accelerator PyTorch does, equal but for rounding, and
    nothing is copied.
    """
    if maps.device.type == 'cpu':
        return torch.from_numpy(scoring_maps.resize(maps.numpy(), size))
    return attribution.upsample(maps, size)


def split_score_maps(maker, loader, batches, device, size):
    """Stream of (image id, score map [size, size] in [0, 1]) of the images of `batches`: each image's map of its own
    class.

    loader: gives (images, labels, image ids) of each batch, a list of image numbers.
    """
    for numbers, (images, labels, image_ids) in zip(batches, loader):
        maps = maker(images.to(device), None, list(labels.to(device).view(-1, 1)), numbers)
        for image_id, one in zip(image_ids, maps):
            yield image_id, scoring_maps.score_maps(one, size)[0]
