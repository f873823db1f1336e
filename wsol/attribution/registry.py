"""MAPS: one row per attribution map. To add a map, write one function and one row here."""

import difflib
import re
from collections.abc import Callable
from typing import NamedTuple

import torch

from ..errors import UserError
from ..network import HEADS
from ..registry import question
from . import cam_family, deeplift, fullgrad, gradient, interaction, masking, perturbation, readouts
from .common import Options, chosen, explainer
from .layers import find_layers
from .scalars import check_classes

HEAD, GRADIENTS, LAYER = 'class scores at every location', 'gradients', 'a layer with locations'  # needs of maps
KINDS = {  # kind: default needs of its maps
    'readout': (HEAD,),
    'gradient': (GRADIENTS,),
    'activation': (GRADIENTS, LAYER),
    'perturbation': (LAYER,),
}


class Map(NamedTuple):
    """An attribution map's row."""

    function: Callable  # (model, images, target=None, options=Options()) -> maps [B, h, w] at native size
    kind: str  # in KINDS: reads the output, gradients at the input, activations of a layer, or perturbs images
    unit: str  # of its values; {scalar} is replaced by the head's explained scalar
    idea: str  # in a few words
    source: str  # publication
    forward: str = '1'  # forward passes per map of one image and class, a sum of products
    backward: str = '0'  # backward passes; in the CAM family they stop at the target layer
    noisy: bool = False  # does it draw random numbers (Options.noise_seeds)?
    interaction: bool = False  # interactions with the location Options.at; zero if the score is linear in the features
    readout: readouts.Readout | None = None  # for kind readout: how the output is read
    special: tuple | None = None  # needs (HEAD, GRADIENTS, LAYER) that differ from its kind's
    own: tuple = ()  # fields of Options that it reads in addition to its kind's
    layers: Callable = find_layers  # (model, target_layer, images) -> modules read, for maps that need a LAYER

    @property
    def needs(self):
        """What a network must provide for this map: a tuple of HEAD, GRADIENTS and LAYER."""
        return KINDS[self.kind] if self.special is None else self.special

    @property
    def options(self):
        """Fields of Options that it reads; others have no effect."""
        return (
            *('batch_size', 'progress', 'of_image'),
            *(('target_layer',) if LAYER in self.needs else ()),
            *(('noise_seeds', 'generator') if self.noisy else ()),
            *(('superclass',) if self.readout and self.readout.sets else ()),
            *self.own,
        )


def readout_row(read, unit, idea, source, **how):
    """The row of a readout: `read` as a map of the target class."""
    readout = readouts.Readout(read, **how)

    @explainer
    def function(model, images, target=None, options=Options()):
        check_classes(model, read.__name__)
        with torch.no_grad():
            output = model(images)
            if not hasattr(output, 'f'):
                raise UserError(f"{read.__name__} works only for this project's networks: choose a post-hoc method")
            target = chosen(output.log_score, target)[1]
            maps = readouts.class_maps(readout, output, target[:, None], options.superclass)  # [B, 1, H, W]
            return maps.squeeze(1)

    function.__doc__ = read.__doc__
    return Map(function, 'readout', unit, idea, source, readout=readout)


STRENGTH = '|gradient| of {scalar}'
SHARE = 'share of {scalar}'
RELEVANCE = 'relevance to {scalar}'
INTERACTION = 'interaction in {scalar}'
COMPONENT = 'principal component of the'
SMOOTH = ('smooth_grad_nr_iter', 'smooth_grad_sigma', 'shared')  # Options.own of several maps
PATH = ('integrated_grad_nr_iter', 'baseline')
CALM = 'Kim et al., ICCV 2021'
# In the costs: L channels of the layer; n points, copies, steps or masks (set by the options); G groups of channels;
# W squares.

# fmt: off
MAPS = {
    'vanilla': readout_row(readouts.vanilla, 'class score f',
        "the class's score at every location: CAM", 'Zhou et al., CVPR 2016'),
    'vanilla-saliency': readout_row(readouts.vanilla_saliency, 'sum of scaled class scores f',
        'CAM of all classes together', CALM),
    'jointll': readout_row(readouts.jointll, 'p(y, z | x)',
        'probability that the class is y and its cue is at z: CALM', CALM),
    'gtcond': readout_row(readouts.gtcond, 'p(z | x, y)', 'probability that the cue is at z, given the class', CALM),
    'saliency': readout_row(readouts.saliency, 'p(z | x)', 'probability that the cue is at z, for any class', CALM),
    'vanilla-superclass': readout_row(readouts.vanilla, 'sum of scaled class scores f',
        'vanilla, scaled and summed over a set of classes', CALM, sets=True, scaled=True),
    'jointll-superclass': readout_row(readouts.jointll, 'sum of p(y, z | x)',
        'jointll, summed over a set of classes', CALM, sets=True),
    'jointll-superclass-mean': readout_row(readouts.jointll, 'mean of p(y, z | x)',
        'jointll, averaged over a set of classes', CALM, sets=True, mean=True),
    'gtcond-superclass': readout_row(readouts.gtcond, 'sum of p(z | x, y)',
        'gtcond, summed over a set of classes', CALM, sets=True),
    'gtcond-superclass-mean': readout_row(readouts.gtcond, 'mean of p(z | x, y)',
        'gtcond, averaged over a set of classes', CALM, sets=True, mean=True),
    'input_grad': Map(gradient.input_grad, 'gradient', STRENGTH,
        'how fast the score changes with each pixel', 'Simonyan et al., ICLR workshop 2014', '1', '1'),
    'smooth_grad': Map(gradient.smooth_grad, 'gradient', STRENGTH,
        'input_grad, averaged over noisy copies', 'Smilkov et al., 2017', 'n', 'n', noisy=True, own=SMOOTH),
    'smooth_grad_square': Map(gradient.smooth_grad_square, 'gradient', f'({STRENGTH})²',
        'input_grad squared, averaged over noisy copies', 'Hooker et al., NeurIPS 2019', 'n', 'n',
        noisy=True, own=SMOOTH),
    'var_grad': Map(gradient.var_grad, 'gradient', f'variance of {STRENGTH}',
        'the variance of input_grad over noisy copies', 'Adebayo et al., NeurIPS 2018', 'n', 'n',
        noisy=True, own=SMOOTH),
    'integrated_grad': Map(gradient.integrated_grad, 'gradient', STRENGTH,
        'input_grad, averaged over the path from a baseline', CALM, 'n + 1', 'n + 1', own=PATH),
    'integrated_gradients': Map(gradient.integrated_gradients, 'gradient', SHARE,
        "each pixel's share of the increase of the score from a baseline", 'Sundararajan et al., ICML 2017', 'n', 'n',
        own=PATH),
    'guided_backprop': Map(gradient.guided_backprop, 'gradient', STRENGTH,
        'input_grad with ReLUs that pass only positive gradients back', 'Springenberg et al., ICLR workshop 2015',
        '1', '1'),
    'gradient_shap': Map(gradient.gradient_shap, 'gradient', SHARE,
        'integrated gradients at random points of the path', 'Lundberg and Lee, NeurIPS 2017', 'n', 'n',
        noisy=True, own=('num_samples', 'std', 'baseline')),
    'deep_lift': Map(deeplift.deep_lift, 'gradient', SHARE,
        'differences from a baseline, propagated by multipliers instead of gradients', 'Shrikumar et al., ICML 2017',
        '2', '1', own=('baseline',)),
    'full_grad': Map(fullgrad.full_grad, 'gradient', RELEVANCE,
        'gradient times input plus gradient times bias, summed over all layers', 'Srinivas and Fleuret, NeurIPS 2019',
        '1', '1'),
    'grad_cam': Map(cam_family.grad_cam, 'activation', RELEVANCE,
        'channels weighted by their mean gradient', 'Selvaraju et al., ICCV 2017', '1', '1'),
    'grad_cam_pp': Map(cam_family.grad_cam_pp, 'activation', RELEVANCE,
        'channels weighted by positive gradients, more where they are rare', 'Chattopadhay et al., WACV 2018',
        '1', '1'),
    'smooth_grad_cam_pp': Map(cam_family.smooth_grad_cam_pp, 'activation', RELEVANCE,
        'Grad-CAM++ over noisy copies', 'Omeiza et al., 2019', '1 + n', 'n',
        noisy=True, own=('num_samples', 'std', 'smooth_average')),
    'layer_cam': Map(cam_family.layer_cam, 'activation', RELEVANCE,
        'activations weighted by positive gradients at each location', 'Jiang et al., TIP 2021', '1', '1'),
    'hires_cam': Map(cam_family.hires_cam, 'activation', RELEVANCE,
        'activations times gradients at each location', 'Draelos and Carin, 2020', '1', '1'),
    'xgrad_cam': Map(cam_family.xgrad_cam, 'activation', RELEVANCE,
        'channels weighted by the gradients where they are active', 'Fu et al., BMVC 2020', '1', '1'),
    'finer_cam': Map(cam_family.finer_cam, 'activation', 'relevance against similar classes',
        'Grad-CAM of the score minus those of similar classes', 'Zhang et al., CVPR 2025', '1', '1'),
    'refine_cam': Map(cam_family.refine_cam, 'activation', RELEVANCE,
        'the product of Grad-CAM++ at several layers', 'Domeniconi et al., 2026', '1', '1',
        layers=cam_family.refined_layers),
    'eigen_cam': Map(cam_family.eigen_cam, 'activation', f'{COMPONENT} activations',
        'the direction in which the channels vary most, for any class', 'Muhammad and Yeasin, IJCNN 2020',
        special=(LAYER,)),
    'eigen_grad_cam': Map(cam_family.eigen_grad_cam, 'activation', f'{COMPONENT} relevance to {{scalar}}',
        'Eigen-CAM of activations times gradients', 'pytorch-grad-cam', '1', '1'),
    'taylor_cam': Map(cam_family.taylor_cam, 'activation', RELEVANCE,
        'Grad-CAM with second-order interactions', 'Lerman et al., ICCV 2021', '1', '2'),
    'taylor_interaction': Map(interaction.taylor_interaction, 'activation', INTERACTION,
        'how each location interacts with a chosen one', 'Lerman et al., ICCV 2021', '1', '4',
        interaction=True, own=('at',)),
    'score_cam': Map(perturbation.score_cam, 'perturbation', RELEVANCE,
        'channels weighted by the score of the image that they unmask', 'Wang et al., CVPR workshop 2020', '1 + L'),
    'ss_cam': Map(perturbation.ss_cam, 'perturbation', RELEVANCE,
        'Score-CAM over noisy masks', 'Wang et al., 2020', '1 + n L', noisy=True, own=('num_samples', 'std')),
    'is_cam': Map(perturbation.is_cam, 'perturbation', RELEVANCE,
        'Score-CAM over masked images of increasing brightness', 'Naidu et al., 2020', '1 + n L', own=('num_samples',)),
    'group_cam': Map(perturbation.group_cam, 'perturbation', RELEVANCE,
        'Score-CAM of clusters of channels, with the masked part blurred', 'Zhang et al., 2021', '2 + G', '1',
        special=(GRADIENTS, LAYER)),
    'ablation_cam': Map(perturbation.ablation_cam, 'perturbation', RELEVANCE,
        'channels weighted by the drop of the score without them', 'Desai and Ramaswamy, WACV 2020', '1 + L'),
    'rise': Map(masking.rise, 'perturbation', 'mean {scalar} where the pixel is seen',
        'the mean score over random masks that show the pixel', 'Petsiuk et al., BMVC 2018', 'n',
        noisy=True, special=(), own=('rise_nr_masks',)),
    'occlusion': Map(masking.occlusion, 'perturbation', 'drop of {scalar}',
        'the drop of the score when a square hides the pixel', 'Zeiler and Fergus, ECCV 2014', '1 + W',
        special=(), own=('occlusion_window', 'baseline')),
}
# fmt: on

READOUTS = {name: row.readout for name, row in MAPS.items() if row.readout and not row.readout.sets}
SUPERCLASS_READOUTS = {name: row.readout for name, row in MAPS.items() if row.readout and row.readout.sets}


OTHER_NAMES = {  # names in papers and other libraries, in `plain` spelling: name here
    'cam': 'vanilla',
    'calm': 'jointll',
    'gradcamplusplus': 'grad_cam_pp',
    'layergradcam': 'grad_cam',
    'inputgradient': 'input_grad',
    'vanillagradient': 'input_grad',
    'shapleycam': 'taylor_cam',
    'expectedgradients': 'gradient_shap',
}


def plain(name):
    """A name without spelling variants: 'Grad-CAM++' and 'grad_cam_pp' both become 'gradcampp'."""
    return re.sub(r'[-_ ]', '', str(name).lower()).replace('+', 'p')


def resolve(name: str) -> str:
    """The name in MAPS for any spelling: ignores case, '-', '_' and ' ', and reads '+' as 'p'.

    Raises UserError listing similar and valid names.

    >>> resolve('Grad-CAM++'), resolve('IntegratedGradients'), resolve('CAM')
    ('grad_cam_pp', 'integrated_gradients', 'vanilla')
    """
    if name in MAPS:
        return name
    names = {**OTHER_NAMES, **{plain(one): one for one in MAPS}}
    if plain(name) in names:
        return names[plain(name)]
    close = [names[one] for one in difflib.get_close_matches(plain(name), names, n=3)]
    hint = question(dict.fromkeys(close))
    raise UserError(f'unknown attribution map {name!r}: {hint}choose one of {", ".join(MAPS)}')


def lookup(name):
    """MAPS[name]; raises UserError suggesting the map for any other spelling."""
    if name in MAPS:
        return MAPS[name]
    raise UserError(f'unknown attribution map {name!r}: did you mean {resolve(name)}?')


def unit_of(name, head_name):
    """Unit of the map `name` for the head `head_name` (network.HEADS), a short text."""
    head = HEADS[head_name]
    return head.units.get(name, MAPS[name].unit.format(scalar=head.scalar))


def suited(head_name, sets=False):
    """Names of the maps that make sense for a head, in the registry's order; `sets` includes superclass maps.

    Excludes those of `_meaningless`.
    """
    head = HEADS[head_name]
    return [
        name
        for name, row in MAPS.items()
        if not _meaningless(row, head) and (sets or not (row.readout and row.readout.sets))
    ]


def _meaningless(row, head):
    """Why a map means nothing for a head, or None: a readout of a p(z|x) that the head does not train (Head.unsuited),
    or the interactions of locations if the head's score is linear in the features."""
    if row.readout and row.readout.read.__name__ in head.unsuited:
        return 'it reads a p(z|x) that this head does not train'
    if row.interaction and head.linear:
        return 'this head sums its score over the locations, so it is 0 everywhere'
    return None


def doubt(name, head_name):
    """A line on why the map `name` means nothing for the head `head_name`; None if it does."""
    head = HEADS[head_name]
    why = _meaningless(MAPS[name], head) if head.trainable else None
    return f'the map {name} means nothing on {head_name}: {why} (its own map is {head.own_map})' if why else None
