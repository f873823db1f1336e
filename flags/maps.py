"""The flags of maps, scores and photographs."""

from dataclasses import fields

from wsol import attribution
from wsol.scoring import regions, scores

from .row import (
    COUNT,
    CUES,
    ERASING,
    EXPLAINING,
    MAPS,
    NAMED,
    NETWORK,
    NOTHING,
    PERCENT,
    PICTURES,
    SCORES,
    SHARE,
    TABLE,
    WEIGHT,
    WSOL,
    Flag,
    cell,
    in_range,
    one_of,
    several,
)

THRESHOLD_TYPES = ('even', 'log')
SCORE_MAP_METHODS = ('activation_map', 'backprop')
CONTRASTS = ('maps', 'score')


def _of_options():
    """The flags for options of maps; `attribution.Options` defines defaults, ranges and help texts."""
    for option in fields(attribution.Options):
        if 'help' in option.metadata:
            kind = float if option.type is float else int
            allowed = in_range(kind, option.metadata['low'], open_low=kind is float)
            yield Flag(option.name, MAPS, EXPLAINING, option.default, option.metadata['help'], allowed)


MAP_NAMES = f'NAME is one of {", ".join(attribution.MAPS)}.'
SCORE_NAMES = f'NAME is one of {", ".join(scores.METRICS)}.'

# fmt: off
EXPLANATION = [
    Flag('score_map_process', MAPS, ERASING + CUES, 'vanilla',
        'attribution map; several share the forward pass, and each gets its own result', several(attribution.MAPS),
        'NAME[,NAME]', listed=MAP_NAMES),
    Flag('score_map_process', MAPS, WSOL, 'vanilla',
        'attribution map', one_of(attribution.MAPS), 'NAME', listed=MAP_NAMES),
    Flag('score_map_process', MAPS, PICTURES, '', 'the same as --method', several(attribution.MAPS), 'NAME[,NAME]'),
    Flag('methods', MAPS, TABLE, None,
        'maps to compare, or all (default: those that suit the network)', metavar='NAME[,NAME]', grows=True,
        also=('method',), listed=MAP_NAMES, own=True),
    Flag('method', MAPS, PICTURES, None,
        "maps, one row each (default: the network's own)", metavar='NAME[,NAME]', also=('methods',), listed=MAP_NAMES,
        own=True),
    Flag('target_layer', MAPS, EXPLAINING, None,
        'layers of CAM and perturbation maps (default: last feature layer)', metavar='NAME[,NAME]'),
    Flag('superclass', MAPS, EXPLAINING, None, 'sets {"class": [classes]} for *-superclass maps', metavar='FILE.json'),
    Flag('score_map_method', MAPS, NAMED, 'activation_map',
        'backprop: input_grad instead of a readout', SCORE_MAP_METHODS),
    Flag('smoothing_ksize', MAPS, EXPLAINING, 1, 'kernel size for smoothing gradient maps, in pixels; 1: none', COUNT),
    *_of_options(),
]

SCORING = [
    Flag('norm_type', SCORES, CUES, 'minmax', 'how maps are scaled to [0, 1]', tuple(attribution.NORMALIZATIONS)),
    Flag('threshold_type', SCORES, CUES, 'even', 'spacing of the score thresholds', THRESHOLD_TYPES),
    Flag('cam_curve_interval', SCORES, CUES + WSOL + TABLE, 0.001,
        'distance between thresholds', in_range(float, 0, 1, open_low=True)),
    Flag('contrast', MAPS, CUES, 'maps',
        "maps: the difference of two classes' maps; score: one map of the difference of their scores", CONTRASTS,
        own=True),
    Flag('blur', SCORES, CUES, [0.0],
        'blur the differences (a control): standard deviations, each with its own result', WEIGHT, 'PIXELS', many=True,
        own=True),
    Flag('random_repeats', SCORES, ERASING + TABLE, 1, 'random masks per image and k in remove-and-classify', COUNT),
    Flag('scoremap_root', MAPS, WSOL, None,
        'score saved maps, DIR/<image id>.npy, instead of a checkpoint', metavar='DIR'),
    Flag('iou_thresholds', SCORES, WSOL + TABLE, [30, 50, 70],
        'IoU thresholds of MaxBoxAccV2', PERCENT, 'PERCENT', many=True),
    Flag('metrics', SCORES, TABLE, None,
        'scores, or all (default: those up to pxap that have ground truth)', metavar='NAME[,NAME]',
        listed=SCORE_NAMES, own=True),
    Flag('randomization_steps', SCORES, TABLE, 4, 'randomization: networks; the last is all random', COUNT, own=True),
    Flag('sensitivity_draws', SCORES, TABLE, 10, 'max_sensitivity: number of noisy images', COUNT, own=True),
    Flag('infidelity_draws', SCORES, TABLE, 50, 'infidelity: number of removed squares', COUNT, own=True),
    Flag('curve_steps', SCORES, TABLE, 32, 'steps of deletion and insertion curves', COUNT, own=True),
    Flag('box_threshold', SCORES, TABLE, 0.2, 'loc_iou: threshold, relative to the maximum', SHARE, own=True),
    Flag('box_iou', SCORES, TABLE, 50, 'loc_iou: required IoU with a true box', PERCENT, 'PERCENT', own=True),
    Flag('pointing_tolerance', SCORES, TABLE, regions.POINTING_TOLERANCE,
        'pointing_game: distance that counts as a hit', WEIGHT, 'PIXELS', own=True),
    Flag('max_images', SCORES, TABLE, None, 'use only N evenly spaced images', COUNT, 'N', own=True),
]

PHOTOGRAPHS = [
    Flag('images', NOTHING, TABLE, None,
        "photographs, not a split: files, folders, or 'photos/*.jpg'", metavar='PATTERN', many=True, own=True),
    Flag('labels', NOTHING, TABLE, None, 'lines file,class: the classes to explain', metavar='FILE', own=True),
    Flag('boxes', NOTHING, TABLE, None,
        'lines file,x0,y0,x1,y1: boxes of the objects in pixels', metavar='FILE', own=True),
    Flag('masks', NOTHING, TABLE, None, 'folder of <name>.png; pixels above 0 are the object', metavar='DIR', own=True),
    Flag('images', NETWORK, PICTURES, None,
        "photographs: files, folders, or patterns such as 'photos/*.jpg'", metavar='PATTERN', many=True, own=True),
    Flag('classes', MAPS, PICTURES, None,
        'classes to explain: numbers from 0, names, or @1, @2 … by probability (default: @1, the prediction)',
        metavar='A[,B]', own=True),
    Flag('at', MAPS, PICTURES, None,
        'taylor_interaction: the cell whose interactions are shown; 0,0 is the upper left (default: the one '
        'that interacts most)', cell, 'ROW,COLUMN', own=True),
    Flag('output', NOTHING, PICTURES, None,
        'folder for the panels (default: panels/ of the run)', metavar='DIR', own=True),
    Flag('save_scoremaps', NOTHING, PICTURES, None,
        'with --images: save maps as DIR/<image>.<method>.<class>.npy; without: score maps of --split for '
        'eval_wsol.py --scoremap_root', metavar='DIR', own=True),
]
# fmt: on
