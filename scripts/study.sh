#!/usr/bin/env bash
# The study of docs/study.md: does CALM localize cues better than CAM, and on what does it depend? Networks x kinds of
# cues x heads x seeds on ToyBirds, every step a command of the README.
#
#   bash scripts/study.sh [OPTION WORDS]...
#   bash scripts/study.sh --networks lite0 --designs "combined single" --seeds 0
#
# Options, each with one word or several in quotes (here with what is taken without them):
#   --networks "lite0 vgg_tiny"      lite0: tf_efficientnet_lite0 with ImageNet weights, 160 px, 10x10 maps; vgg_tiny:
#                                    from scratch, 96 px, 24x24 maps. For a GPU there are lite0_fine, 20x20 maps, and
#                                    resnet50, from scratch, 224 px, 28x28 maps, which were never run
#   --train 20                       training images a class; a save_root of its own for each number
#   --designs "combined single"      a class is a combination of eight looks; or one look of one part tells it
#   --heads "CAM CALM-EM CAM-longer CALM-ML CALM-EM-ema CALM-EM-epoch random"     CAM-longer: CAM trained on for as long
#                                    as CALM is after it; -ema, -epoch: a teacher that lags; random: nothing is learnt
#   --seeds "0 1 2"
#   --steps "train cue erase wsol contrast blur"     erase: of CAM and CALM-EM; of the first seed only are contrast (CAM
#                                    and CALM-EM explained by gradient methods) and blur (maps made wider)
#   --save_root DIR                  default save/study: results in DIR/NETWORK-DESIGN/HEAD-seedN, the birds in
#                                    DIR/dataset and DIR/metadata
#   --workers N                      data loading processes (default 1)
#
# A finished step is not repeated, and one that was cut off goes on when the command is given again. The whole takes
# some three hours of two CPU cores; calls for different networks or designs may run side by side.
# scripts/study_page.py then writes the figures into docs/study.md.
set -euo pipefail
SCRIPTS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/lib.sh
source "$SCRIPTS/lib.sh"
# shellcheck source=scripts/reproduce/rows.sh
source "$SCRIPTS/reproduce/rows.sh"

declare -A asked=(
    [networks]='lite0 vgg_tiny' [designs]='combined single' [steps]='train cue erase wsol contrast blur'
    [heads]='CAM CALM-EM CAM-longer CALM-ML CALM-EM-ema CALM-EM-epoch random'
    [seeds]='0 1 2' [save_root]="$(checkout)/save/study" [workers]=1 [train]=20
)
declare -A choices=([networks]="${asked[networks]} lite0_fine resnet50" [designs]=${asked[designs]}
    [steps]=${asked[steps]} [heads]=${asked[heads]})

# read_option NAME WORDS: into `asked`, checked against `choices`
read_option() {
    local word
    case $1 in
        save_root) asked[save_root]=$(realpath -m -- "$2"); return ;;
        seeds | workers | train)
            [[ $2 =~ ^[0-9]+(\ [0-9]+)*$ ]] || die "--$1 $2: give whole numbers" ;;
        *)
            for word in $2; do
                [[ " ${choices[$1]} " == *" $word "* ]] || die "--$1 $word: choose from ${choices[$1]}"
            done ;;
    esac
    asked[$1]=$2
}

while [ $# -gt 0 ]; do
    case $1 in --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; esac
    case $1 in
        -h | --help) sed -n '2,/^set/ s/^# \{0,1\}//p' "$0"; exit 0 ;;
        --networks | --designs | --heads | --seeds | --steps | --save_root | --workers | --train)
            words=$(option_value "$1" $# "${2:-}") || exit 2
            read_option "${1#--}" "$words" ;;
        *) die "unknown option '$1': --help lists them" ;;
    esac
    shift 2
done
root=${asked[save_root]}
# shellcheck source=scripts/setup.sh
source "$SCRIPTS/setup.sh" requirements.txt requirements-timm.txt
SECONDS=0

run() { note "[$SECONDS s] $*"; .venv/bin/python "$@" || die "this step failed: ${*:1:2}"; }

# experiment HEAD: its name
experiment() { echo "$network-$design/$1-seed$seed"; }

# network_flags METHOD: of one of CAM, CALM-ML, CALM-EM in this network, kind of birds and seed
network_flags() {
    local config="configs/$1_ToyBirds"
    [[ $network != lite0* ]] || config+=_tf_efficientnet_lite0
    flags=("--config=$config.yaml" "--dataset=${set_of[$design]}" "--data_root=$root/dataset"
        "--metadata_root=$root/metadata" "--save_root=$root" "--seed=$seed" "--workers=${asked[workers]}"
        --resume=True)
    case $network in  # sizes for CPUs: a third of an hour of a core for each kind of birds and seed
        lite0*)
            flags+=(--batch_size=16 --channels_last=True)
            [ "$1" = CAM ] || flags+=(--epochs=2 --lr_decay_frequency=2) ;;
        *)
            flags+=(--batch_size=16)
            [ "$1" != CAM ] || flags+=(--epochs=24 --lr_decay_frequency=18) ;;
    esac
    case $network in
        lite0_fine) flags+=(--large_feature_map=True) ;;
        resnet50) flags+=(--architecture=resnet50 --use_bn=True --crop_size=224 --resize_size=256 --amp=bf16) ;;
    esac
}

# method_of HEAD: the --attribution_method that makes it
method_of() {
    case $1 in
        CALM-EM*) echo CALM-EM ;;
        CALM-ML) echo CALM-ML ;;
        *) echo CAM ;;
    esac
}

train() {  # train HEAD
    local start=("--load_checkpoint=$(experiment CAM)" --is_different_checkpoint=True) flags
    [ ! -e "$root/$(experiment "$1")/accuracy.json" ] || return 0
    network_flags "$(method_of "$1")"
    case $1 in
        CAM) start=() ;;
        CAM-longer) network_flags CALM-EM; start+=(--attribution_method=CAM) ;;  # CALM's rates and epochs
        *-epoch | *-ema) start+=("--em_teacher=${1##*-}") ;;
        random) start=(--pretrained=False --lr=1e-30 --epochs=1) ;;  # only batch norm's statistics move
    esac
    run main.py "${flags[@]}" "--experiment_name=$(experiment "$1")" "${start[@]}"
}

# score COMMAND RESULT HEAD MAP [FLAG...]: writes RESULT_MAP.json, once
score() {
    local flags
    [ ! -e "$root/$(experiment "$3")/$2.json" ] || return 0
    network_flags "$(method_of "$3")"
    run "$1" "${flags[@]}" "--experiment_name=$(experiment "$3")" "--load_checkpoint=$(experiment "$3")" \
        "--score_map_process=$4" "${@:5}"
}

# contrast HEAD: cue localization by maps of gradient methods, the difference of two maps and one map of the difference
contrast() {
    local map
    for map in input_grad grad_cam layer_cam; do
        score eval_cue_location.py "cue_location_$map" "$1" $map
        score eval_cue_location.py "cue_location_${map}_contrast" "$1" $map --contrast=score
    done
}

# blur HEAD MAP SCALE...: cue localization by a head's maps, blurred
blur() {
    local deviation
    for deviation in 4 8 16; do
        score eval_cue_location.py "cue_location_$2_blur$deviation" "$1" "$2" "${@:3}" --blur=$deviation
    done
}

# evaluate STEP HEAD
evaluate() {
    local map=jointll scale first=
    [ "$(method_of "$2")" != CAM ] || map=vanilla
    [ "$seed" != "${asked[seeds]%% *}" ] || first=$2
    read -r -a scale <<< "$(scale_of "$1" $map)"
    case $1 in
        train) train "$2" ;;
        cue) score eval_cue_location.py "cue_location_$map" "$2" $map "${scale[@]}" ;;
        erase) [[ $2 != CAM && $2 != CALM-EM ]] || score eval_pixel_perturb.py "pixel_perturb_$map" "$2" $map ;;
        wsol) score eval_wsol.py "wsol_$map" "$2" $map "${scale[@]}" ;;
        contrast) [[ $first != CAM && $first != CALM-EM ]] || contrast "$2" ;;
        blur) [[ $first != CAM && $first != CALM-EM ]] || blur "$2" $map "${scale[@]}" ;;
    esac
}

declare -A set_of=([combined]=ToyBirds [single]=ToyBirdsSingle)
for design in ${asked[designs]}; do
    run scripts/make_toybirds.py --design="$design" --train="${asked[train]}" --val=2 --test=8 \
        --data_root="$root/dataset" --metadata_root="$root/metadata"
done
for seed in ${asked[seeds]}; do
    for network in ${asked[networks]}; do
        for design in ${asked[designs]}; do
            for head in ${asked[heads]}; do
                for step in ${asked[steps]}; do evaluate "$step" "$head"; done
            done
        done
    done
done
