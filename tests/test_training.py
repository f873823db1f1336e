"""One epoch of training on a small network: what a step computes, when a state is saved, what goes on from it."""

import copy
import os
import random
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import util
from config import get_configs, pick
from engine import processes, training
from engine.command import Stopped
from engine.resume import resuming
from wsol import ATTRIBUTION_METHODS
from wsol.errors import NotFinite, UserError
from wsol.network import HEADS, Network, Output
from wsol.regularization import gradient_regularization

FLAGS = '--epochs=3 --batch_size=4 --lr=.01 --lr_classifier_ratio=5 --lr_decay_frequency=2 --weight_decay=.1'.split()
# vgg_tiny: `features` learns at lr, the rest at lr times lr_classifier_ratio
RECIPE = pick(training.Recipe, get_configs('', ['--architecture=vgg_tiny', *FLAGS]))
CPU = torch.device('cpu')


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch):
    """No signal of another test is left over."""
    monkeypatch.setattr(processes, '_signals', [])


def network(method='CAM', seed=0):
    """Batch norm and an attention that is alive, 8 x 8 locations for 8 px, in float64."""
    torch.manual_seed(seed)
    layers = OrderedDict(conv=nn.Conv2d(3, 5, 3, padding=1), bn=nn.BatchNorm2d(5), relu=nn.ReLU())
    net = Network(nn.Sequential(OrderedDict(features=nn.Sequential(layers))), 5, 4, method).double()
    nn.init.constant_(net.attention[0].bias, 0.3)
    return net


def trainer(folder='nowhere', net=None, **changes):
    run = resuming.Run(str(folder), {'architecture': 'vgg_tiny', 'seed': 3}, resume=False, override=False)
    return training.Trainer(run, RECIPE._replace(**changes), net or network(), CPU)


class Numbers(list):
    """The image numbers of each batch, and where to begin."""

    def __init__(self, count, size):
        super().__init__(list(range(count))[first : first + size] for first in range(0, count, size))
        self.epoch = None
        self.start = 0


class Batches:
    """A loader of `count` images in batches; notes from which epoch and batch on it is asked for."""

    def __init__(self, count=10, size=4, spoilt=()):
        generator = torch.Generator().manual_seed(7)
        self.images = torch.randn(count, 3, 8, 8, generator=generator).double()
        self.images[list(spoilt)] = float('nan')
        self.labels = torch.arange(count) % 4
        self.size = size
        self.dataset = range(count)
        self.batch_sampler = Numbers(count, size)

    def __len__(self):
        return -(-len(self.labels) // self.size) - self.batch_sampler.start

    def __iter__(self):
        for first in range(self.batch_sampler.start * self.size, len(self.labels), self.size):
            rows = slice(first, first + self.size)
            yield self.images[rows], self.labels[rows], ['id'] * len(self.labels[rows])


class Share(Batches):
    """The images that its batch sampler names."""

    def __iter__(self):
        return ((self.images[numbers], self.labels[numbers], numbers) for numbers in self.batch_sampler)


class FloatBatches(Batches):
    """The same in float32."""

    def __iter__(self):
        return ((images.float(), *rest) for images, *rest in super().__iter__())


def never():
    raise AssertionError('no state is due')


def test_the_first_step_is_the_recipe_written_out():
    """p - rate (1 + m) (g + w p): Nesterov's first step, with the gradient of the batch's mean loss."""
    net = network('CALM-ML')
    plain = network('CALM-ML').train()
    one = trainer(net=net.train())
    batch = Batches(4)
    plain(batch.images).loss(batch.labels).mean().backward()
    one.train_step(batch.images, batch.labels, 4)
    for (name, p), before in zip(net.named_parameters(), plain.parameters()):
        rate = 0.01 if name.startswith('features') else 0.05
        step = rate * 1.9 * (before.grad + 0.1 * before.detach())
        torch.testing.assert_close(p.detach(), before.detach() - step, msg=name)
    losses = plain(batch.images).loss(batch.labels)
    assert one.total.item() == pytest.approx(losses.sum().item())
    one.train_step(batch.images, batch.labels, 4)  # the gradients of the step before are gone
    assert one.correct.dtype == torch.long and one.total.item() > losses.sum().item()


def test_no_momentum_is_plain_descent():
    assert trainer(momentum=0).optimizer.defaults['nesterov'] is False
    assert trainer().optimizer.defaults['nesterov'] is True


HEADS_ONLY = {'conv_last', 'attention'}


@pytest.mark.parametrize('whole, fast', [(False, {'bn1', 'layer4', *HEADS_ONLY}), (True, HEADS_ONLY)])
def test_calm_from_cam_learns_the_whole_backbone_slowly(whole, fast):
    """By the names that ResNet-50's modules have."""
    layers = OrderedDict(conv1=nn.Conv2d(3, 5, 3), bn1=nn.BatchNorm2d(5), layer4=nn.Conv2d(5, 5, 1))
    net = Network(nn.Sequential(layers), 5, 4, 'CALM-EM')
    one = trainer(net=net, architecture='resnet50', is_different_checkpoint=whole)
    names = {id(p): name.split('.')[0] for name, p in net.named_parameters()}
    slow, quick = one.optimizer.param_groups
    assert (slow['lr'], quick['lr']) == (0.01, 0.05)
    assert {names[id(p)] for p in quick['params']} == fast and len(slow['params']) + len(quick['params']) == 10


def test_the_rates_fall_to_a_tenth_before_every_so_many_epochs():
    optimizer = torch.optim.SGD([{'params': [nn.Parameter(torch.zeros(1))], 'lr': lr} for lr in (1.0, 10.0)], lr=1)
    seen = []
    for epoch in range(1, 8):
        training.adjust_learning_rate(optimizer, epoch, 3)
        seen.append([group['lr'] for group in optimizer.param_groups])
    assert np.allclose(seen, [[1, 10]] * 2 + [[0.1, 1]] * 3 + [[0.01, 0.1]] * 2)


def test_an_epochs_figures_are_means_over_its_images():
    """Without a rate the network stays; the loss of each batch has that batch's statistics."""
    one = trainer(lr=1e-12, weight_decay=0)
    plain = network().train()
    loader = Batches(10)
    one.epoch = 2
    loss, accuracy = one.train_epoch(loader, 'epoch', never)
    losses = []
    right = 0
    for images, labels, _ in Batches(10):
        output = plain(images)
        losses += output.loss(labels).tolist()
        right += sum(output.probs.argmax(dim=1).eq(labels).tolist())
    assert len(losses) == 10 and 0 < right < 10
    assert (loss, accuracy) == (pytest.approx(sum(losses) / 10, rel=1e-6), 10 * right)
    assert (loader.batch_sampler.epoch, loader.batch_sampler.start, one.step) == (2, 0, 3)
    one.next_epoch()
    assert (one.epoch, one.step, one.total, one.correct) == (3, 0, 0, 0)
    for name, buffer in plain.named_buffers():
        assert torch.allclose(buffer, dict(one.model.named_buffers())[name]), name


def test_the_rest_of_an_epoch_begins_where_it_was_left():
    one = trainer()
    loader = Batches(10)
    one.step = 2
    one.total += 8.0
    one.correct += 7
    before = one.total.item()
    loss, accuracy = one.train_epoch(loader, 'epoch', never)
    assert loader.batch_sampler.start == 2 and one.step == 3
    assert loss == pytest.approx(one.total.item() / 10) and one.total > before
    assert accuracy in (70, 80, 90)


def test_the_gradient_of_the_last_batch_is_that_of_its_own_mean(monkeypatch):
    counts = []
    monkeypatch.setattr(training.Trainer, 'train_step', lambda self, images, labels, count: counts.append(count))
    trainer().train_epoch(Batches(10), 'epoch', never)
    assert counts == [4, 4, 2]


@pytest.mark.parametrize('spoilt, count, seen', [([0], 120, 50), ([55], 120, 100), ([104], 120, 120), ([0], 3, 3)])
def test_a_loss_that_is_not_finite_is_seen_every_fifty_steps_and_at_the_end(spoilt, count, seen):
    one = trainer(batch_size=1)
    with pytest.raises(NotFinite, match=f'epoch 7: the loss is not finite by step {seen}: try a smaller --lr'):
        one.train_epoch(Batches(count, 1, spoilt), 'epoch 7', never)


def test_a_state_is_due_after_so_many_minutes(monkeypatch):
    """By a clock of our own, on which a step takes 50 seconds and a save 7."""
    now = [1000.0]
    monkeypatch.setattr(training, 'time', SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(
        training.Trainer, 'train_step', lambda self, images, labels, count: now.__setitem__(0, now[0] + 50)
    )
    one = trainer(batch_size=1, save_minutes=2)
    saved = []

    def save():
        saved.append(one.step)
        now[0] += 7

    one.train_epoch(Batches(10, 1), 'epoch', save)
    assert saved == [3, 6, 9]  # 150 s are over two minutes, 100 are not


def test_asked_to_stop_it_saves_marks_and_ends(tmp_path, monkeypatch):
    one = trainer(tmp_path)
    saved = []
    step = training.Trainer.train_step

    def step_and_signal(self, *batch):
        step(self, *batch)
        if self.step == 1:
            processes._note(15, None)

    monkeypatch.setattr(training.Trainer, 'train_step', step_and_signal)
    with pytest.raises(Stopped, match='stopped on request'):
        one.train_epoch(Batches(12), 'epoch', lambda: saved.append(one.step))
    assert saved == [2] and os.path.exists(resuming.marker(tmp_path))
    saved.clear()
    with pytest.raises(Stopped):
        training.classified_right(network(), Batches(), RECIPE, CPU, 'test', str(tmp_path), lambda: saved.append('now'))
    assert saved == ['now']
    with pytest.raises(Stopped):  # a test has no state to save
        training.classified_right(network(), Batches(), RECIPE, CPU, 'test', str(tmp_path))


def test_batch_norm_learns_its_statistics_unless_they_are_frozen():
    for frozen in (False, True):
        one = trainer(freeze_bn=frozen)
        one.model.eval()
        before = {name: value.clone() for name, value in one.model.named_buffers()}
        one.train_epoch(Batches(), 'epoch', never)
        norm = one.model.features.bn
        assert one.model.training and one.model.features.conv.training and norm.training is not frozen
        same = [torch.equal(value, before[name]) for name, value in one.model.named_buffers()]
        assert all(same) if frozen else not any(same)


def test_a_state_is_taken_up_as_it_was_left(tmp_path):
    """Weights, momentum, sums, the scaler of fp16, every random generator: what comes next is what would have come."""
    one = trainer(tmp_path, amp='fp16')
    one.objective.dtype = torch.float32  # the scaler alone is fp16's here
    one.scaler.load_state_dict({**one.scaler.state_dict(), 'scale': 512.0, '_growth_tracker': 7})
    one.train_step(*next(iter(Batches()))[:2], 4)
    one.epoch, one.step, one.best = 2, 1, 12.5
    (random.seed(5), np.random.seed(6), torch.manual_seed(7))
    random.random(), np.random.rand(3), torch.rand(3)
    one.save(SimpleNamespace(size=lambda: 321))
    after = random.random(), np.random.rand(), torch.rand(1).item()
    record = util.read_checkpoint(tmp_path / training.STATE, 'vgg_tiny', 'CAM', False)
    assert record['args'] == one.run.arguments and record['progress']['log_size'] == 321
    (random.seed(1), np.random.seed(1), torch.manual_seed(1))
    other = trainer(tmp_path, network(seed=9), amp='fp16')
    other.load(record)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == after
    assert (other.epoch, other.step, other.best) == (2, 1, 12.5)
    assert other.total.item() == one.total.item() > 0 and other.correct.item() == one.correct.item()
    scaler = other.scaler.state_dict()
    assert (scaler['scale'], scaler['_growth_tracker']) == (512.0, one.scaler.state_dict()['_growth_tracker'])
    batch = list(Batches())[1][:2]
    one.objective.dtype = other.objective.dtype = torch.float32
    for trained in (one, other):
        trained.train_step(*batch, 4)
    for (name, a), b in zip(one.model.state_dict().items(), other.model.state_dict().values()):
        assert torch.equal(a, b), name
    assert other.total.item() == one.total.item()


def test_only_the_first_process_takes_the_sums_of_a_state(tmp_path, monkeypatch):
    """They are of all processes."""
    one = trainer(tmp_path)
    one.total += 5
    one.correct += 3
    one.save(SimpleNamespace(size=lambda: 0))
    record = util.read_checkpoint(tmp_path / training.STATE, 'vgg_tiny', 'CAM', False)
    monkeypatch.setattr(processes, 'rank', lambda: 1)
    other = trainer(tmp_path)
    other.load(record)
    assert other.total == other.correct == 0


def test_the_last_vote_is_counted_and_none_leaves_before_the_state_is_written(tmp_path, monkeypatch):
    events = []

    class Vote:
        def __call__(self, wish):
            events.append('vote')
            return training.GO_ON

        def close(self):
            events.append('close')

    monkeypatch.setattr(processes, 'Vote', Vote)
    monkeypatch.setattr(processes, 'wait', lambda: events.append((tmp_path / training.STATE).exists()))
    one = trainer(tmp_path)
    one.train_epoch(Batches(10), 'epoch', never)
    training.classified_right(one.model, Batches(10), RECIPE, CPU, 'test', 'nowhere')
    one.save(SimpleNamespace(size=lambda: 0))
    assert events == [*['vote'] * 3, 'close'] * 2 + [True]


@pytest.fixture
def two(monkeypatch):
    """As one of two processes: DistributedDataParallel and broadcasts are noted, sums over processes are doubled."""
    noted = SimpleNamespace(wrapped=[], sent=[])

    def wrap(module, **how):
        noted.wrapped.append(how)
        return module

    def broadcast(tensor, src):
        noted.sent.append(src)
        tensor.fill_(3)

    monkeypatch.setattr(processes, 'world', lambda: 2)
    monkeypatch.setattr(training, 'DistributedDataParallel', wrap)
    monkeypatch.setattr(torch.distributed, 'broadcast', broadcast)
    return noted


def test_every_process_takes_the_first_ones_statistics(two):
    one = trainer()
    one.share_buffers()
    buffers = dict(one.model.named_buffers())
    assert len(two.sent) == len(buffers) == 3 and set(two.sent) == {0}
    assert all((value == 3).all() for value in buffers.values())


def test_alone_there_is_nothing_to_share(monkeypatch):
    monkeypatch.setattr(torch.distributed, 'broadcast', never)
    one = trainer()
    one.share_buffers()
    assert one.objective.model is one.model


@pytest.mark.parametrize('method, unused', [('CAM', True), ('LFI-CAM', True), ('CALM-EM', False), ('CALM-ML', False)])
def test_heads_that_leave_the_attention_out_say_so_to_the_other_processes(two, method, unused):
    trainer(net=network(method))
    assert two.wrapped == [{'device_ids': None, 'find_unused_parameters': unused}]


def test_a_process_takes_its_share_of_the_batchs_mean(two):
    """Gradients are averaged over the processes: each scales its own sum by their number over the batch's count."""
    batch = Batches(4)
    net = network()
    plain = network().train()
    plain(batch.images[:2]).loss(batch.labels[:2]).sum().div(2).backward()  # of a batch of 4, by 2 processes
    one = trainer(net=net.train(), momentum=0, weight_decay=0)
    one.train_step(batch.images[:2], batch.labels[:2], 4)
    for (name, p), before in zip(net.named_parameters(), plain.parameters()):
        if before.grad is not None:
            rate = 0.01 if name.startswith('features') else 0.05
            torch.testing.assert_close(p.detach(), before.detach() - rate * before.grad, msg=name)


@pytest.mark.parametrize('method', ATTRIBUTION_METHODS)
def test_a_process_without_images_takes_part_and_learns_no_statistics(two, method):
    one = trainer(net=network(method), weight_decay=0)
    one.model.train()
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    one.train_step(torch.zeros(0, 3, 8, 8).double(), torch.zeros(0, dtype=torch.long), 1)
    assert one.total == one.correct == 0
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())
    assert all(p.grad.eq(0).all() for p in one.model.features.parameters())  # a gradient for the others to add to


def test_accuracy_by_hand():
    """In eval mode, over all batches, the last one smaller."""
    net = network()
    loader = Batches(10)
    loader.images *= torch.linspace(0.1, 5, 10)[:, None, None, None]
    with torch.no_grad():  # of a picture stronger than the first six and fainter than the others every class is alike
        net.conv_last.bias -= net.eval()(loader.images[5:6] * 1.1).log_score[0]
        loader.labels = net.eval()(loader.images).probs.argmax(dim=1)
        loader.labels[[0, 5, 9]] = (loader.labels[[0, 5, 9]] + 1) % 4
        assert len({*loader.labels.tolist()}) > 1
        by_batch = copy.deepcopy(net).train()(loader.images).probs.argmax(dim=1)
        assert (by_batch == loader.labels).sum() != 7
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = training.classified_right(net.train(), loader, RECIPE, CPU, 'validation', 'nowhere', never)
    assert found.tolist() == [number not in (0, 5, 9) for number in range(10)]
    assert training.accuracy(found) == 70 and not net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_each_image_is_told_by_the_process_that_has_it(monkeypatch):
    """Two processes take every other image of a batch; the last batch leaves one of them nothing."""
    net = network()
    whole = Batches(9)
    alone = training.classified_right(net, whole, RECIPE, CPU, '', '')
    assert 0 < alone.sum() < 9
    found = []
    for rank in (0, 1):
        share = Share(9)
        share.batch_sampler = Numbers(9, 4)
        share.batch_sampler[:] = [numbers[rank::2] for numbers in whole.batch_sampler]
        monkeypatch.setattr(processes, 'total_of', lambda right: found.append(right) or right)
        training.classified_right(net, share, RECIPE, CPU, '', '')
    assert (found[0] + found[1]).bool().tolist() == alone.tolist() and not (found[0] * found[1]).any()


def test_the_objective_adds_so_much_of_the_gradient_error():
    batch = Batches(4)
    net = network('CALM-ML').train()
    plain, right = training.Objective(net)(batch.images, batch.labels)
    assert right.tolist() == (net(batch.images).probs.argmax(dim=1) == batch.labels).tolist()
    for error in ('cosine', 'l1'):
        losses, errors, _ = gradient_regularization(net, batch.images, batch.labels, error)
        found, again = training.Objective(net, 'off', 3, error)(batch.images, batch.labels)
        torch.testing.assert_close(found.detach(), (losses + 3 * errors).detach(), rtol=1e-4, atol=1e-5)
        assert errors.min() > 0 and torch.equal(right, again)
    torch.testing.assert_close(plain.detach(), losses.detach().float(), rtol=1e-5, atol=1e-6)


def test_an_image_is_right_where_its_label_is_the_most_probable():
    predicted = torch.tensor([2, 0, 1, 3])
    f = torch.nn.functional.one_hot(predicted, 4).double()[:, :, None, None]
    output = Output(f, torch.ones(4, 1, 1, 1), HEADS['CAM'])
    _, right = training.Objective(lambda images: output)(torch.zeros(4, 3, 1, 1), torch.tensor([2, 1, 0, 3]))
    assert right.tolist() == [True, False, False, True]


def test_mixed_precision_is_of_the_network_alone():
    seen = []
    net = network('CALM-ML').float()
    net.conv_last.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    batch = Batches(4)
    for precision, dtype in (('off', torch.float32), ('bf16', torch.bfloat16)):
        losses, _ = training.Objective(net, precision)(batch.images.float(), batch.labels)
        assert seen.pop() == dtype and losses.dtype == torch.float32
        training.classified_right(net, FloatBatches(), RECIPE._replace(amp=precision), CPU, '', '')
        assert set(seen) == {dtype}
        seen.clear()
    assert training.DTYPES == {'off': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
    assert [trainer(amp=name).scaler.is_enabled() for name in training.DTYPES] == [False, False, True]


@pytest.mark.parametrize(
    'changes, said',
    [
        ({'sync_bn': True}, '--sync_bn needs an accelerator'),
        ({'gradient_reg': 1, 'compile': True}, 'leave them out'),
        ({'gradient_reg': 1, 'amp': 'fp16'}, 'leave them out'),
    ],
)
def test_what_cannot_go_together_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        trainer(**changes)


def test_what_may_go_together_is_not_refused():
    for changes in ({'gradient_reg': 1, 'amp': 'bf16'}, {'gradient_reg': 0, 'amp': 'fp16'}, {'compile': True}):
        assert trainer(**changes).epoch == 1


def test_the_layout_of_images():
    images = torch.randn(2, 3, 4, 4)
    labels = torch.tensor([1, 2])
    for channels_last in (False, True):
        there, same = training.to_device(images, labels, channels_last, CPU)
        assert torch.equal(there, images) and torch.equal(same, labels)
        assert there.is_contiguous(memory_format=torch.channels_last) == channels_last
        assert there.is_contiguous() != channels_last


def test_of_several_wishes_the_largest_counts():
    assert training.GO_ON < training.SAVE < training.STOP


def test_an_epoch_without_an_image_right_is_the_best_so_far():
    assert trainer().best < 0


def test_a_finished_training_is_not_extended(tmp_path):
    """Its state is gone; what the line says to do is another training from its weights."""
    arguments = {'is_train': True, 'epochs': 2, 'lr': 0.1, 'seed': None}
    util.write_json(str(tmp_path / 'accuracy.json'), {'arguments': {**arguments, 'seed': 5}})

    def claimed(result='accuracy.json', **changes):
        run = resuming.Run(str(tmp_path), {**arguments, **changes}, True, False)
        with resuming.claim(run, result) as mine:
            return mine

    assert claimed() is False and claimed(is_train=True, seed=5) is False
    with pytest.raises(UserError, match='finished with --epochs=2, and only a stopped .*--load_checkpoint='):
        claimed(epochs=3)
    with pytest.raises(UserError, match='made by another command, with --lr=0.1: give'):
        claimed(epochs=3, lr=0.2)


def test_training_may_go_on_for_longer_and_nothing_else_may_differ():
    assert resuming.GROWING == {'epochs'}
    assert training.STATE == os.path.basename(training.STATE) == 'resume_checkpoint.pth.tar'
