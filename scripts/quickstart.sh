#!/usr/bin/env bash
# The main job on ToyBirds: draw the data, train CAM, CALM-ML and CALM-EM, score their maps both ways, print one table and
# draw one picture. Everything lands in save/$NAME; a finished step is not repeated.
#   bash scripts/quickstart.sh [NAME]        NAME of the run, default quickstart
#   bash scripts/quickstart.sh --picture     only a first picture, after a short training of CAM: save/picture/panels
set -euo pipefail
REQUIREMENTS=requirements.txt
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
NAME=${1:-quickstart}
SECONDS=0
run() { say "[$SECONDS s] $*"; .venv/bin/python "$@"; }
once() { [ -e "save/$NAME/$1" ] || run "${@:2}"; }       # a result file, then the command that makes it

COMMON="--workers=1 --seed=0 --resume=True"          # what was cut off goes on
process() { [ "$1" = CAM ] && echo vanilla || echo jointll; }
# As in the paper: CAM's maps min-max scaled with even thresholds, CALM's maps as they are with logarithmic ones.
scale() { [ "$1" = CAM ] && echo "--norm_type=minmax --threshold_type=even" || echo "--norm_type=clipping --threshold_type=log"; }

run scripts/make_toybirds.py
if [ "$NAME" = --picture ]; then
    NAME=picture
    once CAM/accuracy.json main.py --config=configs/CAM_ToyBirds.yaml --experiment_name=picture/CAM --epochs=5 --lr_decay_frequency=5 $COMMON
    run inference.py --load_checkpoint=picture/CAM --images dataset/ToyBirds/images/0[0-5]*/*_0121_*.jpg --classes=@1,@2 --workers=1 \
        --seed=0 --output=save/picture/panels --override_cache=True
    say "[$SECONDS s] the pictures: save/picture/panels"
    exit
fi
for method in CAM CALM-ML CALM-EM; do
    start=()          # CALM starts from CAM's weights, the released two-step option
    [ $method = CAM ] || start=(--load_checkpoint=$NAME/CAM --is_different_checkpoint=True)
    once $method/accuracy.json main.py --config=configs/${method}_ToyBirds.yaml --experiment_name=$NAME/$method $COMMON "${start[@]}"
done
for method in CAM CALM-ML CALM-EM; do
    map=$(process $method)
    flags="--config=configs/${method}_ToyBirds.yaml --experiment_name=$NAME/$method $COMMON --load_checkpoint=$NAME/$method"
    flags="$flags --score_map_process=$map $(scale $method)"
    once $method/cue_location_$map.json eval_cue_location.py $flags
    once $method/pixel_perturb_$map.json eval_pixel_perturb.py $flags --random_repeats=3
done
run scripts/draw_maps.py --experiments save/$NAME/CAM save/$NAME/CALM-EM --output save/$NAME/maps.png
run scripts/report.py save/$NAME/CAM save/$NAME/CALM-ML save/$NAME/CALM-EM
say "[$SECONDS s] the picture: save/$NAME/maps.png"
