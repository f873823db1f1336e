"""README and docs/: links lead somewhere, commands and flags exist, recipes work as printed, README stays short."""

import argparse
import ast
import csv
import functools
import glob
import importlib
import os
import re
import runpy
import shlex
import sys
from typing import NamedTuple

import pytest
from conftest import ROOT

PAGES = [
    page
    for page in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'metadata/README.md')
    if os.path.exists(os.path.join(ROOT, page))
] + sorted(os.path.relpath(path, ROOT) for path in glob.glob(os.path.join(ROOT, 'docs', '*.md')))

FOREIGN_FLAGS = {  # of other people's commands
    *('--nodes', '--gpus-per-node', '--cpus-per-task', '--ntasks-per-node', '--mail-type'),  # sbatch
    *('--dependency', '--partition', '--time'),
    *('--logger_type',),  # the released code's, dropped here
}
FOREIGN_FILES = {'eval_remove_classify.py'}  # of the released code
UNMADE = {  # written by commands, listed in a data set's folder, or a name of the reader's choice
    *('experiment_name/', 'checkpoint_name/', '.venv/', 'panels/', 'SAVE_ROOT/slurm/'),
    *('image_ids.txt', 'class_labels.txt', 'image_sizes.txt', 'localization.txt', 'FILE.yaml', 'attribution_scores.md'),
}
SCRIPT = re.compile(r'[\w./-]*\w\.(py|sh|sbatch)')
FILE = re.compile(r'[\w.-]+(/[\w.-]+)*/|[\w./-]*\w\.(py|sh|sbatch|toml|cff|md|yaml|txt)')
FLAG = re.compile(r'(?<![\w-])--[a-z][a-z_-]*[a-z]')


class Block(NamedTuple):
    """A fenced code block of a page."""

    language: str  # behind the fence; '' for none
    code: str  # its lines
    before: str  # the page's text before it


@functools.cache
def read(page):
    with open(os.path.join(ROOT, page), encoding='utf-8') as file:
        return file.read()


def blocks(text):
    """The code blocks of a page's text."""
    found = re.finditer(r'^```(\w*)\n(.*?)^```$', text, re.M | re.S)
    return [Block(match[1], match[2], text[: match.start()]) for match in found]


def marked(text, kind):
    """The code blocks of a page's text behind the comment <!-- tested: kind -->."""
    return [block for block in blocks(text) if block.before.rstrip().endswith(f'<!-- tested: {kind} -->')]


def prose(text):
    """A page's text without its code blocks and comments."""
    return re.sub(r'^```.*?^```$|<!--.*?-->', '', text, flags=re.M | re.S)


def inline_code(text):
    """The `code` in a page's prose, on one line each."""
    return [' '.join(code.split()) for code in re.findall(r'`([^`]+)`', prose(text))]


def anchors(text):
    """What #fragments lead to: the page's headings, as GitHub spells them."""
    headings = re.findall(r'^#+ (.*)$', prose(text), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.strip().lower()).replace(' ', '-') for heading in headings}


def broken_links(page, text):
    """The links of a page to files and headings of this checkout that are not there."""
    broken = []
    for link in re.findall(r'\]\(([^)\s]+)\)', prose(text)):
        if link.startswith(('http://', 'https://')):
            continue
        path, _, fragment = link.partition('#')
        target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        if not os.path.exists(os.path.join(ROOT, target)):
            broken.append(link)
        elif fragment and fragment not in anchors(text if target == page else read(target)):
            broken.append(link)
    return broken


# What commands there are, and what flags they take.


class _Parser(BaseException):
    """Carries a command's parser out of it, past whatever handles its errors."""


def _give_up(parser, *_args, **_options):
    raise _Parser(parser)


@functools.cache
def parser_of(path):
    """The parser of a Python command: the command runs until it would read its arguments. None: it reads none."""
    patch = pytest.MonkeyPatch()
    patch.setattr(argparse.ArgumentParser, 'parse_args', _give_up)
    patch.setattr(argparse.ArgumentParser, 'parse_known_args', _give_up)
    patch.setattr(sys, 'argv', [path])
    patch.setattr(sys, 'path', [os.path.dirname(os.path.join(ROOT, path)), ROOT, *sys.path])
    try:
        runpy.run_path(os.path.join(ROOT, path), run_name='__main__')
    except _Parser as found:
        return found.args[0]
    finally:
        patch.undo()
    return None


@functools.cache
def usage_flags(path):
    """The flags in the usage text, the comments, of a shell script and of the files beside it that it sources."""
    text = read(path)
    flags = {flag for line in text.splitlines() if line.startswith('#') for flag in FLAG.findall(line)}
    for name in re.findall(r'^\s*source .*?(\w+/)?(\w+\.sh)"?', text, re.M):
        for folder in (os.path.dirname(path), 'scripts', os.path.join('scripts', name[0])):
            if os.path.exists(os.path.join(ROOT, folder, name[1])) and os.path.join(folder, name[1]) != path:
                flags |= usage_flags(os.path.join(folder, name[1]))
                break
    return flags


@functools.cache
def scripts():
    """{file name: path} of what can be run: the commands, and all that lies in scripts/."""
    paths = [
        path
        for end in ('py', 'sh', 'sbatch')
        for path in glob.glob(f'scripts/**/*.{end}', root_dir=ROOT, recursive=True)
    ]
    paths += [path for name in ('*.py', 'benchmarks/*.py', 'studies/*.py') for path in glob.glob(name, root_dir=ROOT)]
    return {os.path.basename(path): path for path in paths}


def script_of(word):
    """The path of the script that a word of a command names, in full or by its file name; None where there is none."""
    if os.path.exists(os.path.join(ROOT, word)):
        return os.path.normpath(word)
    return scripts().get(word)


def flags_of(path, words=()):
    """The flags of a script; `words` are its arguments, which for some name another script."""
    if path.endswith('evaluate.sbatch') and words:
        return flags_of(words[0])
    if path.endswith('train.sbatch'):
        return flags_of('main.py')
    if not path.endswith('.py'):
        return usage_flags(path)
    parser = parser_of(path)
    started = next((word for word in words if word.endswith('.py')), None) if path.endswith('torchrun.py') else None
    return (set(parser._option_string_actions) if parser else set()) | (flags_of(started) if started else set())


@functools.cache
def all_flags():
    """Every flag that any command takes."""
    paths = [path for path in scripts().values() if not path.endswith('.py') or "__name__ == '__main__'" in read(path)]
    return {flag for path in paths for flag in flags_of(path)}


def command_lines(block):
    """The commands of a shell block, each a list of words."""
    lines = [shlex.split(line, comments=True) for line in block.code.replace('\\\n', ' ').splitlines()]
    return [line for line in lines if line]


def faults_of(words, whole=False):
    """What is wrong with a command, a list of words: a script or flags that do not exist; with `whole` values too."""
    place = next((i for i, word in enumerate(words) if SCRIPT.fullmatch(word)), None)
    if place is None:  # a command that is not ours
        return []
    path = script_of(words[place])
    if path is None:
        return [f'no script {words[place]}']
    arguments = words[place + 1 :]
    if '--' in arguments:  # what stands behind it is for another command
        arguments = arguments[: arguments.index('--')]
    flags = [word.partition('=')[0] for word in arguments if word.startswith('--')]
    known = flags_of(path, arguments) if flags else ()
    faults = [f'{path} has no {flag}' for flag in flags if flag not in known]
    if whole and path.endswith('.py') and not faults:
        try:
            parser_of(path).parse_args(arguments)
        except SystemExit:
            faults = [f'{path} refuses {" ".join(arguments)}']
    return faults


def command_faults(text):
    """What is wrong with the commands and flags of a page, in blocks and in the prose."""
    faults = []
    for block in blocks(text):
        if block.language == 'bash' and block not in marked(text, 'commands'):  # those need the recipes before them
            faults += [fault for words in command_lines(block) for fault in faults_of(words, whole=True)]
    for code in inline_code(text):
        words = code.replace("'", ' ').split()
        if any(SCRIPT.fullmatch(word) for word in words):
            faults += faults_of(words) if len(words) > 1 else []
            continue
        strange = [flag for flag in FLAG.findall(code) if flag not in all_flags() | FOREIGN_FLAGS]
        faults += [f'no command has {flag}' for flag in strange]
    return faults


def missing_files(text):
    """Files, folders and names of the library that a page mentions and that do not exist; recipes may make files."""
    made = {*re.findall(r'^As a new file `([\w/.]+)`', text, re.M)}
    words = {word for code in inline_code(text) for word in code.split()}
    files = {word for word in words if FILE.fullmatch(word) and not word.startswith(('save/', 'dataset/', 'photos/'))}
    files |= {*re.findall(r'configs/[\w.-]+\.yaml|requirements[\w-]*\.txt', text)}
    missing = [
        word
        for word in sorted(files - made - UNMADE - FOREIGN_FILES)
        if not os.path.exists(os.path.join(ROOT, word)) and word not in scripts()
    ]
    return missing + [word for word in sorted(words) if re.fullmatch(r'wsol(\.\w+)+', word) and not resolves(word)]


def resolves(name):
    """Is there an object of that dotted name?"""
    module, _, attribute = name.rpartition('.')
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(importlib.import_module(name))
    except ImportError:
        return False


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    assert broken_links(page, read(page)) == []


@pytest.mark.parametrize('page', PAGES)
def test_commands_and_flags_exist(page):
    assert command_faults(read(page)) == []


@pytest.mark.parametrize('page', [page for page in PAGES if page != 'CHANGELOG.md'])  # it names what has gone, too
def test_files_and_names_exist(page):
    assert missing_files(read(page)) == []


@pytest.mark.parametrize(
    'text, fault',
    [
        ('[x](docs/none.md)', 'docs/none.md'),
        ('[x](LICENSE) [x](#no-such-heading)\n# No such thing', '#no-such-heading'),
        ('[x](docs/glossary.md#no-such-word)', 'docs/glossary.md#no-such-word'),
        ('```bash\npython mian.py\n```', 'no script mian.py'),
        ('```bash\npython main.py --dataset=CUB --epoch 3\n```', 'main.py has no --epoch'),
        ('```bash\npython main.py --dataset=CUBS\n```', 'main.py refuses --dataset=CUBS'),
        ('```bash\npython main.py \\\n    --epochs=0\n```', 'main.py refuses --epochs=0'),
        (
            '```bash\nsbatch --nodes=2 scripts/slurm/train.sbatch --nodes=2\n```',
            'scripts/slurm/train.sbatch has no --nodes',
        ),
        ('```bash\nbash scripts/reproduce/wsol.sh --toys\n```', 'scripts/reproduce/wsol.sh has no --toys'),
        ('`--split` and `--no_such_flag`', 'no command has --no_such_flag'),
        ('`check_data.py --override_cache`', 'scripts/check_data.py has no --override_cache'),
        ('`tests/test_nothing.py` beside `tests/test_docs.py`', 'tests/test_nothing.py'),
        ('`wsol.build_model` and `wsol.build_models`', 'wsol.build_models'),
    ],
)
def test_a_fault_is_found(text, fault, capsys):
    found = broken_links('README.md', text) + command_faults(text) + missing_files(text)
    assert found == [fault]


def test_the_readme_is_short_and_leads_to_every_page():
    lines = read('README.md').splitlines()
    assert len(lines) <= 130 and max(map(len, lines)) <= 120
    for page in PAGES:
        if page.startswith('docs/'):
            assert f']({page})' in read('README.md'), page
            wide = [line for line in read(page).splitlines() if len(line) > 120 and not line.startswith('|')]
            assert wide == [], page


def test_every_table_beside_the_pages_is_linked_and_whole():
    """docs/tables/*.csv: a page leads to each, every row has a cell for every column, and no two rows are the same."""
    paths = sorted(glob.glob('docs/tables/*.csv', root_dir=ROOT))
    linked = {link for page in PAGES for link in re.findall(r'\]\((tables/[^)]+\.csv)\)', read(page))}
    assert paths and {os.path.relpath(path, 'docs') for path in paths} == linked
    for path in paths:
        head, *rows = csv.reader(read(path).splitlines())
        assert rows and all(head) and {len(row) for row in rows} == {len(head)}, path
        assert len({tuple(row) for row in rows}) == len(rows), path


def examples(description):
    """The commands that stand indented in a script's own help, each on one line, what is said beside them left out."""
    lines = [line for line in description.replace('\\\n', ' ').splitlines() if line.startswith('    ')]
    return [re.split(r'  +(?!-)|\s+[(#]', line.strip())[0] for line in lines]


@pytest.mark.parametrize('path', sorted(glob.glob('*.py', root_dir=ROOT)))
def test_the_examples_of_a_commands_help_can_be_pasted(path):
    """Each is one whole line of a shell, of this command (or of pip), with flags and values that it takes."""
    for line in examples(ast.get_docstring(ast.parse(read(path)), clean=False)):
        words = shlex.split(line)
        assert words[0] in ('python', 'pip') and words.count('python') < 2, line
        assert faults_of(words, whole='torchrun' not in line) == [], line


def test_examples_are_indented():
    """Else they run into the text."""
    for path in scripts().values():
        if path.endswith('.py'):
            assert not re.search(r'^python ', ast.get_docstring(ast.parse(read(path)), clean=False) or '', re.M), path


def text_files():
    """The paths of all code and configuration of this checkout, this file excepted."""
    endings = ('.py', '.sh', '.sbatch', '.yaml', '.yml', '.toml', '.txt', '.html', '.cff')
    for folder, inside, names in os.walk(ROOT):
        inside[:] = [
            name for name in inside if name not in ('.venv', '.git', 'dataset', 'metadata', 'save', 'checkpoints')
        ]
        paths = (os.path.join(folder, name) for name in names if name.endswith(endings))
        yield from (path for path in paths if path != os.path.abspath(__file__))


def test_what_the_code_says_of_the_documentation_is_there():
    """Messages, comments and other files name pages and sections: 'docs/data.md', 'README, Data'."""
    readme = read('README.md')
    titles = {*re.findall(r'^#+ (.*)$', readme, re.M), *re.findall(r'\[([^\]]+)\]\(', readme)}
    for path in text_files():
        text = read(path)
        for page, fragment in re.findall(r'(docs/\w+\.md)(?:#([\w-]+))?', text):
            assert page in PAGES and (not fragment or fragment in anchors(read(page))), (path, page, fragment)
        for title in re.findall(r'README, ([A-Z]\w*)', text):
            assert title in titles, (path, title)
