"""A table of experiments: accuracy, cue localization in each mode, remove-and-classify.

    python scripts/report.py save/quickstart/CAM save/quickstart/CALM-EM
"""
import argparse
import glob
import json
import os
import sys

COLUMNS = ('method', 'map', 'top-1', 'cue released', 'cue per pair', 'cue exact', 'R_10', 'R_30', 'R_50', 'R_70', 'R_90')


def read(path):
    """A result file's content; {} where there is none."""
    if not os.path.isfile(path):
        return {}
    with open(path) as file:
        return json.load(file)


def processes(folder):
    """Names of the maps that were scored in an experiment folder."""
    paths = glob.glob(os.path.join(folder, 'cue_location_*.json')) + glob.glob(os.path.join(folder, 'pixel_perturb_*.json'))
    return sorted({os.path.basename(path)[:-5].split('_', 2)[2] for path in paths}) or [None]


def rows(folder):
    """The table's rows [text of each column] of an experiment."""
    accuracy = read(os.path.join(folder, 'accuracy.json'))
    number = lambda value, digits=2: '-' if value is None else f'{value:.{digits}f}'
    for process in processes(folder):
        cue, perturb = (read(os.path.join(folder, f'{kind}_{process}.json')) for kind in ('cue_location', 'pixel_perturb'))
        arguments = (cue or perturb or accuracy).get('arguments', {})
        top1 = accuracy.get('test_accuracy')
        if top1 is None and perturb:
            top1 = 100 * perturb['correct'] / perturb['images']
        means = [number(cue.get(mode, {}).get('mean')) for mode in ('released', 'per_pair', 'exact')]
        yield [arguments.get('attribution_method', '-'), process or '-', number(top1), *means,
               *(number(value) for value in perturb.get('ratio', [None] * 5))]


def print_table(head, body):
    """A Markdown table with aligned columns."""
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    for row in [head, ['-' * width for width in widths], *body]:
        print('| ' + ' | '.join(text.ljust(width) for text, width in zip(row, widths)) + ' |')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('experiments', nargs='+', metavar='FOLDER', help='experiment folders, one table row a scored map')
    args = parser.parse_args()
    missing = [folder for folder in args.experiments if not os.path.isdir(folder)]
    if missing:
        sys.exit(parser.error(f'no experiment folder {missing[0]}'))
    print_table(COLUMNS, [row for folder in args.experiments for row in rows(folder)])


if __name__ == '__main__':
    main()
