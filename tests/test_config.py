"""The command line: what its values may be, what it makes of them, and who has the last word."""

import importlib
import json
from typing import NamedTuple

import pytest

import config
import flags
from wsol import attribution


def parsed(*words, command=None):
    return config.get_configs('', list(words), command)


def refusal(capsys, *words, command=None):
    """The one line with which the words are refused, exit code 2."""
    with pytest.raises(SystemExit) as stop:
        parsed(*words, command=command)
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize('name', [*attribution.MAPS, ''])
def test_backprop_stands_for_input_grad_where_a_readout_is_named_and_for_nothing_else(name):
    """The released backprop map; a method of its own name keeps its meaning."""
    choices = [f'--score_map_process={name}'] if name else []
    args = parsed('--score_map_method=backprop', *choices, command=None if name else 'inference')  # its default is ''
    readouts = {'', *attribution.READOUTS, *attribution.SUPERCLASS_READOUTS}
    assert args.score_map_process == ('input_grad' if name in readouts else name)
    assert readouts > {'vanilla', 'saliency', 'jointll-superclass-mean'}
    if name:
        assert parsed('--score_map_method=activation_map', *choices).score_map_process == name


RANGES = {  # flag: (values that are allowed, values that are not)
    'seed': ('0 7', '-1 1.5'),
    'workers': ('0 3', '-1'),
    'resize_size': ('1', '0'),
    'crop_size': ('1', '0'),
    'epochs': ('1', '0'),
    'batch_size': ('1', '0'),
    'lr': ('1e-9 3', '0 -1'),
    'lr_decay_frequency': ('1', '0'),
    'lr_classifier_ratio': ('0 10', '-.1'),
    'momentum': ('0 1', '-.1 1.1'),
    'weight_decay': ('0 1', '-1e-9'),
    'gradient_reg': ('0 1', '-1'),
    'save_minutes': ('1e-6', '0'),
    'smoothing_ksize': ('1', '0'),
    'cam_curve_interval': ('1e-3 1', '0 1.1'),
    'random_repeats': ('1', '0'),
    'iou_thresholds': ('1 100', '0 101'),
    'smooth_grad_nr_iter': ('1', '0'),
    'smooth_grad_sigma': ('1e-3', '0'),
    'integrated_grad_nr_iter': ('1', '0'),
    'rise_nr_masks': ('1', '0'),
    'occlusion_window': ('1', '0'),
    'num_samples': ('1', '0'),
    'curve_steps': ('1', '0'),
    'randomization_steps': ('1', '0'),
    'sensitivity_draws': ('1', '0'),
    'infidelity_draws': ('1', '0'),
    'box_threshold': ('0 1', '-.1 1.1'),
    'box_iou': ('1 100', '0 101'),
    'pointing_tolerance': ('0 .5', '-1'),
    'max_images': ('1', '0'),
}


@pytest.mark.parametrize('flag', RANGES)
def test_numbers_have_their_ranges(flag, capsys):
    allowed, refused = (text.split() for text in RANGES[flag])
    for text in allowed:
        value = parsed(f'--{flag}={text}', command='eval_attribution')[flag]
        assert value == ([float(text)] if flag == 'iou_thresholds' else float(text))
    capsys.readouterr()  # that a flag has no effect
    for text in refused:
        line = refusal(capsys, f'--{flag}={text}', command='eval_attribution')
        assert f'--{flag}' in line and ('out of range: it must be' in line or 'not a number' in line)


def test_a_range_says_itself(capsys):
    assert '0 is out of range: it must be over 0 ' in refusal(capsys, '--lr=0')
    assert 'inf is out of range: it must be over 0, and finite ' in refusal(capsys, '--lr=inf')
    assert '-1 is out of range: it must be at least 0 and at most 1 ' in refusal(capsys, '--momentum=-1')
    assert "'x' is not a number" in refusal(capsys, '--lr=x')


@pytest.mark.parametrize('flag', ['use_bn', 'large_feature_map', 'pretrained', 'is_train', 'resume'])
def test_booleans_in_every_spelling(flag, capsys):
    for word in ('yes', 'true', 'on', 't', 'y', '1', 'True', 'YES'):
        assert parsed(f'--{flag}={word}')[flag] is True
    for word in ('no', 'false', 'off', 'f', 'n', '0', 'False', 'NO'):
        assert parsed(f'--{flag}={word}')[flag] is False
    assert parsed(f'--{flag}')[flag] is True
    assert 'True or False' in refusal(capsys, f'--{flag}=2')


def test_defaults_beside_the_released_ones():
    """The released ones: tests/test_commands.py."""
    args = parsed(command='eval_attribution')
    wanted = {
        'config': None,
        'resume': False,
        'gradient_reg': 0,
        'gradient_reg_error': 'cosine',
        'freeze_bn': False,
        'save_minutes': 30,
        'tensorboard': False,
        'amp': 'off',
        'channels_last': False,
        'compile': False,
        'sync_bn': False,
        'target_layer': None,
        'superclass': None,
        'random_repeats': 1,
        'scoremap_root': None,
        'mask_root': 'dataset/',
        'iou_thresholds': [30, 50, 70],
        'split': 'test',
        'methods': None,
        'metrics': None,
        'curve_steps': 32,
        'box_threshold': 0.2,
        'box_iou': 50,
        'pointing_tolerance': 15,
        'max_images': None,
        'log_folder': 'save/result',
    }
    assert {flag: args[flag] for flag in wanted} == wanted


def test_a_checkpoint_that_is_named_is_loaded_unless_told_otherwise():
    assert parsed('--load_checkpoint=x').use_load_checkpoint is True
    assert parsed('--load_checkpoint=x', '--use_load_checkpoint=False').use_load_checkpoint is False
    assert parsed().use_load_checkpoint is False and parsed('--use_load_checkpoint').use_load_checkpoint is True


def test_folders():
    """Quotes that a YAML file or a script left around them are no part of them."""
    args = parsed('--data_root="a b/"', '--mask_root="c/"', '--save_root=s', '--experiment_name=e/f')
    assert (args.data_root, args.mask_root, args.log_folder) == ('a b/', 'c/', 's/e/f')


def test_an_architecture_is_one_of_the_list_or_of_timm(capsys):
    assert parsed('--architecture=timm/convnext_tiny').architecture == 'timm/convnext_tiny'
    assert 'did you mean resnet50' in refusal(capsys, '--architecture=resnet5')
    assert 'unknown name' in refusal(capsys, '--architecture=timm/')


def test_going_on_and_beginning_anew_exclude_each_other(capsys):
    assert 'give one of them' in refusal(capsys, '--resume', '--override_cache')
    assert parsed('--resume').resume and parsed('--override_cache').override_cache


def test_a_list_given_twice_has_all_its_values():
    assert parsed('--images', 'a.jpg', 'b.jpg', '--images=c.jpg', command='inference').images == [
        'a.jpg',
        'b.jpg',
        'c.jpg',
    ]
    assert parsed('--iou_thresholds', '30', '--iou_thresholds', '60').iou_thresholds == [30, 60]
    assert parsed().iou_thresholds == [30, 50, 70]  # the default is not added to


def test_a_yaml_file_is_read_with_care(tmp_path, capsys):
    path = tmp_path / 'run.yaml'
    path.write_text('lr: 0.5\nuse_bn: true\niou_thresholds: [40, 60]\nload_checkpoint: here\n')
    args = parsed('--lr=.25', f'--config={path}')
    assert (args.lr, args.use_bn, args.iou_thresholds, args.use_load_checkpoint) == (0.25, True, [40, 60], True)
    for text, said in (
        ('', None),
        ('- 1\n', 'not a file of flag: value lines'),
        ('lr: [', 'run.yaml'),
        ('help: 1\n', 'unknown flags help'),
        ('config: x\nlearning: 1\n', 'unknown flags config, learning'),
        ('lr: 0.5\nuse_bn: true\nlr: 0.1\n', 'lr is given 2 times: keep one'),
        ('dataset: CUB\ndataset_name: ILSVRC\n', 'dataset and dataset_name are the same flag: keep one'),
    ):
        path.write_text(text)
        if said is None:
            assert parsed(f'--config={path}') == {**parsed(), 'config': str(path)}
        else:
            assert said in refusal(capsys, f'--config={path}')
    assert 'nowhere.yaml' in refusal(capsys, '--config=nowhere.yaml')


def test_a_yaml_value_is_what_the_command_line_would_take(tmp_path, capsys):
    """YAML itself would make False of off, 1 of 001, 5430 of 1:30:30, text of [a, b] and 'None' of null."""
    path = tmp_path / 'run.yaml'

    def of_file(text):
        path.write_text(text)
        return parsed(f'--config={path}')

    for nothing in ('null', '~', ''):
        args = of_file(f'seed: {nothing}\ntarget_layer: {nothing}\nepochs: {nothing}\nload_checkpoint: {nothing}\n')
        assert args == {**parsed(), 'config': str(path)}
    args = of_file('score_map_process: [vanilla, saliency]\ntarget_layer: [layer3, layer4]\n')
    assert (args.score_map_process, args.target_layer) == ('vanilla,saliency', 'layer3,layer4')
    args = of_file('amp: off\nuse_bn: on\npretrained: no\nexperiment_name: 001\nsave_root: 1:30:30\nlr: 1e-3\n')
    assert (args.amp, args.use_bn, args.pretrained) == ('off', True, False)
    assert (args.experiment_name, args.save_root, args.lr) == ('001', '1:30:30', 1e-3)
    assert of_file('experiment_name: "null"\nseed: "7"\n').log_folder == 'save/null'
    assert of_file('iou_thresholds: 40\n').iou_thresholds == of_file('iou_thresholds: [40]\n').iou_thresholds == [40]
    for text, said in (
        ('target_layer: {a: b}\n', "target_layer is {'a': 'b'}: give a value, or a list of values"),
        ('target_layer: [a, null]\n', 'give a value, or a list of values'),
        ('epochs: [1, 2]\n', "--epochs: '1,2' is not a number"),
    ):
        path.write_text(text)
        assert said in refusal(capsys, f'--config={path}')


@pytest.mark.parametrize('coding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_a_yaml_file_in_every_coding_that_says_itself(tmp_path, coding):
    path = tmp_path / 'run.yaml'
    path.write_bytes('experiment_name: blé\r\nepochs: 3\r\n'.encode(coding))
    args = parsed(f'--config={path}')
    assert (args.experiment_name, args.epochs) == ('blé', 3)


def test_a_yaml_file_in_another_coding_is_one_line(tmp_path, capsys):
    path = tmp_path / 'run.yaml'
    path.write_bytes('epochs: 3\nexperiment_name: blé\n'.encode('latin-1'))
    assert f'{path}, line 2: not UTF-8: save it as UTF-8' in refusal(capsys, f'--config={path}')


def test_records_are_picked_out_of_the_arguments():
    class Two(NamedTuple):
        epochs: int
        lr: float

    assert config.pick(Two, parsed('--epochs=3', '--lr=2')) == Two(3, 2.0)


def test_the_options_of_maps_are_the_flags(tmp_path):
    (tmp_path / 'sets.json').write_text(json.dumps({'0': [0, 2], '1': [1]}))
    args = parsed(
        '--batch_size=5',
        '--smooth_grad_nr_iter=6',
        '--smooth_grad_sigma=7',
        '--integrated_grad_nr_iter=8',
        '--target_layer=layer3,layer4',
        f'--superclass={tmp_path}/sets.json',
    )
    options = config.map_options(args, progress=True)
    assert (options.batch_size, options.smooth_grad_nr_iter, options.smooth_grad_sigma) == (5, 6, 7)
    assert (options.integrated_grad_nr_iter, options.target_layer) == (8, ['layer3', 'layer4'])
    assert options.superclass == {0: [0, 2], 1: [1]} and options.progress
    plain = config.map_options(parsed())
    assert plain == attribution.Options(batch_size=64) and plain.target_layer is None and plain.superclass is None


@pytest.mark.parametrize(
    'flags',
    [['--load_checkpoint=mine'], ['--use_load_checkpoint=True'], ['--scoremap_root=maps'], ['--config=own.yaml']],
)
def test_a_classifier_stands_alone(flags, tmp_path, monkeypatch, capsys):
    """What would be ignored beside it is refused, in a file of flags too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'own.yaml').write_text('load_checkpoint: mine\n')
    with pytest.raises(SystemExit) as ended:
        config.get_configs('', ['--classifier=resnet18', *flags])
    last = '--load_checkpoint=mine' if 'config' in flags[0] else flags[0].removesuffix('=True')
    assert ended.value.code == 2
    assert f'--classifier=resnet18 and {last}: give one of them' in capsys.readouterr().err
    assert config.get_configs('', ['--classifier=resnet18']).use_load_checkpoint is False
    assert config.get_configs('', ['--scoremap_root=maps', '--load_checkpoint=mine']).use_load_checkpoint is True


# What a flag is for.


def test_runs_begun_by_earlier_versions_are_gone_on_with():
    """The flags that may differ between a run and its --resume, as they were before the tables had them."""
    run = (
        'boxes config data_root experiment_name images labels mask_root masks metadata_root override_cache resume '
        'save_minutes save_root seed tensorboard workers'
    )
    training = (
        'em_decay em_teacher epochs freeze_bn gradient_reg gradient_reg_error is_different_checkpoint is_train '
        'load_checkpoint lr lr_classifier_ratio lr_decay_frequency momentum pretrained proxy_training_set resize_size '
        'sync_bn use_load_checkpoint weight_decay'
    )
    names = {name for command in flags.COMMANDS[:-1] for name in config.flags_of(command)}
    assert flags.names_of(flags.NOTHING, flags.PLACE) & names == {*run.split()}
    assert flags.names_of(flags.PLACE) == {'data_root', 'metadata_root'}
    assert flags.names_of(flags.TRAINING) == {*training.split()}
    assert flags.names_of(flags.TRAINING, grows=True) == {'epochs'}
    assert flags.names_of(flags.MAPS, grows=True) == {'methods'}


@pytest.mark.parametrize('command', flags.COMMANDS)
def test_help_shows_what_the_command_uses_and_fits_a_hundred_lines(command, monkeypatch):
    monkeypatch.setenv('COLUMNS', '100')
    lines = config.make_parser(importlib.import_module(command).__doc__, command).format_help().splitlines()
    assert len(lines) <= 100 and max(map(len, lines)) <= 100
    shown = {line.split()[0][2:] for line in lines if line.startswith('  --')} - {'help'}
    assert shown == {flag.name for flag in flags.FLAGS if command in flag.commands}
    assert ('lr' in shown) == (command == 'main') and ('norm_type' in shown) == (command == 'eval_cue_location')
    assert ('split' in shown) == (command in ('eval_wsol', 'inference'))


def test_every_flag_is_used_by_a_command_and_says_what_it_affects():
    kinds = {flags.NOTHING, flags.PLACE, flags.TRAINING, flags.NETWORK, flags.MAPS, flags.SCORES}
    for flag in flags.FLAGS:
        assert flag.affects in kinds and flag.help and flag.commands and {*flag.commands} <= {*flags.COMMANDS}, flag
    for command in flags.COMMANDS:
        used = [name for flag in flags.FLAGS if command in flag.commands for name in flag.names]
        assert len(used) == len({*used}), command


@pytest.mark.parametrize('command', [*flags.COMMANDS, None])
def test_one_list_of_flags_serves_every_command(command, tmp_path, capsys):
    """Each has in its arguments what it had before; what has no effect on it is named in one line, once."""
    words = [
        '--lr=.5',
        '--norm_type=max',
        '--contrast',
        'score',
        '--methods=jointll',
        '--images',
        'a',
        'b',
        '--split=val',
    ]
    args = parsed(*words, command=command)
    assert (args.lr, args.norm_type, args.split) == (0.5, 'max', 'val')
    lines = capsys.readouterr().err.splitlines()
    unused = {
        'main': '--norm_type, --split, --contrast, --methods, --images',
        'eval_pixel_perturb': '--lr, --norm_type, --split, --contrast, --methods, --images',
        'eval_cue_location': '--lr, --split, --methods, --images',
        'eval_wsol': '--lr, --norm_type, --contrast, --methods, --images',
        'eval_attribution': '--lr, --norm_type, --split, --contrast',
        'inference': '--lr, --norm_type, --contrast',
        None: '--contrast, --methods, --images',
    }[command]
    assert len(lines) == 1 and lines[0].endswith(f': no effect here: {unused}')
    assert args.get('images') == (['a', 'b'] if command in ('eval_attribution', 'inference') else None)
    assert args.get('methods') == ('jointll' if command == 'eval_attribution' else None)
    assert args.get('method') == ('jointll' if command == 'inference' else None)
    assert args.get('contrast') == ('score' if command == 'eval_cue_location' else None)
    path = tmp_path / 'run.yaml'
    path.write_text('lr: .5\nnorm_type: max\ncontrast: score\nmethods: jointll\nimages: [a, b]\nsplit: val\n')
    assert parsed(f'--config={path}', command=command) == {**args, 'config': str(path)}
    assert capsys.readouterr().err == ''


def test_the_first_process_alone_names_flags_without_effect(monkeypatch, capsys):
    monkeypatch.setenv('RANK', '1')
    assert parsed('--lr=.5', command='eval_wsol').lr == 0.5 and capsys.readouterr().err == ''


def test_the_command_line_wins_over_the_file_and_the_file_over_what_a_checkpoint_says(tmp_path):
    path = tmp_path / 'run.yaml'
    path.write_text('crop_size: 64\nuse_bn: true\n')
    given = config.given_flags('', [f'--config={path}', '--use_bn=False'], 'inference')
    args = config.complete(given, 'inference', crop_size=32, use_bn=True, architecture='vgg16')
    assert (args.crop_size, args.use_bn, args.architecture, args.batch_size) == (64, False, 'vgg16', 64)


def test_flags_that_no_command_has_are_refused(capsys):
    assert 'unrecognized arguments: --learning=1' in refusal(capsys, '--learning=1', command='main')
    assert 'unrecognized arguments: stray' in refusal(capsys, 'stray', command='main')
    assert "'3' is not a location" in refusal(capsys, '--at=3', command='inference')
    assert 'invalid choice' in refusal(capsys, '--score_map_process=jointll,vanilla', command='eval_wsol')
    assert 'did you mean jointll' in refusal(capsys, '--score_map_process=jointl', command='eval_pixel_perturb')


def test_options_without_a_default_are_numbers():
    args = parsed('--occlusion_window=8', '--num_samples=3')
    assert (args.occlusion_window, args.num_samples) == (8, 3)
