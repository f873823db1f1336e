"""The examples and recipes of docs/ do what they say, followed to the letter."""

import os
import re
import shutil

import pytest
from commands import run
from conftest import ROOT
from test_docs import PAGES, command_lines, marked, read


def test_every_marked_block_is_run_by_a_test():
    # the others: test_adapter, test_library_page
    here = {"this project's networks", 'recipe', 'python', 'commands'}
    elsewhere = {'any classifier', 'five lines', 'any scalar', 'layers', 'options'}
    for page in PAGES:
        assert {*re.findall(r'<!-- tested: (.*?) -->', read(page))} <= here | elsewhere, page


def test_the_example_with_this_projects_networks_runs():
    (block,) = marked(read('docs/library.md'), "this project's networks")
    names = {}
    exec(compile(block.code, 'docs/library.md', 'exec'), names)
    assert names['output'].probs.shape == (1, 200) and names['maps'].shape == (1, 28, 28)
    sums = names['maps'].sum(dim=(1, 2))  # cells add up to the probability
    assert sums.tolist() == pytest.approx(names['output'].probs[:, 7].tolist(), rel=1e-4)


def follow(instruction, code, root):
    """Do to the checkout `root` what the line before a recipe says."""
    path = os.path.join(root, re.search(r'`([\w/]+\.py)`', instruction)[1])
    if instruction.startswith('As a new file'):
        assert not os.path.exists(path)
        text, place = '', 0
    else:
        with open(path) as file:
            text = file.read()
        place = len(text)
    if instruction.startswith('Beside the imports'):
        place = re.search(r'^(from|import) ', text, re.M).start()
    elif registry := re.match(r'As a row of `(\w+)`', instruction):
        place = re.search(rf'^{registry[1]}(: [^=]+)? = {{\n?', text, re.M).end()
    elif statement := re.match(r'In `(\w+)` of `[\w/.]+`, after `([^`]+)`', instruction):
        start = text.index(f'def {statement[1]}(')
        place = text.index('\n', text.index(statement[2], start)) + 1
    else:
        assert instruction.startswith(('As a new file', 'At the end')), instruction
    with open(path, 'w') as file:
        file.write(text[:place] + code + text[place:])


def shell(words, root):
    """A command of a page, in the checkout `root`: what it prints."""
    assert words[0] == 'python'
    script, *arguments = words[1:]
    if script == '-c':  # what python is given on the command line
        script = 'recipe.py'
        (root / script).write_text(arguments.pop(0))
    code, out, err = run(os.path.join(root, script), *arguments, cwd=root)
    assert code == 0, (words, err)
    return out


@pytest.mark.slow
def test_the_recipes_work_as_printed(tmp_path):
    page = 'docs/extending.md'
    root = tmp_path / 'checkout'
    leave = ('.*', 'tests', 'docs', 'save', 'dataset', 'metadata', 'checkpoints', '__pycache__')
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*leave))
    recipes = marked(read(page), 'recipe')
    assert len(recipes) == len(re.findall('<!-- tested: recipe -->', read(page))) > 0
    for block in recipes:
        paragraph = block.before.rpartition('<!--')[0].rstrip().rpartition('\n\n')[2]
        follow(' '.join(paragraph.split()), block.code, root)
    (pictures,) = marked(read(page), 'python')
    shell(['python', '-c', pictures.code], root)
    (commands,) = marked(read(page), 'commands')
    *_, printed, table = [shell(words, root).splitlines() for words in command_lines(commands)]
    for name in ('vanilla', 'input_x_grad'):
        (line,) = [line for line in printed if line.startswith(f'{name}: ')]
        covered = re.search(r'object covered \(%\) ([\d.]+)', line)
        assert covered and 0 <= float(covered[1]) <= 100, line
        (row,) = [line for line in table if re.match(rf'\| {name} *\|', line)]
        assert re.search(rf'\| *{covered[1]} \[[\d.]+, [\d.]+\]', row), row  # with its interval
