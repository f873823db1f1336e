"""ILSVRC2012: train and test (the validation images); classes are the sorted synsets, boxes come from the XML files."""

import os
import xml.etree.ElementTree as ElementTree

from tqdm import tqdm

from wsol.errors import UserError

from .reading import box_row, check_classes, files, folders, read_lines, read_sizes, split_files

XML_FOLDERS = ('Annotations/CLS-LOC/val', 'bbox/val', 'val')  # default folders below the data set's


def xml_objects(path):
    """[(synset, (x0, y0, x1, y1)), ...] from an ILSVRC annotation file, in file order."""
    try:
        found = []
        for item in ElementTree.parse(path).getroot().iter('object'):
            box = tuple(int(item.findtext(f'bndbox/{side}')) for side in ('xmin', 'ymin', 'xmax', 'ymax'))
            found.append((item.findtext('name'), box))
        return found
    except (OSError, ElementTree.ParseError, TypeError, ValueError) as error:
        raise UserError(
            f'cannot read the boxes in {path} ({error}): unpack ILSVRC2012_bbox_val_v3.tgz, or give --annotations'
        ) from None


def xml_folder(root, annotations):
    """Folder of the validation annotations."""
    candidates = [annotations] if annotations else [os.path.join(root, name) for name in XML_FOLDERS]
    for folder in candidates:
        if os.path.isdir(folder) and any(name.endswith('.xml') for name in os.listdir(folder)):
            return folder
    raise UserError(
        f'no ILSVRC2012_val_*.xml in {" or ".join(candidates)}: unpack ILSVRC2012_bbox_val_v3.tgz '
        '(scripts/prepare_imagenet.sh boxes), or give --annotations'
    )


def synset_order(data):
    """{ID: synset} of the development kit: data/synsets.txt (one per line, from ID 1) or, with scipy, data/meta.mat."""
    if os.path.isfile(os.path.join(data, 'synsets.txt')):
        return dict(enumerate(read_lines(os.path.join(data, 'synsets.txt')), 1))
    try:
        from scipy.io import loadmat

        rows = loadmat(os.path.join(data, 'meta.mat'), squeeze_me=True)['synsets']
        return {int(row['ILSVRC2012_ID']): str(row['WNID']) for row in rows}
    except (ImportError, OSError, KeyError, ValueError) as error:
        raise UserError(
            f'cannot read {data}/meta.mat ({error}): install scipy, or leave --devkit out (the XML files name '
            'the classes too)'
        ) from None


def devkit_synsets(folder):
    """Synset of each validation image in order, from the development kit's ground truth and synset IDs."""
    data = os.path.join(folder, 'data') if os.path.isdir(os.path.join(folder, 'data')) else folder
    truth = read_lines(os.path.join(data, 'ILSVRC2012_validation_ground_truth.txt'))
    order = synset_order(data)
    try:
        return [order[int(line)] for line in truth]
    except (KeyError, ValueError) as error:
        raise UserError(
            f'{data}: the ground truth has class {error}, which the synsets lack: restore the files'
        ) from None


def validation_rows(image_ids, folder, devkit):
    """({image id: synset}, {image id: [box, ...]}) of val; labels come from the devkit, else from the XML files."""
    known = devkit_synsets(devkit) if devkit else None
    if known and len(known) != len(image_ids):
        raise UserError(f'{devkit} labels {len(known)} images, but there are {len(image_ids)} in val: complete them')
    synsets = {}
    boxes = {}
    for number, image_id in enumerate(tqdm(image_ids, 'boxes', leave=False, disable=None)):
        path = os.path.join(folder, os.path.basename(image_id)[: -len('.JPEG')] + '.xml')
        objects = xml_objects(path)
        names = {known[number]} if known else {name for name, _ in objects}
        boxes[image_id] = [box for name, box in objects if name in names]
        if len(names) != 1 or not boxes[image_id]:
            raise UserError(
                f"{path} has boxes of {len(names)} classes and {len(boxes[image_id])} boxes of the image's class: it "
                'needs one class and at least one box; restore the file, or give the ground truth with --devkit'
            )
        synsets[image_id] = names.pop()
    return synsets, boxes


def build(root, options):
    """{split: {file: lines}} of the images in `root`; the protocol's train sizes and localization are empty."""
    synsets = folders(os.path.join(root, 'train'))
    check_classes(synsets, options.num_classes, f'{root}/train')
    label = {synset: number for number, synset in enumerate(synsets)}
    folders(os.path.join(root, 'val'))  # raises UserError if the folder is unreadable
    test = [f'val/{name}' for name in files(os.path.join(root, 'val'), '.JPEG')]
    if not test:
        raise UserError(f'{root}/val contains no ILSVRC2012_val_*.JPEG: put the images there, not in class folders')
    names, boxes = validation_rows(test, xml_folder(root, options.annotations), options.devkit)
    for image_id, synset in names.items():
        if synset not in label:
            raise UserError(f'{image_id} has class {synset}, which has no folder in {root}/train: complete it')
    train = {
        f'train/{synset}/{name}': label[synset]
        for synset in tqdm(synsets, 'train', leave=False, disable=None)
        for name in files(os.path.join(root, 'train', synset), '.JPEG')
    }
    sizes = read_sizes(root, test, 'test', options)
    rows = [box_row(image_id, box, sizes[image_id]) for image_id in test for box in boxes[image_id]]
    labels = {image_id: label[synset] for image_id, synset in names.items()}
    return {'train': split_files(train, train), 'test': split_files(test, labels, sizes, rows)}
