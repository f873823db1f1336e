"""The command line that all commands share: parser, defaults, YAML overlay, checks. Nothing else happens here."""

import argparse
import os
import sys
from dataclasses import fields
from typing import get_args

import yaml
from munch import Munch
from torchvision import models

import texts
import wsol
from data_loaders import DATASETS, read_superclasses
from wsol import attribution, regularization
from wsol.classifiers import is_file
from wsol.errors import UserError
from wsol.registry import did_you_mean

THRESHOLD_TYPES = ('even', 'log')
SCORE_MAP_METHODS = ('activation_map', 'backprop')
WSOL_SPLITS = ('val', 'test')
EM_TEACHERS = ('current', 'epoch', 'ema')
PRECISIONS = ('off', 'bf16', 'fp16')


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind each flag that has one, the description's lines as they are."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line on standard error, exit code 2."""

    def error(self, message):
        self.exit(2, f'{self.prog}: error: {message} (see --help)\n')


def str2bool(value):
    """'yes', 'true', 'on', 't', 'y', '1' and their opposites, in any case, to a bool."""
    if value.lower() in ('yes', 'true', 'on', 't', 'y', '1'):
        return True
    if value.lower() in ('no', 'false', 'off', 'f', 'n', '0'):
        return False
    raise argparse.ArgumentTypeError(f'{value!r} is not a boolean: give True or False')


def in_range(kind, low, high=None, open_low=False):
    """An argparse type: a number of `kind` with low <= value <= high (low < value with `open_low`)."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is not a number') from None
        if not (value > low if open_low else value >= low) or (high is not None and value > high):
            span = f'{"over" if open_low else "at least"} {low}' + (f' and at most {high}' if high is not None else '')
            raise argparse.ArgumentTypeError(f'{text} is out of range: it must be {span}')
        return value

    return parse


def architecture(names):
    """An argparse type: one of `names`, or timm/<name>, which is checked where the network is built; what is none of
    these is a name of torchvision, for a --classifier that is a file."""
    of_files = {*names, *models.list_models(module=models)}

    def parse(text):
        if text in of_files or text.startswith('timm/') and text != 'timm/':
            return text
        hint = did_you_mean(text, names)
        raise argparse.ArgumentTypeError(
            f'unknown name {text!r}: {hint}choose one of {", ".join(names)}, or timm/<name> of a timm model'
        )

    return parse


def _flag(group, name, default, text):
    group.add_argument(name, type=str2bool, nargs='?', const=True, default=default, metavar='BOOL', help=text)


def _add_run(group):
    group.add_argument(
        '--config', metavar='FILE.yaml', help='a file of flag: value lines; the command line wins over it'
    )
    group.add_argument('--experiment_name', default='result', help='folder of this run below --save_root')
    group.add_argument('--save_root', default='save', help='folder of all runs')
    group.add_argument(
        '--seed', type=in_range(int, 0), default=None, help='random seed; without it one is drawn and logged'
    )
    group.add_argument('--workers', type=in_range(int, 0), default=4, help='data loading processes')
    _flag(
        group,
        '--resume',
        False,
        'go on where an earlier call of the same command was stopped; begin where there was none',
    )
    _flag(
        group,
        '--override_cache',
        False,
        'allow results of an earlier run in the folder to be replaced; nothing is deleted',
    )


def _add_data(group):
    group.add_argument(
        '--dataset',
        '--dataset_name',
        dest='dataset',
        default='CUB',
        choices=tuple(DATASETS),
        help='data set; folder: photographs of your own, DIR/train/CLASS/*.jpg, with --data_root=DIR',
    )
    group.add_argument(
        '--data_root', default='dataset/', metavar='DIR', help='folder of the data sets; with --dataset=folder the set'
    )
    group.add_argument(
        '--metadata_root',
        default='metadata/',
        metavar='DIR',
        help="folder of the split files; with --dataset=folder an experiment's, which has its split.json",
    )
    _flag(group, '--proxy_training_set', False, 'train on image_ids_proxy.txt (ILSVRC: a tenth of the images)')
    group.add_argument(
        '--resize_size', type=in_range(int, 1), default=256, help='training images are resized to this square'
    )
    group.add_argument(
        '--crop_size',
        type=in_range(int, 1),
        default=224,
        help='random crop of training images, square size of test images',
    )


def _add_model(group):
    names = wsol.ARCHITECTURES
    group.add_argument(
        '--architecture',
        default='resnet18',
        type=architecture(names),
        metavar='NAME',
        help=f'backbone: {", ".join(names)}, or timm/<name> of a timm model (requirements-timm.txt)',
    )
    group.add_argument(
        '--attribution_method', default='CAM', choices=wsol.ATTRIBUTION_METHODS, help='head and training loss'
    )
    group.add_argument(
        '--classifier',
        metavar='NAME',
        help='a trained classifier as it is, in place of a checkpoint: timm/<name>, a torchvision name, or a file of '
        'weights with --architecture (main.py: its weights are where training starts)',
    )
    _flag(group, '--use_bn', False, 'batch norm in VGG and in the tail of Inception')
    _flag(group, '--large_feature_map', False, 'maps of 28x28 instead of 14x14 locations at 224 px')
    _flag(group, '--pretrained', True, 'start from ImageNet weights (torchvision, downloaded once)')
    group.add_argument(
        '--load_checkpoint',
        default=None,
        metavar='PATH',
        help='checkpoint file, or folder with last_checkpoint.pth.tar (also looked for below --save_root)',
    )
    _flag(
        group,
        '--use_load_checkpoint',
        None,
        'load a checkpoint: --load_checkpoint, or the one in the experiment folder '
        '(default: True when --load_checkpoint is given)',
    )
    _flag(
        group,
        '--is_different_checkpoint',
        False,
        'a training that starts from a checkpoint does not take conv_last from it, and '
        'the whole backbone learns at the small rate (CALM from CAM)',
    )


def _add_training(group):
    _flag(group, '--is_train', True, 'False: only evaluate on the test split')
    group.add_argument('--epochs', type=in_range(int, 1), default=40, help='training epochs')
    group.add_argument('--batch_size', type=in_range(int, 1), default=64, help='images per step')
    group.add_argument(
        '--lr', type=in_range(float, 0, open_low=True), default=0.01, help='learning rate of the backbone'
    )
    group.add_argument(
        '--lr_decay_frequency',
        type=in_range(int, 1),
        default=30,
        help='the rates fall to a tenth before every such epoch',
    )
    group.add_argument(
        '--lr_classifier_ratio', type=in_range(float, 0), default=10, help='rate of all other parameters, over --lr'
    )
    group.add_argument('--momentum', type=in_range(float, 0, 1), default=0.9, help='Nesterov momentum')
    group.add_argument('--weight_decay', type=in_range(float, 0), default=1e-4, help='L2 penalty')
    group.add_argument(
        '--gradient_reg',
        type=in_range(float, 0),
        default=0,
        metavar='LAMBDA',
        help='weight of the interpretable-gradient loss: error between the input gradient and its guided version',
    )
    group.add_argument(
        '--gradient_reg_error', default='cosine', choices=tuple(regularization.ERRORS), help="that loss's error"
    )
    group.add_argument(
        '--em_teacher',
        default='current',
        choices=EM_TEACHERS,
        help="CALM-EM: whose p'(z|x,y) is trained on, the current weights', those of the last epoch's end, or those of "
        'a running average',
    )
    group.add_argument(
        '--em_decay', type=in_range(float, 0, 1), default=0.99, help='decay of that running average, a step'
    )
    _flag(group, '--freeze_bn', False, 'batch norm keeps its statistics in training; its weights learn')
    group.add_argument(
        '--save_minutes',
        type=in_range(float, 0, open_low=True),
        default=30,
        help='a state to --resume from is saved at each epoch, and within one after so many minutes',
    )
    _flag(
        group,
        '--tensorboard',
        False,
        'write losses, accuracies, rates and maps of some validation images for TensorBoard',
    )


def _add_speed(group):
    group.add_argument(
        '--amp', default='off', choices=PRECISIONS, help='mixed precision of the network; losses stay in float32'
    )
    _flag(group, '--channels_last', False, 'channels-last memory format')
    _flag(group, '--compile', False, 'compile the network (torch.compile)')
    _flag(group, '--sync_bn', False, 'batch norm over the images of all processes (accelerators only)')


def _add_maps(group):
    group.add_argument(
        '--score_map_process', default='vanilla', choices=tuple(attribution.MAPS), help='the attribution map'
    )
    group.add_argument(
        '--target_layer',
        default=None,
        metavar='NAME[,NAME]',
        help='layers that the CAM family and the perturbation methods explain (default: the last feature layer)',
    )
    group.add_argument('--superclass', metavar='FILE.json', help='{"class": [classes]}, for the *-superclass maps')
    group.add_argument(
        '--score_map_method',
        default='activation_map',
        choices=SCORE_MAP_METHODS,
        help='backprop: gradient maps; input_grad where --score_map_process is a readout',
    )
    group.add_argument(
        '--smoothing_ksize',
        type=in_range(int, 1),
        default=1,
        help='Gaussian smoothing of gradient maps, in pixels; 1: none',
    )
    group.add_argument(
        '--norm_type',
        default='minmax',
        choices=tuple(attribution.NORMALIZATIONS),
        help='how a map is brought to [0, 1]',
    )
    group.add_argument(
        '--threshold_type', default='even', choices=THRESHOLD_TYPES, help='spacing of the score thresholds'
    )
    group.add_argument(
        '--cam_curve_interval',
        type=in_range(float, 0, 1, open_low=True),
        default=0.001,
        help='distance of the thresholds',
    )
    for option in fields(attribution.Options):
        if 'help' in option.metadata:
            kind, *_ = get_args(option.type) or [option.type]  # `int | None` is a number too
            allowed = in_range(kind, option.metadata['low'], open_low=kind is float)
            group.add_argument(f'--{option.name}', type=allowed, default=option.default, help=option.metadata['help'])
    group.add_argument(
        '--random_repeats', type=in_range(int, 1), default=1, help='random masks per image and k in remove-and-classify'
    )


def _add_wsol(group):
    group.add_argument(
        '--scoremap_root',
        default=None,
        metavar='DIR',
        help='score the saved maps DIR/<image id>.npy instead of a checkpoint',
    )
    group.add_argument(
        '--mask_root', default='dataset/', metavar='DIR', help='folder that holds OpenImages/ with the masks'
    )
    group.add_argument(
        '--iou_thresholds',
        type=in_range(int, 1, 100),
        nargs='+',
        default=[30, 50, 70],
        metavar='PERCENT',
        help='IoU thresholds that MaxBoxAccV2 averages over',
    )
    group.add_argument('--split', default='test', choices=WSOL_SPLITS, help='split that is scored')


def make_parser(description, add=None):
    """The parser; add(parser) adds the flags that one command alone has."""
    parser = Parser(description=description, formatter_class=Formatter)
    _add_run(parser.add_argument_group('run'))
    _add_data(parser.add_argument_group('data'))
    _add_model(parser.add_argument_group('model'))
    _add_training(parser.add_argument_group('training'))
    _add_speed(parser.add_argument_group('speed'))
    _add_maps(parser.add_argument_group('maps and scores'))
    _add_wsol(parser.add_argument_group('weakly supervised localization (eval_wsol.py)'))
    if add:
        add(parser)
    return parser


class _AsWritten(yaml.SafeLoader):
    """YAML whose scalars are the text that stands there, as the command line has it; null alone keeps its meaning.

    YAML itself would read `off` as False, 001 as 1 and 1:30 as 90.
    """

    yaml_implicit_resolvers = {
        first: [rule for rule in rules if rule[0] == 'tag:yaml.org,2002:null']
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _words(action, value):
    """The command-line words of a flag with a YAML value; None where it is no text and no list of texts.

    null: the flag is not given. A list is as many words where the flag takes several, else a comma list.
    """
    values = value if isinstance(value, list) else [value]
    if value is None:
        return []
    if not all(isinstance(one, str) for one in values):
        return None
    name = action.option_strings[0]
    return [name, *values] if action.nargs == '+' else [f'{name}={",".join(values)}']


def read_yaml(path):
    """{flag: text, list of texts or None} of a YAML file; what cannot be read is a UserError."""
    try:
        values = yaml.load(texts.read_text(path), _AsWritten) or {}
    except yaml.YAMLError as error:
        raise UserError(' '.join(str(error).split())) from None
    if not isinstance(values, dict):
        raise UserError('not a file of flag: value lines')
    return values


def _yaml_arguments(parser, path):
    """The command-line words that say what a YAML file says."""
    try:
        values = read_yaml(path)
    except UserError as error:
        parser.error(f'--config {path}: {error}')
    actions = {option.lstrip('-'): action for action in parser._actions for option in action.option_strings}
    unknown = sorted(str(key) for key in values if key not in actions or key in ('config', 'help', 'h'))
    if unknown:
        parser.error(f'--config {path}: unknown flags {", ".join(unknown)}')
    words = {key: _words(actions[key], value) for key, value in values.items()}
    for key in (key for key, found in words.items() if found is None):
        parser.error(f'--config {path}: {key} is {values[key]!r}: give a value, or a list of values')
    return [word for found in words.values() for word in found]


def several(names):
    """An argparse type: a comma list of `names`, each once."""

    def parse(text):
        chosen = [name.strip() for name in text.split(',')]
        for name in chosen:
            if name not in names:
                raise argparse.ArgumentTypeError(f'invalid choice: {name!r} (choose from {", ".join(names)})')
        return ','.join(dict.fromkeys(chosen))

    return parse


def _several_maps(parser):
    """--score_map_process becomes a list."""
    [action] = [action for action in parser._actions if action.dest == 'score_map_process']
    action.choices, action.type, action.metavar = None, several(tuple(attribution.MAPS)), 'NAME[,NAME]'
    action.help = 'the attribution map, or several with a result each; they share the forward pass'


def _map_of_backprop(name):
    """The map that --score_map_method=backprop means: the released one, whatever readout is named beside it."""
    return 'input_grad' if name in ('', *attribution.READOUTS, *attribution.SUPERCLASS_READOUTS) else name


def _check_one_network(parser, args):
    """A usage error where --classifier stands beside what would play no part then, or take its place."""
    checkpoint = f'--load_checkpoint={args.load_checkpoint}' if args.load_checkpoint else '--use_load_checkpoint'
    maps = f'--scoremap_root={args.scoremap_root}'
    for flag, given in ((checkpoint, args.use_load_checkpoint), (maps, args.scoremap_root)):
        if args.classifier and given:
            parser.error(f'--classifier={args.classifier} and {flag}: give one of them')


def _check_architecture(parser, args):
    """A usage error for a network that only a --classifier's file can be of."""
    name = args.architecture
    known = name is None or name in wsol.ARCHITECTURES or name.startswith('timm/')
    if not known and not (args.classifier and is_file(args.classifier)):
        parser.error(
            f'--architecture={name} is for --classifier=FILE of weights: else choose one of '
            f'{", ".join(wsol.ARCHITECTURES)}, or timm/<name> of a timm model'
        )


def get_configs(description, argv=None, add=None, several_maps=False):
    """The parsed arguments as a Munch, with `log_folder` = save_root/experiment_name. Mistakes end the program, exit
    code 2. several_maps: --score_map_process may be a comma list."""
    parser = make_parser(description, add)
    if several_maps:
        _several_maps(parser)
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    if args.config:
        args = parser.parse_args(_yaml_arguments(parser, args.config) + argv)
    if args.resume and args.override_cache:
        parser.error('--resume goes on with an earlier call, --override_cache begins anew: give one of them')
    if args.use_load_checkpoint is None:
        args.use_load_checkpoint = args.load_checkpoint is not None
    _check_one_network(parser, args)
    _check_architecture(parser, args)
    if args.score_map_method == 'backprop':
        names = map(_map_of_backprop, args.score_map_process.split(','))
        args.score_map_process = ','.join(dict.fromkeys(names))
    args.data_root = args.data_root.strip('"')
    args.mask_root = args.mask_root.strip('"')
    args.log_folder = os.path.join(args.save_root, args.experiment_name)
    return Munch(vars(args))


def pick(record, args):
    """The NamedTuple `record` made of the arguments that have its fields' names."""
    return record(**{name: args[name] for name in record._fields})


def map_options(args, progress=False):
    """`attribution.Options` as the flags say; progress: show a bar where a map takes long."""
    named = {option.name: args[option.name] for option in fields(attribution.Options) if 'help' in option.metadata}
    return attribution.Options(
        superclass=args.superclass and read_superclasses(args.superclass),
        batch_size=args.batch_size,
        progress=progress,
        target_layer=args.target_layer and args.target_layer.split(','),
        **named,
    )
