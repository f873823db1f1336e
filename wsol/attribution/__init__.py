"""Attribution maps by name: readouts of the network's own heads, and gradient methods."""
from .readouts import READOUTS, SUPERCLASS_READOUTS, class_maps
