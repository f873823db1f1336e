"""Weights into a network: exactly its own, those of a file to evaluate, or those that a training starts from."""

import argparse
import hashlib
import pickle

import torch

from .errors import UserError
from .foreign_weights import left_out, module_of, modules_of, names_of, own_names, renumbered, without_prefix

SAFETENSORS = '.safetensors'
STATE_DICTS = ('state_dict', 'model', 'model_state_dict')  # what files call it: model is torchvision's, DeiT's, MAE's
HEAD_MODULES = ('conv_last', 'attention', 'importance')  # `importance` is LFI-CAM's alone


def sha256_of(path):
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def check_file(path, sha256, kind, remedy):
    """A UserError where a file is missing or is another than that of this hash. kind: 'published', say; remedy: what to
    do."""
    try:
        found = sha256_of(path)
    except FileNotFoundError:
        found = 'no file'
    if found != sha256:
        raise UserError(f'{path} is not the {kind} file ({found[:16]} instead of {sha256[:16]}): {remedy}')


def read_record(path):
    """The dict in a file of weights, on the CPU, with a `state_dict` among its keys; a bare state dict becomes one, and
    so does what other code bases call otherwise (STATE_DICTS).

    Tensors and plain values alone are read, and the argparse.Namespace of torchvision's trainings. A file that is
    damaged, carries other objects or has no state dict is a UserError.
    """
    record = _read_safetensors(path) if str(path).lower().endswith(SAFETENSORS) else _read_torch(path)
    if isinstance(record, dict) and record and all(torch.is_tensor(value) for value in record.values()):
        record = {'state_dict': record}
    if not isinstance(record, dict) or not (own := [n for n in STATE_DICTS if isinstance(record.get(n), dict)]):
        raise UserError(
            f'{path} is no checkpoint: it has no {" or ".join(STATE_DICTS)}; save it as '
            "torch.save({'state_dict': model.state_dict()}, FILE)"
        )
    return {**{key: value for key, value in record.items() if key != own[0]}, 'state_dict': record[own[0]]}


def _read_torch(path):
    """What torch.save wrote."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch's reader raises nearly anything on a damaged file
        if isinstance(error, pickle.UnpicklingError) and 'unsupported' in str(error).lower():
            raise UserError(
                f'{path} holds {_foreign(path)}: more than tensors and plain values, which is not read, as it may run '
                "programs; where it comes from, call torch.save({'state_dict': model.state_dict()}, FILE)"
            ) from None
        reason = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f'{path} is damaged or no file of weights ({reason[0][:200] if reason else type(error).__name__})'
        ) from None


def _foreign(path):
    """The names of the objects in a file that are no tensors and plain values."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of files of the first format
        found = []
    names = sorted({*found} - {'argparse.Namespace'})
    return ', '.join(names[:3]) or 'other objects'


def _read_safetensors(path):
    """The state dict of a .safetensors file, as timm publishes them; without the package a UserError."""
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f'{path} needs the package safetensors: pip install -r requirements-timm.txt') from None
    try:
        return load_file(path)
    except Exception as error:  # its reader has exceptions of its own
        raise UserError(f'{path} is damaged ({" ".join(str(error).split())[:200]})') from None


def load_weights(model, state_dict):
    """Load a state dict strictly, with or without the `module.` prefix of a data-parallel run.

    A dict of another network is a UserError that names what differs.
    """
    state_dict = without_prefix(state_dict)
    own = model.state_dict()
    missing = sorted(own.keys() - state_dict.keys())
    extra = sorted(state_dict.keys() - own.keys())
    wrong = [
        f'{key} {_shape(state_dict[key])} instead of {_shape(value)}'
        for key, value in own.items()
        if key in state_dict and _shape(state_dict[key]) != _shape(value)
    ]
    if missing or extra or wrong:
        modules = [
            f'{title} {len(keys)} ({keys[0]})'
            for title, keys in (('missing', missing), ('unexpected', extra), ('of another size', wrong))
            if keys
        ]
        raise UserError(
            f'weights are of another architecture or class count: {"; ".join(modules)}; '
            'check dataset, architecture and use_bn'
        )
    model.load_state_dict(state_dict, strict=True)


def load_trained_weights(model, state_dict, architecture):
    """Load the weights of a trained network of this architecture, head and class count, under foreign names too.

    Only the attention may be missing, and only where the head does not use it: it is 0 then, and p(z|x) uniform.
    Whatever else does not fit is a UserError.
    """
    if lost := left_out(state_dict, architecture):
        raise UserError(f'its {", ".join(lost)} is in no network here: only a training may start from it (main.py)')
    state_dict = own_names(state_dict, architecture)
    if 'attention' not in modules_of(state_dict) and 'conv_last' in modules_of(state_dict):
        if model.head.attends:
            raise UserError(
                f'it has no attention, which {model.attribution_method} reads: give attribution_method=CAM, '
                'or start a training from it (main.py)'
            )
        own = model.state_dict()
        state_dict |= {key: torch.zeros_like(own[key]) for key in own if module_of(key) == 'attention'}
    load_weights(model, state_dict)


def start_weights(model, state_dict, architecture, drop_conv_last=False):
    """Load what a training starts from, under foreign names too; returns a line for all that is fresh or left out.

    Head, map size and class count may be others. What the file lacks of a head's modules, or of the layers that
    torchvision's network lacks, stays as it is in the model. `drop_conv_last` leaves the class scores as they are in
    any case (CALM from a CAM checkpoint), and LFI-CAM's importance network. Whatever else does not fit is a UserError.
    """
    own = model.state_dict()
    given = renumbered(own_names(state_dict, architecture), own, architecture)
    lost = left_out(state_dict, architecture)
    lost += [module for module in HEAD_MODULES if module in modules_of(given) - modules_of(own)]
    fresh = _fresh_modules(given, own, names_of(architecture).tail, drop_conv_last)
    taken = {key: value for key, value in given.items() if module_of(key) not in (*lost, *fresh)}
    load_weights(model, taken | {key: value for key, value in own.items() if module_of(key) in fresh})
    reasons = list(dict.fromkeys(fresh.values()))
    lines = [
        f'fresh: {", ".join(module for module in fresh if fresh[module] == reason)} ({reason})' for reason in reasons
    ]
    return lines + ([f'left out: {", ".join(lost)} (this network has no such module)'] if lost else [])


def _fresh_modules(given, own, tail, drop_conv_last):
    """{module of the network that starts fresh: why}."""
    there = modules_of(given)
    tail = [] if there.intersection(tail) else tail
    fresh = {}
    for module in (module for module in (*HEAD_MODULES, *tail) if module in modules_of(own)):
        if drop_conv_last and module != 'attention' and module in HEAD_MODULES:
            fresh[module] = 'not taken from the file, as is_different_checkpoint asks'
        elif module not in there:
            fresh[module] = 'not in the file'
        elif module == 'conv_last' and (counts := _other_class_count(given, own)):
            fresh[module] = f'of {counts[0]} classes in the file, of {counts[1]} here'
    return fresh


def _other_class_count(given, own):
    """(class count there, class count here) where nothing but these tells the two conv_last apart, else None."""
    there, here = (_shape(state_dict.get('conv_last.weight')) for state_dict in (given, own))
    return (there[0], here[0]) if there[1:] == here[1:] and there[0] != here[0] else None


def _shape(value):
    """A tensor's shape, or the name of the type of what should have been one."""
    return tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
