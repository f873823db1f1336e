"""What the documentation says of each attribution map: its idea, its source, its cost. One line a map of registry.MAPS.

Passes of the network that one map of one image and a given class takes: L is the number of channels of the layer, n
that of points, copies, steps or masks (the options say how many), G of groups of channels, W of squares. The backward
passes of the CAM family end at the target layer.
"""

from typing import NamedTuple


class About(NamedTuple):
    """A line of ABOUT."""

    idea: str  # in a few words
    source: str
    forward: str = '1'  # passes, a sum of products
    backward: str = '0'


CALM = 'Kim et al., ICCV 2021'

ABOUT = {
    'vanilla': About("the class's score at every location: CAM", 'Zhou et al., CVPR 2016'),
    'vanilla-saliency': About('CAM of all classes together', CALM),
    'jointll': About('that the class is y and its cue at z: CALM', CALM),
    'gtcond': About('where the cue is, given the class', CALM),
    'saliency': About('where the cue is, whatever the class', CALM),
    'vanilla-superclass': About('vanilla, scaled and summed over a set of classes', CALM),
    'jointll-superclass': About('jointll, summed over a set of classes', CALM),
    'jointll-superclass-mean': About('jointll, its mean over a set of classes', CALM),
    'gtcond-superclass': About('gtcond, summed over a set of classes', CALM),
    'gtcond-superclass-mean': About('gtcond, its mean over a set of classes', CALM),
    'input_grad': About('how fast the score changes with each pixel', 'Simonyan et al., ICLR workshop 2014', '1', '1'),
    'smooth_grad': About('input_grad, its mean over noisy copies', 'Smilkov et al., 2017', 'n', 'n'),
    'smooth_grad_square': About(
        'input_grad squared, its mean over noisy copies', 'Hooker et al., NeurIPS 2019', 'n', 'n'
    ),
    'var_grad': About('input_grad, its variance over noisy copies', 'Adebayo et al., NeurIPS 2018', 'n', 'n'),
    'integrated_grad': About('input_grad, its mean on the way from a baseline', CALM, 'n + 1', 'n + 1'),
    'integrated_gradients': About(
        "each pixel's share of the rise of the score from a baseline", 'Sundararajan et al., ICML 2017', 'n', 'n'
    ),
    'guided_backprop': About(
        'input_grad with ReLUs that let only positive gradients back',
        'Springenberg et al., ICLR workshop 2015',
        '1',
        '1',
    ),
    'gradient_shap': About(
        'integrated gradients at random points of the way', 'Lundberg and Lee, NeurIPS 2017', 'n', 'n'
    ),
    'deep_lift': About(
        'differences from a baseline, handed down by multipliers in place of slopes',
        'Shrikumar et al., ICML 2017',
        '2',
        '1',
    ),
    'full_grad': About(
        'gradients times input and times every bias, layer upon layer', 'Srinivas and Fleuret, NeurIPS 2019', '1', '1'
    ),
    'grad_cam': About('channels weighed by their mean gradient', 'Selvaraju et al., ICCV 2017', '1', '1'),
    'grad_cam_pp': About(
        'channels weighed by positive gradients, more where they are rare', 'Chattopadhay et al., WACV 2018', '1', '1'
    ),
    'smooth_grad_cam_pp': About('Grad-CAM++ over noisy copies', 'Omeiza et al., 2019', '1 + n', 'n'),
    'layer_cam': About(
        'activations weighed by positive gradients, each location by itself', 'Jiang et al., TIP 2021', '1', '1'
    ),
    'hires_cam': About('activations times gradients, each location by itself', 'Draelos and Carin, 2020', '1', '1'),
    'xgrad_cam': About('channels weighed by gradients where they are active', 'Fu et al., BMVC 2020', '1', '1'),
    'finer_cam': About('Grad-CAM of the score less that of similar classes', 'Zhang et al., CVPR 2025', '1', '1'),
    'refine_cam': About('the product of Grad-CAM++ at several layers', 'Domeniconi et al., 2026', '1', '1'),
    'eigen_cam': About(
        'the direction in which the channels vary most, whatever the class', 'Muhammad and Yeasin, IJCNN 2020'
    ),
    'eigen_grad_cam': About('Eigen-CAM of activations times gradients', 'pytorch-grad-cam', '1', '1'),
    'taylor_cam': About('Grad-CAM with interactions of second order', 'Lerman et al., ICCV 2021', '1', '2'),
    'taylor_interaction': About('what each location has in common with one', 'Lerman et al., ICCV 2021', '1', '4'),
    'score_cam': About(
        'channels weighed by the score of the image that they show', 'Wang et al., CVPR workshop 2020', '1 + L'
    ),
    'ss_cam': About('Score-CAM over noisy masks', 'Wang et al., 2020', '1 + n L'),
    'is_cam': About('Score-CAM over images of rising brightness', 'Naidu et al., 2020', '1 + n L'),
    'group_cam': About(
        'Score-CAM of clusters of channels, what they hide being blurred', 'Zhang et al., 2021', '2 + G', '1'
    ),
    'ablation_cam': About(
        'channels weighed by the fall of the score without them', 'Desai and Ramaswamy, WACV 2020', '1 + L'
    ),
    'rise': About('the mean score of random masks that show the pixel', 'Petsiuk et al., BMVC 2018', 'n'),
    'occlusion': About('the fall of the score when a square hides the pixel', 'Zeiler and Fergus, ECCV 2014', '1 + W'),
}
