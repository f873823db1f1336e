"""One epoch of training, the accuracy, and the state that a stopped training goes on from."""

import os
import random
import time

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import cluster
import util
import wsol
from wsol.errors import NotFinite, UserError
from wsol.regularization import gradient_regularization

STATE = 'resume_checkpoint.pth.tar'
LOSS_CHECK = 50  # steps between two looks at the loss: each look waits for the device
DTYPES = {'off': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
GO_ON, SAVE, STOP = 0, 1, 2  # what a process wishes after a step; the largest wish counts
MAY_DIFFER = ('epochs',)  # beside the flags of a run: training may go on for longer


class Objective(nn.Module):
    """images [B, 3, h, w], labels [B] -> (loss of each image [B], is it classified right [B]): what one step computes.

    The network runs in mixed precision where `precision` says so; from f and h on everything is float32. With a
    `gradient_reg` over 0 the loss has that many times the interpretable-gradient error in it (wsol/regularization.py).
    """

    def __init__(self, model, precision='off', gradient_reg=0, gradient_reg_error='cosine'):
        super().__init__()
        self.model, self.dtype = model, DTYPES[precision]
        self.gradient_reg, self.error = gradient_reg, gradient_reg_error

    def output(self, images):
        """The network's `Output`, in float32."""
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output = self.model(images)
        return output.float()

    def forward(self, images, labels):
        if self.gradient_reg:
            losses, errors, probs = gradient_regularization(self.output, images, labels, self.error)
            losses = losses + self.gradient_reg * errors
        else:
            output = self.output(images)
            losses, probs = output.loss(labels), output.probs
        return losses, probs.detach().argmax(dim=1) == labels


def make_optimizer(args, model, device):
    """SGD with Nesterov momentum on the released parameter groups; fused on accelerators."""
    groups = wsol.parameter_groups(
        model, args.architecture, args.lr, args.lr_classifier_ratio, args.is_different_checkpoint
    )
    return torch.optim.SGD(
        groups,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        nesterov=args.momentum > 0,
        fused=device.type != 'cpu',
    )


def adjust_learning_rate(optimizer, epoch, frequency):
    """A tenth of the rates before every `frequency`-th epoch; epochs count from 1 (released schedule)."""
    if epoch % frequency == 0:
        for group in optimizer.param_groups:
            group['lr'] *= 0.1


class Trainer:
    """A training under way: the model, what moves it, and how far it has come."""

    def __init__(self, args, model, device):
        if args.sync_bn and device.type == 'cpu':
            raise UserError('--sync_bn needs an accelerator: leave it out on CPUs')
        if args.gradient_reg and (args.sync_bn or args.compile or args.amp == 'fp16'):
            raise UserError(
                '--gradient_reg differentiates twice, which --sync_bn, --compile and --amp=fp16 cannot: leave them out'
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model) if args.sync_bn else model
        self.args, self.model, self.device = args, model, device
        self.optimizer = make_optimizer(args, model, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=args.amp == 'fp16')
        self.objective = Objective(model, args.amp, args.gradient_reg, args.gradient_reg_error)
        if cluster.world() > 1:  # the methods beside CALM leave the attention unused
            self.objective = DistributedDataParallel(
                self.objective,
                device_ids=None if device.type == 'cpu' else [device],
                find_unused_parameters=not args.attribution_method.startswith('CALM'),
            )
        self.epoch, self.step, self.best = 1, 0, -1.0  # step: those done in this epoch
        self.total = torch.zeros((), dtype=torch.float64, device=device)  # of this epoch's losses, in this process
        self.correct = torch.zeros((), dtype=torch.long, device=device)

    def train_step(self, images, labels, count):
        """One step on this process's share of a batch of `count` images; the gradient is that of the batch's mean loss."""
        images, labels = to_device(images, labels, self.args, self.device)
        if not len(images) and not self.args.sync_bn:
            self.model.eval()  # nothing to take statistics of: the others' gradients are all that counts
        losses, right = self.objective(images, labels)
        self.optimizer.zero_grad()
        self.scaler.scale(losses.sum() / (count / cluster.world())).backward()  # the processes' mean is taken
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.total += losses.detach().sum()
        self.correct += right.sum()

    def train_epoch(self, loader, text, save):
        """The rest of this epoch; returns (mean loss, accuracy in percent). save() is called when a state is due.

        Asked to stop, it saves and raises util.Stopped. A loss that is not finite is a FloatingPointError.
        """
        size, count, vote = self.args.batch_size, len(loader.dataset), cluster.Vote()
        loader.batch_sampler.epoch, loader.batch_sampler.start = self.epoch, self.step
        self.model.train()
        for module in self.model.modules() if self.args.freeze_bn else ():
            module.training &= not isinstance(module, nn.modules.batchnorm._BatchNorm)
        saved, steps = time.monotonic(), len(loader)
        for images, labels, _ in util.progress(loader, steps, text, size, cluster.rank() == 0):
            self.train_step(images, labels, min(size, count - self.step * size))
            self.step += 1
            if self.step % LOSS_CHECK == 0 or self.step * size >= count:
                self.check_loss(text)
            due = time.monotonic() - saved > 60 * self.args.save_minutes
            wish = vote(STOP if cluster.stop_asked() else SAVE if due else GO_ON)
            if wish != GO_ON:
                vote.close()  # of this step: the wish has been met
                save()
                saved = time.monotonic()
            if wish == STOP:
                cluster.leave(self.args.log_folder)
        vote.close()
        total, correct = cluster.total_of(self.total.clone()), cluster.total_of(self.correct.clone())
        return float(total) / count, 100 * int(correct) / count

    def check_loss(self, text):
        """A loss that is not finite is a FloatingPointError. Looking waits for the device."""
        if not torch.isfinite(self.total):
            raise NotFinite(
                f'{text}: the loss is not finite by step {self.step}: try a smaller --lr; the last checkpoint is intact'
            )

    def next_epoch(self):
        """Forget the sums of the epoch that is done."""
        self.epoch, self.step = self.epoch + 1, 0
        self.total.zero_()
        self.correct.zero_()

    def share_buffers(self):
        """Every process takes the first one's batch-norm statistics: each has seen other images."""
        if cluster.world() > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def save(self, log):
        """Write the state to go on from. Every process calls it, the first one writes."""
        total, correct = cluster.total_of(self.total.clone()), cluster.total_of(self.correct.clone())
        if cluster.rank() == 0:
            util.save_checkpoint(
                os.path.join(self.args.log_folder, STATE),
                self.model,
                self.optimizer,
                self.epoch,
                self.args,
                {
                    'step': self.step,
                    'best': self.best,
                    'total': total.cpu(),
                    'correct': correct.cpu(),
                    'scaler': self.scaler.state_dict(),
                    'log_size': log.size(),
                    'random': random_state(),
                },
            )
        cluster.wait()  # none leaves before the state is on the disk

    def load(self, record):
        """Go on from a state that `save` wrote."""
        progress = record['progress']
        wsol.load_weights(self.model, record['state_dict'])
        self.optimizer.load_state_dict(record['optimizer'])
        self.scaler.load_state_dict(progress['scaler'])
        self.epoch, self.step, self.best = record['epoch'], progress['step'], progress['best']
        if cluster.rank() == 0:  # the sums are of all processes
            self.total.copy_(progress['total'])
            self.correct.copy_(progress['correct'])
        set_random_state(progress['random'])


def to_device(images, labels, args, device):
    """A batch on the device, in the memory format that the flags ask for."""
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    return images.to(device, non_blocking=True, memory_format=layout), labels.to(device, non_blocking=True)


@torch.no_grad()
def accuracy(model, loader, args, device, text, stop=lambda: None):
    """Top-1 accuracy in percent over the images of all processes. Asked to stop, it calls stop() and raises util.Stopped."""
    model.eval()
    sums, vote = torch.zeros(2, dtype=torch.long, device=device), cluster.Vote()
    for images, labels, _ in util.progress(loader, len(loader), text, args.batch_size, cluster.rank() == 0):
        images, labels = to_device(images, labels, args, device)
        with torch.autocast(device.type, DTYPES[args.amp], enabled=args.amp != 'off'):
            output = model(images)
        sums[0] += (output.float().probs.argmax(dim=1) == labels).sum()
        sums[1] += len(labels)
        if vote(STOP if cluster.stop_asked() else GO_ON) == STOP:
            vote.close()
            stop()
            cluster.leave(args.log_folder)
    vote.close()
    correct, count = cluster.total_of(sums).tolist()
    return 100 * correct / count


def random_state():
    """The state of every random generator of this process, as tensors and plain values."""
    kind, words, *rest = np.random.get_state()
    return {
        'python': random.getstate(),
        'numpy': [kind, words.tolist(), *rest],
        'torch': torch.get_rng_state(),
        'accelerator': torch.cuda.get_rng_state_all(),
    }


def set_random_state(state):
    """Bring every random generator to a state of `random_state`; a machine with other accelerators keeps theirs."""
    version, words, following = state['python']
    random.setstate((version, tuple(words), following))
    np.random.set_state(tuple(state['numpy']))
    torch.set_rng_state(state['torch'])
    if len(state['accelerator']) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state['accelerator'])
