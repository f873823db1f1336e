"""The HTML report: its sections, what is escaped, what is missing, and the maps in it against maps made on their own.

tests/browser/test_report_page.py opens one in a browser.
"""

import base64
import html.parser
import json
import os
import re
import runpy
import sys

import commands
import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from PIL import Image

import util
import wsol
from config import get_configs
from data_loaders import read_image
from report import results
from report.page import charts, evaluations, gallery
from wsol.preprocessing import make_transform

EVIL = '<script>alert(1)<'


def make_data(root, classes=3, size=40):
    """A ToyBirds test split of one small image a class, and its names, the last of them no friendly one."""
    rng = np.random.default_rng(0)
    names = [f'00{y + 1}.{"<img src=x>&" if y == classes - 1 else "bird"}{y}' for y in range(classes)]
    ids = [f'c{y}/i{y}.png' for y in range(classes)]
    for split in ('train', 'test'):
        folder = root / 'metadata' / 'ToyBirds' / split
        folder.mkdir(parents=True)
        (folder / 'image_ids.txt').write_text(''.join(f'{one}\n' for one in ids))
        (folder / 'class_labels.txt').write_text(''.join(f'{one},{y}\n' for y, one in enumerate(ids)))
    for one in ids:
        path = root / 'dataset' / 'ToyBirds' / 'images' / one
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (size, size + 8, 3), np.uint8)).save(path)
    (root / 'dataset' / 'ToyBirds' / 'classes.txt').write_text(
        ''.join(f'{y + 1} {name}\n' for y, name in enumerate(names))
    )
    return names


def make_run(root, name, method, classes=3, **changes):
    """An experiment folder with a log of two epochs and a checkpoint of random weights."""
    args = get_configs(
        '',
        [
            '--dataset=ToyBirds',
            f'--data_root={root}/dataset',
            f'--metadata_root={root}/metadata',
            '--architecture=vgg_tiny',
            '--crop_size=48',
            f'--attribution_method={method}',
            '--pretrained=False',
            '--large_feature_map=True',
            f'--save_root={root}',
            '--seed=0',
        ],
    )
    args.update(changes)
    model = wsol.build_model('vgg_tiny', method, classes, large_feature_map=True)
    folder = root / name
    folder.mkdir()
    record = {'architecture': 'vgg_tiny', 'epoch': 2, 'state_dict': model.state_dict(), 'args': dict(args)}
    torch.save(record, folder / util.CHECKPOINT.format('last'))
    epochs = [
        {'epoch': n, 'loss': 2.0 / n, 'train_accuracy': 30.0 * n, 'val_accuracy': 20.0 * n, 'lr': [0.01, 0.1]}
        for n in (1, 2)
    ]
    lines = [
        {'arguments': dict(args), 'commit': 'abc', 'versions': {'torch': '1.2', 'opencv': '3.4'}, 'device': 'abacus'},
        *epochs,
    ]
    (folder / 'log.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return folder, model.eval(), args


def write_results(folder):
    """One result of each command."""
    means = {'cue_1': 11.25, 'cue_2': 22.5, 'cue_3': None, 'mean': 17.125}
    box = {'30': {'accuracy': 81.5, 'threshold': 0.25}}
    for name, value in {
        'accuracy': {'test_accuracy': 61.25, 'best_val_accuracy': 40.0, 'images': 3},
        'cue_location_jointll': {
            'released': means,
            'per_pair': {**means, 'mean': 18.375},
            'pairs': [],
            'arguments': {'seed': 5},
        },
        'pixel_perturb_jointll': {
            'k': [0.1, 0.3, 0.5, 0.7, 0.9],
            'ratio': [0.5, 0.25, None, 1.125, 1.5],
            'correct': 2,
            'images': 3,
        },
        'wsol_jointll': {
            'MaxBoxAcc': 71.75,
            'MaxBoxAccV2': 55.5,
            'largest_contour': box,
            'all_contours': box,
            'split': 'test',
        },
        'attribution_scores': {
            'metrics': {'drop': {'title': 'Average drop', 'better': 'lower'}},
            'note': 'a note',
            'methods': {'grad_cam': {'drop': 12.345, 'deletion_curve': [1.0] * 40}},
        },
    }.items():
        (folder / f'{name}.json').write_text(json.dumps(value))


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """(root, names of the classes, folders, models, arguments) of a CAM run with results and a CALM-EM run without."""
    root = tmp_path_factory.mktemp('runs')
    torch.manual_seed(0)
    names = make_data(root)
    made = [make_run(root, 'first', 'CALM-EM'), make_run(root, EVIL, 'CAM', epochs=9)]
    write_results(made[0][0])
    return root, names, *zip(*made)


def read_page(path):
    """(page, its gallery data)."""
    page = path.read_text()
    return page, json.loads(re.search('<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def run_here(monkeypatch, *words):
    """report.py's command in this process: PyTorch is loaded once."""
    scripts = os.path.join(ROOT, 'scripts')
    monkeypatch.setattr(sys, 'argv', ['report.py', *map(str, words)])
    monkeypatch.setattr(sys, 'path', [*sys.path, scripts])
    runpy.run_path(os.path.join(scripts, 'report.py'), run_name='__main__')


@pytest.fixture(scope='module')
def made(runs, tmp_path_factory):
    """The page as a user makes it."""
    path = tmp_path_factory.mktemp('page') / 'report.html'
    flags = [f'--html={path}', '--gallery=2', '--classes=3', '--methods', 'readout', 'saliency', 'input_grad']
    code, out, err = commands.run('scripts/report.py', *runs[2], *flags)
    assert code == 0 and out == f'{path}: 0.1 MB\n' and os.path.getsize(path) < 150e3, err
    return read_page(path)


class Reader(html.parser.HTMLParser):
    """The elements of a page: (tag, attributes) in order, the text of each section, and the rows of its tables."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.sections, self.here = [], {}, None
        self.rows = {}  # {section: [[text of each cell] of each row]}
        self.cell = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == 'section':
            self.here = dict(attrs)['id']
        elif tag == 'tr':
            self.rows.setdefault(self.here, []).append([])
        elif tag in ('td', 'th'):
            self.rows[self.here][-1].append('')
        self.cell = tag in ('td', 'th')

    def handle_endtag(self, tag):
        self.cell = False

    def handle_data(self, data):
        self.sections[self.here] = self.sections.get(self.here, '') + ' ' + data.strip()
        if self.cell:
            self.rows[self.here][-1][-1] += data


def decode(method, image):
    """[K, h, w] of a record, by NumPy."""
    record = method['maps'][image]
    numbers = np.frombuffer(base64.b64decode(record['data']), '<i1' if method['bits'] == 8 else '<i2')
    return numbers.reshape(-1, method['height'], method['width']) * np.array(record['scales'])[:, None, None]


def expected_map(method, model, images, n, y):
    """The map of class y of image n by the plain formula; the images are one batch, as the page has them."""
    F = model.forward_features(images)
    f, h = model.conv_last(F), torch.relu(model.attention[0](F))
    p_z = h / h.sum(dim=(2, 3), keepdim=True)
    return (
        {'vanilla': f[n, y], 'saliency': p_z[n, 0], 'jointll': (f.softmax(dim=1) * p_z)[n, y]}[method].detach().numpy()
    )


def test_the_maps_are_the_models_to_the_stated_precision(runs, made):
    root, names, _, models, arguments = runs
    _, data = made
    assert [run['name'] for run in data['runs']] == ['first', EVIL] and len(data['sets']) == 1
    assert [[one['name'] for one in run['maps']] for run in data['runs']] == [
        ['jointll', 'saliency', 'input_grad'],
        ['vanilla', 'saliency', 'input_grad'],
    ]
    images = data['sets'][0]['images']
    assert [one['id'] for one in images] == ['c0/i0.png', 'c2/i2.png'] and images[1]['classes'][0] == images[1][
        'label'
    ] == 2
    assert data['sets'][0]['names'] == {str(y): name for y, name in enumerate(names)}
    place = root / 'dataset' / 'ToyBirds' / 'images'
    batch = torch.stack([make_transform(False, crop_size=48)(read_image(str(place / one['id']))) for one in images])
    for model, run in zip(models, data['runs']):
        for n, one in enumerate(images):
            probs = model(batch).probs[n]
            assert (
                run['probs'][n] == pytest.approx(probs[one['classes']].tolist(), abs=1e-6)
                and run['predicted'][n] == probs.argmax()
            )
            for method in run['maps'][:2]:
                truth = np.stack([expected_map(method['name'], model, batch, n, y) for y in one['classes']])
                assert method['bits'] == 16 and truth.std() > 0
                bound = (
                    np.abs(truth).max(axis=(1, 2)) * (1 / 65534 + 2e-6) + 1e-6 * np.abs(truth).max()
                )  # and float32's rounding
                assert (np.abs(decode(method, n) - truth).max(axis=(1, 2)) <= bound).all()
                assert method['signed'] == (method['name'] == 'vanilla')
            gradient = decode(run['maps'][2], n)
            assert gradient.shape == (3, 48, 48) and gradient.min() >= 0 and gradient.max() > 0


def test_large_maps_have_eight_bits_and_their_precision():
    maps = np.random.default_rng(1).normal(size=(2, 70, 70)).astype(np.float32) * np.float32([[[1]], [[1e-6]]])
    record = gallery.encode(maps)
    method = {'maps': [record], 'bits': 8, 'height': 70, 'width': 70}
    assert (np.abs(decode(method, 0) - maps).max(axis=(1, 2)) <= np.abs(maps).max(axis=(1, 2)) / 254 * 1.001).all()
    assert not decode({'maps': [gallery.encode(np.zeros((1, 4, 4)))], 'bits': 16, 'height': 4, 'width': 4}, 0).any()
    with pytest.raises(ValueError, match='not finite'):
        gallery.encode(np.array([[[np.nan]]]))


ROWS = {  # of each section, ours and some of the paper's: every number in its column
    'summary': [
        'experiment|method|map|top-1|cue released|cue per pair|cue exact|R_10|R_30|R_50|R_70|R_90',
        'first|-|jointll|61.25|17.12|18.38|-|0.50|0.25|-|1.12|1.50',
    ],
    'arguments': [
        'attribution_method|"CALM-EM"|"CAM"\nepochs|40|9\ncommit|abc|abc\ndevice|abacus|abacus\ntorch|1.2|1.2\n'
        f'opencv|3.4|3.4\nargument|first|{EVIL}',
        'first|cue_location_jointll.json|seed=5',
    ],
    'curves': [
        f'epoch|first|{EVIL}\n1|2|2\n2|1|1',
        f'epoch|first, val|first, train|{EVIL}, val|{EVIL}, train\n1|20|30|20|30\n2|40|60|40|60',
        f'epoch|first|first, group 2|{EVIL}|{EVIL}, group 2\n1|0.01|0.1|0.01|0.1\n2|0.01|0.1|0.01|0.1',
    ],
    'accuracy': [
        'experiment|set|map|top-1 (test)|best top-1 (val)|test images\nfirst|ToyBirds|-|61.25|40.00|3',
        'README: CALM-EM|CUB|-|71.80|-|-',
    ],
    'cue': [
        'experiment, mode|set|map|1 part|2 parts|3 parts|mean',
        'first, released|ToyBirds|jointll|11.25|22.50|-|17.12',
        'first, per pair|ToyBirds|jointll|11.25|22.50|-|18.38',
        'paper: CALM-EM|CUB|jointll|30.40|33.30|36.30|34.30',
        'differing parts|1|2|3|all\nfirst, jointll|11.25|22.5|-|17.12\nfirst, jointll|11.25|22.5|-|18.38',
    ],
    'erasing': [
        'experiment|set|map|R_10|R_30|R_50|R_70|R_90\nfirst|ToyBirds|jointll|0.50|0.25|-|1.12|1.50',
        'paper: CALM-EM|CUB|jointll|0.06~|0.05~|0.15~|0.40~|1.39~',
        'erased pixels k (%)|first, jointll\n10|0.5\n30|0.25\n70|1.125\n90|1.5',
    ],
    'wsol': [
        'experiment|set|map|MaxBoxAcc|MaxBoxAccV2|PxAP|split\nfirst|ToyBirds|jointll|71.75|55.50|-|test',
        'first, jointll|largest contour|30|81.50|0.250\nfirst, jointll|all contours|30|81.50|0.250',
        'paper: CAM, vgg16|CUB|vanilla|-|63.70|-|test',
    ],
    'attribution': ['method|Average drop ↓\ngrad_cam|12.345'],
}


@pytest.mark.parametrize('section', ROWS)
def test_every_section_has_its_numbers_and_the_papers_in_their_columns(made, section):
    rows = ['|'.join(row) for row in Reader(made[0]).rows[section]]
    for row in '\n'.join(ROWS[section]).split('\n'):
        assert row in rows, '\n'.join(rows)


def test_the_sections_say_what_their_numbers_are(made):
    text = Reader(made[0]).sections
    for key, words in {'curves': 'Training loss', 'attribution': 'a note', 'cue': 'other data sets'}.items():
        assert words in text[key]  # the runs are ToyBirds, the paper's rows are not


def test_numbers_on_the_runs_own_data_are_in_the_same_table(tmp_path):
    folder, *_ = make_run(tmp_path, 'run', 'CALM-EM', dataset='CUB')
    write_results(folder)
    run, _ = results.read_runs([str(folder)])
    page = evaluations.cue_section(run)
    assert 'other data sets' not in page and page.count('class="published"') == 1
    assert (
        evaluations.erasing_section(run).count('<tr>') == 3 + 5 + 7 + 0
    )  # heads, numbers of the chart and our row, and CUB's rows


def test_what_is_missing_is_told_with_the_command_that_makes_it(made):
    text = Reader(made[0]).sections
    for key, program in (
        ('accuracy', 'main.py'),
        ('cue', 'eval_cue_location.py'),
        ('erasing', 'eval_pixel_perturb.py'),
        ('wsol', 'eval_wsol.py'),
        ('attribution', 'eval_attribution.py'),
    ):
        found = re.search(rf'{re.escape(EVIL)}: +(python {program} .*)', text[key])
        assert found, key
        assert (
            '--architecture=vgg_tiny' in found[1]
            and f'/{EVIL}' in found[1]
            and 'first:' not in text[key].split('To make it')[1]
        )


def test_nothing_that_comes_from_outside_becomes_markup(made):
    page, _ = made
    tags = Reader(page).tags
    assert [dict(attrs).get('type') for tag, attrs in tags if tag == 'script'] == ['application/json', None]
    assert [attrs.get('id') for tag, attrs in tags if tag == 'img'] == ['picture']
    assert not re.search(r'https?://', page) and all(
        'src' not in attrs and not attrs.get('href', '#')[0] not in '#d' for _, attrs in tags
    )
    assert EVIL not in page and page.count('&lt;script&gt;alert(1)&lt;') > 5 and '\\u003cscript>alert(1)\\u003c' in page


def test_nothing_and_damaged_files_end_in_lines(tmp_path, runs, monkeypatch, capsys):
    """Folders with nothing, with damaged results, and a healthy one beside them: on the page and in the terminal."""
    (tmp_path / 'empty').mkdir()
    folder, *_ = make_run(
        tmp_path, 'damaged', 'CAM', data_root=str(tmp_path / 'nowhere'), metadata_root=str(runs[0] / 'metadata')
    )
    (folder / 'log.jsonl').write_text((folder / 'log.jsonl').read_text() + '{"epoch": 3, "lo')
    (folder / 'wsol_vanilla.json').write_text('{"MaxBox')
    (folder / 'cue_location_vanilla.json').write_text('[]')
    (folder / 'pixel_perturb_vanilla.json').write_text('{"k": 3, "ratio": "x"}')
    path = tmp_path / 'report.html'
    run_here(monkeypatch, tmp_path / 'empty', folder, runs[2][0], f'--html={path}', '--gallery=1', '--methods=readout')
    page, data = read_page(path)
    text = Reader(page).sections
    assert [run['name'] for run in data['runs']] == ['first']
    for words in (
        'log.jsonl: 1 lines cannot be read',
        'wsol_vanilla.json cannot be read',
        'cue_location_vanilla.json is not a JSON object',
    ):
        assert words in text[None], words
    assert 'damaged is left out' in text['erasing'] and '1.12' in text['erasing'] and '61.25' in text['summary']
    assert (
        'empty has no log or result' in text['gallery']
        and 'damaged: no images of ToyBirds test: c0/i0.png is not in' in text['gallery']
    )
    err = capsys.readouterr().err
    for words in (
        f'{path}: {folder}/log.jsonl: 1 lines cannot be read',
        'wsol_vanilla.json cannot be read',
        f'{path}: damaged is left out: one of its results is malformed',
        f'{path}: not in the gallery: damaged: no images of ToyBirds test',
        f'{path}: not in the gallery: empty: {tmp_path}/empty has no log or result with arguments',
        f'{path}: empty has no result yet of accuracy, cue localization, remove',
    ):
        assert words in err, words
    assert len(set(err.splitlines())) == len(err.splitlines())
    run_here(monkeypatch, tmp_path / 'empty', f'--html={path}', '--overwrite')
    page, data = read_page(path)
    assert data == {'sets': [], 'runs': []} and 'No maps' in page and 'id="rows"' not in page


@pytest.mark.parametrize(
    'flags, said',
    [
        (['--html=there.html'], '--overwrite'),
        (['--html=no/such/page.html'], 'no folder'),
        (['--html=new.html', '--methods', 'grad_cma'], 'grad_cam'),
        (['--html=new.html', '--classes=1'], 'at least 2'),
        (['--html=new.html', '--table=wsol'], 'exclude'),
        (['--gallery=-1'], 'whole number'),
    ],
)
def test_mistakes_are_one_line_and_no_file(tmp_path, flags, said, monkeypatch, capsys):
    (tmp_path / 'there.html').write_text('kept')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        run_here(monkeypatch, tmp_path, *flags)
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error and len(error.strip().splitlines()) == 1
    assert os.listdir(tmp_path) == ['there.html'] and (tmp_path / 'there.html').read_text() == 'kept'


def test_charts_leave_out_what_is_no_number_and_draw_the_rest_in_place():
    nan = float('nan')
    chart = charts.line_chart(
        't', 'x', 'y', [charts.Series('a', [(1, 0.0), (2, nan), (3, None), (4, 10.0)], 0)], bottom=0
    )
    points = [tuple(map(float, point.split(','))) for point in re.search('points="(.*?)"', chart)[1].split()]
    assert len(points) == 2 and points[0][0] < points[1][0] and points[0][1] > points[1][1]  # up is more
    assert points[0][1] == pytest.approx(charts.HEIGHT - charts.BOTTOM)  # zero lies on the axis
    assert '<p class="missing">' in charts.line_chart('t', 'x', 'y', [charts.Series('a', [(1, 0.0)], 0)], log=True)
    bars = charts.bar_chart(
        't', 'x', 'y', ['g', 'h'], [charts.Bars('a', [10.0, None], 0), charts.Bars('b', [5.0, 2.5], 1)]
    )
    heights = [
        float(value)
        for value in re.findall('<rect class="bar c[01]" x="[^"]+" y="[^"]+" width="[^"]+" height="([^"]+)"/>', bars)
    ]
    assert heights == pytest.approx([heights[0], heights[0] / 2, heights[0] / 4], abs=0.2) and heights[0] > 100
    assert charts.ticks(0, 41) == [0, 10, 20, 30, 40] and charts.ticks(0.9, 1.1) == pytest.approx(
        [0.9, 0.95, 1, 1.05, 1.1]
    )


def test_the_published_rows_are_those_of_the_file():
    source = yaml.safe_load(open(os.path.join(ROOT, 'scripts', 'paper_numbers.yaml')))['remove_and_classify']['rows']
    page = evaluations.erasing_section([])
    assert page.count('<th scope="row">paper: ') == sum(len(row['paper']) for row in source) == 21
