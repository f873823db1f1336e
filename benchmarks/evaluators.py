"""Evaluators over the forward passes they cannot avoid."""

import copy
import os

import numpy as np
import torch
from torch.utils.data import DataLoader

import eval_cue_location
import eval_pixel_perturb
from benchmarks.forms import convolutions, parse_form
from benchmarks.timing import Row, peak_bytes, seconds
from benchmarks.training import build
from data_loaders import load_split
from engine import map_maker, models
from wsol import attribution, classifiers, cub_parts
from wsol.backbones import packaged
from wsol.preprocessing import ImageLoader
from wsol.scoring import cues, erasing, pixels


class Ready:
    """A map maker with precomputed maps, to time the evaluator without the map."""

    ksize = 1
    from_output = False

    def __init__(self, maps):
        self.maps = maps

    def tensors(self, images, output, classes, numbers, contrasts=None, shared=None):
        """As `map_maker.MapMaker.tensors`."""
        return list(self.maps[:, None])

    def __call__(self, *arguments, **more):
        """As `map_maker.MapMaker`."""
        return [one.cpu().numpy() for one in self.tensors(*arguments, **more)]


GOALS = {'float32': '<= 1.05', 'compile': '<= 0.85', 'bf16': '<= 0.60'}  # remove-and-classify, by form


def erase_rows(args, device):
    """Time of remove-and-classify over its 11 exact forward passes, in each of the `--forms`."""
    plain = build(args.architecture, 'CALM-EM', args.classes, device).eval()
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    labels = torch.zeros(args.batch, dtype=torch.long, device=device)
    ready = Ready(torch.rand(args.batch, 28, 28, device=device))

    @torch.no_grad()
    def passes():
        for _ in range(1 + 2 * len(erasing.ERASE_K)):
            _ = plain(images).probs

    def erase(model):
        numbers = list(range(args.batch))
        batch = eval_pixel_perturb.read_batch(model, images, labels, numbers, numbers, 0, 1)
        eval_pixel_perturb.count_batch(model, ready, batch)

    forms = [parse_form(name) for name in args.forms.split(',')]
    models_of = [models.for_inference(copy.deepcopy(plain), form.speed) for form in forms]
    with convolutions(parse_form('float32')):  # as in the evaluators
        actions = [*(lambda model=model: erase(model) for model in models_of), passes]
        *times, other = seconds(actions, device, args.repeats)
    what = f'remove-and-classify of a given map, {args.architecture}'
    return [
        Row(f'{what}, {form.name}', 'its 11 exact forward passes', time / other, GOALS.get(form.name, ''))
        for form, time in zip(forms, times)
    ]


def score_cam_rows(args, device):
    """Time and memory of Score-CAM and SS-CAM on one image over their masked passes, at the first convolution: 64
    channels in ResNet-50, instead of layer4's 2048."""
    model = build(args.architecture, 'CALM-EM', 1000, device).eval()
    layer, masks = next((n, m.out_channels) for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d))
    few = {'target_layer': layer, 'num_samples': 1}  # draws of SS-CAM
    title = f'{args.architecture} at {layer}'
    return masked_rows(title, model, masks, args, device, {'Score-CAM': 'score_cam', 'SS-CAM': 'ss_cam'}, few)


def light_score_cam_rows(args, device):
    """Score-CAM of tf_efficientnet_lite0 at its fifth stage: 112 channels, instead of the last map's 1280."""
    if not packaged.file_for('tf_efficientnet_lite0'):
        return [Row(f'Score-CAM: without {packaged.hint()}')]
    net = classifiers.load_classifier('timm/tf_efficientnet_lite0').to(device)
    where = {'target_layer': 'blocks.4'}
    return masked_rows('tf_efficientnet_lite0 at blocks.4', net, 112, args, device, {'Score-CAM': 'score_cam'}, where)


def masked_rows(name, model, masks, args, device, methods, options):
    """Maps of one image over `masks` forward passes in batches of `--batch`; methods: {title: map}."""
    image = torch.randn(1, 3, args.size, args.size, device=device)
    rows = image.expand(args.batch, -1, -1, -1).contiguous()

    def explain(method):
        attribution.explain(method, model, image, 3, batch_size=args.batch, **options)

    @torch.no_grad()
    def passes(count=masks):
        for first in range(0, count, args.batch):
            _ = model(rows[: count - first]).log_score

    makes = [lambda method=method: explain(method) for method in methods.values()]
    one = peak_bytes(lambda: passes(args.batch), device)
    memory = [peak_bytes(make, device) / one for make in makes]
    *times, other = seconds([*makes, passes], device, max(1, args.repeats // 3))
    over = f'its {masks} masked passes'
    return [
        Row(
            f'{title}, {name}, {args.size} px, one image',
            over,
            time / other,
            '<= 1.05',
            f"peak memory {share:.2f} of one batch's pass (goal <= 1.2)",
        )
        for title, time, share in zip(methods, times, memory)
    ]


def cue_rows(args, device):
    """Time of cue localization over a forward pass of its images, both without reading files; then with reading by
    `--workers` newly started processes."""
    split = load_split('ToyBirds', 'test', args.data_root, args.metadata_root)
    folder = os.path.join(args.data_root, 'ToyBirds')
    pairs = cub_parts.pairs_by_count(cub_parts.class_pairs(folder), cues.COUNTS)
    table = cues.class_rows(pairs)
    chosen = [i for i, y in enumerate(split.labels) if y in table][: args.images]
    dataset = eval_cue_location.CueDataset(split, chosen, folder, args.size)
    dataset.exact = None  # as on CUB: no true part pixels
    model = build(args.architecture, 'CALM-EM', split.num_classes, device).eval()
    maker = map_maker.MapMaker(model, 'jointll')
    cue = cues.make_cues(pairs, pixels.histogram_edges(pixels.thresholds('log', 0.001)), None, 'clipping')

    def read(workers):
        loader = DataLoader(dataset, batch_size=args.batch, num_workers=workers, pin_memory=device.type != 'cpu')
        return ImageLoader(loader, model.preprocessing, device)

    def evaluate(batches):
        for batch in batches:
            maps = eval_cue_location.batch_differences(batch, maker, split.labels, table, device)
            eval_cue_location.count_batch(batch, maps, split.labels, table, cue)

    there = list(read(args.workers))

    @torch.no_grad()
    def forward():
        for batch in there:
            _ = model(batch[0]).probs

    actions = [lambda: evaluate(there), lambda: evaluate(read(args.workers)), forward]
    with convolutions(parse_form('float32')):
        *ours, other = seconds(actions, device, args.repeats)
    each = np.mean([len(table[split.labels[i]][0]) for i in chosen])
    what = f'cue localization, {each:.1f} pairs per image, {args.architecture}'
    over = f'one forward pass of {len(chosen)} images'
    note = f'{len(chosen) / ours[1]:.0f} images/s, {args.workers} processes read'
    return [
        Row(what, over, ours[0] / other, '<= 1.10', 'CUB has 4.3 pairs'),
        Row(f'{what}, with reading the files', over, ours[1] / other, '<= 1.50', note),
    ]
