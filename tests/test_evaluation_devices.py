"""Evaluators on an accelerator count what they count on the CPU; what they hold in memory does not grow with the
images."""

import gc
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from conftest import MINICUB
from test_evaluation import numbers, save_root, scores  # noqa: F401 (save_root is a fixture)

import eval_attribution
import eval_cue_location
import eval_pixel_perturb
import eval_wsol
from engine import processes
from engine.evaluation import Evaluator

pytestmark = pytest.mark.usefixtures('exact')
EVALUATORS = {
    'perturb': (eval_pixel_perturb, 'pixel_perturb_jointll.json', ['--score_map_process=jointll']),
    'gradients': (eval_pixel_perturb, 'pixel_perturb_input_grad.json', ['--score_map_process=input_grad']),
    'cue': (eval_cue_location, 'cue_location_jointll.json', ['--score_map_process=jointll', '--threshold_type=log']),
    'wsol': (eval_wsol, 'wsol_jointll.json', ['--score_map_process=jointll', '--cam_curve_interval=.05']),
    'scores': (
        eval_attribution,
        'attribution_scores.json',
        ['--methods=jointll,grad_cam', '--curve_steps=2', '--metrics=average_drop,loc_iou'],
    ),
}


@pytest.mark.parametrize('name', EVALUATORS)
def test_an_accelerator_counts_what_the_cpu_counts(name, accelerator, save_root, monkeypatch):  # noqa: F811
    command, result, flags = EVALUATORS[name]
    found = scores(command, result, save_root, monkeypatch, *flags, '--batch_size=8')
    monkeypatch.setattr(processes, 'accelerator', lambda: torch.device('cpu'))
    expected = scores(command, result, save_root, monkeypatch, *flags, '--batch_size=8', '--override_cache=True')
    np.testing.assert_allclose(numbers(found), numbers(expected), rtol=2e-3, atol=1e-6)


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    """The small set's test split twice over: 48 images."""
    root = tmp_path_factory.mktemp('many')
    shutil.copytree(f'{MINICUB}/metadata/CUB', root / 'metadata' / 'CUB')
    data = root / 'dataset' / 'CUB'
    shutil.copytree(f'{MINICUB}/dataset/CUB', data)
    test = root / 'metadata' / 'CUB' / 'test'
    ids = (test / 'image_ids.txt').read_text().split()
    copies = {image_id: f'{image_id[:-4]}_again.jpg' for image_id in ids}
    for image_id, other in copies.items():
        shutil.copy(data / 'images' / image_id, data / 'images' / other)
        shutil.copy(*(data / 'segmentations' / f'{name[:-4]}.png' for name in (image_id, other)))
    for name in ('image_ids', 'class_labels', 'image_sizes', 'localization'):
        lines = (test / f'{name}.txt').read_text().split()
        more = [copies[line.split(',')[0]] + line[len(line.split(',')[0]) :] for line in lines]
        (test / f'{name}.txt').write_text('\n'.join([*lines, *more]) + '\n')
    add_part_annotations(data, copies)
    return root


def add_part_annotations(data, copies):
    """The copies of an image have its parts: new numbers in CUB's own files."""
    rows = [line.split() for line in (data / 'images.txt').read_text().splitlines()]
    numbers_of = {}
    last = max(int(number) for number, _ in rows)
    for number, image_id in list(rows):
        if image_id in copies:
            last += 1
            rows.append([str(last), copies[image_id]])
            numbers_of[number] = str(last)
    (data / 'images.txt').write_text(''.join(f'{number} {image_id}\n' for number, image_id in rows))
    path = data / 'parts' / 'part_locs.txt'
    lines = path.read_text().splitlines()
    for line in list(lines):
        number, _, rest = line.partition(' ')
        lines += [f'{numbers_of[number]} {rest}'] if number in numbers_of else []
    path.write_text('\n'.join(lines) + '\n')


def held(device):
    """Bytes in memory: of Python and NumPy, and of tensors."""
    gc.collect()
    tensors = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in gc.get_objects()
               if type(one) is torch.Tensor}  # fmt: skip
    on_device = torch.cuda.memory_allocated(device) if device.type == 'cuda' else 0
    return tracemalloc.get_traced_memory()[0] + sum(tensors.values()) + on_device


def growth(name, root, save_root, monkeypatch, device, keep=None):  # noqa: F811
    """Bytes more after 48 images than after 16; keep: a list that takes the bytes of every batch, as a leak would."""
    command, result, flags = EVALUATORS[name]
    [evaluator] = [one for one in vars(command).values() if isinstance(one, type) and issubclass(one, Evaluator)]
    score = evaluator.score
    seen = []  # batches
    sizes = []  # after the second and the last one

    def measured(self, task, batch):
        made = score(self, task, batch)
        if task == self.tasks()[0]:
            if keep is not None:
                keep.append(np.zeros((8, 3, 32, 32), 'f'))
            del batch
            seen.append(len(seen))
            if seen[-1] in (1, 5):
                sizes.append(held(device))
        return made

    monkeypatch.setattr(evaluator, 'score', measured)
    monkeypatch.setattr(processes, 'accelerator', lambda: device)
    where = [f'--data_root={root}/dataset', f'--metadata_root={root}/metadata', '--batch_size=8', '--override_cache']
    tracemalloc.start()
    try:
        scores(command, result, save_root, monkeypatch, *flags, *where)
    finally:
        tracemalloc.stop()
    assert len(seen) == 6
    return sizes[1] - sizes[0]  # the batch before may still be held


IMAGE = 3 * 32 * 32 * 4  # bytes


@pytest.mark.parametrize('name', [name for name in EVALUATORS if name != 'gradients'])
@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(name, many, save_root, monkeypatch, device):  # noqa: F811
    """After 32 images more, not even the bytes of four are held."""
    assert growth(name, many, save_root, monkeypatch, device) < 4 * IMAGE


@pytest.mark.slow
def test_a_leak_is_found(many, save_root, monkeypatch, device):  # noqa: F811
    assert growth('cue', many, save_root, monkeypatch, device, keep=[]) > 23 * IMAGE
