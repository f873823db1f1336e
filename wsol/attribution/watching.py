"""What a model says of images while a method explains them, so that no further pass is needed for its logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..network import Network, Output
from .common import device_of, evaluating


class Logits:
    """The logits of images [B, 3, H, W] as the model's passes over them bring them; what no pass brought is computed
    when asked for. Passes over other images, such as masked ones, do not count."""

    def __init__(self, model: torch.nn.Module, images: torch.Tensor, batch_size: int) -> None:
        self.model = model
        self.images = images.detach().to(device_of(model, images))
        self.batch_size = batch_size
        self.head = model.head if isinstance(model, Network) else None
        self.found: list[tuple[torch.Tensor, torch.Tensor]] = []  # (logits [C], probabilities [C]) of the first images
        self.strange = False  # does the model return something else than logits?

    def note(self, module: torch.nn.Module, inputs: tuple, output: Any) -> None:
        """A forward hook: the rows of a pass that are the next images."""
        x = inputs[0] if inputs else None
        if self.strange or not torch.is_tensor(x) or x.ndim != 4 or len(self.found) == len(self.images):
            return
        rows = []
        place = len(self.found)
        for row, image in enumerate(x.detach()):
            while place < len(self.images) and torch.equal(image, self.images[place]):
                rows.append(row)
                place += 1
        if rows:
            said = _said(output, self.head)
            if said is None or len(said[0]) != len(x):
                self.strange = True
            else:
                self.found += [(said[0][row], said[1][row]) for row in rows]

    def logits(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """(logits [B, C], probabilities [B, C]), both None where the model returns something else."""
        if len(self.found) < len(self.images) and not self.strange:
            self._pass_over_the_rest()
        if self.strange:
            return None, None
        logits, probs = (torch.stack(rows) for rows in zip(*self.found, strict=True))
        return logits, probs

    def _pass_over_the_rest(self) -> None:
        """Passes over the images that none has brought."""
        with torch.no_grad(), evaluating(self.model):
            while len(self.found) < len(self.images) and not self.strange:
                self.model(self.images[len(self.found) :][: self.batch_size].clone())  # `note` sees it


def _said(output: Any, head: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(logits [n, C], probabilities [n, C]) of a model's output, or None. head: of a Network, whose output it is even
    where a difference of scores is being explained."""
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
    """The `Logits` of images, noted within."""
    seen = Logits(model, images, batch_size)
    handle = model.register_forward_hook(seen.note)
    try:
        yield seen
    finally:
        handle.remove()
