"""Loading weights: strictly a network's own, from a file to evaluate, or as the start of a training."""

import argparse
import hashlib
import pickle

import torch

from .errors import MissingFile, UserError
from .foreign_weights import left_out, module_of, modules_of, names_of, own_names, renumbered, without_prefix

SAFETENSORS = '.safetensors'
STATE_DICTS = ('state_dict', 'model', 'model_state_dict')  # keys in files; `model`: torchvision, DeiT, MAE
HEAD_MODULES = ('conv_last', 'attention', 'importance')  # `importance`: LFI-CAM only


def sha256_of(path):
    """SHA-256 of a file, in hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def check_file(path, sha256, kind, remedy):
    """Raise UserError if a file is missing or has another hash. kind: for example 'published'; remedy: what to do."""
    try:
        found = sha256_of(path)
    except FileNotFoundError:
        found = 'no file'
    if found != sha256:
        raise UserError(f'{path} is not the {kind} file ({found[:16]} instead of {sha256[:16]}): {remedy}')


def read_record(path):
    """Read a weight file on the CPU as a dict with a `state_dict`; bare state dicts and other key names (STATE_DICTS)
    work.

    Only tensors, plain values and the argparse.Namespace of torchvision's training scripts are unpickled. Raises
    UserError for a file that cannot be read, is damaged, contains other objects, has no state dict or weights that are
    not finite.
    """
    try:
        open(path, 'rb').close()
    except OSError as error:
        kind = MissingFile if isinstance(error, FileNotFoundError) else UserError
        raise kind(f'{path} cannot be read ({error.strerror})') from None
    record = _read_safetensors(path) if str(path).lower().endswith(SAFETENSORS) else _read_torch(path)
    if isinstance(record, dict) and record and all(torch.is_tensor(value) for value in record.values()):
        record = {'state_dict': record}
    if not isinstance(record, dict) or not (own := [n for n in STATE_DICTS if isinstance(record.get(n), dict)]):
        raise UserError(
            f'{path} is not a checkpoint: it has no {" or ".join(STATE_DICTS)}; save it as '
            "torch.save({'state_dict': model.state_dict()}, FILE)"
        )
    state = record[own[0]]
    _check_finite(state, path)
    return {**{key: value for key, value in record.items() if key != own[0]}, 'state_dict': state}


def _check_finite(state, path):
    """UserError for NaN or infinite weights, as after a training that diverged: scores would look like any others."""
    floats = ((key, value) for key, value in state.items() if torch.is_tensor(value) and value.is_floating_point())
    wrong = [key for key, value in floats if not torch.isfinite(value).all()]
    if wrong:
        raise UserError(
            f'{path} has NaN or infinite weights in {wrong[0]} ({len(wrong)} tensors in all): its training diverged; '
            'give another checkpoint'
        )


def _read_torch(path):
    """Read a file written by torch.save."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises nearly any exception for a damaged file
        if isinstance(error, pickle.UnpicklingError) and 'unsupported' in str(error).lower():
            raise UserError(
                f'{path} contains {_foreign(path)}, not only tensors and plain values: not read, as that may '
                "run code; save it again at its source with torch.save({'state_dict': model.state_dict()}, FILE)"
            ) from None
        reason = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f'{path} is damaged or not a weight file ({reason[0][:200] if reason else type(error).__name__})'
        ) from None


def _foreign(path):
    """Names of the objects in a file that are neither tensors nor plain values."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # files in torch's first format
        found = []
    names = sorted({*found} - {'argparse.Namespace'})
    return ', '.join(names[:3]) or 'other objects'


def _read_safetensors(path):
    """The state dict of a .safetensors file (timm's format); raises UserError without the package."""
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f'{path} needs the package safetensors: pip install -r requirements-timm.txt') from None
    try:
        return load_file(path)
    except Exception as error:  # safetensors has its own exceptions
        raise UserError(f'{path} is damaged ({" ".join(str(error).split())[:200]})') from None


def load_weights(model, state_dict):
    """Load a state dict strictly, with or without the `module.` prefix of data-parallel runs.

    Raises UserError listing the differences if it belongs to another network.
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
            for title, keys in (('missing', missing), ('unexpected', extra), ('wrong shape', wrong))
            if keys
        ]
        raise UserError(
            f'weights are of another architecture or class count: {"; ".join(modules)}; '
            'check dataset, architecture and use_bn'
        )
    model.load_state_dict(state_dict, strict=True)


def load_trained_weights(model, state_dict, architecture):
    """Load weights of a trained network with this architecture, head and class count; foreign names are translated.

    Only the attention may be missing, and only if the head does not use it: it is then set to 0 and p(z|x) is uniform.
    Raises UserError for any other mismatch.
    """
    if lost := left_out(state_dict, architecture):
        raise UserError(f'no network here has its {", ".join(lost)}: it can only initialise a training (main.py)')
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
    """Load initial weights for a training, translating foreign names; returns lines on what is fresh or left out.

    Head, map size and class count may differ. Head modules missing from the file, and layers that torchvision's network
    lacks, keep the model's values. `drop_conv_last` (CALM from a CAM checkpoint) also keeps the model's class scores
    and LFI-CAM's importance network. Raises UserError for any other mismatch.
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
    """{module of the network that keeps its initial values: reason}."""
    there = modules_of(given)
    tail = [] if there.intersection(tail) else tail
    fresh = {}
    for module in (module for module in (*HEAD_MODULES, *tail) if module in modules_of(own)):
        if drop_conv_last and module != 'attention' and module in HEAD_MODULES:
            fresh[module] = 'dropped because of is_different_checkpoint'
        elif module not in there:
            fresh[module] = 'not in the file'
        elif module == 'conv_last' and (counts := _other_class_count(given, own)):
            fresh[module] = f'{counts[0]} classes in the file, {counts[1]} here'
    return fresh


def _other_class_count(given, own):
    """(class count in the file, class count here) if the two conv_last differ only in that, else None."""
    there, here = (_shape(state_dict.get('conv_last.weight')) for state_dict in (given, own))
    return (there[0], here[0]) if there[1:] == here[1:] and there[0] != here[0] else None


def _shape(value):
    """A tensor's shape; for anything else the name of its type."""
    return tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
