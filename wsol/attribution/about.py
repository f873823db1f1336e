"""What the documentation says about each attribution map: its idea, source and cost. One line per row of registry.MAPS.

The cost is the passes of the network for one map of one image and one class. L is the number of channels of the layer,
n of points, copies, steps or masks (set by the options), G of groups of channels, W of squares. Backward passes of the
CAM family end at the target layer.
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
    'jointll': About('probability that the class is y and its cue is at z: CALM', CALM),
    'gtcond': About('probability that the cue is at z, given the class', CALM),
    'saliency': About('probability that the cue is at z, for any class', CALM),
    'vanilla-superclass': About('vanilla, scaled and summed over a set of classes', CALM),
    'jointll-superclass': About('jointll, summed over a set of classes', CALM),
    'jointll-superclass-mean': About('jointll, averaged over a set of classes', CALM),
    'gtcond-superclass': About('gtcond, summed over a set of classes', CALM),
    'gtcond-superclass-mean': About('gtcond, averaged over a set of classes', CALM),
    'input_grad': About('how fast the score changes with each pixel', 'Simonyan et al., ICLR workshop 2014', '1', '1'),
    'smooth_grad': About('input_grad, averaged over noisy copies', 'Smilkov et al., 2017', 'n', 'n'),
    'smooth_grad_square': About(
        'input_grad squared, averaged over noisy copies', 'Hooker et al., NeurIPS 2019', 'n', 'n'
    ),
    'var_grad': About('the variance of input_grad over noisy copies', 'Adebayo et al., NeurIPS 2018', 'n', 'n'),
    'integrated_grad': About('input_grad, averaged over the path from a baseline', CALM, 'n + 1', 'n + 1'),
    'integrated_gradients': About(
        "each pixel's share of the increase of the score from a baseline", 'Sundararajan et al., ICML 2017', 'n', 'n'
    ),
    'guided_backprop': About(
        'input_grad with ReLUs that pass only positive gradients back',
        'Springenberg et al., ICLR workshop 2015',
        '1',
        '1',
    ),
    'gradient_shap': About(
        'integrated gradients at random points of the path', 'Lundberg and Lee, NeurIPS 2017', 'n', 'n'
    ),
    'deep_lift': About(
        'differences from a baseline, propagated by multipliers instead of gradients',
        'Shrikumar et al., ICML 2017',
        '2',
        '1',
    ),
    'full_grad': About(
        'gradient times input plus gradient times bias, summed over all layers',
        'Srinivas and Fleuret, NeurIPS 2019',
        '1',
        '1',
    ),
    'grad_cam': About('channels weighted by their mean gradient', 'Selvaraju et al., ICCV 2017', '1', '1'),
    'grad_cam_pp': About(
        'channels weighted by positive gradients, more where they are rare', 'Chattopadhay et al., WACV 2018', '1', '1'
    ),
    'smooth_grad_cam_pp': About('Grad-CAM++ over noisy copies', 'Omeiza et al., 2019', '1 + n', 'n'),
    'layer_cam': About(
        'activations weighted by positive gradients at each location', 'Jiang et al., TIP 2021', '1', '1'
    ),
    'hires_cam': About('activations times gradients at each location', 'Draelos and Carin, 2020', '1', '1'),
    'xgrad_cam': About('channels weighted by the gradients where they are active', 'Fu et al., BMVC 2020', '1', '1'),
    'finer_cam': About('Grad-CAM of the score minus those of similar classes', 'Zhang et al., CVPR 2025', '1', '1'),
    'refine_cam': About('the product of Grad-CAM++ at several layers', 'Domeniconi et al., 2026', '1', '1'),
    'eigen_cam': About(
        'the direction in which the channels vary most, for any class', 'Muhammad and Yeasin, IJCNN 2020'
    ),
    'eigen_grad_cam': About('Eigen-CAM of activations times gradients', 'pytorch-grad-cam', '1', '1'),
    'taylor_cam': About('Grad-CAM with second-order interactions', 'Lerman et al., ICCV 2021', '1', '2'),
    'taylor_interaction': About('how each location interacts with a chosen one', 'Lerman et al., ICCV 2021', '1', '4'),
    'score_cam': About(
        'channels weighted by the score of the image that they unmask', 'Wang et al., CVPR workshop 2020', '1 + L'
    ),
    'ss_cam': About('Score-CAM over noisy masks', 'Wang et al., 2020', '1 + n L'),
    'is_cam': About('Score-CAM over masked images of increasing brightness', 'Naidu et al., 2020', '1 + n L'),
    'group_cam': About(
        'Score-CAM of clusters of channels, with the masked part blurred', 'Zhang et al., 2021', '2 + G', '1'
    ),
    'ablation_cam': About(
        'channels weighted by the drop of the score without them', 'Desai and Ramaswamy, WACV 2020', '1 + L'
    ),
    'rise': About('the mean score over random masks that show the pixel', 'Petsiuk et al., BMVC 2018', 'n'),
    'occlusion': About('the drop of the score when a square hides the pixel', 'Zeiler and Fergus, ECCV 2014', '1 + W'),
}
