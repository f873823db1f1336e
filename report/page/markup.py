"""HTML of numbers, tables and lists. All input is escaped here."""

import json
import math
from html import escape

PROVENANCE = ('arguments', 'commit', 'versions', 'device')  # keys of a result's provenance


def number(value, digits=4):
    """A number as text; '-' for other values and numbers that are not finite."""
    finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return f'{value:.{digits}g}' if finite else '-'


def html_list(lines):
    """A list of missing or damaged items; empty without lines."""
    items = ''.join(f'<li>{escape(line)}</li>' for line in lines)
    return f'<ul class="missing">{items}</ul>' if items else ''


def _table_row(row):
    """A table row; its first cell is the header."""
    cells = ''.join(f'<td>{escape(str(cell))}</td>' for cell in row[1:])
    return f'<tr><th scope="row">{escape(str(row[0]))}</th>{cells}</tr>'


def html_table(head, rows, published=(), label=''):
    """A table; the first cell of a row is its header; published: rows of a second body."""
    body = f'<tbody>{"".join(map(_table_row, rows))}</tbody>'
    if published:
        body += f'<tbody class="published">{"".join(map(_table_row, published))}</tbody>'
    columns = ''.join(f'<th scope="col">{escape(str(cell))}</th>' for cell in head)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label or str(head[0]))}"><table><thead>'
        f'<tr>{columns}</tr></thead>{body}</table></div>'
    )


def _cell(value):
    """Any value as the text of a cell."""
    if isinstance(value, float):
        return number(value)
    if not isinstance(value, (list, dict)):
        return str(value)
    return f'{len(value)} values' if len(value) > 8 else json.dumps(value, ensure_ascii=False)


def _numbered(value):
    """[(key, item)] of a list or a dict; [] of other values."""
    if isinstance(value, list):
        return list(enumerate(value, 1))
    return list(value.items()) if isinstance(value, dict) else []


def tables_of_anything(value, name=''):
    """Generic tables of a JSON object: collections of objects as rows, the rest as pairs; without PROVENANCE."""
    pairs = []
    tables = []
    for key, one in value.items():
        if key in PROVENANCE:
            continue
        title = f'{name}, {key}'.removeprefix(', ')
        rows = _numbered(one)
        if rows and all(isinstance(row, dict) for _, row in rows):
            columns = list(dict.fromkeys(column for _, row in rows for column in row))
            lines = [[at, *(_cell(row[column]) if column in row else '-' for column in columns)] for at, row in rows]
            tables.append(html_table((title, *columns), lines, label=title))
        elif isinstance(one, dict) and one:
            tables += tables_of_anything(one, title)
        else:
            pairs.append([key, _cell(one)])
    first = [html_table((name or 'name', 'value'), pairs, label=name or 'Values')] if pairs else []
    return first + tables
