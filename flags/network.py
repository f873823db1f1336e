"""The flags of a run: its files, its data, its network, its training."""

import wsol
from data_loaders import DATASETS
from wsol import regularization

from .row import (
    COMMANDS,
    COUNT,
    EXPLAINING,
    FROM_0,
    MAIN,
    NETWORK,
    NOTHING,
    PICTURES,
    PLACE,
    RATE,
    SHARE,
    TABLE,
    TRAINING,
    WEIGHT,
    WSOL,
    Flag,
    architecture,
    boolean,
)

WSOL_SPLITS = ('val', 'test')
EM_TEACHERS = ('current', 'epoch', 'ema')
PRECISIONS = ('off', 'bf16', 'fp16')

# fmt: off
RUN = [
    Flag('config', NOTHING, COMMANDS, None,
        'file of flag: value lines; the command line takes precedence', metavar='FILE.yaml'),
    Flag('experiment_name', NOTHING, COMMANDS, 'result', 'folder of this run below --save_root', metavar='NAME'),
    Flag('save_root', NOTHING, COMMANDS, 'save', 'folder of all runs', metavar='DIR'),
    Flag('seed', NOTHING, COMMANDS, None, 'random seed (default: a random one, which is printed)', FROM_0),
    Flag('workers', NOTHING, COMMANDS, 4, 'data loading processes', FROM_0),
    Flag('resume', NOTHING, COMMANDS[:-1], False, 'continue this command where it was stopped', boolean),
    Flag('override_cache', NOTHING, COMMANDS, False, 'replace existing results', boolean),
]

DATA = [
    Flag('dataset', NETWORK, COMMANDS, 'CUB',
        'data set; folder: your own photographs, --data_root/train/CLASS/*.jpg', tuple(DATASETS),
        also=('dataset_name',)),
    Flag('data_root', PLACE, COMMANDS, 'dataset/', 'folder of the data sets, or your own', metavar='DIR'),
    Flag('metadata_root', PLACE, COMMANDS, 'metadata/', 'folder of the split files', metavar='DIR'),
    Flag('mask_root', NOTHING, WSOL + TABLE, 'dataset/',
        'folder that contains OpenImages/ with its masks', metavar='DIR'),
    Flag('split', NETWORK, WSOL + PICTURES, 'test', 'split to use', WSOL_SPLITS),
    Flag('proxy_training_set', TRAINING, MAIN, False,
        'train on the images of image_ids_proxy.txt (ILSVRC: a tenth)', boolean),
    Flag('resize_size', TRAINING, MAIN, 256, 'training images are resized to this square', COUNT),
    Flag('crop_size', NETWORK, COMMANDS, 224, 'random crop in training; image size in evaluation', COUNT),
]

MODEL = [
    Flag('architecture', NETWORK, COMMANDS, 'resnet18',
        f'backbone: {", ".join(wsol.ARCHITECTURES)}, or timm/<name> (requirements-timm.txt)', architecture, 'NAME'),
    Flag('attribution_method', NETWORK, COMMANDS, 'CAM', 'head and training loss', wsol.ATTRIBUTION_METHODS),
    Flag('use_bn', NETWORK, COMMANDS, False, 'batch norm in VGG and in the tail of Inception', boolean),
    Flag('large_feature_map', NETWORK, COMMANDS, False, '28x28 instead of 14x14 locations at 224 px', boolean),
    Flag('pretrained', TRAINING, MAIN, True, 'start from ImageNet weights (downloaded once)', boolean),
    Flag('classifier', NETWORK, MAIN, None,
        'start from this network: timm/<name>, a torchvision name, or a file of weights with --architecture',
        metavar='NAME'),
    Flag('classifier', NETWORK, EXPLAINING, None,
        'a trained classifier instead of a checkpoint: timm/<name>, a torchvision name, or a file of '
        'weights with --architecture', metavar='NAME'),
    Flag('load_checkpoint', TRAINING, COMMANDS, None,
        'checkpoint file, folder that contains last_checkpoint.pth.tar, or packaged/NAME', metavar='PATH'),
    Flag('use_load_checkpoint', TRAINING, COMMANDS, None,
        'load --load_checkpoint, or the one in the experiment folder (default: True with --load_checkpoint)',
        boolean),
    Flag('is_different_checkpoint', TRAINING, MAIN, False,
        'do not load conv_last from the checkpoint; the whole backbone learns at --lr (CALM from CAM)', boolean),
    Flag('batch_size', NETWORK, COMMANDS, 64, 'images per step', COUNT),
    Flag('amp', NETWORK, COMMANDS, 'off', 'mixed precision of the network; losses stay float32', PRECISIONS),
    Flag('channels_last', NETWORK, COMMANDS, False, 'channels-last memory format', boolean),
    Flag('compile', NETWORK, COMMANDS, False, 'compile the network (torch.compile)', boolean),
]

LEARNING = [
    Flag('is_train', TRAINING, MAIN, True, 'False: only evaluate on the test split', boolean),
    Flag('epochs', TRAINING, MAIN, 40, 'training epochs; may be raised when a stopped run resumes', COUNT, grows=True),
    Flag('lr', TRAINING, MAIN, 0.01, 'learning rate of the backbone', RATE),
    Flag('lr_decay_frequency', TRAINING, MAIN, 30, 'learning rates are divided by 10 every N epochs', COUNT, 'N'),
    Flag('lr_classifier_ratio', TRAINING, MAIN, 10, 'factor on --lr outside the backbone', WEIGHT),
    Flag('momentum', TRAINING, MAIN, 0.9, 'Nesterov momentum', SHARE),
    Flag('weight_decay', TRAINING, MAIN, 1e-4, 'L2 penalty', WEIGHT),
    Flag('gradient_reg', TRAINING, MAIN, 0, 'weight of the interpretable-gradient loss', WEIGHT, 'LAMBDA'),
    Flag('gradient_reg_error', TRAINING, MAIN, 'cosine', 'error function of that loss', tuple(regularization.ERRORS)),
    Flag('em_teacher', TRAINING, MAIN, 'current',
        "CALM-EM: the weights that give p'(z|x,y): the current ones, those at the end of the last epoch, or "
        "a running average", EM_TEACHERS),
    Flag('em_decay', TRAINING, MAIN, 0.99, 'decay of the running average per step', SHARE),
    Flag('freeze_bn', TRAINING, MAIN, False,
        'keep the statistics of batch norm fixed; its weights still learn', boolean),
    Flag('sync_bn', TRAINING, MAIN, False, 'batch norm over all processes (accelerators only)', boolean),
    Flag('save_minutes', NOTHING, MAIN, 30, 'minutes between saved states within an epoch, for --resume', RATE),
    Flag('tensorboard', NOTHING, MAIN, False, 'write losses, accuracies, rates and maps for TensorBoard', boolean),
]
# fmt: on
