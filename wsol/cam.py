"""CAM: class activation mapping (Zhou et al., CVPR 2016) in its fully convolutional form, as pure functions.

f [B, C, H, W] are the class scores conv_last(F); the map of class y is f_y, the prediction softmax_y mean_z f. Every
network here has an attention h [B, 1, H, W]; CAM ignores it.
"""


def logits(f):
    """Class logits [B, C]: scores averaged over locations."""
    return f.mean(dim=(2, 3))


def p_y_given_x(f, h=None):
    """p(y|x) [B, C]."""
    return logits(f).softmax(dim=1)


def p_of_one_output(f, h=None):
    """p(y|x) [B, 2] of a network with one sigmoid output z: the sigmoid of the class logits -z and z."""
    return logits(f).sigmoid()


def log_score(f, h=None):
    """The scalar per class that gradient and perturbation maps explain [B, C]: the logit."""
    return logits(f)


def loss(f, h, y):
    """-log p(y|x) per image [B]; y is a LongTensor [B]."""
    log_p = logits(f).log_softmax(dim=1)
    return -log_p.gather(1, y.view(-1, 1)).squeeze(1)
