"""Exports a checkpoint for distribution: weights in half precision, the description of the network, and class names.

    python scripts/export_head.py save/CALM-EM_CUB CALM-EM_CUB.pth.tar

The file is a checkpoint itself: --load_checkpoint accepts it without the data set. Optimizer and paths are left out.
"""

import argparse
import os

import checkout  # noqa: F401 (the checkout's root on the path)
import torch

import util
from data.classes import class_names
from engine.command import command
from engine.experiments import DESCRIBING
from wsol.errors import AlreadyThere, UserError
from wsol.weights import read_record, sha256_of

PLACES = ('data_root', 'metadata_root')  # paths on the training machine


def halved(value):
    """A float tensor in half precision if its values fit; otherwise a copy."""
    half = value.half() if value.is_floating_point() else value
    return half.clone() if half.isfinite().all() else value.clone()


def exported(record, path):
    """The export record of a checkpoint's record. Raises UserError if the training's arguments are missing."""
    args = util.trained_with(record)
    missing = [key for key in DESCRIBING if key not in args]
    if missing:
        raise UserError(f'{path} lacks the arguments {", ".join(missing)}: give a checkpoint of main.py')
    described = {key: args[key] for key in DESCRIBING if key not in PLACES}
    state = {key: halved(value) for key, value in record['state_dict'].items()}
    names = class_names(args['dataset'], len(state['conv_last.weight']), [args[key] for key in PLACES])
    if names is None:
        raise UserError(f'no names of the classes of {args["dataset"]} in {" or ".join(args[key] for key in PLACES)}')
    return {
        'architecture': args['architecture'],
        'epoch': record.get('epoch'),
        'state_dict': state,
        'args': {**described, 'preprocessing': args.get('preprocessing')},
        'class_names': names,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='file or folder, as --load_checkpoint takes it')
    parser.add_argument('file', help='the file to write; must not exist')
    options = parser.parse_args()
    if os.path.exists(options.file):
        raise AlreadyThere(f'{options.file} exists already: give another name')
    path = util.find_checkpoint(options.checkpoint, 'save')
    record = exported(read_record(path), path)
    util.atomically(options.file, lambda file: torch.save(record, file))
    print(f'{options.file}: {os.path.getsize(options.file) / 1e6:.2f} MB, sha256 {sha256_of(options.file)}')


if __name__ == '__main__':
    command(main)
