"""Training epochs, accuracy, and the state from which a stopped training resumes."""

import os
import random
import time
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import util
import wsol
from engine import processes
from engine.objective import DTYPES, Objective, make_teacher
from engine.resume import resuming
from wsol.errors import NotFinite, UserError

STATE = 'resume_checkpoint.pth.tar'
LOSS_CHECK = 50  # steps between checks of the loss, each of which waits for the device
GO_ON, SAVE, STOP = range(3)  # a process's request after a step; the largest of all processes wins


class Recipe(NamedTuple):
    """The flags that say how a network is trained."""

    architecture: str  # determines the parameter groups
    epochs: int
    batch_size: int  # images per step, over all processes
    lr: float  # of the backbone
    lr_classifier_ratio: float  # multiplier on lr outside the backbone
    lr_decay_frequency: int  # epochs between divisions of the rates by 10
    momentum: float  # Nesterov's
    weight_decay: float
    is_different_checkpoint: bool  # the whole backbone learns at lr
    freeze_bn: bool  # batch norm keeps its statistics
    gradient_reg: float  # weight of the interpretable-gradient loss
    gradient_reg_error: str  # a key of regularization.ERRORS
    em_teacher: str  # source of p'(z|x,y) for CALM-EM: one of flags.network.EM_TEACHERS
    em_decay: float  # of the running average
    save_minutes: float  # minutes between saved states
    amp: str  # mixed precision: a key of DTYPES
    channels_last: bool
    compile: bool
    sync_bn: bool


def make_optimizer(recipe, model, device):
    """SGD with Nesterov momentum on the released parameter groups; fused on accelerators."""
    groups = wsol.parameter_groups(
        model, recipe.architecture, recipe.lr, recipe.lr_classifier_ratio, recipe.is_different_checkpoint
    )
    return torch.optim.SGD(
        groups,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
        fused=device.type != 'cpu',
    )


def adjust_learning_rate(optimizer, epoch, frequency):
    """Divide the rates by 10 if `epoch` (from 1) is a multiple of `frequency` (released schedule)."""
    if epoch % frequency == 0:
        for group in optimizer.param_groups:
            group['lr'] *= 0.1


class Trainer:
    """A training: model, optimizer, teacher and progress."""

    def __init__(self, run, recipe, model, device, images=None):
        """run: the `resuming.Run`, whose folder holds the state; model: a `wsol.network.Network` on `device`; images: a
        `resuming.digest` of the images and labels, which --resume requires to be the same."""
        if recipe.sync_bn and device.type == 'cpu':
            raise UserError('--sync_bn needs an accelerator: leave it out on CPUs')
        if recipe.gradient_reg and (recipe.sync_bn or recipe.compile or recipe.amp == 'fp16'):
            raise UserError(
                '--gradient_reg differentiates twice, which --sync_bn, --compile and --amp=fp16 cannot: leave them out'
            )
        self.model = nn.SyncBatchNorm.convert_sync_batchnorm(model) if recipe.sync_bn else model
        self.run = run
        self.recipe = recipe
        self.device = device
        self.images = images
        self.optimizer = make_optimizer(recipe, self.model, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp == 'fp16')
        self.objective = Objective(self.model, recipe.amp, recipe.gradient_reg, recipe.gradient_reg_error)
        if processes.world() > 1:
            self.objective = DistributedDataParallel(
                self.objective,
                device_ids=None if device.type == 'cpu' else [device],
                find_unused_parameters=not model.head.attends,  # heads that do not use the attention layer
            )
        self.teacher = make_teacher(recipe, self.model)
        self.epoch = 1
        self.step = 0  # steps done in this epoch
        self.best = -1.0  # validation accuracy
        self.total = torch.zeros((), dtype=torch.float64, device=device)  # sum of this epoch's losses in this process
        self.correct = torch.zeros((), dtype=torch.long, device=device)

    def train_step(self, images, labels, count):
        """One step on this process's share of a batch of `count` images, minimising the batch's mean loss."""
        images, labels = to_device(images, labels, self.recipe.channels_last, self.device)
        if not len(images) and not self.recipe.sync_bn:
            self.model.eval()  # an empty share has no batch statistics; it only takes part in the gradient exchange
        posterior = self.teacher.posterior(images, labels) if self.teacher else None
        losses, right = self.objective(images, labels, posterior)
        self.optimizer.zero_grad()
        self.scaler.scale(losses.sum() / (count / processes.world())).backward()  # DDP averages over processes
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.teacher:
            self.teacher.after('ema')
        self.total += losses.detach().sum()
        self.correct += right.sum()

    def train_epoch(self, loader, title, save):
        """Train the rest of this epoch; returns (mean loss, accuracy in percent).

        title: for the progress bar. save() is called every save_minutes, and on a stop request, before Stopped is
        raised. A loss that is not finite is a NotFinite error.
        """
        size = self.recipe.batch_size
        count = len(loader.dataset)
        vote = processes.Vote()
        loader.batch_sampler.epoch = self.epoch
        loader.batch_sampler.start = self.step
        self._train_mode()
        saved = time.monotonic()
        steps = len(loader)
        for images, labels, _ in util.progress(loader, steps, title, size, processes.rank() == 0):
            self.train_step(images, labels, min(size, count - self.step * size))
            self.step += 1
            if self.step % LOSS_CHECK == 0 or self.step * size >= count:
                self.check_loss(title)
            due = time.monotonic() - saved > 60 * self.recipe.save_minutes
            request = vote(STOP if processes.stop_asked() else SAVE if due else GO_ON)
            if request != GO_ON:
                vote.close()  # discards this step's vote, which the save fulfils too
                save()
                saved = time.monotonic()
            if request == STOP:
                resuming.stop_marked(self.run.folder)
        vote.close()
        total, correct = self._sums()
        return float(total) / count, 100 * int(correct) / count

    def _train_mode(self):
        """Set training mode; with freeze_bn, batch norms stay in eval mode."""
        self.model.train()
        for module in self.model.modules() if self.recipe.freeze_bn else ():
            module.training &= not isinstance(module, nn.modules.batchnorm._BatchNorm)

    def _sums(self):
        """(sum of losses, number of correctly classified images) of this epoch so far, over all processes."""
        return processes.total_of(self.total.clone()), processes.total_of(self.correct.clone())

    def check_loss(self, title):
        """Raise NotFinite if the loss is not finite; waits for the device."""
        if not torch.isfinite(self.total):
            raise NotFinite(
                f'{title}: the loss is not finite by step {self.step}: try a smaller --lr; the last checkpoint is '
                'intact'
            )

    def next_epoch(self):
        """Reset the sums and start the next epoch; updates an 'epoch' teacher."""
        if self.teacher:
            self.teacher.after('epoch')
        self.epoch += 1
        self.step = 0
        self.total.zero_()
        self.correct.zero_()

    def share_buffers(self):
        """Copy the batch-norm statistics of rank 0 to all processes, each of which has seen other images."""
        if processes.world() > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def save(self, log):
        """Save the state for --resume; all processes call this, rank 0 writes."""
        total, correct = self._sums()
        if processes.rank() == 0:
            util.save_checkpoint(
                os.path.join(self.run.folder, STATE),
                self.model,
                self.optimizer,
                self.epoch,
                self.run.arguments,
                {
                    'step': self.step,
                    'best': self.best,
                    'total': total.cpu(),
                    'correct': correct.cpu(),
                    'scaler': self.scaler.state_dict(),
                    'log_size': log.size(),
                    'images': self.images,
                    'random': random_state(),
                    **({'teacher': self.teacher.state()} if self.teacher else {}),
                },
            )
        processes.wait()  # until the state is on disk

    def load(self, record):
        """Restore a state that `save` wrote."""
        progress = record['progress']
        path = os.path.join(self.run.folder, STATE)
        processes.first_alone(lambda: resuming.same_images(self.images, progress.get('images'), path))
        wsol.load_weights(self.model, record['state_dict'])
        self.optimizer.load_state_dict(record['optimizer'])
        self.scaler.load_state_dict(progress['scaler'])
        if self.teacher:
            self.teacher.load(progress.get('teacher'))
        self.epoch = record['epoch']
        self.step = progress['step']
        self.best = progress['best']
        if processes.rank() == 0:  # the saved sums are over all processes
            self.total.copy_(progress['total'])
            self.correct.copy_(progress['correct'])
        set_random_state(progress['random'])


def to_device(images, labels, channels_last, device):
    """Images and labels on the device; channels_last: the images' memory format."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(device, non_blocking=True, memory_format=layout), labels.to(device, non_blocking=True)


def accuracy(right):
    """Top-1 accuracy in percent of `classified_right`."""
    return 100 * int(right.sum()) / len(right)


@torch.no_grad()
def classified_right(model, loader, recipe, device, title, folder, save=None):
    """Is each image classified correctly? Bool [N] on the host, over all processes, in the split's order.

    loader: its batch sampler is the list of this process's batches of image numbers; title: for the progress bar. On a
    stop request, save() is called, if given, the experiment folder is marked and Stopped is raised.
    """
    model.eval()
    found = []  # on the device, to not wait for it
    vote = processes.Vote()
    for images, labels, _ in util.progress(loader, len(loader), title, recipe.batch_size, processes.rank() == 0):
        images, labels = to_device(images, labels, recipe.channels_last, device)
        with torch.autocast(device.type, DTYPES[recipe.amp], enabled=recipe.amp != 'off'):
            output = model(images)
        found.append(output.float().probs.argmax(dim=1) == labels)
        if vote(STOP if processes.stop_asked() else GO_ON) == STOP:
            vote.close()
            if save:
                save()
            resuming.stop_marked(folder)
    vote.close()
    numbers = [number for batch in loader.batch_sampler for number in batch]
    right = torch.zeros(len(loader.dataset), dtype=torch.uint8, device=device)
    right[numbers] = torch.cat(found).to(torch.uint8)
    return processes.total_of(right).bool().cpu()


def random_state():
    """The state of all random generators of this process, as tensors and plain values."""
    kind, words, *rest = np.random.get_state()
    return {
        'python': random.getstate(),
        'numpy': [kind, words.tolist(), *rest],
        'torch': torch.get_rng_state(),
        'accelerator': torch.cuda.get_rng_state_all(),
    }


def set_random_state(state):
    """Restore a `random_state`; with another number of accelerators, theirs is not restored."""
    version, words, following = state['python']
    random.setstate((version, tuple(words), following))
    np.random.set_state(tuple(state['numpy']))
    torch.set_rng_state(state['torch'])
    if len(state['accelerator']) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state['accelerator'])
