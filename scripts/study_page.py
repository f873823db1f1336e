"""Writes the figures of the study (scripts/study.sh) into its page, between the marks that name them.

    python scripts/study_page.py [--save_root save/study] [--page docs/study.md]

A part of the page `<!-- study: NAME -->` … `<!-- end -->` is replaced: `progress` (which runs are there), `results` (a
table for each network and kind of cues), `differences` (pairs of heads, seed by seed, with intervals), `contrast`
(maps of the difference of two scores) and `width` (maps blurred). Beside the page the picture study_cue.png is
drawn. What has not been run is said, not filled in.
"""

import argparse
import os
import re

import checkout  # noqa: F401
import numpy as np
from matplotlib.figure import Figure

import util
from report import comparison, tables
from report.results import MODES, read_result
from report.samples import read_sample
from report.seeds import over_seeds, run_seeds
from wsol.errors import UserError

NETWORKS = {
    'lite0': 'tf_efficientnet_lite0, ImageNet weights',
    'vgg_tiny': 'vgg_tiny, from scratch',
    'lite0_fine': 'tf_efficientnet_lite0, ImageNet weights, 20 x 20 maps',
    'resnet50': 'ResNet-50, from scratch, 28 x 28 maps',
}
FOR_CPUS = ('lite0', 'vgg_tiny')  # what scripts/study.sh runs where nothing else is asked for
DESIGNS = {'combined': 'a class is a combination of looks', 'single': 'one look of one part tells the class'}
HEADS = {  # each with its map
    'random': 'vanilla',
    'CAM': 'vanilla',
    'CAM-longer': 'vanilla',
    'CALM-ML': 'jointll',
    'CALM-EM': 'jointll',
    'CALM-EM-epoch': 'jointll',
    'CALM-EM-ema': 'jointll',
}
PAIRS = (  # of heads that are compared: A, B
    ('CAM', 'CALM-EM'),
    ('CAM-longer', 'CALM-EM'),
    ('CALM-ML', 'CALM-EM'),
    ('CALM-EM', 'CALM-EM-epoch'),
    ('CALM-EM', 'CALM-EM-ema'),
)
COMPARED = ('top-1', 'cue per pair, mean', 'cue exact, mean', 'R_10', 'R_30', 'R_50', 'MaxBoxAccV2')
SEEDS = 3  # that the study asks for
PICTURE = 'study_cue.png'  # beside the page


def settings(root):
    """(network, design, heading) of each setting of which there is a folder."""
    for network, of_network in NETWORKS.items():
        for design, of_design in DESIGNS.items():
            if os.path.isdir(os.path.join(root, f'{network}-{design}')):
                yield network, design, f'{of_network}; `{design}`: {of_design}'


def runs(root, network, design):
    """{head: {seed: folder}} of the trained runs, in the order of HEADS."""
    found = {head: run_seeds(os.path.join(root, f'{network}-{design}', head)) for head in HEADS}
    trained = {
        head: {seed: folder for seed, folder in by_seed.items() if read_result(os.path.join(folder, 'accuracy.json'))}
        for head, by_seed in found.items()
    }
    return {head: by_seed for head, by_seed in trained.items() if by_seed}


def figures(folder, map_name):
    """{column: figure} of a run; None: not known."""
    summary = next((one for one in tables.summaries(folder) if one.map in (map_name, '-')), None)
    known = dict(zip(tables.FIGURES, summary.values)) if summary else {}
    boxes = read_result(os.path.join(folder, f'wsol_{map_name}.json'))
    return {**known, 'MaxBoxAccV2': boxes.get('MaxBoxAccV2')}


def results(root):
    """A table for each setting: mean ± standard deviation over the seeds that are there."""
    columns = [*tables.FIGURES, 'MaxBoxAccV2']
    for network, design, heading in settings(root):
        rows = []
        for head, by_seed in runs(root, network, design).items():
            found = [figures(folder, HEADS[head]) for folder in by_seed.values()]
            cells = [over_seeds([one.get(column) for one in found]) for column in columns]
            rows.append([head, str(len(found)), *cells])
        yield f'**{heading}**\n\n{tables.markdown(["head", "seeds", *columns], rows)}'
    if any(settings(root)):
        yield f'![Cue localization of each head, a mark a seed]({PICTURE})'


def differences(root):
    """A table for each setting: B - A with its 95 % interval and p, for each seed."""
    head = ['A, B', 'seed', *COMPARED]
    for network, design, heading in settings(root):
        there = runs(root, network, design)
        rows = []
        for a, b in PAIRS:
            for seed in sorted({*there.get(a, ())} & {*there.get(b, ())}):
                cells = compared(there[a][seed], there[b][seed], HEADS[a], HEADS[b])
                rows.append([f'{a}, {b}', str(seed), *(cells.get(name, '-') for name in COMPARED)])
        if rows:
            yield f'**{heading}**\n\n{tables.markdown(head, rows)}'


def compared(a, b, map_a, map_b):
    """{score: 'B - A [interval]'} of two folders' own maps; bold where the interval leaves out 0."""
    cells = {}
    for kind in ('accuracy', 'cue_location', 'pixel_perturb', 'wsol'):
        samples = [read_sample(folder, kind, name) for folder, name in ((a, map_a), (b, map_b))]
        if None in samples:
            continue
        found = comparison.compare_samples(*samples, kind)
        for one, digits in zip(found.differences, found.digits):
            text = f'{one.difference:+.{digits}f}{tables.interval_text(one.interval, digits)}'
            sure = one.interval and not one.interval[0] <= 0 <= one.interval[1]
            cells.setdefault(one.name, f'**{text}**' if sure else text)
    return cells


def folders(root, *heads):
    """(setting, head, seed, folder) of each trained run of these heads."""
    for network, design, _ in settings(root):
        there = runs(root, network, design)
        for head in heads:
            for seed, folder in there.get(head, {}).items():
                yield f'{network}-{design}', head, str(seed), folder


def variants(folder, pattern):
    """(the pattern's first group, result) of each file of a folder whose name matches, in the order of the names."""
    for name in sorted(os.listdir(folder)):
        if match := re.fullmatch(pattern, name):
            yield match[1], read_result(os.path.join(folder, name))


def mode_means(result):
    """The mean of a result of cue localization in each mode; None: not known."""
    return [result.get(mode, {}).get('mean') for mode in MODES]


def contrast(root):
    """Cue localization of the maps that explain a difference of scores, beside the difference of two maps."""
    rows = []
    for setting, head, seed, folder in folders(root, 'CAM', 'CALM-EM'):
        for name, of_score in variants(folder, r'cue_location_(\w+)_contrast\.json'):
            of_maps = read_result(os.path.join(folder, f'cue_location_{name}.json'))
            figures = [figure for both in zip(mode_means(of_maps), mode_means(of_score)) for figure in both]
            rows.append([setting, head, seed, name, *map(tables.number_text, figures)])
    if rows:
        columns = [f'{mode.replace("_", " ")}, {kind}' for mode in MODES for kind in ('maps', 'score')]
        yield tables.markdown(['setting', 'head', 'seed', 'map', *columns], rows)


def width(root):
    """Cue localization by CAM's and CALM-EM's maps, as they are and blurred, with the area that they cover."""
    rows = []
    for setting, head, seed, folder in folders(root, 'CAM', 'CALM-EM'):
        pattern = rf'cue_location_{HEADS[head]}_blur([\d.]+)\.json'
        wider = sorted(variants(folder, pattern), key=lambda one: float(one[0]))
        as_it_is = read_result(os.path.join(folder, f'cue_location_{HEADS[head]}.json'))
        for blur, found in [('-', as_it_is), *wider] if wider else []:
            area = 100 * found['area'] if 'area' in found else None
            rows.append([setting, seed, head, blur, *map(tables.number_text, [area, *mode_means(found)])])
    if rows:
        columns = [mode.replace('_', ' ') for mode in MODES]
        yield tables.markdown(['setting', 'seed', 'head', 'blur (pixels)', 'area (%)', *columns], rows)


def progress(root):
    """Which runs are there, and how many are missing."""
    rows = []
    for network in FOR_CPUS:
        for design in DESIGNS:
            there = runs(root, network, design)
            rows.append([f'{network}-{design}', *(str(len(there.get(head, ()))) for head in HEADS)])
    made = sum(int(cell) for row in rows for cell in row[1:])
    table = tables.markdown(['setting', *HEADS], rows)
    asked = len(FOR_CPUS) * len(DESIGNS) * len(HEADS) * SEEDS
    yield f'{table}\n\nSeeds of each; {made} of {asked} trainings are made.'


def draw(root, path):
    """Cue localization of each head, a dot a seed; a panel a setting, modes side by side."""
    there = list(settings(root))
    if not there:
        return
    figure = Figure(figsize=(4.2 * len(there), 3.4), layout='constrained')
    panels = figure.subplots(1, len(there), sharey=True, squeeze=False)[0]
    for axes, (network, design, _) in zip(panels, there):
        found = runs(root, network, design)
        for offset, mode, marker in zip((-0.2, 0, 0.2), MODES, 'os^'):
            points = [
                (x + offset, figures(folder, HEADS[head]).get(f'cue {mode.replace("_", " ")}'))
                for x, head in enumerate(found)
                for folder in found[head].values()
            ]
            known = np.array([point for point in points if point[1] is not None]).reshape(-1, 2)
            axes.plot(*known.T, marker, label=mode.replace('_', ' '), alpha=0.8)
        axes.set_xticks(range(len(found)), found, rotation=40, ha='right')
        axes.set_title(f'{network}-{design}', fontsize=10)
        axes.spines[['top', 'right']].set_visible(False)
    panels[0].set_ylabel('cue localization (%), higher is better')
    panels[0].legend(fontsize=8)
    util.atomically(path, lambda file: figure.savefig(file, format='png', dpi=130))


PARTS = {'progress': progress, 'results': results, 'differences': differences, 'contrast': contrast, 'width': width}


def filled(text, root):
    """The page's text with its parts made anew."""
    for name, part in PARTS.items():
        mark = f'<!-- study: {name} -->\n'
        if mark not in text:
            raise UserError(f'the page has no line "{mark.strip()}": the parts are {", ".join(PARTS)}')
        body = '\n\n'.join(part(root)) or 'Not run yet.'
        start = text.index(mark) + len(mark)
        text = f'{text[:start]}\n{body}\n\n{text[text.index("<!-- end -->", start) :]}'
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--save_root', default='save/study', help='where scripts/study.sh put its results')
    parser.add_argument('--page', default='docs/study.md')
    args = parser.parse_args()
    if not os.path.isdir(args.save_root):
        raise UserError(f'no folder {args.save_root}: run scripts/study.sh, or give its --save_root')
    with open(args.page) as file:
        text = file.read()
    text = filled(text, args.save_root)
    util.atomically(args.page, lambda file: file.write(text.encode()))
    draw(args.save_root, os.path.join(os.path.dirname(args.page), PICTURE))


if __name__ == '__main__':
    util.command(main)
