#!/usr/bin/env bash
# The main job on ToyBirds: draw birds, train CAM, then CALM-ML and CALM-EM from it, score their maps both ways, print
# one table and draw one picture. Everything lands in save/NAME; a finished step is not repeated.
#   bash scripts/quickstart.sh [NAME]          a network of the paper's kind, EfficientNet-Lite0 with ImageNet weights,
#                                              on few birds: minutes. NAME of the run, default quickstart
#   bash scripts/quickstart.sh --full [NAME]   a network of six layers from scratch on all birds: 15 to 20 minutes on 2
#                                              CPU cores. Default NAME quickstart-full
#   bash scripts/quickstart.sh --picture       only first pictures: three photographs explained by a trained ImageNet
#                                              network, nothing is trained: save/picture/panels
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
mode=quick
case ${1:-} in
    -h | --help) sed -n '2,/^set/ { /^set/d; s/^# \{0,1\}//p }' "$0"; exit 0 ;;
    --picture | --full) mode=${1#--}; shift ;;
esac
case ${1:-} in
    -*) die "unknown option '$1': --full, --picture or the NAME of a run (see --help)" ;;
    help | full | picture) die "'$1' would be the NAME of a run: give --$1, or another NAME" ;;
esac
[ $# -le 1 ] || die "${*:2}: give one NAME of a run at most (see --help)"
[ $# -eq 0 ] || [ "$mode" != picture ] || die "$1: --picture takes no NAME (see --help)"
requirements='requirements-timm.txt'     # the network and its weights
NAME=${1:-quickstart}
if [ "$mode" = full ]; then
    requirements='requirements.txt'
    NAME=${1:-quickstart-full}
fi
folder=save/$NAME
if [ "$mode" != picture ] && [ -d "$(checkout)/$folder/CAM" ]; then
    [ -d "$(checkout)/$folder/dataset" ] && kind=quick || kind=full     # a quick run keeps its birds there
    [ "$kind" = "$mode" ] || die "$folder is a $kind run, and not a $mode one: give another NAME (see --help)"
fi
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" "$requirements"
# shellcheck source=scripts/reproduce/rows.sh
source scripts/reproduce/rows.sh
SECONDS=0
run() { note "[$SECONDS s] $*"; .venv/bin/python "$@"; }

# together COMMAND...: beside each other, each on one core, where cores > 1. All have ended when a failure is told.
cores=$(nproc)
together() {
    local command process processes=() failed=0
    for command in "$@"; do
        if [ "$cores" -gt 1 ]; then
            (trap - INT; export OMP_NUM_THREADS=1; $command) &     # Ctrl-C ends what runs in the background, too
            processes+=($!)
        else
            $command
        fi
    done
    for process in "${processes[@]}"; do wait "$process" || failed=1; done
    return "$failed"
}

explain() {  # explain PHOTOGRAPH
    run inference.py --classifier=timm/tf_efficientnet_lite0 --images "$1" --classes=@1,@2 --batch_size=4 \
        --method=vanilla,grad_cam,layer_cam,score_cam --seed=0 --output=save/picture/panels --override_cache=True
}

if [ "$mode" = picture ]; then
    # glibc keeps what the 1280 masked passes of Score-CAM free, in place of asking the system for the same pages again.
    export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296
    photographs=(docs/photographs/*.jpg)
    together "${photographs[@]/#/explain }"
    note "[$SECONDS s] the pictures: save/picture/panels"
    note "CALM of your own photograph of a bird: .venv/bin/python inference.py --images FILE" \
        "--load_checkpoint=packaged/CALM-EM_CUB_lite0 --classes=@1,@2"
    exit
fi

common=(--workers=1 --seed=0 --resume=True)          # what was cut off goes on
if [ "$mode" = quick ]; then                         # the sizes of the study's network of that name
    network=_tf_efficientnet_lite0
    birds=("--data_root=$folder/dataset" "--metadata_root=$folder/metadata")
    sizes=(--train=20 --val=2 --test=8)
    common+=("${birds[@]}" --batch_size=16 --channels_last=True)
    cam_epochs=(--epochs=4 --lr_decay_frequency=4)
    calm_epochs=(--epochs=2 --lr_decay_frequency=2)
    erasing=()
else                                                 # those of the data set and of the configurations
    network='' birds=() sizes=() cam_epochs=() calm_epochs=()
    erasing=(--random_repeats=3)
    cores=1                                          # one command after the other, each on all cores
fi
once() { [ -e "$folder/$1" ] || run "${@:2}"; }      # a result file, then the command that makes it

train() {  # train METHOD
    local flags=("${cam_epochs[@]}")
    # CALM starts from CAM's weights, the released two-step option.
    [ "$1" = CAM ] || flags=("${calm_epochs[@]}" "--load_checkpoint=$NAME/CAM" --is_different_checkpoint=True)
    once "$1/accuracy.json" main.py "--config=configs/$1_ToyBirds$network.yaml" "--experiment_name=$NAME/$1" \
        "${common[@]}" "${flags[@]}"
}

evaluate() {  # evaluate METHOD MAP
    local flags scale
    read -r -a scale <<< "$(scale_of cue_localization "$2")"
    flags=("--config=configs/$1_ToyBirds$network.yaml" "--experiment_name=$NAME/$1" "${common[@]}"
        "--load_checkpoint=$NAME/$1" "--score_map_process=$2")
    once "$1/cue_location_$2.json" eval_cue_location.py "${flags[@]}" "${scale[@]}"
    once "$1/pixel_perturb_$2.json" eval_pixel_perturb.py "${flags[@]}" "${erasing[@]}"
}

train_and_score() {  # train_and_score METHOD
    train "$1"
    evaluate "$1" jointll
}

run scripts/make_toybirds.py "${birds[@]}" "${sizes[@]}"
train CAM
together 'evaluate CAM vanilla' 'train_and_score CALM-ML' 'train_and_score CALM-EM'
run scripts/draw_maps.py --experiments "$folder/CAM" "$folder/CALM-EM" --output "$folder/maps.png"
run scripts/report.py "$folder/CAM" "$folder/CALM-ML" "$folder/CALM-EM"
if [ "$mode" = quick ]; then
    echo
    echo "The study (docs/study.md), cue exact, three seeds: with this network CALM-EM is better than CAM by 8 to 13" \
        "points; vgg_tiny from scratch (--full) has it the other way round, by 11 to 12."
    echo "CAM's maps blurred by one cell gain 5 to 7 points: they come to CALM's level per pair, and stay 4 behind it" \
        "against the exact parts (one seed)."
fi
note "[$SECONDS s] the picture: $folder/maps.png"
