"""Tables of results: of experiments as they are, or one of the paper's tables with its numbers beside ours.

    python scripts/report.py save/quickstart/CAM save/quickstart/CALM-EM
    python scripts/report.py --table=cue_localization save
    python scripts/report.py save/quickstart/CAM save/quickstart/CALM-EM --html report.html

The first: accuracy, cue localization in each mode, remove-and-classify of each experiment folder. The second reads a save root whose
folders are named METHOD_SET (ResNet-50) or METHOD_SET_ARCHITECTURE, as scripts/reproduce/*.sh names them: SAVE_ROOT/NAME is a run
trained here ("trained"), SAVE_ROOT/given/NAME the evaluation of a checkpoint that was given ("given"). '-' is a number that is not
known or not yet computed. The published numbers are in scripts/paper_numbers.yaml. The third writes one self-contained page: all that
the folders hold, charts, and a gallery of maps computed from the checkpoints.
"""

import argparse
import glob
import json
import os

import yaml

COLUMNS = (
    'method',
    'map',
    'top-1',
    'cue released',
    'cue per pair',
    'cue exact',
    'R_10',
    'R_30',
    'R_50',
    'R_70',
    'R_90',
)
NUMBERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'paper_numbers.yaml')
SETS = ('CUB', 'OpenImages', 'ILSVRC')


def read(path):
    """A result file's content; {} where there is none."""
    if not os.path.isfile(path):
        return {}
    with open(path) as file:
        return json.load(file)


def text_of(value, digits=2, mark=''):
    """A number as a table shows it, with a mark behind; '-' for None."""
    return '-' if value is None else f'{value:.{digits}f}{mark}'


def processes(folder):
    """Names of the maps that were scored in an experiment folder."""
    paths = [
        path
        for kind in ('cue_location', 'pixel_perturb')
        for path in glob.glob(os.path.join(glob.escape(folder), f'{kind}_*.json'))
    ]
    return sorted({os.path.basename(path)[:-5].split('_', 2)[2] for path in paths}) or [None]


def rows(folder, read=read):
    """The table's rows [text of each column] of an experiment. read: path -> a result's content, {} where there is none."""
    accuracy = read(os.path.join(folder, 'accuracy.json'))
    for process in processes(folder):
        cue, perturb = (
            read(os.path.join(folder, f'{kind}_{process}.json')) for kind in ('cue_location', 'pixel_perturb')
        )
        arguments = (cue or perturb or accuracy).get('arguments', {})
        top1 = accuracy.get('test_accuracy')
        if top1 is None and perturb:
            top1 = 100 * perturb['correct'] / perturb['images']
        means = [text_of(cue.get(mode, {}).get('mean')) for mode in ('released', 'per_pair', 'exact')]
        yield [
            arguments.get('attribution_method', '-'),
            process or '-',
            text_of(top1),
            *means,
            *(text_of(value) for value in perturb.get('ratio', [None] * 5)),
        ]


def cue_means(mode):
    """A function: cue localization result -> [cue_1, cue_2, cue_3, mean] in a mode."""
    return lambda result: [result.get(mode, {}).get(key) for key in ('cue_1', 'cue_2', 'cue_3', 'mean')]


# Of each table: the result file, and {suffix of our columns: result -> numbers in the order of `columns` in the YAML file}.
TABLES = {
    'cue_localization': ('cue_location_{map}.json', {'': cue_means('released'), ' per pair': cue_means('per_pair')}),
    'remove_and_classify': ('pixel_perturb_{map}.json', {'': lambda result: result.get('ratio', [None] * 5)}),
    'classification': ('accuracy.json', {'': lambda result: [result.get('test_accuracy')]}),
    'wsol': ('wsol_{map}.json', {'': lambda result: [result.get(key) for key in ('MaxBoxAcc', 'MaxBoxAccV2', 'PxAP')]}),
}


def run_name(row, dataset):
    """The experiment folder's name of a row on a data set: ResNet-50 is not named."""
    return '_'.join(filter(None, (row['method'], dataset, row.get('architecture'))))


def table_rows(table, published, root, datasets):
    """Rows [set, method, map, backbone, number's name, paper, README, ours...]."""
    pattern, kinds = TABLES[table]
    columns, mark = published['columns'], '~' if published.get('digitised') else ''
    for dataset in datasets:
        for row in published['rows']:
            if row.get('architecture') and dataset not in SETS:
                continue  # the toy set has one backbone
            paper, readme = (row.get(key, {}).get(dataset, [None] * len(columns)) for key in ('paper', 'readme'))
            name = run_name(row, dataset)
            results = [read(os.path.join(root, *place, name, pattern.format(**row))) for place in (('given',), ())]
            ours = [numbers(result) for result in results for numbers in kinds.values()]
            for i, column in enumerate(columns):
                values = [paper[i], readme[i], *(one[i] for one in ours)]
                if table == 'wsol' and ('PxAP' == column) != (dataset == 'OpenImages'):
                    continue  # boxes and masks have different scores
                backbone = row.get('architecture') or ('resnet50' if dataset in SETS else 'vgg_tiny')
                yield [
                    dataset,
                    row['name'],
                    row.get('map', '-'),
                    backbone,
                    column,
                    text_of(values[0], mark=mark),
                    *(text_of(value) for value in values[1:]),
                ]


def print_paper_table(table, root, datasets):
    """One of the paper's tables: published numbers and those of a save root."""
    with open(NUMBERS) as file:
        published = yaml.safe_load(file)[table]
    ours = [place + suffix for place in ('given', 'trained') for suffix in TABLES[table][1]]
    known = {dataset for row in published['rows'] for dataset in row.get('paper', {})}
    datasets = datasets or [dataset for dataset in SETS if dataset in known]
    print_table(
        ('set', 'method', 'map', 'backbone', published['head'], 'paper', 'README', *ours),
        list(table_rows(table, published, root, datasets)),
    )
    print(*published['notes'], sep='\n')
    print('given: a given checkpoint evaluated here; trained: a run trained here; -: not known or not computed.')


def print_table(head, body):
    """A Markdown table with aligned columns."""
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    for row in [head, ['-' * width for width in widths], *body]:
        print('| ' + ' | '.join(text.ljust(width) for text, width in zip(row, widths)) + ' |')


def write_html(args):
    """The page of --html; a mistake ends the program with one line, exit code 2."""
    import report_html  # PyTorch and the networks: the tables do without

    def write():
        size = report_html.write(
            args.html,
            args.folders,
            args.overwrite,
            args.gallery,
            args.classes,
            args.methods,
            args.data_root,
            args.metadata_root,
        )
        print(f'{args.html}: {size / 1e6:.1f} MB')

    report_html.util.command(write)


def count(text):
    """An argparse type: a whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0 on')
    return int(text)


def add_html(group):
    """The flags of the page."""
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
        help="attribution maps as --score_map_process names them; readout: the method's own (default: readout "
        'input_grad grad_cam)',
    )
    group.add_argument('--data_root', metavar='DIR', help="folder of the data sets (default: each experiment's own)")
    group.add_argument(
        '--metadata_root', metavar='DIR', help="folder of the split files (default: each experiment's own)"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: parser.exit(2, f'{parser.prog}: error: {message} (see --help)\n')
    parser.add_argument('folders', nargs='+', metavar='FOLDER', help='experiment folders; with --table one save root')
    parser.add_argument('--table', choices=tuple(TABLES), help="one of the paper's tables")
    parser.add_argument(
        '--dataset', action='append', choices=(*SETS, 'ToyBirds'), help='only this set, several times for several'
    )
    add_html(parser.add_argument_group('page'))
    args = parser.parse_args()
    missing = [folder for folder in args.folders if not os.path.isdir(folder)]
    if missing:
        parser.error(f'no folder {missing[0]}: give the folder of an experiment, or with --table the save root')
    if args.html and args.table:
        parser.error('--html and --table exclude each other')
    if args.classes < 2:
        parser.error(f'--classes {args.classes}: a comparison needs at least 2')
    if args.html:
        write_html(args)
    elif not args.table:
        print_table(COLUMNS, [row for folder in args.folders for row in rows(folder)])
    elif len(args.folders) > 1:
        parser.error(f'--table reads one save root, not {len(args.folders)}')
    else:
        print_paper_table(args.table, args.folders[0], args.dataset)


if __name__ == '__main__':
    main()
