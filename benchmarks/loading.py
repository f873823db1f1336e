"""Cost of a training item, over the same steps in plain torchvision code."""

import glob
import os

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.timing import Row, seconds
from data_loaders import Split, make_loader
from wsol.preprocessing import PAPER

SIZES = 256, 224  # resize, crop; the paper's


class Plain(Dataset):
    """Training items in usual torchvision style: floats from the loader, seeds by the global generator."""

    def __init__(self, files):
        self.files = files
        size, crop = SIZES
        cut = [transforms.Resize((size, size)), transforms.RandomCrop(crop), transforms.RandomHorizontalFlip()]
        last = [transforms.ToTensor(), transforms.Normalize(PAPER.mean, PAPER.std)]
        self.transform = transforms.Compose([*cut, *last])

    def __len__(self):
        return len(self.files)

    def __getitem__(self, number):
        with Image.open(self.files[number]) as image:
            image = image.convert('RGB')
        words = np.random.SeedSequence((0, 0, number)).generate_state(2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((int(words[0]) << 31) ^ int(words[1]))
            return self.transform(image), 0, self.files[number]


def item_rows(args, device):
    """Cost of an item in a loader process, and until the images are on the device."""
    files = sorted(glob.glob(os.path.join(args.photographs, '**', '*.jp*g'), recursive=True))
    if not files:
        return [Row(f'a training item: no photographs in {args.photographs}')]
    files = (files * args.files)[: args.files]  # repeat them if there are too few
    keys = [list(range(len(files)))[i : i + args.batch] for i in range(0, len(files), args.batch)]
    plain = DataLoader(Plain(files), batch_sampler=keys)
    split = Split('train', '', '', files, [0] * len(files), 1)
    ours = make_loader(split, True, args.batch, 0, *SIZES, 0, keys, device=device)
    for (images, *_), (expected, *_) in zip(ours, plain):
        assert torch.equal(images.cpu(), expected), 'the inputs of the network differ'

    def through(loader, there=False):
        for images, *_ in loader:
            _ = images.to(device) if there else images

    here = [lambda: through(ours.loader), lambda: through(plain)]
    there = [lambda: through(ours), lambda: through(plain, True)]
    times = [1000 * one / len(files) for one in seconds(here + there, device, args.repeats)]
    width, height = np.median([Image.open(file).size for file in files], axis=0).astype(int)
    size = f'{len(files)} photographs of {width} x {height} (median)'

    def note(ours, other):
        return f'{ours:.2f} ms, plain {other:.2f} ms; {1000 / ours:.0f} images/s per core; {size}'

    over = 'plain torchvision code'
    return [
        Row('a training item in a loader process', over, times[0] / times[1], '<= 0.71', note(*times[:2])),
        Row('the same, until the images are on the device', over, times[2] / times[3], '', note(*times[2:])),
    ]
