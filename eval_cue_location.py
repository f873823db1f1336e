"""Cue localization: does the difference of two classes' maps find the parts in which the classes differ?

    python eval_cue_location.py --experiment_name=calm_em --architecture=resnet50 \\
        --attribution_method=CALM-EM --dataset=CUB --use_bn=True --large_feature_map=True \\
        --load_checkpoint=calm_em --score_map_process=jointll \\
        --norm_type=clipping --threshold_type=log
"""

import engine.before_torch  # noqa: F401 (before PyTorch is loaded)

import itertools
import os

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from config import get_configs
from data.truth import part_folder
from data_loaders import check_size, missing_files, read_image, with_sizes
from engine import evaluation
from engine.command import command
from wsol import attribution, cub_parts
from wsol.errors import MissingFile, UserError
from wsol.preprocessing import PAPER, ImageLoader, make_transform
from wsol.scoring import Tally, cues, pixels
from wsol.scoring.maps import blur_reach, resize


class CueDataset(Dataset):
    """Items (pixels uint8 [S, S, 3], part map [S, S], exact part map [S, S], visible parts bool [8], image number).

    numbers: of the images in the split. Images and part maps are made in the loader's processes.
    """

    def __init__(self, split, numbers, folder, size, preprocessing=PAPER):
        self.split = with_sizes(split)
        self.numbers = numbers
        self.folder = folder
        self.size = size
        self.transform = make_transform(False, crop_size=size, preprocessing=preprocessing)
        self.locations = cub_parts.read_part_locations(folder)
        self.exact = cub_parts.read_exact_labels(folder)
        self._check_names()

    def _check_names(self):
        """UserError for an image without part locations or segmentation."""
        image_ids = [self.split.image_ids[number] for number in self.numbers]
        unknown = [image_id for image_id in image_ids if image_id not in self.locations]
        if unknown:
            raise UserError(
                f'{self.folder}: images.txt and parts/part_locs.txt have no part locations of {unknown[0]} '
                f'({len(unknown)} images in all): restore the files, or give the --metadata_root that belongs to them'
            )
        missing = missing_files(self.folder, map(cub_parts.segmentation_name, image_ids))
        if missing:
            raise MissingFile(
                f'segmentation {self.folder}/{missing[0]} is missing ({len(missing)} of the {len(image_ids)} images '
                'that are scored have none): unpack segmentations.tgz of CUB-200-2011 there'
            )

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, item):
        number = self.numbers[item]
        image_id = self.split.image_ids[number]
        image = read_image(os.path.join(self.split.root, image_id))
        check_size(self.split, image_id, image.size)
        parts, seen = cub_parts.part_map(self.folder, image_id, self.locations[image_id], image.size, self.size)
        exact = cub_parts.exact_part_map(self.folder, image_id, self.size) if self.exact else np.zeros_like(parts)
        visible = np.isin(np.arange(8), list(seen))
        return (
            self.transform.pixels(image),
            torch.from_numpy(parts),
            torch.from_numpy(exact),
            torch.from_numpy(visible),
            number,
        )


def differences(maker, images, classes, numbers, at_once, output=None, on_host=True, shared=None):
    """For each image, maps [N, h, w] that contrast its class with N others; arguments as for `MapMaker.tensors`.

    classes: an image's own class and the N others. at_once: maps of the difference of two classes' scores instead of
    differences of their maps. on_host: arrays; else tensors on the model's device.
    """
    make = maker if on_host else maker.tensors
    if at_once and not maker.from_output:  # CAM's readout is linear, so both agree
        own = [y[:1].expand(len(y) - 1) for y in classes]
        return make(images, None, own, numbers, [y[1:] for y in classes], shared)
    return [maps[:1] - maps[1:] for maps in make(images, output, classes, numbers, shared=shared)]


def batch_differences(batch, maker, labels, table, device, at_once=False, output=None, shared=None):
    """`differences` of each image of a batch and all its pairs: tensors if the device scores them, else arrays.

    labels: of the whole split; table: `cues.class_rows`; at_once: as for `differences`; output: the model's on the
    images, or None; shared: of `Options`.
    """
    images, *_, numbers = batch
    numbers = numbers.tolist()
    classes = [table[labels[number]][1].to(device) for number in numbers]
    on_host = device.type == 'cpu' or maker.ksize > 1  # OpenCV smooths, on the host
    return differences(maker, images, classes, numbers, at_once, output, on_host, shared)


def count_batch(batch, maps, labels, table, cue):
    """Score `batch_differences`: a `Tally` of `cues.cue_counts`, computed on the maps' device; cue: a `cues.Cues`."""
    images, parts, exact, visible, numbers = batch
    rows = [table[labels[number]][0] for number in numbers.tolist()]
    if torch.is_tensor(maps[0]):
        device = maps[0].device
        owner = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(one) for one in rows]))
        pairs = torch.from_numpy(np.concatenate(rows))
        truth = (one.to(device, non_blocking=True) for one in (parts, exact, visible))
        return Tally(cues.batch_counts(cue, pairs.to(device), owner.to(device), torch.cat(maps), *truth), {})

    def scored():
        for b, own in enumerate(rows):
            resized = resize(maps[b], images.shape[-1])  # [N, S, S]
            yield cues.CueImage(own, resized, parts[b].numpy(), exact[b].numpy(), visible[b].numpy())

    return Tally(cues.cue_counts(cue, scored()), {})


def pair_arrays(pairs, totals):
    """{name: array} over the pairs; PxAP is NaN for a pair without scored images."""
    pxap = cues.cue_figures(totals)
    return {
        'ids': np.array([f'{pair.a} {pair.b}' for pair in pairs]),
        'differing_parts': np.array([len(pair.parts) for pair in pairs]),
        'images': np.asarray(totals['images']),
        **{mode: np.array(values, float) for mode, values in pxap.items()},  # None: NaN
    }


def result_of(pairs, totals):
    """The result for NAME.json, from the sums over all images."""
    pxap = cues.cue_figures(totals)
    rows = [
        {
            'classes': [pair.a, pair.b],
            'differing_parts': len(pair.parts),
            'images': int(totals['images'][row]),
            'pxap': {mode: values[row] for mode, values in pxap.items()},
        }
        for row, pair in enumerate(pairs)
    ]
    images = int(totals['images'].sum())
    counted, dropped = pixel_counts(totals)
    return {
        **{mode: cues.summarize(pairs, values) for mode, values in pxap.items()},
        'pairs': rows,
        'evaluations': images,
        'dropped_pixels': dropped / counted if counted else None,
        'area': totals['area'].sum() / images / 1e6 if images else None,
    }


def pixel_counts(totals):
    """(number of pixels, number of them below the first threshold)."""
    return int(totals['histogram'].sum()), int(totals['histogram'][:, :, 0].sum())


class CueLocalization(evaluation.Evaluator):
    """Scores differences of two classes' maps against the parts in which the classes differ, pair by pair.

    A task is (map, blur): the same differences are scored for every --blur.
    """

    title = 'cue localization'

    def __init__(self, args):
        super().__init__(args)
        self.folder = part_folder(args.dataset, args.data_root)
        self.at_once = args.contrast == 'score'

    def name_of(self, task):
        name, blur = task
        end = f'_blur{blur}'.removesuffix('.0') if blur else ''
        return f'cue_location_{name}{"_contrast" if self.at_once else ""}{end}'

    def requested(self):
        tasks = itertools.product(self.maps, self.args.blur)
        return {(name, blur): {'score_map_process': name, 'blur': blur} for name, blur in tasks}

    def prepare(self):
        args = self.args
        blur_reach(max(args.blur), self.size)  # refuses a blur that is too wide, before anything is written
        every = cub_parts.class_pairs(self.folder, 1 + max(self.split.labels))
        self.pairs = cub_parts.pairs_by_count(every, cues.COUNTS)
        if not self.pairs:
            raise UserError(f'{self.folder}: no two classes differ in 1 to 3 parts')
        self.table = cues.class_rows(self.pairs)
        chosen = [n for n, y in enumerate(self.split.labels) if y in self.table]
        if not chosen:
            raise UserError(
                f'{self.folder}: no class with a pair has test images: does --metadata_root belong to the data?'
            )
        self.dataset = CueDataset(self.split, chosen, self.folder, self.size, self.model.preprocessing)
        self.count = len(self.dataset)
        edges = pixels.histogram_edges(pixels.thresholds(args.threshold_type, args.cam_curve_interval))
        self.cue = cues.make_cues(self.pairs, edges, self.dataset.exact, args.norm_type)
        if self.at_once:
            for name, _ in self.tasks():
                attribution.check_contrast(name, self.model)

    def compared(self):
        return [*super().compared(), self.pairs]

    def batches(self, numbers):
        """Yield (batch, the network's output if a readout needs it, `Options.shared`, {map: `batch_differences`})."""
        loader = DataLoader(
            self.dataset, batch_sampler=numbers, num_workers=self.args.workers, pin_memory=self.device.type != 'cpu'
        )
        reads = any(self.makers[name].from_output for name, _ in self.tasks())
        for batch in ImageLoader(loader, self.dataset.transform.preprocessing, self.device):
            with torch.no_grad():
                output = self.model(batch[0]) if reads else None
            yield batch, output, {}, {}

    def score(self, task, batch):
        name, blur = task
        batch, output, shared, made = batch
        given = self.split.labels, self.table
        if name not in made:
            made[name] = batch_differences(batch, self.makers[name], *given, self.device, self.at_once, output, shared)
        return count_batch(batch, made[name], *given, self.cue._replace(blur=blur))

    def arrays(self, totals, rows):
        return pair_arrays(self.pairs, totals)

    def report(self, name, totals, rows, log):
        result = result_of(self.pairs, totals)
        self.write(name, result)
        modes = {key: means for key, means in result.items() if isinstance(means, dict)}
        for mode, means in modes.items():
            text = ', '.join(f'{key} {value:.2f}' if value is not None else f'{key} -' for key, value in means.items())
            log.report(f'{mode}: {text}', mode=mode, **means)
        counted, dropped = pixel_counts(totals)
        log.report(
            f'{len(self.pairs)} pairs, {result["evaluations"]} image x pair evaluations, '
            f'{100 * dropped / max(counted, 1):.2f} % of the pixels under the first threshold',
            dropped=dropped,
            pixels=counted,
        )


def main():
    evaluation.evaluate(CueLocalization(get_configs(__doc__, command='eval_cue_location')))


if __name__ == '__main__':
    command(main)
