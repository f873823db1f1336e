"""The data scripts, run as a user runs them, on tiny archives and trees of the true inner layout, without a network."""

import contextlib
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import commands
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / 'scripts'
SHARED = ROOT.parent / 'shared'
REFUSED = 'http://127.0.0.1:9'  # an address that refuses connections: what being offline looks like

pytestmark = pytest.mark.slow


def run(script, *arguments, cwd=None, free=2**30, **variables):
    """(exit code, stdout, stderr) of a script that finds free KiB on its disk, whatever this machine has."""
    df = f'() {{ printf "Filesystem x x Available\\n/dev/x 9 9 {free} 99%% /\\n"; }}'
    variables = {'CALM_MIRROR': REFUSED, 'PYTHON': sys.executable, 'BASH_FUNC_df%%': df, **variables}
    if script.endswith('.py'):
        return commands.run(SCRIPTS / script, *arguments, cwd=cwd or os.getcwd(), **variables)
    words = ['bash', str(SCRIPTS / script), *map(str, arguments)]
    done = subprocess.run(words, cwd=cwd, text=True, capture_output=True, env={**os.environ, **variables})
    return done.returncode, done.stdout, done.stderr


def refused(result, *words):
    """Asserts exit code 2 and one line on standard error that holds all words."""
    code, _, error = result
    assert code == 2 and len(error.strip().splitlines()) == 1, result
    assert all(word in error for word in words), error


def picture(size=(8, 6), kind='JPEG', colour=90):
    data = io.BytesIO()
    Image.new('L' if kind == 'PNG' else 'RGB', size, colour if kind == 'PNG' else (colour,) * 3).save(data, kind)
    return data.getvalue()


def write_tree(root, tree):
    """Writes {relative path: bytes or str}."""
    for name, data in tree.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def replaced(root, tree):
    """Files below `root` with other content, as for `write_tree`."""
    before = {name: (root / name).read_bytes() for name in tree}
    write_tree(root, tree)
    yield
    write_tree(root, before)


def read_tree(root):
    """{relative path: bytes} of all files, hidden ones too, without the work folder of the prepare scripts."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(Path(root).rglob('*'))
        if path.is_file() and '.prepared' not in path.parts
    }


def tar_bytes(tree, mode='w'):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in tree.items():
            info = tarfile.TarInfo(name)
            content = content.encode() if isinstance(content, str) else content
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def zip_bytes(tree):
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w') as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return data.getvalue()


# ---- make_metadata.py


def test_cub_metadata_equals_the_published_files(tmp_path):
    if not (SHARED / 'cub_annotations').is_dir() or not (SHARED / 'cub_metadata').is_dir():
        pytest.skip(f'{SHARED} has no cub_annotations and cub_metadata')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'CUB').symlink_to(SHARED / 'cub_annotations')
    code, out, error = run(
        'make_metadata.py',
        '--dataset=CUB',
        f'--data_root={tmp_path}/data',
        f'--metadata_root={tmp_path}/new',
        f'--image_sizes={SHARED}/cub_metadata',
        cwd=tmp_path,
    )
    assert code == 0, error
    published = {name: data for name, data in read_tree(SHARED / 'cub_metadata').items() if not name.startswith('val')}
    assert len(published) == 8 and read_tree(tmp_path / 'new' / 'CUB') == published
    assert out.count('byte for byte') == 8


@pytest.fixture
def cub(tmp_path):
    """A CUB tree of three images, the last two of the training split."""
    tree = {
        'images.txt': '1 001.A/a.jpg\n2 001.A/b.jpg\n3 002.B/c.jpg\n',
        'image_class_labels.txt': '1 1\n2 1\n3 2\n',
        'train_test_split.txt': '1 0\n2 1\n3 1\n',
        'bounding_boxes.txt': '1 1.0 2.0 3.0 3.0\n2 0.0 0.0 10.0 6.0\n3 2.0 1.0 4.0 20.0\n',
        'images/001.A/a.jpg': picture(),
        'images/001.A/b.jpg': picture((10, 6)),
        'images/002.B/c.jpg': picture((7, 9)),
    }
    write_tree(tmp_path / 'data' / 'CUB', tree)
    return ('--dataset=CUB', f'--data_root={tmp_path}/data', f'--metadata_root={tmp_path}/meta', '--num_classes=2')


def test_cub_sizes_from_images_and_clipped_boxes(cub, tmp_path):
    assert run('make_metadata.py', *cub)[0] == 0
    files = read_tree(tmp_path / 'meta')
    assert files['CUB/train/image_sizes.txt'] == b'001.A/b.jpg,10,6\n002.B/c.jpg,7,9'
    assert files['CUB/train/localization.txt'] == b'001.A/b.jpg,0,0,9,5\n002.B/c.jpg,2,1,6,8'
    assert files['CUB/train/class_labels.txt'] == b'001.A/b.jpg,0\n002.B/c.jpg,1'
    assert files['CUB/test/localization.txt'] == b'001.A/a.jpg,1,2,4,5'


def test_make_metadata_overwrites_only_with_the_flag(cub, tmp_path):
    mine = tmp_path / 'meta' / 'CUB' / 'test' / 'class_labels.txt'
    write_tree(mine.parent, {mine.name: 'mine'})
    refused(run('make_metadata.py', *cub), 'class_labels.txt', '--overwrite')
    assert read_tree(tmp_path / 'meta') == {'CUB/test/class_labels.txt': b'mine'}
    assert run('make_metadata.py', *cub, '--overwrite')[0] == 0 and mine.read_text() == '001.A/a.jpg,0'
    assert run('make_metadata.py', *cub)[0] == 0  # the same again is no change


def test_make_metadata_names_what_is_wrong_and_writes_nothing(cub, tmp_path):
    refused(run('make_metadata.py', '--dataset=Birds'), 'Birds', 'CUB')
    refused(run('make_metadata.py', *cub[:3]), '2 classes instead of 200')
    refused(run('make_metadata.py', *cub, f'--image_sizes={tmp_path}/none'), f'{tmp_path}/none')
    (tmp_path / 'data/CUB/images/002.B/c.jpg').write_bytes(b'broken')
    refused(run('make_metadata.py', *cub), '002.B/c.jpg')
    assert not (tmp_path / 'meta').exists()


def annotation(*objects):
    """XML in the form of ILSVRC2012_bbox_val_v3: objects are (synset, xmin, ymin, xmax, ymax)."""
    rows = ''.join(
        f'<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>'
        '</object>'
        for name, a, b, c, d in objects
    )
    return f'<annotation><folder>val</folder>{rows}</annotation>'


@pytest.fixture
def imagenet(tmp_path):
    """Two synsets with two and one training images, two validation images, their XML files and a development kit."""
    val = 'ILSVRC2012_val_0000000'
    write_tree(
        tmp_path / 'data' / 'ILSVRC',
        {
            'train/n02/n02_9.JPEG': picture(),
            'train/n01/n01_18.JPEG': picture(),
            'train/n01/n01_10026.JPEG': picture(),
            f'val/{val}1.JPEG': picture((20, 10)),
            f'val/{val}2.JPEG': picture((10, 20)),
            f'Annotations/CLS-LOC/val/{val}1.xml': annotation(('n02', 1, 2, 20, 9), ('n02', 0, 0, 5, 5)),
            f'Annotations/CLS-LOC/val/{val}2.xml': annotation(('n01', 3, 4, 5, 6)),
        },
    )
    write_tree(
        tmp_path / 'kit' / 'data', {'ILSVRC2012_validation_ground_truth.txt': '1\n2\n', 'synsets.txt': 'n02\nn01\n'}
    )
    return ('--dataset=ILSVRC', f'--data_root={tmp_path}/data', f'--metadata_root={tmp_path}/meta', '--num_classes=2')


@pytest.mark.parametrize('devkit', [False, True])
def test_ilsvrc_metadata(imagenet, tmp_path, devkit):
    code, _, error = run('make_metadata.py', *imagenet, *([f'--devkit={tmp_path}/kit'] if devkit else []))
    assert code == 0, error
    val = 'val/ILSVRC2012_val_0000000'
    assert read_tree(tmp_path / 'meta' / 'ILSVRC') == {
        'train/image_ids.txt': b'train/n01/n01_10026.JPEG\ntrain/n01/n01_18.JPEG\ntrain/n02/n02_9.JPEG',
        'train/class_labels.txt': b'train/n01/n01_10026.JPEG,0\ntrain/n01/n01_18.JPEG,0\ntrain/n02/n02_9.JPEG,1',
        'train/image_sizes.txt': b'',
        'train/localization.txt': b'',
        'test/image_ids.txt': f'{val}1.JPEG\n{val}2.JPEG'.encode(),
        'test/class_labels.txt': f'{val}1.JPEG,1\n{val}2.JPEG,0'.encode(),
        'test/image_sizes.txt': f'{val}1.JPEG,20,10\n{val}2.JPEG,10,20'.encode(),
        'test/localization.txt': f'{val}1.JPEG,1,2,19,9\n{val}1.JPEG,0,0,5,5\n{val}2.JPEG,3,4,5,6'.encode(),
    }


def test_ilsvrc_annotation_of_two_classes_needs_the_ground_truth(imagenet, tmp_path):
    folder = tmp_path / 'data/ILSVRC/Annotations/CLS-LOC/val'
    write_tree(folder, {'ILSVRC2012_val_00000001.xml': annotation(('n02', 1, 2, 3, 4), ('n01', 0, 0, 5, 5))})
    refused(run('make_metadata.py', *imagenet), '--devkit')
    assert run('make_metadata.py', *imagenet, f'--devkit={tmp_path}/kit')[0] == 0
    assert (
        read_tree(tmp_path / 'meta')['ILSVRC/test/localization.txt'].count(b'\n') == 1
    )  # n01's box is not the image's
    shutil.rmtree(folder)
    refused(run('make_metadata.py', *imagenet), '--annotations')


def test_openimages_metadata(tmp_path):
    tree = {
        f'{split}/{name}': data
        for split in ('train', 'val', 'test')
        for name, data in {'0bt9lr/b1.jpg': picture(), '0bt_c3/a2.jpg': picture(), '0bt_c3/a1.jpg': picture()}.items()
    }
    for split in ('val', 'test'):
        for name in (
            '0bt9lr/b1_m0bt9lr_77',
            '0bt9lr/b1_m0bt9lr_12',
            '0bt9lr/b1_ignore',
            '0bt_c3/a1_m_a',
            '0bt_c3/a2_m_a',
        ):
            tree[f'{split}/{name}.png'] = picture(kind='PNG')
    write_tree(tmp_path / 'data' / 'OpenImages', tree)
    flags = (
        '--dataset=OpenImages',
        f'--data_root={tmp_path}/data',
        f'--metadata_root={tmp_path}/meta',
        '--num_classes=2',
    )
    code, _, error = run('make_metadata.py', *flags)
    assert code == 0, error
    files = read_tree(tmp_path / 'meta' / 'OpenImages')
    assert files['test/class_labels.txt'] == b'test/0bt9lr/b1.jpg,0\ntest/0bt_c3/a1.jpg,1\ntest/0bt_c3/a2.jpg,1'
    assert files['val/localization.txt'].decode().splitlines() == [
        'val/0bt9lr/b1.jpg,val/0bt9lr/b1_m0bt9lr_12.png,val/0bt9lr/b1_ignore.png',
        'val/0bt9lr/b1.jpg,val/0bt9lr/b1_m0bt9lr_77.png,',
        'val/0bt_c3/a1.jpg,val/0bt_c3/a1_m_a.png,',
        'val/0bt_c3/a2.jpg,val/0bt_c3/a2_m_a.png,',
    ]
    assert (
        not any(files[f'{split}/image_sizes.txt'] for split in ('train', 'val', 'test'))
        and files['train/localization.txt'] == b''
    )
    (tmp_path / 'data/OpenImages/test/0bt_c3/a1_m_a.png').unlink()
    refused(run('make_metadata.py', *flags), 'test/0bt_c3/a1.jpg')


# ---- fetch_metadata.sh


@pytest.fixture
def mirror(tmp_path):
    """A local copy of the CUB files of the protocol's repository."""
    if not (SHARED / 'cub_metadata').is_dir():
        pytest.skip(f'{SHARED} has no cub_metadata')
    shutil.copytree(SHARED / 'cub_metadata', tmp_path / 'mirror' / 'metadata' / 'CUB')
    subprocess.run(['chmod', '-R', 'u+w', tmp_path / 'mirror'], check=True)
    return tmp_path / 'mirror'


def test_fetch_metadata_checks_keeps_and_never_overwrites(mirror, tmp_path):
    meta = tmp_path / 'meta'
    fetch = ('fetch_metadata.sh', f'--metadata_root={meta}', 'CUB')
    local = {'CALM_MIRROR': mirror.as_uri()}
    code, out, error = run(*fetch, **local)
    assert code == 0 and '12 downloaded' in out, error
    assert read_tree(meta) == read_tree(mirror / 'metadata')
    assert '0 downloaded, 12 already present' in run(*fetch)[1]  # offline, nothing left to fetch
    (meta / 'CUB/val/localization.txt').write_text('mine')
    refused(run(*fetch, **local), 'CUB/val/localization.txt', 'not overwritten')
    assert (meta / 'CUB/val/localization.txt').read_text() == 'mine'


def test_fetch_metadata_refuses_wrong_content_and_offline(mirror, tmp_path):
    meta = tmp_path / 'meta'
    (mirror / 'metadata/CUB/test/class_labels.txt').write_text('changed\n')
    refused(
        run('fetch_metadata.sh', '--metadata_root', meta, 'CUB', CALM_MIRROR=mirror.as_uri()),
        'git blob',
        'class_labels.txt',
    )
    assert not read_tree(meta)
    shutil.rmtree(meta)
    refused(run('fetch_metadata.sh', '--metadata_root', meta), REFUSED, 'online')
    assert not meta.exists()
    refused(run('fetch_metadata.sh', 'Birds'), 'Birds', 'OpenImages')


def test_metadata_hashes_are_git_blob_ids(tmp_path):
    rows = [line.split() for line in (SCRIPTS / 'metadata_hashes.txt').read_text().splitlines() if line[:1] != '#']
    table = {row[2]: row[0] for row in rows if row[0] != 'source'}
    assert len(table) == 37 and {row[1] for row in rows if row[0] != 'source'} == {'derived', 'fetched'}
    ids = '\n'.join(
        f'val/ILSVRC2012_val_{number:08d}.JPEG' for number in range(1, 50001)
    ).encode()  # known without the file
    assert table['metadata/ILSVRC/test/image_ids.txt'] == hashlib.sha1(b'blob %d\0' % len(ids) + ids).hexdigest()


# ---- prepare_*.sh

CUB_TREE = {
    'attributes.txt': 'names',
    'CUB_200_2011/images.txt': 'i',
    'CUB_200_2011/images/001.A/a.jpg': 'jpg',
    'CUB_200_2011/parts/part_locs.txt': 'p',
    'CUB_200_2011/attributes/certainties.txt': 'c',
}
CUB_RESULT = {
    'CUB/attributes/attributes.txt': b'names',
    'CUB/images.txt': b'i',
    'CUB/images/001.A/a.jpg': b'jpg',
    'CUB/parts/part_locs.txt': b'p',
    'CUB/attributes/certainties.txt': b'c',
    'CUB/segmentations/001.A/a.png': b'png',
    'CUBV2/001.A/1.jpg': b'v2',
    'CUBV2/002.B/2.jpg': b'v2',
}
OPENIMAGES_EVALUATION = {  # of the images and masks that OpenImages has
    f'{split}/0c/{name}': split for split in ('val', 'test') for name in ('x.jpg', 'x_m0c_1.png')
}
OPENIMAGES_RESULT = {f'OpenImages/{name}': data.encode() for name, data in OPENIMAGES_EVALUATION.items()}


@pytest.fixture
def archives(tmp_path):
    write_tree(
        tmp_path / 'archives',
        {
            'CUB_200_2011.tgz': tar_bytes(CUB_TREE, 'w:gz'),
            'segmentations.tgz': tar_bytes({'segmentations/001.A/a.png': 'png'}, 'w:gz'),
            'CUBV2.tar': tar_bytes({'./001.A/1.jpg': 'v2', './002.B/2.jpg': 'v2'}),
            'OpenImages_images.zip': zip_bytes({f'{split}/0c/x.jpg': split for split in ('train', 'val', 'test')}),
            'OpenImages_annotations.zip': zip_bytes({f'{split}/0c/x_m0c_1.png': split for split in ('val', 'test')}),
            'OpenImages30k_eval.zip': zip_bytes(OPENIMAGES_EVALUATION),
        },
    )
    return ('--archives', tmp_path / 'archives', '--data_root', tmp_path / 'data', '--no_checksum')


def test_prepare_cub_twice(archives, tmp_path):
    code, _, error = run('prepare_cub.sh', *archives, cwd=tmp_path)
    assert code == 0, error
    assert read_tree(tmp_path / 'data') == CUB_RESULT
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'data').rglob('*')}
    code, out, _ = run('prepare_cub.sh', *archives)
    assert code == 0 and out.count('already done') == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / 'data').rglob('*')} == before
    assert sorted(path.name for path in (tmp_path / 'data/.prepared').iterdir()) == [
        'cubv2.done',
        'images.done',
        'segmentations.done',
    ]


def test_prepare_cub_goes_on_after_a_cut(archives, tmp_path):
    work = tmp_path / 'data' / '.prepared'
    write_tree(work / 'images.raw', {'CUB_200_2011/half.txt': 'half'})  # killed while it unpacked
    write_tree(work / 'images.stage', {'CUB/half.txt': 'half'})
    write_tree(work / 'cubv2.stage', {'CUBV2/002.B/2.jpg': 'v2'})  # killed while it moved
    write_tree(work, {'cubv2.stage.moving': ''})
    write_tree(tmp_path / 'data' / 'CUBV2', {'001.A/1.jpg': 'v2'})
    code, _, error = run('prepare_cub.sh', *archives)
    assert code == 0, error
    assert read_tree(tmp_path / 'data') == CUB_RESULT and not list(work.glob('*.stage*')) + list(work.glob('*.raw'))


def test_prepare_cub_interrupted_leaves_nothing_half_written(archives, tmp_path):
    write_tree(tmp_path / 'bin', {'tar': '#!/bin/sh\n' + shutil.which('tar') + ' "$@"; : > "$MARK"; sleep 600\n'})
    (tmp_path / 'bin/tar').chmod(0o755)
    process = subprocess.Popen(
        ['bash', SCRIPTS / 'prepare_cub.sh', *archives],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, 'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}', 'MARK': str(tmp_path / 'unpacked')},
    )
    while not (tmp_path / 'unpacked').exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() != 0 and (tmp_path / 'unpacked').exists()
    assert not read_tree(tmp_path / 'data') and not list((tmp_path / 'data/.prepared').iterdir())
    assert run('prepare_cub.sh', *archives)[0] == 0 and read_tree(tmp_path / 'data') == CUB_RESULT


def test_prepare_cub_refuses_wrong_archives(archives, tmp_path):
    refused(run('prepare_cub.sh', *archives[:4]), 'md5', '97eceeb196236b17998738112f37df78', '--no_checksum')
    write_tree(tmp_path / 'archives', {'CUBV2.tar': tar_bytes({'other/x.jpg': 'x'})})
    refused(run('prepare_cub.sh', *archives, 'cubv2'), 'CUBV2.tar', 'layout')
    write_tree(tmp_path / 'archives', {'CUBV2.tar': '<html>sign in</html>'})
    refused(run('prepare_cub.sh', *archives, 'cubv2'), 'CUBV2.tar', 'cannot be unpacked')
    assert not read_tree(tmp_path / 'data')
    refused(run('prepare_cub.sh', 'birds'), 'birds', 'segmentations')
    refused(run('prepare_cub.sh', '--archives', tmp_path / 'none'), 'none', 'not a folder')


def test_prepare_cub_never_overwrites(archives, tmp_path):
    write_tree(tmp_path / 'data', {'CUB/images.txt': 'mine', 'CUBV2/001.A/1.jpg': 'v2'})
    refused(run('prepare_cub.sh', *archives, 'images'), 'CUB/images.txt', 'nothing was changed')
    assert read_tree(tmp_path / 'data') == {'CUB/images.txt': b'mine', 'CUBV2/001.A/1.jpg': b'v2'}
    assert run('prepare_cub.sh', *archives, 'cubv2')[0] == 0  # the same file is no conflict
    assert len(read_tree(tmp_path / 'archives')) == 6


def test_prepare_downloads_from_a_mirror_and_stops_offline(archives, tmp_path):
    fresh = ('--data_root', tmp_path / 'data')
    refused(run('prepare_cub.sh', *fresh), 'cannot download', REFUSED)
    refused(run('prepare_openimages.sh', *fresh), 'cannot download', REFUSED)
    assert not (tmp_path / 'data').exists()
    code, _, error = run('prepare_cub.sh', *fresh, '--no_checksum', CALM_MIRROR=(tmp_path / 'archives').as_uri())
    assert code == 0, error
    kept = {name: data for name, data in read_tree(tmp_path / 'data').items() if '/' in name}
    assert kept == CUB_RESULT


def test_prepare_checks_the_free_space_first(archives, tmp_path):
    refused(run('prepare_cub.sh', *archives, free=0), 'GiB free', 'which has 0.0', '--data_root')
    assert not read_tree(tmp_path / 'data')


def test_prepare_openimages_merges_masks_into_the_class_folders(archives, tmp_path):
    code, _, error = run('prepare_openimages.sh', *archives)
    assert code == 0, error
    assert read_tree(tmp_path / 'data') == {
        **{f'OpenImages/{split}/0c/x.jpg': split.encode() for split in ('train', 'val', 'test')},
        **{f'OpenImages/{split}/0c/x_m0c_1.png': split.encode() for split in ('val', 'test')},
    }


def test_prepare_openimages_for_evaluation_only(archives, tmp_path):
    code, _, error = run('prepare_openimages.sh', *archives, 'evaluation')
    assert code == 0 and read_tree(tmp_path / 'data') == OPENIMAGES_RESULT, error
    assert run('prepare_openimages.sh', *archives)[0] == 0  # what both archives hold is no conflict
    assert read_tree(tmp_path / 'data') == {**OPENIMAGES_RESULT, 'OpenImages/train/0c/x.jpg': b'train'}
    write_tree(tmp_path / 'archives', {'OpenImages30k_eval.zip': zip_bytes({'test/0c/x.jpg': 'test'})})
    other = (*archives[:2], '--data_root', tmp_path / 'other')
    refused(run('prepare_openimages.sh', *other, 'evaluation'), 'OpenImages30k_eval.zip', 'val and test')


def test_prepare_imagenet(tmp_path):
    inner = {
        f'{synset}.tar': tar_bytes({f'{synset}_{number}.JPEG': synset for number in (1, 2)})
        for synset in ('n01', 'n02')
    }
    names = [f'{letter * 40}.jpeg' for letter in 'ab']
    write_tree(
        tmp_path / 'archives',
        {
            'ILSVRC2012_img_train.tar': tar_bytes(inner),
            'ILSVRC2012_img_val.tar': tar_bytes({'ILSVRC2012_val_00000001.JPEG': 'v'}),
            'ILSVRC2012_bbox_val_v3.tgz': tar_bytes({'val/ILSVRC2012_val_00000001.xml': 'x'}, 'w:gz'),
            'imagenetv2-threshold0.7.tar.gz': tar_bytes(
                {f'imagenetv2-threshold0.7/{c}/{name}': f'{c}{name}' for c in (0, 10) for name in names}, 'w:gz'
            ),
        },
    )
    flags = ('--archives', tmp_path / 'archives', '--data_root', tmp_path / 'data', '--no_checksum')
    write_tree(
        tmp_path / 'data',
        {
            '.prepared/train.synsets': 'n01\n',
            'ILSVRC/train/n01/n01_1.JPEG': 'done before',
            '.prepared/train.stage/half.JPEG': 'cut off here',
        },
    )
    refused(run('prepare_imagenet.sh', *flags), 'mapping.txt', REFUSED)  # val and train are done before it
    write_tree(
        tmp_path / 'archives',
        {
            'mapping.txt': ''.join(
                f'{c}/{number}.jpeg, {c}/{name}\n' for c in (0, 10) for number, name in enumerate(names)
            )
        },
    )
    code, out, error = run('prepare_imagenet.sh', *flags, 'val', 'train', 'val2', 'boxes')
    assert code == 0, error
    assert 'val: already done' in out
    assert read_tree(tmp_path / 'data') == {
        'ILSVRC/train/n01/n01_1.JPEG': b'done before',
        'ILSVRC/train/n02/n02_1.JPEG': b'n02',
        'ILSVRC/train/n02/n02_2.JPEG': b'n02',
        **{
            f'ILSVRC/val2/{c}/{number}.jpeg': f'{c}{name}'.encode()
            for c in (0, 10)
            for number, name in enumerate(names)
        },
        'ILSVRC/val/ILSVRC2012_val_00000001.JPEG': b'v',
        'ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml': b'x',
    }
    assert not list((tmp_path / 'data/.prepared').glob('*stage*'))
    refused(
        run('prepare_imagenet.sh', '--data_root', tmp_path / 'other', 'train'), 'ILSVRC2012_img_train.tar', 'account'
    )
    assert not (tmp_path / 'other').exists()


# ---- prepare_evaluation_data.sh


def test_prepare_evaluation_data_downloads_nothing_that_only_training_needs(archives, tmp_path):
    val2 = {f'imagenetv2-threshold0.7/{c}/0.jpeg': f'{c}' for c in (0, 10)}
    val = {'ILSVRC2012_val_00000001.JPEG': 'v'}
    write_tree(tmp_path / 'archives', {'imagenetv2-threshold0.7.tar.gz': tar_bytes(val2, 'w:gz')})
    write_tree(tmp_path / 'account', {'ILSVRC2012_img_val.tar': tar_bytes(val)})
    flags = ('--data_root', tmp_path / 'data', '--no_checksum')
    mirror = {'CALM_MIRROR': (tmp_path / 'archives').as_uri()}
    code, _, error = run('prepare_evaluation_data.sh', *flags, **mirror)  # ImageNet's val cannot be downloaded
    assert code == 2 and 'ILSVRC2012_img_val.tar' in error and 'account' in error
    assert error.splitlines()[-1].startswith('prepare_evaluation_data.sh: error: not prepared: ILSVRC')
    found = read_tree(tmp_path / 'data')
    assert {name for name in found if '/' not in name} == {  # every archive but those of training images alone
        *('CUB_200_2011.tgz', 'segmentations.tgz', 'CUBV2.tar'),
        *('OpenImages30k_eval.zip', 'imagenetv2-threshold0.7.tar.gz'),
    }
    expected = {**CUB_RESULT, **OPENIMAGES_RESULT, **{f'ILSVRC/val2/{c}/0.jpeg': f'{c}'.encode() for c in (0, 10)}}
    assert {name: data for name, data in found.items() if '/' in name} == expected
    done = run('prepare_evaluation_data.sh', *flags, '--archives', tmp_path / 'account')  # offline
    assert done[0] == 0 and done[1].count('already done') == 5, done
    found = read_tree(tmp_path / 'data')
    assert {name: data for name, data in found.items() if '/' in name} == {
        **expected,
        'ILSVRC/val/ILSVRC2012_val_00000001.JPEG': b'v',
    }


def test_prepare_evaluation_data_of_one_set(archives, tmp_path):
    code, _, error = run('prepare_evaluation_data.sh', *archives, 'OpenImages')
    assert code == 0 and read_tree(tmp_path / 'data') == OPENIMAGES_RESULT, error
    refused(run('prepare_evaluation_data.sh', *archives, 'Birds'), 'Birds', 'CUB OpenImages ILSVRC')


# ---- download_checkpoints.sh


def test_download_checkpoints(tmp_path):
    target = tmp_path / 'checkpoints' / 'CALM-EM_CUB' / 'last_checkpoint.pth.tar'
    flags = ('download_checkpoints.sh', '--checkpoints', tmp_path / 'checkpoints', 'CALM-EM_CUB')
    refused(run('download_checkpoints.sh', 'CALM-EM_Birds'), 'CALM-EM_Birds', 'CALM-ML_ILSVRC')
    refused(run(*flags, PYTHONPATH='', PYTHON=shutil.which('false') or 'false'), 'gdown', '--install_gdown')
    write_tree(
        tmp_path / 'fake', {'gdown/__init__.py': '', 'gdown/__main__.py': 'import sys; sys.exit("no route to host")'}
    )
    fake = {'PYTHONPATH': str(tmp_path / 'fake')}
    refused(run(*flags, **fake), '1XfBEc1Lh24WqJZP1aLLrwGSlj_INMVef', 'no route to host')
    assert not read_tree(tmp_path / 'checkpoints')
    sends = 'import sys; open(sys.argv[sys.argv.index("-O") + 1], "wb").write({data!r})'
    write_tree(tmp_path / 'fake', {'gdown/__main__.py': sends.format(data=b'<html>quota</html>')})
    refused(run(*flags, **fake), 'not a checkpoint')
    write_tree(
        tmp_path / 'fake',
        {'gdown/__main__.py': sends.format(data=zip_bytes({'run/last_checkpoint.pth.tar': b'weights'}))},
    )
    code, out, error = run(*flags, **fake)
    digest = hashlib.sha256(b'weights').hexdigest()
    assert code == 0 and digest in out, error
    assert read_tree(tmp_path / 'checkpoints') == {
        f'CALM-EM_CUB/{target.name}': b'weights',
        f'CALM-EM_CUB/{target.name}.sha256': f'{digest}  {target.name}\n'.encode(),
    }
    assert 'kept' in run(*flags)[1]
    target.write_bytes(b'other')
    refused(run(*flags), 'recorded')


# ---- check_data.py


@pytest.fixture
def checked(cub, tmp_path):
    """A complete CUB tree (without val) and the flags that check it."""
    assert run('make_metadata.py', *cub)[0] == 0
    write_tree(
        tmp_path / 'data' / 'CUB',
        {
            'segmentations/001.A/a.png': picture(kind='PNG'),
            'parts/part_locs.txt': '1 2 3.0 4.0 1\n2 2 3.0 4.0 1\n3 2 3.0 4.0 0\n',
            'attributes/attributes.txt': '1 has_crown_color::red\n2 has_wing_color::red\n',
            'attributes/class_attribute_labels_continuous.txt': '100 0\n0 0\n',
        },
    )
    return (*cub[:3], '--splits', 'train', 'test', '--workers=2')


@pytest.fixture
def check_data(monkeypatch):
    """The module (loaded here once: it imports torch)."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import check_data

    return check_data


def check(module, capsys, *flags):
    """(exit code, stdout, stderr) of check_data.py, called in this process."""
    with pytest.raises(SystemExit) as exit_:
        module.main(flags)
    return (exit_.value.code, *capsys.readouterr())


def test_check_data_finds_each_fault(checked, tmp_path, check_data, capsys):
    code, out, error = run('check_data.py', *checked)
    assert code == 1 and out.count('wrong count: 1') == 2 and out.count('    ') == 2, (
        out,
        error,
    )  # only the published counts
    assert check(check_data, capsys, *checked, '--own_split')[0] == 0
    data = tmp_path / 'data' / 'CUB'
    meta = tmp_path / 'meta' / 'CUB'
    (data / 'images/001.A/b.jpg').unlink()
    (data / 'images/002.B/c.jpg').write_bytes(picture((7, 9))[:-200])
    (data / 'images/001.A/a.jpg').write_bytes(picture((9, 6)))
    (data / 'segmentations/001.A/a.png').unlink()
    (data / 'parts/part_locs.txt').unlink()
    (meta / 'train/class_labels.txt').write_text('001.A/b.jpg,200\n')
    (meta / 'test/localization.txt').write_text('001.A/a.jpg,1,2,8,5\n')
    code, out, _ = check(check_data, capsys, *checked)
    assert code == 1
    for fault in (
        'missing image',
        'unreadable image',
        'wrong size',
        'missing segmentation',
        'missing table',
        'label out of range',
        'no label',
        'bad box',
    ):
        assert out.count(f'{fault}: 1\n') == 1, (fault, out)


def test_check_data_reads_the_part_tables_and_segmentations(checked, tmp_path, check_data, capsys):
    data = tmp_path / 'data' / 'CUB'
    flags = (*checked, '--own_split')

    def faults(**tables):
        with replaced(data, tables):
            return check(check_data, capsys, *flags)[1]

    assert '2 found wrong' not in faults()
    locations = 'parts/part_locs.txt'
    image = '001.A/a.jpg'  # 8 x 6 pixels
    assert f'part outside: 1\n    {data}/{locations}: part 2 of {image} is at (8.9, 4.0)\n' in faults(
        **{locations: '1 2 8.9 4.0 1\n'}
    )
    assert 'CUB test: all right' in faults(**{locations: '1 2 8.8 -0.6 1\n'})  # a tenth of each side
    assert f'no part locations: 1\n    {data}/{locations}: {image}\n' in faults(**{locations: '2 2 3.0 4.0 1\n'})
    assert f'bad metadata: 1\n    {data}/{locations}, line 2: ' in faults(**{locations: '1 2 3.0 4.0 1\n1 2 3'})
    attributes = 'attributes/class_attribute_labels_continuous.txt'
    assert f'bad metadata: 1\n    {data}/{attributes}, line 1: ' in faults(**{attributes: '100 nan\n0 0\n'})
    mask = 'segmentations/001.A/a.png'
    assert 'CUB test: all right' in faults(**{mask: picture((4, 3), 'PNG')})
    assert 'wrong size: 1\n' in faults(**{mask: picture((6, 8), 'PNG')})
    assert 'black segmentation: 1\n' in faults(**{mask: picture(kind='PNG', colour=0)})


def test_check_data_says_once_that_a_split_file_is_damaged(checked, tmp_path, check_data, capsys):
    test = tmp_path / 'meta' / 'CUB' / 'test'
    for name in ('class_labels', 'localization', 'image_sizes'):
        with replaced(test, {f'{name}.txt': '001.A/a.jpg,1;2\n'}):
            out = check(check_data, capsys, *checked, '--own_split')[1]
        assert f'CUB test: 1 found wrong\n  bad metadata: 1\n    {test}/{name}.txt, line 1: ' in out, out


def test_segmentations_are_asked_for_where_a_class_has_a_pair(tmp_path, check_data):
    """Classes 0 and 1 differ in one part, 2 differs from both in more than three: its image needs no segmentation."""
    names = [f'has_{word}_color::red' for word in ('crown', 'back', 'belly', 'wing', 'tail')]
    table = ['100 0 0 0 0', '0 0 0 0 0', '100 100 100 100 100']
    folder = tmp_path / 'attributes'
    folder.mkdir()
    (folder / 'attributes.txt').write_text(''.join(f'{n} {name}\n' for n, name in enumerate(names, 1)))
    (folder / 'class_attribute_labels_continuous.txt').write_text('\n'.join(table) + '\n')
    split = check_data.SplitFiles('test', '', '', ['a.jpg', 'b.jpg', 'c.jpg'])
    labels = {'a.jpg': 0, 'b.jpg': 2, 'c.jpg': 1}
    assert check_data.scored_images(split, labels, str(tmp_path), []) == ['a.jpg', 'c.jpg']
    assert check_data.scored_images(split, labels, str(tmp_path / 'none'), []) == ['a.jpg', 'b.jpg', 'c.jpg']


def test_check_data_masks_and_all_right(tmp_path, monkeypatch, check_data, capsys):
    tree = {f'data/OpenImages/test/0c/{name}': picture(kind='PNG') for name in ('x_m_a.png', 'x_ignore.png')}
    write_tree(
        tmp_path,
        {
            **tree,
            'data/OpenImages/test/0c/x.jpg': picture(),
            **{
                f'meta/OpenImages/test/{name}.txt': text
                for name, text in {
                    'image_ids': 'test/0c/x.jpg',
                    'class_labels': 'test/0c/x.jpg,99',
                    'image_sizes': '',
                    'localization': 'test/0c/x.jpg,test/0c/x_m_a.png,test/0c/x_ignore.png',
                }.items()
            },
        },
    )
    flags = (
        '--dataset=OpenImages',
        f'--data_root={tmp_path}/data',
        f'--metadata_root={tmp_path}/meta',
        '--splits',
        'test',
    )
    monkeypatch.setitem(
        check_data.DATASETS, 'OpenImages', check_data.DATASETS['OpenImages']._replace(counts={'test': 1})
    )
    assert check(check_data, capsys, *flags)[:2] == (0, 'OpenImages test: all right\n')
    (tmp_path / 'data/OpenImages/test/0c/x_ignore.png').unlink()
    (tmp_path / 'data/OpenImages/test/0c/x_m_a.png').write_bytes(b'broken')
    code, out, _ = check(check_data, capsys, *flags)
    assert code == 1 and 'missing mask: 1\n' in out and 'unreadable mask: 1\n' in out
    refused(check(check_data, capsys, '--dataset=OpenImages', '--data_root=none'), '--data_root none')
    refused(check(check_data, capsys, '--dataset=Birds'), 'Birds', 'ToyBirds')


def test_check_data_of_an_evaluation_alone(tmp_path, monkeypatch, check_data, capsys):
    """OpenImages as its evaluation archive leaves it: with --splits val test nothing of train is asked for."""
    for split in ('val', 'test'):
        lists = {
            'image_ids': f'{split}/0c/x.jpg',
            'class_labels': f'{split}/0c/x.jpg,99',
            'image_sizes': '',
            'localization': f'{split}/0c/x.jpg,{split}/0c/x_m_a.png,',
        }
        write_tree(tmp_path / 'meta/OpenImages' / split, {f'{name}.txt': text for name, text in lists.items()})
    masks = {f'{split}/0c/x_m_a.png': picture(kind='PNG') for split in ('val', 'test')}
    images = {f'{split}/0c/x.jpg': picture() for split in ('val', 'test')}
    write_tree(tmp_path / 'archives', {'OpenImages30k_eval.zip': zip_bytes({**images, **masks})})
    data = ('--data_root', tmp_path / 'data')
    code, _, error = run('prepare_evaluation_data.sh', *data, '--archives', tmp_path / 'archives', 'OpenImages')
    assert code == 0, error
    counts = dict.fromkeys(('train', 'val', 'test'), 1)
    row = check_data.DATASETS['OpenImages']._replace(counts=counts)
    monkeypatch.setitem(check_data.DATASETS, 'OpenImages', row)
    flags = ('--dataset=OpenImages', f'--data_root={tmp_path}/data', f'--metadata_root={tmp_path}/meta')
    found = check(check_data, capsys, *flags, '--splits', 'val', 'test')
    assert found[:2] == (0, 'OpenImages val: all right\nOpenImages test: all right\n'), found
    code, out, _ = check(check_data, capsys, *flags)
    assert code == 1 and 'OpenImages train: ' in out and 'image_ids.txt' in out


def test_a_search_path_of_cd_changes_nothing():
    """With CDPATH, `cd scripts/..` prints where it goes."""
    own = {**os.environ, 'CDPATH': '.'}
    words = ['bash', '-c', 'source scripts/lib.sh; checkout']
    done = subprocess.run(words, cwd=ROOT, env=own, text=True, capture_output=True)
    assert done.stdout == f'{os.path.realpath(ROOT)}\n'
    for script in ('reproduce/classification.sh', 'slurm/table.sh'):
        words = ['bash', f'scripts/{script}', 'nonsense']
        done = subprocess.run(words, cwd=ROOT, env=own, text=True, capture_output=True)
        refused((done.returncode, done.stdout, done.stderr), 'nonsense')
