"""Min-max scaling of maps."""


def min_max(maps):
    """Each map [..., H, W] scaled to [0, 1]; a constant map becomes 0."""
    maps = maps - maps.amin(dim=(-2, -1), keepdim=True)
    top = maps.amax(dim=(-2, -1), keepdim=True)
    return maps / (top + (top == 0).to(maps.dtype))
