"""The run files, the paper's tables, and the scripts that lead from data to a table."""

import glob
import json
import os
import subprocess

import commands
import pytest
import yaml
from conftest import ROOT

from config import get_configs

CONFIGS = sorted(glob.glob(os.path.join(ROOT, 'configs', '*.yaml')))
SCRIPTS = ('cue_localization', 'remove_and_classify', 'classification', 'wsol')
SMALLEST = ['--toy', '--epochs=1', '--images=2', '--test_images=1', '--iterations=1', '--workers=0']
RUNS = [
    f'{method}_{dataset}'
    for method in ('CAM', 'CALM-ML', 'CALM-EM')
    for dataset in ('CUB', 'OpenImages', 'ILSVRC', 'ToyBirds')
]
RUNS += [f'{method}_ToyBirds_tf_efficientnet_lite0' for method in ('CAM', 'CALM-ML', 'CALM-EM')]  # of the study
RUNS += [
    f'CAM_{dataset}_{backbone}' for dataset in ('CUB', 'OpenImages', 'ILSVRC') for backbone in ('vgg16', 'inception_v3')
]


def run(*words, cwd=ROOT):
    """(exit code, standard output, standard error) of a command."""
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def script(name, *options, cwd=ROOT, checkout=ROOT):
    return run('bash', os.path.join(checkout, 'scripts', 'reproduce', f'{name}.sh'), *map(str, options), cwd=cwd)


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    with commands.checkout(tmp_path_factory.mktemp('checkout')) as folder:
        yield folder


def report(*arguments):
    code, out, err = commands.run('scripts/report.py', *arguments)
    assert code == 0, err
    return out


def cells(table):
    """The rows of a Markdown table, as {column: text}."""
    lines = [
        [cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines() if line.startswith('|')
    ]
    return [dict(zip(lines[0], line)) for line in lines[2:]]


def write(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as file:
        json.dump(value, file)


def test_there_is_a_file_for_every_run():
    assert [os.path.basename(path)[:-5] for path in CONFIGS] == sorted(RUNS)


@pytest.mark.parametrize('path', CONFIGS, ids=os.path.basename)
def test_a_run_file_says_what_its_name_says(path):
    name = os.path.basename(path)[:-5]
    args = get_configs('', [f'--config={path}'])
    method, dataset, *backbone = name.split('_', 2)
    toy = dataset == 'ToyBirds'
    assert (args.experiment_name, args.attribution_method, args.dataset) == (name, method, dataset)
    study = toy and bool(backbone)  # its network has ImageNet weights, and coarser maps
    assert args.architecture.removeprefix('timm/') == (backbone[0] if backbone else 'vgg_tiny' if toy else 'resnet50')
    assert args.large_feature_map is not study and args.use_bn is not toy and args.pretrained is (study or not toy)
    head = [line for line in open(path).read().splitlines() if line.startswith('#')]
    assert any(f'python main.py --config=configs/{name}.yaml' in line for line in head) and any(
        'cost' in line.lower() for line in head
    )
    if not toy:
        assert set(yaml.safe_load(open(path))) == {
            'experiment_name',
            'dataset',
            'architecture',
            'attribution_method',
            'use_bn',
            'large_feature_map',
        }  # the recipe has one home, the defaults


def test_cue_table_has_both_modes_beside_the_paper(tmp_path):
    means = {'cue_1': 1.0, 'cue_2': 2.0, 'cue_3': None, 'mean': 1.5}
    write(
        tmp_path / 'given' / 'CALM-EM_CUB' / 'cue_location_jointll.json',
        {'released': means, 'per_pair': {key: value and 10 * value for key, value in means.items()}},
    )
    write(tmp_path / 'CAM_CUB' / 'cue_location_vanilla.json', {'released': {**means, 'mean': 29.0}, 'per_pair': means})
    table = cells(report('--table=cue_localization', tmp_path))
    assert len(table) == 7 * 4
    em = {row['parts']: row for row in table if row['method'] == 'CALM-EM'}
    assert [em[key]['paper'] for key in ('1', '2', '3', 'mean')] == ['30.40', '33.30', '36.30', '34.30']
    assert [em[key]['given'] for key in ('1', '2', '3', 'mean')] == ['1.00', '2.00', '-', '1.50']
    assert em['mean']['given per pair'] == '15.00' and em['mean']['trained'] == '-' and em['mean']['README'] == '-'
    cam = [row for row in table if row['map'] == 'vanilla'][3]
    assert (cam['parts'], cam['paper'], cam['given'], cam['trained']) == ('mean', '29.60', '-', '29.00')


def test_a_table_of_another_backbone_has_its_runs_beside_the_paper(tmp_path):
    means = {'cue_1': 1.0, 'cue_2': 2.0, 'cue_3': None, 'mean': 1.5}
    write(tmp_path / 'CAM_CUB_tiny' / 'cue_location_vanilla.json', {'released': means, 'per_pair': means})
    write(tmp_path / 'CAM_CUB' / 'cue_location_vanilla.json', {'released': {**means, 'mean': 9.0}, 'per_pair': means})
    table = cells(report('--table=cue_localization', '--architecture=timm/tiny', tmp_path))
    assert len(table) == 7 * 4 and {row['backbone'] for row in table} == {'tiny'}
    cam = [row for row in table if row['map'] == 'vanilla'][3]
    assert (cam['parts'], cam['paper'], cam['trained']) == ('mean', '29.60', '1.50')
    rows = cells(report('--table=wsol', '--dataset=CUB', '--architecture=timm/tiny', tmp_path))
    assert {row['backbone'] for row in rows} == {'tiny'} and {row['paper'] for row in rows} == {'63.00', '-'}


def test_a_named_backbone_and_flags_reach_every_command():
    """The helpers of the scripts, asked for the networks and flags of a table."""
    code, out, err = run(
        'bash',
        '-c',
        'source scripts/reproduce/common.sh; architecture=timm/tiny seeds=(0 3) extra=(--crop_size=32)\n'
        'for name in $(networks wsol CUB); do echo "$name" "$(run_of "$name")"; done',
    )
    assert code == 0, err
    flags = '--architecture=timm/tiny --crop_size=32'
    assert out.splitlines() == [
        f'{head}_CUB_tiny-seed{seed} --config=configs/{head}_CUB.yaml --seed={seed} {flags}'
        for head in ('CAM', 'CALM-ML', 'CALM-EM')
        for seed in (0, 3)
    ]


def test_digitised_values_are_marked(tmp_path):
    write(tmp_path / 'CAM_OpenImages' / 'pixel_perturb_var_grad.json', {'ratio': [0.5, 0.6, 0.7, None, 0.9]})
    table = cells(report('--table=remove_and_classify', tmp_path))
    assert len(table) == 3 * 7 * 5 and all(row['paper'].endswith('~') for row in table)
    rows = [row for row in table if (row['set'], row['map']) == ('OpenImages', 'var_grad')]
    assert [row['paper'] for row in rows] == ['1.13~', '0.82~', '0.62~', '0.87~', '1.40~']
    assert [row['trained'] for row in rows] == ['0.50', '0.60', '0.70', '-', '0.90']
    assert len(cells(report('--table=remove_and_classify', '--dataset=CUB', tmp_path))) == 7 * 5


def test_accuracy_and_localization_tables(tmp_path):
    write(tmp_path / 'given' / 'CALM-ML_CUB' / 'accuracy.json', {'test_accuracy': 59.5})
    rows = {(row['set'], row['method']): row for row in cells(report('--table=classification', tmp_path))}
    assert len(rows) == 9 and rows['CUB', 'CALM-ML']['README'] == '59.60' and rows['CUB', 'CALM-ML']['given'] == '59.50'
    assert rows['CUB', 'CAM']['README'] == rows['CUB', 'CAM']['paper'] == '-'
    write(tmp_path / 'CAM_CUB_vgg16' / 'wsol_vanilla.json', {'MaxBoxAcc': 70.0, 'MaxBoxAccV2': 60.5})
    write(tmp_path / 'CALM-EM_OpenImages' / 'wsol_jointll.json', {'PxAP': 61.25})
    table = cells(report('--table=wsol', tmp_path))
    row = {(row['set'], row['method'], row['map'], row['backbone'], row['score']): row for row in table}
    vgg = row['CUB', 'CAM', 'vanilla', 'vgg16', 'MaxBoxAccV2']
    assert (vgg['paper'], vgg['trained']) == ('63.70', '60.50')
    assert row['CUB', 'CAM', 'vanilla', 'vgg16', 'MaxBoxAcc']['trained'] == '70.00'
    calm = row['OpenImages', 'CALM-EM', 'jointll', 'resnet50', 'PxAP']
    assert (calm['paper'], calm['trained']) == ('-', '61.25')
    assert {line['score'] for line in table if line['set'] == 'OpenImages'} == {'PxAP'}


def test_the_means_of_the_published_cue_table_are_pair_weighted():
    """A slip of the pen in the data file shows here: the mean is that of 31, 64 and 96 pairs."""
    rows = yaml.safe_load(open(os.path.join(ROOT, 'scripts', 'paper_numbers.yaml')))['cue_localization']['rows']
    for row in rows:
        one, two, three, mean = row['paper']['CUB']
        assert (31 * one + 64 * two + 96 * three) / 191 == pytest.approx(mean, abs=0.15), row['name']


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    """A save root that all scripts share: what one trains, the next finds."""
    return tmp_path_factory.mktemp('toy')


def files(folder):
    """{path: time of the last change} of all results, pictures and checkpoints."""
    return {
        path: os.stat(path).st_mtime_ns for path in glob.glob(f'{folder}/**', recursive=True) if os.path.isfile(path)
    }


@pytest.mark.parametrize('name', SCRIPTS)
@pytest.mark.slow
def test_a_script_goes_from_data_to_table_once(toy, checkout, name):
    code, out, err = script(name, *SMALLEST, '--save_root', toy, checkout=checkout)
    assert code == 0, err
    table = cells(out)
    assert {row['set'] for row in table} == {'ToyBirds'} and {row['paper'] for row in table} == {'-'}
    wanted = (
        table if name != 'remove_and_classify' else []
    )  # R_k of a network of one epoch may have nothing to divide by
    if name == 'remove_and_classify':
        assert len(glob.glob(f'{toy}/*/pixel_perturb_*.json')) == 7
    assert all(row['trained'] != '-' for row in wanted)
    before = files(toy)
    code, again, err = script(name, *SMALLEST, '--save_root', toy, checkout=checkout)
    assert code == 0 and again == out and files(toy) == before
    assert 'main.py' not in err and 'eval_' not in err


@pytest.mark.slow
def test_given_checkpoints_are_evaluated_and_nothing_is_trained(toy, checkout, tmp_path):
    """Relative paths are those of the caller's folder; a network that is not there is left out."""
    assert script('classification', *SMALLEST, '--save_root', toy, checkout=checkout)[0] == 0
    os.makedirs(tmp_path / 'given_ones')
    os.symlink(toy / 'CALM-EM_ToyBirds', tmp_path / 'given_ones' / 'CALM-EM_ToyBirds')
    given = ('--checkpoints', 'given_ones', '--save_root', 'results')
    code, out, err = script('classification', *SMALLEST, *given, cwd=tmp_path, checkout=checkout)
    assert code == 0, err
    assert (
        'CAM_ToyBirds: no ' in err
        and 'leaving out' in err
        and not os.path.exists(tmp_path / 'results' / 'CAM_ToyBirds')
    )
    shown = {row['method']: row['given'] for row in cells(out)}
    accuracy = json.load(open(toy / 'CALM-EM_ToyBirds' / 'accuracy.json'))['test_accuracy']
    assert shown == {'CAM': '-', 'CALM-ML': '-', 'CALM-EM': f'{accuracy:.2f}'}


@pytest.mark.parametrize('name', SCRIPTS)
def test_missing_data_are_one_line(tmp_path, name):
    code, out, err = script(
        name, '--save_root', tmp_path / 'save', '--data_root', tmp_path / 'nothing', '--metadata_root', tmp_path
    )
    assert code == 2 and out == '' and len(err.strip().splitlines()) == 1
    assert 'no data of CUB' in err and 'scripts/prepare_cub.sh' in err and '--data_root' in err
    assert os.listdir(tmp_path) == []


def test_given_checkpoints_need_no_training_data(tmp_path):
    (tmp_path / 'given').mkdir()
    code, _, err = script('cue_localization', '--checkpoints', tmp_path / 'given', '--data_root', tmp_path / 'nothing')
    assert code == 2 and 'scripts/prepare_evaluation_data.sh CUB' in err and 'prepare_cub' not in err


@pytest.mark.parametrize(
    'options, said',
    [
        (['--tables=all'], "unknown option '--tables'"),
        (['--save_root'], '--save_root needs a value'),
        (['--images=3'], 'give --toy with it'),
        (['--toy', '--architecture=vgg16'], 'leave --architecture out'),
        (['--toy', '--images=few'], 'whole number'),
        (['--toy', '--images=0'], 'at least 1'),
        (['--dataset=ILSVRC'], 'choose from CUB'),
        (['--checkpoints=nowhere'], 'is not a folder'),
        (['--toy', '--dataset=CUB'], 'leave --dataset out'),
        (['--seeds'], '--seeds needs values'),
        (['--seeds', '-1'], '--seeds needs values'),
        (['--seeds', '0', '1', '0'], '--seeds has 0 twice'),
        (['--seeds=0 1', '--checkpoints', '.'], 'leave it out with --checkpoints'),
    ],
)
def test_mistakes_in_the_options_are_one_line(options, said):
    code, out, err = script('cue_localization', *options)
    assert code == 2 and out == '' and said in err and len(err.strip().splitlines()) == 1


def test_help_lists_the_options():
    code, out, _ = script('wsol', '--help')
    assert code == 0 and out.startswith('Weakly supervised localization')
    assert all(
        option in out
        for option in ('--toy', '--checkpoints', '--save_root', '--data_root', '--metadata_root', '--epochs')
    )


def names_of(seeds):
    """What common.sh makes of --seeds: the networks of a table, then the flags of one of another architecture."""
    path = os.path.join(ROOT, 'scripts', 'reproduce', 'common.sh')
    words = f'source {path}; seeds=({seeds}); networks wsol CUB; run_of CAM_CUB_vgg16; run_of CAM_CUB_vgg16-seed7'
    code, out, err = run('bash', '-c', words)
    assert code == 0, err
    return out.splitlines()


def test_each_seed_is_a_run_of_its_own():
    plain = ['CAM_CUB_vgg16', 'CAM_CUB_inception_v3', 'CAM_CUB', 'CALM-ML_CUB', 'CALM-EM_CUB']
    flags = [f'--config=configs/CAM_CUB_vgg16.yaml --seed={seed}' for seed in (0, 7)]
    assert names_of('') == [*plain, *flags]
    assert names_of('0 12') == [*(f'{name}-seed{seed}' for name in plain for seed in (0, 12)), *flags]
