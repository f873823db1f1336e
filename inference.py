"""From a checkpoint and a data set to attribution maps: what every evaluator starts from."""
import json

import numpy as np
import torch

import util
import wsol
from data_loaders import load_split
from wsol import attribution, metrics


def pick_device():
    """The accelerator where there is one; called once, by the entry script."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def load_model(args, num_classes, device):
    """The network of the command line on `device`, with the checkpoint's weights where one is asked for."""
    path = args.use_load_checkpoint and util.find_checkpoint(args.load_checkpoint or args.log_folder, args.save_root)
    record = path and util.read_checkpoint(path, args.architecture, args.attribution_method, args.large_feature_map,
                                          args.is_different_checkpoint)
    model = wsol.build_model(args.architecture, args.attribution_method, num_classes, args.large_feature_map, args.use_bn,
                             pretrained=args.pretrained and not record)
    if record:
        try:
            wsol.load_weights(model, record['state_dict'], drop_conv_last=args.is_different_checkpoint)
        except ValueError as error:
            raise ValueError(f'{path}: {error}; check --dataset, --architecture and --use_bn') from None
    return model.to(device)


def prepare_evaluation(args, results):
    """(model in eval mode, test split, device) for an evaluator that writes the files `results` into the experiment folder."""
    if not args.use_load_checkpoint:
        raise ValueError('no checkpoint to evaluate: give --load_checkpoint=FOLDER, or --use_load_checkpoint=True '
                         'for the one in the experiment folder')
    util.check_claim(args.log_folder, results, args.override_cache)
    args.seed = util.set_seed(args.seed)
    return model_and_split(args, 'test')


def model_and_split(args, name):
    """(model in eval mode, the split of that name, device)."""
    split = load_split(args.dataset, name, args.data_root, args.metadata_root)
    device = pick_device()
    return load_model(args, split.num_classes, device).eval(), split, device


def read_superclasses(path):
    """{class: [classes]} from a JSON file of class numbers (keys as text, as JSON has them)."""
    try:
        with open(path) as file:
            return {int(key): [int(member) for member in members] for key, members in json.load(file).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f'--superclass {path} is not a JSON object {{"class": [classes]}}: {error}') from None


class MapMaker:
    """Attribution maps of a model by one process: maps of several classes an image from one forward pass where it can be."""

    def __init__(self, model, args):
        self.model, self.process, self.ksize = model, args.score_map_process, args.smoothing_ksize
        self.from_output = self.process in attribution.READOUTS or self.process in attribution.SUPERCLASS_READOUTS
        if self.process in attribution.SUPERCLASS_READOUTS and not args.superclass:
            raise ValueError(f'--score_map_process={self.process} sums over sets of classes: give --superclass=FILE.json')
        self.options = attribution.Options(
            superclass=args.superclass and read_superclasses(args.superclass), batch_size=args.batch_size,
            generator=torch.Generator().manual_seed(args.seed), smooth_grad_nr_iter=args.smooth_grad_nr_iter,
            smooth_grad_sigma=args.smooth_grad_sigma, integrated_grad_nr_iter=args.integrated_grad_nr_iter)

    def __call__(self, images, output, classes):
        """Maps for each image, a float32 array [K, h, w] for its K classes.

        images [B, 3, H, W]; output: the model's `Output` on them; classes: a list of B LongTensors [K].
        """
        if self.from_output:
            with torch.no_grad():
                maps = [attribution.class_maps(self.process, output.f[b:b + 1], output.h[b:b + 1], y[None], self.options.superclass)[0]
                        for b, y in enumerate(classes)]
            return [one.float().cpu().numpy() for one in maps]
        maps = [attribution.explain(self.process, self.model, image.expand(len(y), -1, -1, -1), y, options=self.options)
                for image, y in zip(images, classes)]
        return [metrics.smooth(one.detach().float().cpu().numpy(), self.ksize) for one in maps]


def target_maps(maker, images, output, labels, size):
    """The labels' maps at image size, float32 array [B, size, size]."""
    maps = maker(images, output, list(labels.view(-1, 1)))
    return metrics.resize(np.concatenate(maps), size)
