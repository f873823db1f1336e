"""Train a CAM or CALM network and report its accuracy.

    python main.py --experiment_name=calm_em --architecture=resnet50 --attribution_method=CALM-EM --dataset=CUB \\
        --use_bn=True --large_feature_map=True
"""
import os
import time

import torch
from munch import Munch

import inference
import util
import wsol
from config import get_configs
from data_loaders import DATASETS, SPLITS, load_split, make_loader

LOG, RESULT = 'log.jsonl', 'accuracy.json'
LOSS_CHECK = 50          # steps between two looks at the loss: each look waits for the device


def train_epoch(model, loader, optimizer, device, text):
    """One pass over the loader; returns (mean loss, accuracy in percent). A loss that is not finite is a FloatingPointError."""
    model.train()
    total = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.long, device=device)
    for step, (images, labels, _) in enumerate(util.progress(loader, len(loader), text), 1):
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        output = model(images)
        loss = output.loss(labels).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(images)
        with torch.no_grad():
            correct += (output.probs.argmax(dim=1) == labels).sum()
        if (step % LOSS_CHECK == 0 or step == len(loader)) and not torch.isfinite(total):
            raise FloatingPointError(f'{text}: the loss is not finite by step {step}: try a smaller --lr; '
                                     'the last checkpoint is intact')
    count = len(loader.dataset)
    return float(total) / count, 100 * int(correct) / count


@torch.no_grad()
def accuracy(model, loader, device, text):
    """Top-1 accuracy in percent."""
    model.eval()
    correct = torch.zeros((), dtype=torch.long, device=device)
    for images, labels, _ in util.progress(loader, len(loader), text):
        probs = model(images.to(device, non_blocking=True)).probs
        correct += (probs.argmax(dim=1) == labels.to(device, non_blocking=True)).sum()
    return 100 * int(correct) / len(loader.dataset)


def adjust_learning_rate(optimizer, epoch, frequency):
    """A tenth of the rates before every `frequency`-th epoch; epochs count from 1 (released schedule)."""
    if epoch % frequency == 0:
        for group in optimizer.param_groups:
            group['lr'] *= 0.1


def make_optimizer(args, model):
    """SGD with Nesterov momentum on the released parameter groups."""
    groups = wsol.parameter_groups(model, args.architecture, args.lr, args.lr_classifier_ratio, args.is_different_checkpoint)
    return torch.optim.SGD(groups, momentum=args.momentum, weight_decay=args.weight_decay, nesterov=args.momentum > 0)


def train(args, model, loaders, device, log):
    """All epochs; writes the last and the best checkpoint. Returns the best validation accuracy."""
    optimizer = make_optimizer(args, model)
    best = -1.0
    for epoch in range(1, args.epochs + 1):
        start = time.monotonic()
        adjust_learning_rate(optimizer, epoch, args.lr_decay_frequency)
        loaders.train.sampler.epoch = epoch
        loss, train_accuracy = train_epoch(model, loaders.train, optimizer, device, f'epoch {epoch}/{args.epochs}')
        seconds = time.monotonic() - start
        val_accuracy = accuracy(model, loaders.val, device, 'validation')
        log.report(f'epoch {epoch}/{args.epochs}: loss {loss:.4f}, train {train_accuracy:.2f} %, val {val_accuracy:.2f} %, '
                   f'{seconds:.0f} s', epoch=epoch, loss=loss, train_accuracy=train_accuracy, val_accuracy=val_accuracy,
                   lr=[group['lr'] for group in optimizer.param_groups], seconds=seconds,
                   images_per_second=len(loaders.train.dataset) / seconds)
        names = ('last', 'best') if val_accuracy > best else ('last',)
        best = max(best, val_accuracy)
        for name in names:
            util.save_checkpoint(os.path.join(args.log_folder, util.CHECKPOINT.format(name)), model, optimizer, epoch, args)
    return best


def main():
    args = get_configs(__doc__, {**wsol.CHOICES, 'dataset': tuple(DATASETS)})
    checkpoints = [util.CHECKPOINT.format(name) for name in ('last', 'best')]
    results = [LOG, RESULT, *checkpoints] if args.is_train else [RESULT]
    util.check_claim(args.log_folder, results, args.override_cache)
    args.seed = util.set_seed(args.seed)
    device = inference.pick_device()
    loaders = Munch()
    for name in SPLITS if args.is_train else ('test',):
        split = load_split(args.dataset, name, args.data_root, args.metadata_root, args.proxy_training_set and name == 'train')
        loaders[name] = make_loader(split, name == 'train', args.batch_size, args.workers, args.resize_size, args.crop_size, args.seed)
    model = inference.load_model(args, split.num_classes, device)
    log = util.Log(os.path.join(args.log_folder, LOG if args.is_train else 'log_test.jsonl'), args)
    best = train(args, model, loaders, device, log) if args.is_train else None
    test = accuracy(model, loaders.test, device, 'test')
    log.report(f'test accuracy {test:.2f} %', test_accuracy=test)
    util.write_json(os.path.join(args.log_folder, RESULT), {
        'test_accuracy': test, 'best_val_accuracy': best, 'images': len(loaders.test.dataset), 'arguments': dict(args)})


if __name__ == '__main__':
    util.command(main)
