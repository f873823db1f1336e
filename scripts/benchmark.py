"""Ratios, each taken in one run on this machine: training and the evaluators over the passes they cannot do without.

    python scripts/benchmark.py [--architecture resnet50] [--size 224] [--batch 16] [--images 32] [--only loss,step]

loss    CALM's losses, forward and backward, over the direct form, which writes them as the paper states them, over all
        classes
step    a CALM-EM training step over a plain one: the same torchvision backbone and maps, mean over them, cross entropy,
        SGD
erase   remove-and-classify of a map at hand over its 11 forward passes
cue     cue localization over one forward pass of its images (of ToyBirds, which scripts/make_toybirds.py draws)
load    images per second of the training loader over those of a training step, `--workers` processes
"""

import argparse
import os
import time

import checkout  # noqa: F401
import numpy as np
import torch
from torch import nn

import eval_cue_location
import eval_pixel_perturb
import wsol
from config import make_parser, pick
from data_loaders import load_split, make_loader
from engine import evaluation, machine, processes, training
from wsol import calm, cub_parts
from wsol.scoring import cues, erasing, pixels

CLASSES = 200


def build(architecture, num_classes, device):
    """The network that all ratios are of."""
    return wsol.build_model(architecture, 'CALM-EM', num_classes, large_feature_map=True).to(device)


def direct_em_loss(f, h, y):
    """CALM-EM over all classes, then the label's row."""
    p_z = h / h.sum(dim=(2, 3), keepdim=True).detach()
    joint = f.softmax(dim=1) * p_z  # [B, C, H, W]
    posterior = (joint / (joint.sum(dim=(2, 3), keepdim=True) + calm.EPS_Y)).detach()
    log_joint = f.log_softmax(dim=1) + torch.where(p_z < calm.EPS_LOG_Z, p_z + calm.EPS_LOG_Z, p_z).log()
    return -(posterior * log_joint).sum(dim=(2, 3)).gather(1, y[:, None]).squeeze(1)


def direct_ml_loss(f, h, y):
    """CALM-ML over all classes, then the label's row."""
    p_z = h / h.sum(dim=(2, 3), keepdim=True).detach()
    return -(f.softmax(dim=1) * p_z).sum(dim=(2, 3)).log().gather(1, y[:, None]).squeeze(1)


def kept_bytes(loss, f, h, y):
    """Bytes kept for the backward pass beside the scores f, each storage once."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() != f.untyped_storage().data_ptr():
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss(f, h, y)
        size = sum(kept.values())
    del value
    return size


def peak_bytes(action, device):
    """The most memory that `action` holds at one moment beside what there was before it.

    On a CPU the profiler's allocations and releases are added up; on an accelerator its own statistics are read.
    """
    if device.type != 'cpu':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        action()
    changes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == '[memory]']
    return int(np.cumsum(changes).max())


def seconds(actions, device, repeats):
    """Median time of each of several actions that take turns."""

    def once(action):
        start = time.perf_counter()
        action()
        if device.type != 'cpu':
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for action in actions:
        once(action)
    return np.median([[once(action) for action in actions] for _ in range(repeats)], axis=0).tolist()


def loss_ratios(args, device):
    """Time, kept bytes and peak memory of the losses over the direct form, at C = 1000 and 28 x 28 locations."""
    f = torch.randn(args.batch, 1000, 28, 28, device=device, requires_grad=True)
    h = torch.rand(args.batch, 1, 28, 28, device=device, requires_grad=True)
    y = torch.randint(1000, (args.batch,), device=device)
    print(f'scores {list(f.shape)}, {f.numel() * 4 / 2**20:.0f} MiB')
    for name, ours, direct in (('CALM-EM', calm.em_loss, direct_em_loss), ('CALM-ML', calm.ml_loss, direct_ml_loss)):
        actions = [lambda loss=loss: torch.autograd.grad(loss(f, h, y).sum(), (f, h)) for loss in (ours, direct)]
        few, many = (kept_bytes(loss, f, h, y) for loss in (ours, direct))
        low, high = (peak_bytes(action, device) for action in actions)
        fast, slow = seconds(actions, device, args.repeats)
        print(
            f'loss, {name}: time {fast / slow:.2f}, peak memory {low / high:.2f}, '
            f'kept beside the scores 1/{many / few:.0f} of direct'
        )


def step_ratio(args, device):
    """Prints the time of a training step over a plain one; returns images per second of the first."""
    model = build(args.architecture, CLASSES, device).train()
    plain = build(args.architecture, CLASSES, device).train()
    defaults = vars(make_parser('').parse_args([]))
    recipe = pick(training.Recipe, defaults)._replace(architecture=args.architecture, lr=1e-4)
    trainer = training.Trainer(None, recipe, model, device)  # no run: nothing is saved
    optimizer = training.make_optimizer(recipe, plain, device)
    images = torch.randn(args.batch, 3, args.size, args.size)
    labels = torch.randint(CLASSES, (args.batch,))

    def plain_step():
        scores = plain.conv_last(plain.forward_features(images.to(device)))
        loss = nn.functional.cross_entropy(scores.mean(dim=(2, 3)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    ours, other = seconds([lambda: trainer.train_step(images, labels, args.batch), plain_step], device, args.repeats)
    print(f'step, CALM-EM over plain: {ours / other:.2f} ({args.batch / ours:.1f} images/s)')
    return args.batch / ours


class Ready:
    """A map maker whose maps are at hand: the evaluator's own cost, not the map's."""

    ksize = 1

    def __init__(self, maps):
        self.maps = maps

    def tensors(self, images, output, classes, numbers):
        """As `evaluation.MapMaker.tensors`."""
        return list(self.maps[:, None])

    def __call__(self, *arguments):
        """As `evaluation.MapMaker`."""
        return [one.cpu().numpy() for one in self.tensors(*arguments)]


def erase_ratio(args, device):
    """Time of remove-and-classify over its 11 forward passes."""
    model = build(args.architecture, CLASSES, device).eval()
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    labels = torch.zeros(args.batch, dtype=torch.long, device=device)
    ready = Ready(torch.rand(args.batch, 28, 28, device=device))

    @torch.no_grad()
    def passes():
        for _ in range(1 + 2 * len(erasing.ERASE_K)):
            _ = model(images).probs

    def erase():
        eval_pixel_perturb.count_batch(model, ready, images, labels, list(range(args.batch)), 0, 1)

    ours, other = seconds([erase, passes], device, args.repeats)
    print(f'erase, over 11 forward passes: {ours / other:.2f}')


def cue_ratio(args, device):
    """Time of cue localization over a forward pass of its images; reading files is in neither."""
    split = load_split('ToyBirds', 'test', args.data_root, args.metadata_root)
    folder = os.path.join(args.data_root, 'ToyBirds')
    pairs = cub_parts.pairs_by_count(cub_parts.class_pairs(folder), cues.COUNTS)
    table = cues.class_rows(pairs)
    chosen = [i for i, y in enumerate(split.labels) if y in table][: args.images]
    dataset = eval_cue_location.CueDataset(split, chosen, folder, args.size)
    dataset.exact = None  # as on CUB: no true pixels of the parts
    batches = list(torch.utils.data.DataLoader(dataset, batch_size=args.batch))
    model = build(args.architecture, split.num_classes, device).eval()
    maker = evaluation.MapMaker(model, 'jointll')
    cue = cues.make_cues(pairs, pixels.histogram_edges(pixels.thresholds('log', 0.001)), None, 'clipping')

    def evaluate():
        for batch in batches:
            eval_cue_location.count_batch(batch, maker, split.labels, table, cue, device)

    @torch.no_grad()
    def forward():
        for batch in batches:
            _ = model(batch[0].to(device)).probs

    ours, other = seconds([evaluate, forward], device, args.repeats)
    each = np.mean([len(table[split.labels[i]][0]) for i in chosen])
    print(
        f'cue, over one forward pass of {len(chosen)} images: {ours / other:.2f} '
        f'({each:.1f} pairs an image; CUB has 4.3)'
    )


def load_ratio(args, speed):
    """Images per second of the loader over those of the training step."""
    split = load_split('ToyBirds', 'train', args.data_root, args.metadata_root)
    loader = make_loader(split, True, args.batch, args.workers, args.size * 8 // 7, args.size)
    for _ in loader:  # the processes start, the files come into memory
        pass
    start = time.perf_counter()
    count = sum(len(labels) for _, labels, _ in loader)
    rate = count / (time.perf_counter() - start)
    print(f'load, over the training step: {rate / speed:.1f} ({rate:.0f} images/s, {args.workers} processes)')


def parse():
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--architecture', default='resnet50', choices=wsol.ARCHITECTURES)
    numbers = {'size': 224, 'batch': 16, 'images': 32, 'repeats': 5, 'workers': os.cpu_count() or 1}
    for name, default in numbers.items():
        parser.add_argument(f'--{name}', type=int, default=default, help='default %(default)s')
    parser.add_argument('--data_root', default='dataset/')
    parser.add_argument('--metadata_root', default='metadata/')
    parser.add_argument('--only', default='loss,step,erase,cue,load', help='comma-separated; default %(default)s')
    return parser.parse_args()


def main():
    """Prints the ratios that --only names."""
    args = parse()
    torch.manual_seed(0)
    device = processes.accelerator()
    name = machine.device_name(device)
    print(f'{name}; {args.architecture} at {args.size} px, batches of {args.batch}; medians of {args.repeats}')
    only = args.only.split(',')
    if 'loss' in only:
        loss_ratios(args, device)
    speed = step_ratio(args, device) if {'step', 'load'} & set(only) else None
    if 'erase' in only:
        erase_ratio(args, device)
    if 'cue' in only:
        cue_ratio(args, device)
    if 'load' in only:
        load_ratio(args, speed)


if __name__ == '__main__':
    main()
