"""Readers of text, tables and JSON that users edit; a file that cannot be read is a UserError. Lists in messages."""

import codecs
import csv
import json

from wsol.errors import MissingFile, UserError


def listed(names, most):
    """The first `most` of the names, and how many more there are, for a message."""
    more = f' and {len(names) - most} more' if names[most:] else ''
    return f'{", ".join(names[:most])}{more}'


def read_text(path):
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark; line ends become newlines."""
    try:
        with open(path, 'rb') as file:
            data = file.read()
    except FileNotFoundError:
        raise MissingFile(f'{path}: there is no such file') from None
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror})') from None
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode('utf-16' if marked else 'utf-8-sig')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise UserError(f'{path}, line {line}: not UTF-8: save it as UTF-8 (Excel: "CSV UTF-8")') from None
    return text.replace('\r\n', '\n').replace('\r', '\n')


def read_json(path, advice):
    """The value of a JSON file; advice: what to do if it is damaged."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is damaged (not JSON: {error}): {advice}') from None


def read_object(path, advice):
    """`read_json` of a file that must hold an object."""
    value = read_json(path, advice)
    if not isinstance(value, dict):
        raise UserError(f'{path} is damaged (not a JSON object): {advice}')
    return value


def read_csv(path, columns, joined=False):
    """[(line number, stripped cells)] of a comma-separated table with these columns.

    A header line, which begins with the first column's name, is skipped. joined: the first cell may contain commas
    without quotes, as file names may.
    """
    rest = len(columns) - 1
    try:
        rows = [(number, row) for number, row in enumerate(csv.reader(read_text(path).split('\n')), 1) if row]
    except csv.Error as error:
        raise UserError(f'{path} cannot be read as a table ({error})') from None
    if joined:
        rows = [(number, [','.join(row[:-rest]), *row[-rest:]] if row[rest:] else row) for number, row in rows]
    rows = [(number, [cell.strip() for cell in row]) for number, row in rows]
    if rows and rows[0][1][0] == columns[0]:
        rows = rows[1:]
    for number, row in rows:
        if len(row) != len(columns):
            hint = ', with commas between them' if len(row) == 1 else ''
            raise UserError(f'{path}, line {number}: {len(row)} columns: it must be {",".join(columns)}{hint}')
    return rows
