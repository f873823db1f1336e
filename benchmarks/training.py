"""Training: losses over direct implementations, a step over a plain one, the loader."""

import time

import torch
from torch import nn

import wsol
from benchmarks.forms import convolutions, parse_form
from benchmarks.timing import Row, peak_bytes, seconds
from config import defaults, pick
from data_loaders import load_split, make_loader
from engine import models, training
from wsol import calm


def build(architecture, head, num_classes, device):
    """The network of all ratios."""
    return wsol.build_model(architecture, head, num_classes, large_feature_map=True).to(device)


def direct_em_loss(f, h, y):
    """CALM-EM for all classes, then the label's row."""
    p_z = h / h.sum(dim=(2, 3), keepdim=True).detach()
    joint = f.softmax(dim=1) * p_z  # [B, C, H, W]
    posterior = (joint / (joint.sum(dim=(2, 3), keepdim=True) + calm.EPS_Y)).detach()
    log_joint = f.log_softmax(dim=1) + torch.where(p_z < calm.EPS_LOG_Z, p_z + calm.EPS_LOG_Z, p_z).log()
    return -(posterior * log_joint).sum(dim=(2, 3)).gather(1, y[:, None]).squeeze(1)


def direct_ml_loss(f, h, y):
    """CALM-ML for all classes, then the label's row."""
    p_z = h / h.sum(dim=(2, 3), keepdim=True).detach()
    return -(f.softmax(dim=1) * p_z).sum(dim=(2, 3)).log().gather(1, y[:, None]).squeeze(1)


def loss_rows(args, device):
    """Time and peak memory of the losses over the direct implementations, at C = 1000 and 28 x 28 locations."""
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


def make_trainer(args, head, form, device):
    """A `training.Trainer` of a new network in a `Form`."""
    speed = form.speed._asdict()
    spec = models.Spec(args.architecture, head, True, True, False, speed['channels_last'], speed['compile'])
    model = models.load_model(spec, args.classes, device).train()
    usual = defaults()
    recipe = pick(training.Recipe, usual)._replace(architecture=args.architecture, lr=1e-4, **speed)
    return training.Trainer(None, recipe, model, device)  # None: saves nothing


def plain_step_of(trainer, images, labels):
    """A function: a training step of the trainer's backbone and maps with mean over locations and cross entropy."""
    model, recipe, device = trainer.model, trainer.recipe, trainer.device

    def plain_step():
        batch, y = training.to_device(images, labels, recipe.channels_last, device)
        with torch.autocast(device.type, training.DTYPES[recipe.amp], enabled=recipe.amp != 'off'):
            scores = model.conv_last(model.forward_features(batch))
        loss = nn.functional.cross_entropy(scores.float().mean(dim=(2, 3)), y)
        trainer.optimizer.zero_grad()
        trainer.scaler.scale(loss).backward()
        trainer.scaler.step(trainer.optimizer)
        trainer.scaler.update()

    return plain_step


def batch_of(args, device):
    """Images and labels on the device, so that a step excludes loading."""
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    return images, torch.randint(args.classes, (args.batch,), device=device)


def forward_of(trainer, images):
    """A function: a forward pass without gradients."""
    recipe = trainer.recipe

    @torch.no_grad()
    def forward():
        with torch.autocast(images.device.type, training.DTYPES[recipe.amp], enabled=recipe.amp != 'off'):
            _ = trainer.model(images).probs

    return forward


def step_rows(args, device):
    """A training step of each of `--heads` over a plain one in one of `--forms`; and a forward pass over that step."""
    form = parse_form(args.form)
    heads = args.heads.split(',')
    images, labels = batch_of(args, device)
    with convolutions(form):
        trainers = [make_trainer(args, head, form, device) for head in heads]
        steps = [lambda one=one: one.train_step(images, labels, args.batch) for one in trainers]
        steps.append(plain_step_of(make_trainer(args, 'CAM', form, device), images, labels))
        *times, plain = seconds(steps, device, args.repeats)
        memory = [peak_bytes(step, device) / 2**30 for step in steps[:-1]]
        trainers[0].model.eval()
        layout = torch.channels_last if form.speed.channels_last else torch.contiguous_format
        there = images.contiguous(memory_format=layout)
        (forward,) = seconds([forward_of(trainers[0], there)], device, args.repeats)
    where = f'{args.architecture}, {args.classes} classes, {args.form}'
    over = 'the same backbone and maps, mean and cross entropy'
    goal = '<= 1.08' if device.type == 'cpu' else '<= 1.10'
    rows = []
    for head, time_of, peak in zip(heads, times, memory):
        note = f'{args.batch / time_of:.1f} images/s, peak memory {peak:.2f} GiB plus the weights'
        rows.append(Row(f'a {head} training step, {where}', over, time_of / plain, goal, note))
    note = f'{args.batch / forward:.1f} images/s'
    return [*rows, Row(f'a forward pass of {heads[0]}, {where}', 'its training step', forward / times[0], '', note)]


def load_rows(args, device):
    """Images per second of the loader over a training step's, and how many processes feed the device."""
    form = parse_form(args.form)
    images, labels = batch_of(args, device)
    with convolutions(form):
        trainer = make_trainer(args, 'CALM-EM', form, device)
        (step,) = seconds([lambda: trainer.train_step(images, labels, args.batch)], device, args.repeats)
    split = load_split('ToyBirds', 'train', args.data_root, args.metadata_root)
    loader = make_loader(split, True, args.batch, args.workers, args.size * 8 // 7, args.size, device=device)
    for _ in loader:  # warm-up: starts the processes, fills the file cache
        pass
    start = time.perf_counter()
    count = sum(len(labels) for _, labels, _ in loader)
    rate = count / (time.perf_counter() - start)
    speed = args.batch / step
    each = rate / max(args.workers, 1)
    note = (
        f'{rate:.0f} images/s, {args.workers} processes, ToyBirds: {each:.0f} images/s per process, '
        f'{speed / each:.1f} of them feed {args.architecture} in {args.form} ({speed:.1f} images/s)'
    )
    return [Row('images per second of the loader', 'those of the step', rate / speed, '', note)]
