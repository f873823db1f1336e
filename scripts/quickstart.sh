#!/usr/bin/env bash
# The main job on ToyBirds: draw the data, train CAM, CALM-ML and CALM-EM, score their maps both ways, print one table
# and draw one picture. Everything lands in save/$NAME; a finished step is not repeated.
#   bash scripts/quickstart.sh [NAME]        NAME of the run, default quickstart
#   bash scripts/quickstart.sh --picture     only first pictures: three photographs explained by a trained ImageNet
#                                            network, nothing is trained: save/picture/panels
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in
    -h | --help) sed -n '2,/^set/ s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --picture) ;;
    -*) die "unknown option '$1': --picture or the NAME of a run (see --help)" ;;
esac
[ $# -le 1 ] || die "${*:2}: give one word, --picture or the NAME of a run (see --help)"
requirements=(requirements.txt)
[ "${1:-}" != --picture ] || requirements+=(requirements-timm.txt)     # the network and its weights
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" "${requirements[@]}"
# shellcheck source=scripts/reproduce/rows.sh
source scripts/reproduce/rows.sh
NAME=${1:-quickstart}
COMMON=(--workers=1 --seed=0 --resume=True)          # what was cut off goes on
SECONDS=0
run() { note "[$SECONDS s] $*"; .venv/bin/python "$@"; }
once() { [ -e "save/$NAME/$1" ] || run "${@:2}"; }   # a result file, then the command that makes it

picture() {
    # glibc keeps what the 1280 masked passes of Score-CAM free, in place of asking the system for the same pages again.
    export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296
    # A process a photograph, each on one core, takes less time than one process that shares the cores.
    export OMP_NUM_THREADS=1
    local photograph process processes=()
    for photograph in docs/photographs/*.jpg; do
        run inference.py --classifier=timm/tf_efficientnet_lite0 --images "$photograph" --classes=@1,@2 --batch_size=4 \
            --method=vanilla,grad_cam,layer_cam,score_cam --seed=0 --output=save/picture/panels --override_cache=True &
        processes+=($!)
    done
    for process in "${processes[@]}"; do wait "$process"; done
    note "[$SECONDS s] the pictures: save/picture/panels"
}

train() {  # train METHOD
    local start=()                                   # CALM starts from CAM's weights, the released two-step option
    [ "$1" = CAM ] || start=("--load_checkpoint=$NAME/CAM" --is_different_checkpoint=True)
    once "$1/accuracy.json" main.py "--config=configs/$1_ToyBirds.yaml" "--experiment_name=$NAME/$1" "${COMMON[@]}" \
        "${start[@]}"
}

evaluate() {  # evaluate METHOD MAP
    local flags scale
    read -r -a scale <<< "$(scale_of cue_localization "$2")"
    flags=("--config=configs/$1_ToyBirds.yaml" "--experiment_name=$NAME/$1" "${COMMON[@]}" "--load_checkpoint=$NAME/$1"
        "--score_map_process=$2")
    once "$1/cue_location_$2.json" eval_cue_location.py "${flags[@]}" "${scale[@]}"
    once "$1/pixel_perturb_$2.json" eval_pixel_perturb.py "${flags[@]}" --random_repeats=3
}

if [ "$NAME" = --picture ]; then
    picture
    exit
fi
run scripts/make_toybirds.py
for method in CAM CALM-ML CALM-EM; do train "$method"; done
evaluate CAM vanilla
evaluate CALM-ML jointll
evaluate CALM-EM jointll
run scripts/draw_maps.py --experiments "save/$NAME/CAM" "save/$NAME/CALM-EM" --output "save/$NAME/maps.png"
run scripts/report.py "save/$NAME/CAM" "save/$NAME/CALM-ML" "save/$NAME/CALM-EM"
note "[$SECONDS s] the picture: save/$NAME/maps.png"
