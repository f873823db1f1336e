"""TensorBoard output of a training: losses, accuracies, rates, and maps of some validation images."""

import numpy as np

from engine.experiments import explain_batch
from engine.map_maker import MapMaker
from wsol.errors import UserError
from wsol.network import HEADS
from wsol.preprocessing import denormalize, network_input

from .panels import draw_panel, make_panel

IMAGES = 4  # number of images with maps


class Board:
    """Writes the TensorBoard log of a training."""

    def __init__(self, folder, dataset, model, head_name, first_epoch):
        """folder: for the log; dataset: of (pixels uint8 [S, S, 3], label, image id); first_epoch: the next epoch.

        Entries of an earlier call from first_epoch on are dropped. UserError without the package tensorboard.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError('--tensorboard needs the package tensorboard: pip install tensorboard') from None
        self.writer = SummaryWriter(folder, purge_step=first_epoch)
        numbers = np.linspace(0, len(dataset) - 1, min(IMAGES, len(dataset))).astype(int).tolist()
        self.items = [dataset[number] for number in numbers]
        self.head_name = head_name
        own_map = HEADS[head_name].own_map
        self.makers = {own_map: MapMaker(model, own_map)}

    def write(self, model, epoch, scalars):
        """Add the scalars {name: number} of an epoch, and maps of the images, the same in every epoch."""
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, epoch)
        device = next(model.parameters()).device
        for number, (pixels, label, image_id) in enumerate(self.items):
            batch = network_input(pixels[None], model.preprocessing)  # [1, 3, S, S]
            picture = denormalize(batch, model.preprocessing)[0].permute(1, 2, 0).numpy()  # [S, S, 3]
            [explanation] = explain_batch(model, self.makers, batch.to(device), [label], [number])
            panel = make_panel(image_id, picture, None, *explanation, self.head_name)
            self.writer.add_figure(f'maps/{number}', draw_panel(panel), epoch)
        self.writer.flush()
