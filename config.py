"""The command line of all commands: the parser built from `flags`, the YAML file, checks."""

import argparse
import copy
import os
import sys
import textwrap
from dataclasses import fields

import yaml
from munch import Munch

import flags
import wsol
from data import texts
from data.metadata import read_superclasses
from flags.row import boolean
from wsol import attribution
from wsol.classifiers import is_file
from wsol.errors import UserError


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help with the default of each flag and an unwrapped description."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line on standard error and exit code 2."""

    def error(self, message):
        self.exit(2, f'{self.prog}: error: {message} (see --help)\n')


class Narrow(argparse.HelpFormatter):
    """Help with one name per flag, filled paragraphs, and indented lines unchanged."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=32)

    def _format_action_invocation(self, action):
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f'{action.option_strings[0]} {value}'.strip()

    def _format_args(self, action, default_metavar):
        if action.nargs in ('?', '+'):  # BOOL, PATTERN...
            return action.metavar + ('...' if action.nargs == '+' else '')
        return super()._format_args(action, default_metavar)

    def _format_text(self, text):
        shown = super()._format_text(text)
        return shown.removesuffix('\n') if self._current_indent else shown  # no empty line within a group

    def _fill_text(self, text, width, indent):
        paragraphs = text.strip().split('\n\n')
        return '\n\n'.join(
            one if one.startswith(' ') else textwrap.fill(one, width, initial_indent=indent, subsequent_indent=indent)
            for one in paragraphs
        )


def _add(group, flag, shown):
    """Add a `flags.Flag` to a parser or group, without a default value; shown: in --help."""
    how = {'default': argparse.SUPPRESS, 'dest': flag.name, 'help': argparse.SUPPRESS, 'metavar': flag.metavar}
    if shown:
        default = ' '.join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
        shown_default = '' if default in (None, '') else f' (default: {default})'
        how['help'] = f'{flag.help}{shown_default}'.replace('%', '%%')
    if flag.kind is boolean:
        how.update(nargs='?', const=True, metavar='BOOL')
    elif flag.kind is not str and not isinstance(flag.kind, tuple):
        how['metavar'] = flag.metavar or 'N'
    if flag.many:
        how.update(nargs='+', action='extend')  # given twice, it has the values of both
    how['choices' if isinstance(flag.kind, tuple) else 'type'] = flag.kind
    group.add_argument(*(f'--{name}' for name in flag.names), **how)


def flags_of(command=None):
    """{name: `flags.Flag`} of a command's arguments; None: the arguments that all commands have.

    Of flags with the same name, the command's own is used.
    """
    found = {}
    for flag in flags.FLAGS:
        uses = command in flag.commands
        if uses or not flag.own and flag.name not in found:
            found[flag.name] = flag
    return found


def make_parser(description, command=None):
    """The parser of a command; its result has only the given flags. --help shows the command's flags; None: all."""
    usage = '%(prog)s [--flag=value ...]'
    more = 'Flags of other commands are accepted and have no effect, so that one YAML file works for all.'
    parser = Parser(usage=usage, description=description, formatter_class=Narrow, epilog=more, add_help=False)
    accepted = flags_of(command)
    for title, members in flags.GROUPS.items():
        members = [flag for flag in members if accepted.get(flag.name) is flag]
        shown = [flag for flag in members if command is None or command in flag.commands]
        listed = ' '.join(flag.listed for flag in shown if flag.listed)
        group = parser.add_argument_group(title, listed or None)
        if title == 'run':
            group.add_argument('--help', '-h', action='help', help='show this text')
        for flag in members:
            _add(group, flag, flag in shown)
    return parser


def _parse(parser, accepted, words):
    """Parse command-line words: ({name: value} of the `accepted` flags, the same for flags of other commands)."""
    others = Parser(prog=parser.prog, usage=parser.usage, add_help=False, allow_abbrev=False)
    known = {name for flag in accepted.values() for name in flag.names}
    for flag in flags.FLAGS:
        if known.isdisjoint(flag.names):
            known.update(flag.names)
            _add(others, flag, False)
    given, rest = parser.parse_known_args(words)
    return vars(given), vars(others.parse_args(rest))


class _AsWritten(yaml.SafeLoader):
    """A YAML loader that reads all scalars but null as text: plain YAML turns `off` into False and 001 into 1."""

    yaml_implicit_resolvers = {
        first: [rule for rule in rules if rule[0] == 'tag:yaml.org,2002:null']
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:  # plain YAML takes the last value
                raise UserError(f'{key} is given {keys.count(key)} times: keep one')
        return super().construct_mapping(node, deep)


def _words(flag, value):
    """The command-line words of a flag with a YAML value; None if it is neither text nor a list of texts.

    null gives no words. A list gives one word per item if the flag takes several, else comma-separated text.
    """
    values = value if isinstance(value, list) else [value]
    if value is None:
        return []
    if not all(isinstance(one, str) for one in values):
        return None
    return [f'--{flag.name}', *values] if flag.many else [f'--{flag.name}={",".join(values)}']


def read_yaml(path):
    """{flag: text, list of texts or None} of a YAML file; UserError if it cannot be read."""
    try:
        values = yaml.load(texts.read_text(path), _AsWritten) or {}
    except yaml.YAMLError as error:
        raise UserError(' '.join(str(error).split())) from None
    if not isinstance(values, dict):
        raise UserError('not a file of flag: value lines')
    return values


def _yaml_words(parser, accepted, path):
    """The command-line words equivalent to a YAML file."""
    try:
        values = read_yaml(path)
    except UserError as error:
        parser.error(f'--config {path}: {error}')
    known = {name: flag for flag in (*accepted.values(), *flags.FLAGS)[::-1] for name in flag.names}
    unknown = sorted(str(key) for key in values if key not in known or key == 'config')
    if unknown:
        parser.error(f'--config {path}: unknown flags {", ".join(unknown)}')
    for key in values:
        if twice := [other for other in values if other != key and known[other] is known[key]]:
            parser.error(f'--config {path}: {key} and {twice[0]} are the same flag: keep one')
    words = {key: _words(known[key], value) for key, value in values.items()}
    for key in (key for key, found in words.items() if found is None):
        parser.error(f'--config {path}: {key} is {values[key]!r}: give a value, or a list of values')
    return [word for found in words.values() for word in found]


def given_flags(description, argv=None, command=None):
    """{flag: value} of the command line and its --config file; the command line takes precedence.

    Errors exit with code 2. Command-line flags without effect on the command are listed on standard error.
    """
    parser = make_parser(description, command)
    accepted = flags_of(command)
    given, others = _parse(parser, accepted, sys.argv[1:] if argv is None else argv)
    unused = [*(name for name in given if command and command not in accepted[name].commands), *others]
    if given.get('config'):
        given = {**_parse(parser, accepted, _yaml_words(parser, accepted, given['config']))[0], **given}
    if given.get('resume') and given.get('override_cache'):
        parser.error('--resume continues an earlier run, --override_cache starts over: give one of them')
    _check_one_network(parser, given)
    _check_architecture(parser, given)
    if unused and os.environ.get('RANK', '0') == '0':
        named = ', '.join(f'--{name}' for name in unused)
        print(f'{parser.prog}: no effect here: {named}', file=sys.stderr, flush=True)
    return given


def _check_one_network(parser, given):
    """Usage error if --classifier is combined with a checkpoint or saved maps."""
    named = given.get('load_checkpoint')
    loaded = given.get('use_load_checkpoint', named is not None)
    checkpoint = f'--load_checkpoint={named}' if named else '--use_load_checkpoint'
    maps = given.get('scoremap_root')
    for flag, other in ((checkpoint, loaded), (f'--scoremap_root={maps}', maps)):
        if given.get('classifier') and other:
            parser.error(f'--classifier={given["classifier"]} and {flag}: give one of them')


def _check_architecture(parser, given):
    """Usage error for an architecture that is only valid with a --classifier file."""
    name = given.get('architecture')
    known = name is None or name in wsol.ARCHITECTURES or name.startswith('timm/')
    if not known and not (given.get('classifier') and is_file(given['classifier'])):
        parser.error(
            f'--architecture={name} needs --classifier=FILE with its weights; otherwise choose one of '
            f'{", ".join(wsol.ARCHITECTURES)}, or timm/<name> for a timm model'
        )


def defaults(command=None):
    """{flag: default} of a command's arguments; command as for `flags_of`."""
    return {name: copy.copy(flag.default) for name, flag in flags_of(command).items()}


def complete(given, command=None, **others):
    """The arguments of a command as a Munch: `given`, then `others`, then defaults; adds `log_folder`."""
    args = Munch({**defaults(command), **others, **given})
    if args.use_load_checkpoint is None:
        args.use_load_checkpoint = args.load_checkpoint is not None
    if args.score_map_method == 'backprop':
        names = map(_map_of_backprop, args.score_map_process.split(','))
        args.score_map_process = ','.join(dict.fromkeys(names))
    args.data_root = args.data_root.strip('"')
    args.mask_root = args.mask_root.strip('"')
    args.log_folder = os.path.join(args.save_root, args.experiment_name)
    return args


def get_configs(description, argv=None, command=None):
    """The arguments of a command line as a Munch; command: a name in flags.COMMANDS."""
    return complete(given_flags(description, argv, command), command)


def _map_of_backprop(name):
    """The map for --score_map_method=backprop: input_grad for every readout, as released."""
    return 'input_grad' if name in ('', *attribution.READOUTS, *attribution.SUPERCLASS_READOUTS) else name


def pick(record, args):
    """A `record`, a NamedTuple class, with the arguments named like its fields."""
    return record(**{name: args[name] for name in record._fields})


def map_options(args, progress=False):
    """The `attribution.Options` of the flags; progress: show a bar for slow maps."""
    named = {option.name: args[option.name] for option in fields(attribution.Options) if 'help' in option.metadata}
    return attribution.Options(
        superclass=args.superclass and read_superclasses(args.superclass),
        batch_size=args.batch_size,
        progress=progress,
        target_layer=args.target_layer and args.target_layer.split(','),
        **named,
    )
