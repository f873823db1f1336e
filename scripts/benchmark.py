"""Ratios, each taken in one run on this machine: what CALM's losses keep and cost against the direct form.

    python scripts/benchmark.py [--classes 1000] [--size 28] [--batch 16]

The direct form writes the losses as the paper states them, over all classes; both forms get the same scores f and cue location h.
"""
import argparse
import os
import sys
import time

import torch

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from wsol import calm


def direct_em_loss(f, h, y):
    """CALM-EM over all classes, then the label's row."""
    p_z = h / h.sum(dim=(2, 3), keepdim=True).detach()
    joint = f.softmax(dim=1) * p_z                                                   # [B, C, H, W]
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


def seconds(loss, f, h, y, repeats=7):
    """Median time of a forward and backward pass."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.autograd.grad(loss(f, h, y).sum(), (f, h))
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (('classes', 1000), ('size', 28), ('batch', 16)):
        parser.add_argument(f'--{name}', type=int, default=default, help='default %(default)s')
    args = parser.parse_args()
    torch.manual_seed(0)
    f = torch.randn(args.batch, args.classes, args.size, args.size, requires_grad=True)
    h = torch.rand(args.batch, 1, args.size, args.size, requires_grad=True)
    y = torch.randint(args.classes, (args.batch,))
    print(f'scores [{args.batch}, {args.classes}, {args.size}, {args.size}], {f.numel() * 4 / 2 ** 20:.0f} MiB, CPU, {torch.get_num_threads()} threads')
    for name, ours, direct in (('CALM-EM', calm.em_loss, direct_em_loss), ('CALM-ML', calm.ml_loss, direct_ml_loss)):
        few, many = kept_bytes(ours, f, h, y), kept_bytes(direct, f, h, y)
        print(f'{name}: kept for the backward pass beside the scores {few / 2 ** 20:.2f} MiB, direct {many / 2 ** 20:.0f} MiB: '
              f'{many / few:.0f} times fewer; time over direct {seconds(ours, f, h, y) / seconds(direct, f, h, y):.2f}')


if __name__ == '__main__':
    main()
