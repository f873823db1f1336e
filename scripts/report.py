"""Tables of results: experiments, a comparison of two runs, or a paper table with published numbers and ours.

    python scripts/report.py save/quickstart/CAM save/quickstart/CALM-EM
    python scripts/report.py --table=cue_localization save
    python scripts/report.py --compare save/quickstart/CAM save/quickstart/CALM-EM
    python scripts/report.py save/quickstart/CAM save/quickstart/CALM-EM --html report.html

The first command prints accuracy, cue localization in each mode and remove-and-classify of each experiment folder. Each
figure has its 95 percent interval over the images (cue localization: over the pairs of classes) if the evaluators saved
results per image. For folders NAME-seed0, NAME-seed1, … it adds the mean and the standard deviation. A folder with a
result of eval_attribution.py gets a table of its own, one row per map, with cue localization if available; the results
of eval_wsol.py are in one table.

The second reads a save root whose folders are named METHOD_SET (ResNet-50) or METHOD_SET_ARCHITECTURE, as in
scripts/reproduce/*.sh. SAVE_ROOT/NAME is a network trained here ("trained"), SAVE_ROOT/given/NAME the evaluation of an
existing checkpoint ("given"). '-': unknown or not computed yet. The published numbers are in
scripts/paper_numbers.yaml.

The third compares two runs image by image: for every score that both have, the difference with its interval and the
p-value of a permutation test; FOLDER:MAP selects one map. The fourth writes one self-contained page: all results of the
folders, charts, and a gallery of maps computed from the checkpoints.
"""

import argparse
import os
import sys

import checkout  # noqa: F401 (the checkout's root on the path)

from report import attribution_scores, tables


def run(args):
    """Print the tables, or write the page. Modules that load PyTorch are imported only if needed."""
    if args.html:
        from report.page import write_page

        size, notes = write_page(
            args.html,
            args.folders,
            overwrite=args.overwrite,
            images=args.gallery,
            classes=args.classes,
            maps=args.methods,
            data_root=args.data_root,
            metadata_root=args.metadata_root,
        )
        print(f'{args.html}: {size / 1e6:.1f} MB')
        for note in notes:
            print(f'{args.html}: {note}', file=sys.stderr)
    elif args.table:
        tables.print_paper_table(args.table, args.folders[0], args.dataset, args.architecture)
    elif args.compare:
        from report.comparison import print_comparison

        print_comparison(*args.compare)
    else:
        tables.print_summary(args.folders)
        tables.print_localization(args.folders)
        attribution_scores.print_score_tables(args.folders)


def count(text):
    """argparse type: an integer from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0')
    return int(text)


def add_page_flags(group):
    """Add the flags of the page."""
    group.add_argument('--html', metavar='FILE', help='write the experiments as one self-contained page')
    group.add_argument('--overwrite', action='store_true', help='replace FILE')
    group.add_argument(
        '--gallery', type=count, default=6, metavar='N', help='test images in the gallery (default: 6; 0: no gallery)'
    )
    group.add_argument(
        '--classes',
        type=count,
        default=6,
        metavar='N',
        help='classes offered for each image: its own, then the most probable ones (default: 6)',
    )
    group.add_argument(
        '--methods',
        nargs='+',
        default=['readout', 'input_grad', 'grad_cam'],
        metavar='MAP',
        help="attribution maps, as for --score_map_process; readout: the head's own map (default: readout "
        'input_grad grad_cam)',
    )
    group.add_argument('--data_root', metavar='DIR', help="folder of the data sets (default: each experiment's own)")
    group.add_argument(
        '--metadata_root', metavar='DIR', help="folder of the split files (default: each experiment's own)"
    )


def parse_arguments():
    """Parse and check the arguments; an error ends the program with one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: parser.exit(2, f'{parser.prog}: error: {message} (see --help)\n')
    parser.add_argument('folders', nargs='*', metavar='FOLDER', help='experiment folders; with --table one save root')
    parser.add_argument(
        '--compare', nargs=2, metavar=('A', 'B'), help='two experiments on the same images, each FOLDER or FOLDER:MAP'
    )
    parser.add_argument('--table', choices=tuple(tables.TABLES), help="one of the paper's tables")
    parser.add_argument(
        '--dataset', action='append', choices=(*tables.SETS, 'ToyBirds'), help='only this data set; may be repeated'
    )
    parser.add_argument(
        '--architecture', metavar='NAME', help='with --table: the backbone of all runs instead of the published one'
    )
    add_page_flags(parser.add_argument_group('page'))
    args = parser.parse_args()
    missing = [folder for folder in args.folders if not os.path.isdir(folder)]
    if missing:
        parser.error(f'no folder {missing[0]}: give the folder of an experiment, or with --table the save root')
    if args.compare and (args.folders or args.html or args.table):
        parser.error('--compare takes only its two experiments: leave out other folders, --html and --table')
    if not args.folders and not args.compare:
        parser.error('give experiment folders, or --compare A B')
    places = [os.path.realpath(folder) for folder in args.folders]
    twice = [folder for folder, place in zip(args.folders, places) if places.count(place) > 1]
    if twice:
        parser.error(f'{twice[-1]} is given twice')
    if args.html and args.table:
        parser.error('--html and --table exclude each other')
    if args.classes < 2:
        parser.error(f'--classes {args.classes}: a comparison needs at least 2')
    if args.table and len(args.folders) > 1:
        parser.error(f'--table reads one save root, not {len(args.folders)}')
    return args


def main():
    args = parse_arguments()
    try:
        return run(args)
    except Exception as error:
        caught = error

    def again():
        raise caught

    from engine.command import command  # ends errors in one line; loads PyTorch, which the tables do not need

    command(again)


if __name__ == '__main__':
    main()
