"""What making a map costs: seconds, and the network's forward and backward passes, counted while they are made."""

import time
from contextlib import contextmanager
from unittest import mock

import torch

COSTS = ('seconds', 'forward_passes', 'backward_passes')  # what is measured; report.score_tables shows them


def _wait():
    """Wait for what an accelerator has to do, which would count as another's time."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Meter:
    """Sums over what was measured: seconds, and passes in images (a pass of a batch of B images counts B)."""

    def __init__(self, model):
        self.model = model
        self.spent = dict.fromkeys(COSTS, 0.0)
        self.latest = 0  # images of the latest forward pass, which a backward pass goes back through

    @contextmanager
    def running(self):
        """Measures what is done within: calls of the model, and of torch.autograd.grad, by which each map goes back."""
        grad = torch.autograd.grad

        def forward(module, inputs):
            self.latest = len(inputs[0])
            self.spent['forward_passes'] += self.latest

        def backward(*args, **named):
            self.spent['backward_passes'] += self.latest
            with mock.patch.object(torch.autograd, 'grad', grad):  # inside a TorchFunctionMode it calls itself
                return grad(*args, **named)

        handle = self.model.register_forward_pre_hook(forward)
        _wait()
        start = time.perf_counter()
        try:
            with mock.patch.object(torch.autograd, 'grad', backward):
                yield
        finally:
            handle.remove()
            _wait()
            self.spent['seconds'] += time.perf_counter() - start
