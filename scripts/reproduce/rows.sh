# shellcheck shell=bash disable=SC2034
# Contents of the paper's tables: data sets, networks, maps, and how each map is scored. Sourced by the scripts in this
# folder, in ../slurm and by ../quickstart.sh; never run.

TABLES='classification, cue_localization, remove_and_classify, wsol'

sets_of() {  # sets_of TABLE; status 1: no such table
    case $1 in
        cue_localization) echo CUB ;;
        classification | remove_and_classify | wsol) echo CUB OpenImages ILSVRC ;;
        *) return 1 ;;
    esac
}

networks_of() {  # networks_of TABLE SET: names in configs/; only the localization table has other backbones
    [ "$1" != wsol ] || [ "$2" = ToyBirds ] || echo "CAM_$2_vgg16" "CAM_$2_inception_v3"
    echo "CAM_$2" "CALM-ML_$2" "CALM-EM_$2"
}

maps_of() {  # maps_of TABLE NETWORK; the gradient maps explain the CAM network
    case $1:$2 in
        classification:*) ;;
        wsol:CAM*) echo vanilla ;;
        wsol:*) echo jointll saliency ;;
        *:CAM*) echo input_grad integrated_grad smooth_grad var_grad vanilla ;;
        *) echo jointll ;;
    esac
}

evaluator_of() {  # evaluator_of TABLE: command, prefix of its result files
    case $1 in
        cue_localization) echo eval_cue_location.py cue_location ;;
        remove_and_classify) echo eval_pixel_perturb.py pixel_perturb ;;
        wsol) echo eval_wsol.py wsol ;;
    esac
}

# scale_of TABLE MAP: flags that scale a map for cue localization. CAM and gradient maps have no fixed scale: min-max and
# even thresholds. CALM's map is a probability: unscaled, logarithmic thresholds. The other tables need no flags: erasing
# uses only the order of pixels, and the localization protocol scales every map.
scale_of() {
    case $1:$2 in
        cue_localization:jointll) echo --norm_type=clipping --threshold_type=log ;;
        cue_localization:*) echo --norm_type=minmax --threshold_type=even ;;
    esac
}
