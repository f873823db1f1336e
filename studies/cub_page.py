"""Writes the figures of the CUB study (studies/cub.py) into its page.

    python -m studies.cub_page [--save_root save/cub] [--page docs/cub.md]

Sections: `summary` (the heads at a glance), `answer` (the paper's seven rows, its numbers and ours), `sizes` (heads by
map size), `training` (start, rate, epochs and what came of them), `differences` (pairs of heads, seed by seed, with
intervals), `width` (blurred maps), `masks` (mask controls), `others` (accuracy, boxes and erasing of each head),
`losses` (CALM-EM's gradient and CALM-ML's) and `progress`. Draws cub_cue.png next to the page.
"""

import os

import numpy as np
from matplotlib.figure import Figure

import util
from engine.command import command
from report import tables
from report.intervals import result_intervals
from report.results import over_seeds, read_log, read_result
from report.samples import COUNTS, cue_name
from report.tables import cue_means
from studies import cub, losses, page
from studies.page import cue
from studies.steps import HEADS, results_of

PAIRS = (  # compared heads: A, B
    ('CAM', 'CALM-EM'),
    ('CAM-longer', 'CALM-EM'),
    ('CALM-ML', 'CALM-EM'),
    ('CAM', 'CALM-EM-onestep'),
    ('CALM-ML-onestep', 'CALM-EM-onestep'),
    ('CALM-EM', 'CALM-EM-low-lr'),
)
SCORES = ('top-1', *(cue_name('per_pair', count) for count in COUNTS.values()), 'R_10', 'R_30', 'MaxBoxAccV2')
OURS = ('released', 'per_pair')  # no exact mode: CUB has no part pixels
PICTURE = 'cub_cue.png'  # next to the page
CUE = 'cue_location_{map}.json'


def settings(root):
    """(network name, test image size, setting) of each setting with a folder."""
    for name, network in cub.NETWORKS.items():
        for size in network.sizes:
            setting = cub.setting_of(name, size)
            if os.path.isdir(os.path.join(root, setting)):
                yield name, size, setting


def title(name, size):
    """A setting in words."""
    cells = size // cub.NETWORKS[name].cell
    return f'{name}, {size} px, {cells} x {cells} maps'


def slashed(values):
    """'1 / 2 / 3 / mean' as shown in tables."""
    return '-' if all(value is None for value in values) else ' / '.join(map(tables.number_text, values))


def first(root, setting, head, map_name='{map}'):
    """Folder of a head's first seed for which the map (default: the head's) was scored; None if there is none."""
    found = page.runs(root, setting, [head], CUE.format(map=map_name)).get(head, {})
    return next(iter(found.values()), None)


def answer_row(root, row, setting):
    """Our cells for a published row: released, per pair with interval; gradient rows use the subset."""
    gradient = row['map'] != HEADS[row['method']].map
    folder = first(root, f'{setting}-{cub.SUBSET_SETTING}' if gradient else setting, row['method'], row['map'])
    if not folder:
        return ['-', '-', '-']
    result = cue(folder, row['map'])
    intervals = result_intervals(folder, 'cue_location', row['map'])
    return [
        slashed(cue_means(result, 'released')),
        slashed(cue_means(result, 'per_pair')) + tables.interval_text(intervals.get(cue_name('per_pair'))),
        str(result.get('evaluations', '-')),
    ]


def answer(root):
    """The paper's rows: its numbers, and ours per network and test image size."""
    published = tables.read_published('cue_localization')
    head = ['method', 'paper: 1 / 2 / 3 parts / mean', 'ours, released', 'ours, per pair [95 %]', 'evaluations']
    for name, size, setting in settings(root):
        rows = [
            [row['name'], slashed(row['paper']['CUB']), *answer_row(root, row, setting)] for row in published['rows']
        ]
        if any(cell != '-' for row in rows for cell in row[2:]):
            yield f'**{title(name, size)}**\n\n{tables.markdown(head, rows)}'
    if any(settings(root)):
        yield f'![Cue localization by map size: the paper and ours]({PICTURE})'


def sizes(root):
    """A row per head and size: means over the seeds."""
    rows = []
    for name, size, setting in settings(root):
        for head, by_seed in page.runs(root, setting, cub.STUDIED, CUE).items():
            found = [cue(folder, HEADS[head].map) for folder in by_seed.values()]
            cells = [
                over_seeds([cue_means(one, mode)[i] for one in found]) for mode in OURS for i in range(len(COUNTS))
            ]
            area = over_seeds([one.get('area') and 100 * one['area'] for one in found])
            rows.append([title(name, size), head, str(len(found)), *cells, area])
    if rows:
        columns = [f'{mode.replace("_", " ")}, {count}' for mode in OURS for count in COUNTS.values()]
        yield tables.markdown(['network', 'head', 'seeds', *columns, 'area (%)'], rows)


def training(root):
    """A row per network and head: how it was trained and what came of it, means over the seeds."""
    rows = []
    for name in cub.NETWORKS:
        found = page.runs(root, name, cub.STUDIED)
        for head, _, *figures in page.mean_rows(found):
            logs = [read_log(os.path.join(folder, 'log.jsonl'), [])[1] for folder in found[head].values()]
            if all(logs):
                rate, epochs = f'{logs[0][0]["lr"][0]:g}', str(len(logs[0]))
                fitted = over_seeds([log[-1]['train_accuracy'] for log in logs])
                start = HEADS[head].start or 'ImageNet'
                rows.append([name, head, start, rate, epochs, str(len(logs)), fitted, *figures[:3]])
    if rows:
        columns = ['network', 'head', 'starts from', 'rate', 'epochs', 'seeds', 'training top-1', *page.FIGURES[:3]]
        yield tables.markdown(columns, rows)


def differences(root):
    """A table per network and size: B - A with its 95 % interval, per seed."""
    for name, size, setting in settings(root):
        rows = list(page.pair_rows(page.runs(root, setting, cub.STUDIED, CUE), PAIRS, SCORES))
        if rows:
            yield f'**{title(name, size)}**\n\n{tables.markdown(["A, B", "seed", *SCORES], rows)}'


def width(root):
    """Cue localization of maps unblurred and blurred by half, one and two locations: mean over all pairs."""
    rows = []
    for name, size, setting in settings(root):
        for head in cub.BLURRED:
            for seed, folder in page.runs(root, setting, [head], CUE).get(head, {}).items():
                maps = [HEADS[head].map, *(f'{HEADS[head].map}_blur{one}' for one in cub.NETWORKS[name].blurs)]
                found = [cue(folder, one) for one in maps]
                if any(found[1:]):
                    cells = [tables.number_text(cue_means(one, mode)[-1]) for mode in OURS for one in found]
                    rows.append([title(name, size), head, str(seed), *cells])
    if rows:
        columns = [f'{mode.replace("_", " ")}, {blur}' for mode in OURS for blur in ('as it is', 'half', 'one', 'two')]
        yield tables.markdown(['network', 'head', 'seed', *columns], rows)


def mask_settings(root, name):
    """Settings of a network's mask controls, NETWORK-CONTROL: its settings without those of sizes and the subset."""
    others = {f'{name}-{cub.SUBSET_SETTING}', *(cub.setting_of(name, size) for size in cub.NETWORKS[name].sizes)}
    longer = tuple(f'{other}-' for other in cub.NETWORKS if other.startswith(f'{name}-'))  # vgg16-paper of vgg16
    own = [entry for entry in sorted(os.listdir(root)) if entry.startswith(f'{name}-') and entry not in others]
    return [entry for entry in own if not f'{entry}-'.startswith(longer)]


def masks(root):
    """Cue localization against the data set's masks and the controls'."""
    rows = []
    for name in cub.NETWORKS:
        names = mask_settings(root, name)
        for head in cub.COMPARED:
            for setting in [name, *names]:
                folder = first(root, setting, head)
                if folder and names:
                    result = cue(folder, HEADS[head].map)
                    kind = setting.removeprefix(name).removeprefix('-') or "the data set's"
                    rows.append([name, head, kind, *(slashed(cue_means(result, mode)) for mode in OURS)])
    if rows:
        yield tables.markdown(['network', 'head', 'masks', 'released: 1 / 2 / 3 / mean', 'per pair'], rows)


def others(root):
    """Accuracy, boxes and remove-and-classify of each head: means over the seeds."""
    for name in cub.NETWORKS:
        found = page.runs(root, name, cub.STUDIED)
        if found:
            table = tables.markdown(['head', 'seeds', *page.FIGURES], list(page.mean_rows(found)))
            yield f'**{title(name, cub.NETWORKS[name].sizes[0])}**\n\n{table}'


def loss_gradients(root):
    """The labels' p(y|x) and the distance of the losses' gradients in the first steps (studies/losses.py)."""
    rows = []
    for start, found in read_result(os.path.join(root, losses.RESULT)).items():
        p = [np.quantile(found['p'], share) for share in (0.5, 0)]
        distances = [np.quantile(found['distance'], share) for share in (0.5, 1)]
        rows.append([start, str(len(found['distance'])), str(len(found['p'])), *(f'{x:.1e}' for x in p + distances)])
    if rows:
        p = ['probability of the label, median', 'smallest']
        yield tables.markdown(['weights at the start', 'steps', 'images', *p, 'distance, median', 'largest'], rows)


def progress(root):
    """Finished results of the whole plan, by network."""
    rows = []
    for recipe in cub.RECIPES:
        for name in cub.RECIPES[recipe]:
            states = [(step, results_of(step, root)) for step in cub.whole_plan(recipe, [name], root)]
            results = [done for _, state in states for done in state.values()]
            trained = [
                step.experiment.rpartition('/')[2]
                for step, state in states
                if step.words[0] == 'main.py' and all(state.values())
            ]
            rows.append([name, f'{sum(results)} of {len(results)}', ', '.join(dict.fromkeys(trained)) or '-'])
    yield tables.markdown(['network', 'results finished', 'trained'], rows)


def points(root, mode):
    """(network, head, locations per side, mean over all pairs) of each run, and for `released` of the paper."""
    if mode == 'released':
        for row in tables.read_published('cue_localization')['rows'][-3:]:
            yield 'paper', row['method'], 28, row['paper']['CUB'][-1]
    for name, size, setting in settings(root):
        for head, folders in page.runs(root, setting, cub.STUDIED, CUE).items():
            values = (cue_means(cue(folder, HEADS[head].map), mode)[-1] for folder in folders.values())
            yield from ((name, head, size // cub.NETWORKS[name].cell, value) for value in values if value is not None)


def summary(root):
    """The paper's heads at a glance: the mean over all pairs, a row per network and map size."""
    heads = ('CAM', 'CALM-ML', 'CALM-EM')
    columns = [(mode, head) for mode in OURS for head in heads]
    rows = {}
    for mode in OURS:
        for name, head, cells, value in points(root, mode):
            rows.setdefault(f'{name}, {cells} x {cells} maps', {}).setdefault((mode, head), []).append(value)
    if any(settings(root)):
        lines = [[row, *(over_seeds(by.get(one, [None]), 1) for one in columns)] for row, by in rows.items()]
        yield tables.markdown(['', *(f'{head}, {mode.replace("_", " ")}' for mode, head in columns)], lines)


def draw(root, path):
    """Plot the mean over all pairs by map size: a panel per mode, a colour per head, a marker per network or paper."""
    figure = Figure(figsize=(8.4, 3.4), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    by_mode = [list(points(root, mode)) for mode in OURS]
    every = sum(by_mode, [])
    markers = {**dict(zip(dict.fromkeys(name for name, _, _ in settings(root)), 'os^D')), 'paper': '*'}
    shown = [head for head in cub.STUDIED if any(point[1] == head for point in every)]
    for axes, mode, found in zip(panels, OURS, by_mode):
        for name, head, cells, value in found:
            place = cells + 0.6 * (shown.index(head) - (len(shown) - 1) / 2)  # side by side, not on one another
            axes.plot(place, value, markers[name], color=f'C{cub.STUDIED.index(head)}', alpha=0.8)
        axes.set_title(mode.replace('_', ' '), fontsize=10)
        axes.set_xticks(sorted({point[2] for point in every}))
        axes.set_xlabel('locations per side')
        axes.spines[['top', 'right']].set_visible(False)
    for head in shown:
        panels[0].plot([], [], 's', color=f'C{cub.STUDIED.index(head)}', label=head)
    for name, marker in markers.items():
        panels[0].plot([], [], marker, color='black', fillstyle='none', label=name)
    panels[0].set_ylabel('cue localization (%), higher is better')
    panels[0].legend(fontsize=7, ncols=2)
    util.atomically(path, lambda file: figure.savefig(file, format='png', dpi=130))


SECTIONS = {
    'summary': summary,
    'answer': answer,
    'sizes': sizes,
    'training': training,
    'differences': differences,
    'width': width,
    'masks': masks,
    'others': others,
    'losses': loss_gradients,
    'progress': progress,
}


def main():
    page.fill_page(__doc__, 'save/cub', 'docs/cub.md', SECTIONS, PICTURE, draw)


if __name__ == '__main__':
    command(main)
