"""One picture of the maps of several experiments, beside the true parts.

    python scripts/draw_maps.py --experiments save/quickstart/CAM save/quickstart/CALM-EM --output maps.png

A row is a test image: the maps of two classes and their difference by each experiment.
"""

import argparse

import checkout  # noqa: F401 (the checkout's root on the path)

from engine.command import command
from report.figures import write_pairs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--experiments', nargs='+', required=True, metavar='FOLDER', help='experiment folders with a checkpoint'
    )
    parser.add_argument('--output', required=True, metavar='FILE.png', help='the picture; one of that name is replaced')
    parser.add_argument('--images', type=int, default=5, help='rows')
    options = parser.parse_args()
    write_pairs(options.output, options.experiments, options.images)


if __name__ == '__main__':
    command(main)
