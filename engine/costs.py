"""What making a map costs: seconds, and the network's forward and backward passes, counted while they are made."""

import time
from contextlib import contextmanager, nullcontext

import torch
from torch.overrides import TorchFunctionMode

COSTS = ('seconds', 'forward_passes', 'backward_passes')  # what is measured; report.attribution_scores shows them


def _wait():
    """Wait for what an accelerator has to do, which would count as another's time."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _BackwardPasses(TorchFunctionMode):
    """Tells a function of each call of torch.autograd.grad, by which every map goes back through the network."""

    def __init__(self, tell):
        super().__init__()
        self.tell = tell

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.autograd.grad:
            self.tell()
        return function(*args, **(kwargs or {}))


class Meter:
    """Sums over what was measured: seconds, and passes in images (a pass of a batch of B images counts B)."""

    def __init__(self, model):
        self.model = model
        self.spent = dict.fromkeys(COSTS, 0.0)
        self.latest = 0  # images of the latest forward pass, which a backward pass goes back through

    def _forward(self, module, inputs):
        self.latest = len(inputs[0])
        self.spent['forward_passes'] += self.latest

    def _backward(self):
        self.spent['backward_passes'] += self.latest

    @contextmanager
    def running(self):
        """Measures what is done within; where no gradients are recorded, no backward pass is awaited."""
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
