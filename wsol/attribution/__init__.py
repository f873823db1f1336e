"""Attribution maps: a reusable `Explainer`, `explain` by method name, and each method as a function.

__all__ is the public interface; each module documents its maps and their sources.
"""

from .adapter import Classifier, logits_of
from .cam_family import (
    eigen_cam,
    eigen_grad_cam,
    finer_cam,
    grad_cam,
    grad_cam_pp,
    hires_cam,
    layer_cam,
    refine_cam,
    smooth_grad_cam_pp,
    taylor_cam,
    xgrad_cam,
)
from .common import chosen, explainer, noise_seed, scores_of
from .contrast import check_contrast
from .deeplift import deep_lift
from .explaining import Explainer, Result, explain
from .fullgrad import full_grad
from .gradient import (
    gradient_shap,
    guided_backprop,
    guided_gradients,
    input_grad,
    integrated_grad,
    integrated_gradients,
    integrated_gradients_by_channel,
    integrated_gradients_with_gap,
    smooth_grad,
    smooth_grad_square,
    target_scores,
    var_grad,
)
from .interaction import taylor_interaction
from .masking import occlusion, rise
from .options import Options
from .perturbation import ablation_cam, group_cam, is_cam, score_cam, ss_cam
from .pictures import overlay
from .postprocessing import NORMALIZATIONS, fuse, normalize, upsample
from .readouts import class_maps
from .registry import MAPS, READOUTS, SUPERCLASS_READOUTS, Map, doubt, lookup, resolve, suited, unit_of

gtcond = MAPS['gtcond'].function
jointll = MAPS['jointll'].function
saliency = MAPS['saliency'].function
vanilla = MAPS['vanilla'].function

__all__ = [
    'MAPS',
    'NORMALIZATIONS',
    'READOUTS',
    'SUPERCLASS_READOUTS',
    'Classifier',
    'Explainer',
    'Map',
    'Options',
    'Result',
    'ablation_cam',
    'check_contrast',
    'chosen',
    'class_maps',
    'deep_lift',
    'doubt',
    'eigen_cam',
    'eigen_grad_cam',
    'explain',
    'explainer',
    'finer_cam',
    'full_grad',
    'fuse',
    'grad_cam',
    'grad_cam_pp',
    'gradient_shap',
    'group_cam',
    'gtcond',
    'guided_backprop',
    'guided_gradients',
    'hires_cam',
    'input_grad',
    'integrated_grad',
    'integrated_gradients',
    'integrated_gradients_by_channel',
    'integrated_gradients_with_gap',
    'is_cam',
    'jointll',
    'layer_cam',
    'logits_of',
    'lookup',
    'noise_seed',
    'normalize',
    'occlusion',
    'overlay',
    'refine_cam',
    'resolve',
    'rise',
    'saliency',
    'score_cam',
    'scores_of',
    'smooth_grad',
    'smooth_grad_cam_pp',
    'smooth_grad_square',
    'ss_cam',
    'suited',
    'target_scores',
    'taylor_cam',
    'taylor_interaction',
    'unit_of',
    'upsample',
    'vanilla',
    'var_grad',
    'xgrad_cam',
]
