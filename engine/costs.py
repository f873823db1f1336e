"""The measured cost of a map: seconds, and forward and backward passes of the network."""

import time
from contextlib import contextmanager, nullcontext

import torch
from torch.overrides import TorchFunctionMode

COSTS = ('seconds', 'forward_passes', 'backward_passes')  # report.attribution_scores shows them


def _wait():
    """Wait for the accelerator, so that pending work is not timed."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _BackwardPasses(TorchFunctionMode):
    """Calls `tell` at each torch.autograd.grad, which all maps use for their backward passes."""

    def __init__(self, tell):
        super().__init__()
        self.tell = tell

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.autograd.grad:
            self.tell()
        return function(*args, **(kwargs or {}))


class Meter:
    """Sums of seconds and of passes; a pass of a batch of B images counts B."""

    def __init__(self, model):
        self.model = model
        self.spent = dict.fromkeys(COSTS, 0.0)
        self.latest = 0  # batch size of the latest forward pass, counted for a backward pass

    def _forward(self, module, inputs):
        self.latest = len(inputs[0])
        self.spent['forward_passes'] += self.latest

    def _backward(self):
        self.spent['backward_passes'] += self.latest

    @contextmanager
    def running(self):
        """A context that is measured; without gradients no backward pass is counted."""
        backward = _BackwardPasses(self._backward) if torch.is_grad_enabled() else nullcontext()
        handle = self.model.register_forward_pre_hook(self._forward)
        _wait()
        start = time.perf_counter()
        try:
            with backward:
                yield
        finally:
            handle.remove()
            _wait()
            self.spent['seconds'] += time.perf_counter() - start
