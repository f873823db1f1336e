"""Record a model's logits of the images while a method explains them, to save a separate forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..network import Network, Output
from .common import device_of, evaluating


class Logits:
    """Logits of images [B, 3, H, W], collected from the model's forward passes; missing ones are computed on request.
    Passes over other images, such as masked ones, are ignored."""

    def __init__(self, model: torch.nn.Module, images: torch.Tensor, batch_size: int) -> None:
        self.model = model
        self.images = images.detach().to(device_of(model, images))
        self.batch_size = batch_size
        self.head = model.head if isinstance(model, Network) else None
        self.found: list[tuple[torch.Tensor, torch.Tensor]] = []  # (logits [C], probabilities [C]) of the first images
        self.no_logits = False  # does the model return something other than logits?

    def note(self, module: torch.nn.Module, inputs: tuple, output: Any) -> None:
        """Forward hook: record the rows of a pass that are the next images."""
        x = inputs[0] if inputs else None
        if self.no_logits or not torch.is_tensor(x) or x.ndim != 4 or len(self.found) == len(self.images):
            return
        rows = []
        place = len(self.found)
        for row, image in enumerate(x.detach()):
            while place < len(self.images) and torch.equal(image, self.images[place]):
                rows.append(row)
                place += 1
        if rows:
            self._keep(output, rows, len(x))

    def _keep(self, output: Any, rows: list[int], count: int) -> None:
        """Keep these rows of the output for `count` images: those of the next images."""
        logits_probs = _read_output(output, self.head)
        if logits_probs is None or len(logits_probs[0]) != count:
            self.no_logits = True
        else:
            self.found += [(logits_probs[0][row], logits_probs[1][row]) for row in rows]

    def logits(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """(logits [B, C], probabilities [B, C]); both None if the model returns something else."""
        with torch.no_grad(), evaluating(self.model):
            while len(self.found) < len(self.images) and not self.no_logits:
                place = len(self.found)
                images = self.images[place:][: self.batch_size]
                output = self.model(images.clone())  # `note` records it
                if len(self.found) == place and not self.no_logits:  # NaN, or the model modifies its input in place
                    self._keep(output, [*range(len(images))], len(images))
        if self.no_logits:
            return None, None
        logits, probs = (torch.stack(rows) for rows in zip(*self.found, strict=True))
        return logits, probs


def _read_output(output: Any, head: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(logits [n, C], probabilities [n, C]) from a model's output, or None.

    head: the Network's own head, since a contrast replaces it temporarily.
    """
    if isinstance(output, dict):
        output = output.get('logits')
    elif isinstance(output, Output):
        output = Output(output.f, output.h, head)
    elif isinstance(output, (tuple, list)) and output and not hasattr(output, 'logits'):
        output = output[0]
    scores = getattr(output, 'log_score', getattr(output, 'logits', output))
    if not torch.is_tensor(scores) or scores.ndim != 2:
        return None
    plain = scores.sigmoid() if scores.shape[1] == 1 else scores.softmax(dim=1)
    probs = output.probs if hasattr(output, 'probs') else plain
    return scores.detach(), probs.detach()


@contextmanager
def watched(model: torch.nn.Module, images: torch.Tensor, batch_size: int) -> Iterator[Logits]:
    """Record the `Logits` of images inside this context."""
    seen = Logits(model, images, batch_size)
    handle = model.register_forward_hook(seen.note)
    try:
        yield seen
    finally:
        handle.remove()
