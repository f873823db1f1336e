"""The report of experiments as one self-contained HTML file: scripts/report.py FOLDER… --html FILE.

Reads the logs and results of each folder, builds the sections (overview.py, evaluations.py), computes the gallery's
maps from the checkpoints (gallery.py) and fills template.html. Sections list the commands for missing results; damaged
files are listed.
"""

import base64
import hashlib
import json
import os
import re
from html import escape

import util
from wsol.errors import AlreadyThere, MissingFile, UserError

from ..results import read_runs
from .commands import missing_lines
from .evaluations import accuracy_section, attribution_section, cue_section, erasing_section, localization_section
from .gallery import build_gallery, check_maps
from .markup import html_list
from .overview import arguments_section, curves_section, summary_section

TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'template.html')
SECTIONS = (  # (anchor, title, function: runs -> HTML text; the gallery's HTML is in the template)
    ('summary', 'Results at a glance', summary_section),
    ('gallery', 'Gallery', None),
    ('arguments', 'Arguments', arguments_section),
    ('curves', 'Learning curves', curves_section),
    ('accuracy', 'Accuracy', accuracy_section),
    ('cue', 'Cue localization', cue_section),
    ('erasing', 'Remove-and-classify', erasing_section),
    ('wsol', 'Localization (WSOL)', localization_section),
    ('attribution', 'Attribution scores', attribution_section),
)
# Errors from result files with unexpected content: any JSON object.
MISSHAPEN = (KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError)


def fitting_section(section, runs, notes):
    """A section's HTML; runs with malformed results are left out, listed, and added to `notes`."""
    fitting = []
    lost = []
    for run in runs:
        try:
            section([run])
            fitting.append(run)
        except MISSHAPEN as error:
            text = error if isinstance(error, UserError) else repr(error)
            lost.append(f'{run.name} is left out: one of its results is malformed ({text})')
    notes += lost
    return section(fitting) + html_list(lost)


def script_hash(page):
    """The hash of the page's script for its content security policy."""
    script = re.search('<script>(.*?)</script>', page, re.DOTALL)[1]
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def fill_template(runs, notes, gallery, gallery_notes):
    """(the whole page as text, lines on malformed results); gallery, gallery_notes: from `build_gallery`; notes: on
    unreadable files."""
    lost = []
    with open(TEMPLATE, encoding='utf-8') as file:
        before, panel, after = re.split('<!-- GALLERY.*? -->\n', file.read())
    frame = before + after
    bodies = {key: fitting_section(section, runs, lost) for key, _, section in SECTIONS if section}
    no_maps = html_list(['No maps: they need a checkpoint, the images of its data set, and --gallery above 0.'])
    left_out = html_list(f'Not in the gallery: {note}' for note in gallery_notes)
    bodies['gallery'] = (panel if gallery['runs'] else no_maps) + left_out
    pieces = {
        'title': escape(', '.join(run.name for run in runs)),
        'nav': ''.join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in SECTIONS),
        'notes': html_list(notes),
        'sections': ''.join(
            f'<section id="{key}" aria-labelledby="{key}-title">'
            f'<h2 id="{key}-title">{title}</h2>{bodies[key]}</section>'
            for key, title, _ in SECTIONS
        ),
        'data': json.dumps(gallery, allow_nan=False).replace('<', '\\u003c'),
        'hash': script_hash(frame),
    }
    page = re.sub(r'\{\{(\w+)\}\}', lambda found: pieces[found[1]], frame)  # one pass: inserted text is not expanded
    return page, lost


def write_page(path, folders, *, overwrite, images, classes, maps, data_root=None, metadata_root=None):
    """Write the report of the experiment folders; returns (its size in bytes, lines on what it lacks).

    Errors are UserError or OSError.

    images, classes, maps: as for `build_gallery`; images=0: no gallery.
    """
    if os.path.lexists(path) and not overwrite:
        raise AlreadyThere(f'{path} exists: give another --html, or --overwrite to replace it')
    if not os.path.isdir(os.path.dirname(path) or '.'):
        raise MissingFile(f'no folder {os.path.dirname(path)} for --html {path}: make it first')
    check_maps(maps)
    runs, notes = read_runs(folders)
    gallery, gallery_notes = build_gallery(
        runs if images else [],
        images=images,
        classes=classes,
        maps=maps,
        data_root=data_root,
        metadata_root=metadata_root,
    )
    text, lost = fill_template(runs, notes, gallery, gallery_notes)
    page = text.encode(errors='replace')  # file names may have surrogates
    util.atomically(path, lambda file: file.write(page))
    lines = [*notes, *lost, *(f'not in the gallery: {note}' for note in gallery_notes), *missing_lines(runs)]
    return len(page), list(dict.fromkeys(lines))
