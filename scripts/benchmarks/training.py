"""Training beside what it cannot do without: losses over their direct form, a step over a plain one, the loader."""

import time

import torch
from torch import nn

import wsol
from benchmarks.timing import Row, peak_bytes, seconds
from config import make_parser, pick
from data_loaders import load_split, make_loader
from engine import training
from wsol import calm

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


def loss_rows(args, device):
    """Time and peak memory of the losses over the direct form, at C = 1000 and 28 x 28 locations."""
    f = torch.randn(args.batch, 1000, 28, 28, device=device, requires_grad=True)
    h = torch.rand(args.batch, 1, 28, 28, device=device, requires_grad=True)
    y = torch.randint(1000, (args.batch,), device=device)
    rows = []
    for name, ours, direct in (('CALM-EM', calm.em_loss, direct_em_loss), ('CALM-ML', calm.ml_loss, direct_ml_loss)):
        actions = [lambda loss=loss: torch.autograd.grad(loss(f, h, y).sum(), (f, h)) for loss in (ours, direct)]
        low, high = (peak_bytes(action, device) for action in actions)
        fast, slow = seconds(actions, device, args.repeats)
        note = f'peak memory {low / high:.2f}'
        rows.append(Row(f"{name}'s loss, C = 1000, 28 x 28", 'the equations over all classes', fast / slow, '', note))
    return rows


def make_steps(args, device):
    """(a CALM-EM training step, the plain step of the same backbone and maps), functions."""
    model = build(args.architecture, CLASSES, device).train()
    plain = build(args.architecture, CLASSES, device).train()
    defaults = vars(make_parser('').parse_args([]))
    speed = {'amp': args.amp, 'channels_last': args.channels_last}
    recipe = pick(training.Recipe, defaults)._replace(architecture=args.architecture, lr=1e-4, **speed)
    trainer = training.Trainer(None, recipe, model, device)  # no run: nothing is saved
    optimizer = training.make_optimizer(recipe, plain, device)
    images = torch.randn(args.batch, 3, args.size, args.size)
    labels = torch.randint(CLASSES, (args.batch,))

    def plain_step():
        batch, y = training.to_device(images, labels, args.channels_last, device)
        with torch.autocast(device.type, training.DTYPES[args.amp], enabled=args.amp != 'off'):
            scores = plain.conv_last(plain.forward_features(batch))
        loss = nn.functional.cross_entropy(scores.float().mean(dim=(2, 3)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return lambda: trainer.train_step(images, labels, args.batch), plain_step


def step_rows(args, device):
    """A training step over a plain one, and the loader's images per second over the step's."""
    ours, other = seconds(make_steps(args, device), device, args.repeats)
    speed = args.batch / ours
    what = 'the same backbone and maps, mean and cross entropy'
    return [
        Row('a CALM-EM training step', what, ours / other, '<= 1.08', f'{speed:.1f} images/s'),
        load_row(args, speed, device),
    ]


def load_row(args, speed, device):
    """Images per second of the loader over those of the training step."""
    split = load_split('ToyBirds', 'train', args.data_root, args.metadata_root)
    loader = make_loader(split, True, args.batch, args.workers, args.size * 8 // 7, args.size, device=device)
    for _ in loader:  # the processes start, the files come into memory
        pass
    start = time.perf_counter()
    count = sum(len(labels) for _, labels, _ in loader)
    rate = count / (time.perf_counter() - start)
    note = f'{rate:.0f} images/s, {args.workers} processes, ToyBirds'
    return Row('images a second of the loader', 'those of the step', rate / speed, '', note)
