# Sourced by the scripts of this folder, which say in their own heads what they make:
#     source common.sh; options "$@"; prepare SET; train NAME; evaluate COMMAND RESULT NAME MAP; table NAME SET...
#
# Options of all of them:
#   --toy                   the whole way on ToyBirds, drawn here: minutes on two CPU cores; no number of the paper belongs to it
#   --checkpoints DIR       train nothing: evaluate DIR/NAME/last_checkpoint.pth.tar (scripts/download_checkpoints.sh); rows without
#                           one are left out. NAME is METHOD_SET, for another backbone than ResNet-50 METHOD_SET_ARCHITECTURE
#   --dataset SET           only this set; several times for several
#   --save_root DIR         results: DIR/NAME of runs trained here, DIR/given/NAME of given checkpoints (default: save; toy: save/toy)
#   --data_root DIR, --metadata_root DIR     default: dataset and metadata of the checkout; toy: in the save root
#   --workers N             data loading processes (default 4; toy 1)
#   --epochs N, --images N, --test_images N, --iterations N     the toy run's sizes: epochs of a training, training and test images
#                           a class, noisy inputs and path steps of the gradient maps (defaults 6, 30, 4, 4)
#
# A step whose result file exists is not repeated, and one that was cut off goes on from its last state, when the command is given
# again. Exit code 2: a mistake in the options, or data that are missing.
SCRIPTS="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$SCRIPTS/lib.sh"

# Maps of each method in the paper's tables. The gradient maps explain the CAM network.
maps_of() { case $1 in CAM*) echo "input_grad integrated_grad smooth_grad var_grad vanilla" ;; *) echo jointll ;; esac; }
# CAM's map and the gradient maps have no scale of their own: min-max and even thresholds. CALM's map is a probability: left as it is,
# with logarithmic thresholds.
scale_of() { case $1 in jointll) echo "--norm_type=clipping --threshold_type=log" ;; *) echo "--norm_type=minmax --threshold_type=even" ;; esac; }

usage() {
    sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"
    sed -n '/^# Options/,/^# Exit\|^[^#]/ s/^# \{0,1\}//p' "$SCRIPTS/reproduce/common.sh"
    exit 0
}

# options ARGUMENT...: reads them, then goes to the checkout's root and sets Python up. SETS: the sets that the script knows.
options() {
    local asked=() sizes='' value
    toy='' checkpoints='' save_root='' data_root='' metadata_root='' workers='' epochs=6 images=30 test_images=4 iterations=4
    while [ $# -gt 0 ]; do
        case $1 in --*=*) value=${1#*=}; set -- "${1%%=*}" "$value" "${@:2}" ;; esac
        case $1 in
            --toy) toy=yes; shift; continue ;;
            -h | --help) usage ;;
            --checkpoints | --save_root | --data_root | --metadata_root)
                value=$(option_value "$1" $# "${2:-}") || exit 2
                printf -v "${1#--}" %s "$(realpath -m -- "$value")" ;;
            --dataset)
                value=$(option_value "$1" $# "${2:-}") || exit 2
                [[ " $SETS " == *" $value "* ]] || die "--dataset $value is not in this table: choose from $SETS"
                asked+=("$value") ;;
            --workers | --epochs | --images | --test_images | --iterations)
                value=$(option_value "$1" $# "${2:-}") || exit 2
                [[ $value =~ ^[0-9]+$ ]] && { [ "$value" -gt 0 ] || [ "$1" = --workers ]; } || die "$1 $value: give a whole number, at least 1"
                [ "$1" = --workers ] || sizes=$1
                printf -v "${1#--}" %s "$value" ;;
            *) die "unknown option '$1': --help lists them" ;;
        esac
        shift 2
    done
    [ -z "$sizes" ] || [ -n "$toy" ] || die "$sizes is a size of the toy run: give --toy with it (a real run's are in configs/)"
    [ -z "$toy" ] || [ ${#asked[@]} -eq 0 ] || die "--toy runs on ToyBirds: leave --dataset out"
    [ -z "$checkpoints" ] || [ -d "$checkpoints" ] || die "--checkpoints $checkpoints is not a folder: scripts/download_checkpoints.sh makes one"
    local root; root=$(checkout)
    [ -z "$toy" ] || { SETS=ToyBirds; : "${save_root:=$root/save/toy}" "${data_root:=$save_root/dataset}" "${metadata_root:=$save_root/metadata}"; }
    [ ${#asked[@]} -eq 0 ] || SETS="${asked[*]}"
    : "${save_root:=$root/save}" "${data_root:=$root/dataset}" "${metadata_root:=$root/metadata}" "${workers:=$([ -n "$toy" ] && echo 1 || echo 4)}"
    REQUIREMENTS=requirements.txt
    source "$SCRIPTS/setup.sh"
    SECONDS=0
    paths=("--save_root=$save_root" "--data_root=$data_root" "--metadata_root=$metadata_root" "--workers=$workers" --seed=0 --resume=True)
}

run() { say "[$SECONDS s] $*"; .venv/bin/python "$@" || die "this step failed: ${*:1:2}; give the command again to go on from it"; }

# prepare SET: draws the toy set, or checks the images and metadata of a set; with given checkpoints only what a test needs.
prepare() {
    if [ -n "$toy" ]; then
        run scripts/make_toybirds.py --data_root "$data_root" --metadata_root "$metadata_root" --classes 20 --train "$images" \
            --val 1 --test "$test_images" >&2
        return
    fi
    local splits='train val test' make="scripts/fetch_metadata.sh $1" mark
    [ -z "$checkpoints" ] || splits=test
    mark="$save_root/.checked_${1}_${splits// /-}"
    [ ! -e "$mark" ] || [ "$(cat "$mark")" != "$data_root $metadata_root" ] || return 0
    case $1 in CUB) make="scripts/prepare_cub.sh, $make" ;; ILSVRC) make="scripts/prepare_imagenet.sh, $make" ;; *) make="scripts/prepare_openimages.sh, $make" ;; esac
    [ -d "$data_root" ] && [ -d "$metadata_root/$1" ] ||
        die "no data of $1: $data_root and $metadata_root/$1 must be folders; prepare them with $make, or give --data_root and --metadata_root"
    say "checking the data of $1"
    .venv/bin/python scripts/check_data.py --dataset="$1" --data_root="$data_root" --metadata_root="$metadata_root" --fast --show=3 \
        --splits $splits >&2 || die "the data of $1 in $data_root are not complete (see above): prepare them with $make"
    mkdir -p "$save_root" && echo "$data_root $metadata_root" > "$mark"
}

# have NAME: is there a network to evaluate? Without given checkpoints it is trained first.
have() {
    [ -n "$checkpoints" ] || { train "$1"; return; }
    [ -e "$checkpoints/$1/last_checkpoint.pth.tar" ] || { say "$1: no $checkpoints/$1/last_checkpoint.pth.tar, its rows are left out"; return 1; }
}

experiment() { [ -n "$checkpoints" ] && echo "given/$1" || echo "$1"; }
weights() { [ -n "$checkpoints" ] && echo "$checkpoints/$1" || echo "$save_root/$1"; }

train() {
    [ ! -e "$save_root/$1/accuracy.json" ] || return 0
    local more=()
    [ -z "$toy" ] || more=("--epochs=$epochs")
    # As in the quick start, the toy's CALM starts from its CAM.
    [ -z "$toy" ] || [ "$1" = CAM_ToyBirds ] || { train CAM_ToyBirds; more+=("--load_checkpoint=$save_root/CAM_ToyBirds" --is_different_checkpoint=True); }
    run main.py "--config=configs/$1.yaml" "${paths[@]}" "--experiment_name=$1" "${more[@]}" >&2
}

# accuracy NAME: of a given checkpoint; a run trained here has its own already.
accuracy() {
    [ -n "$checkpoints" ] && [ ! -e "$save_root/given/$1/accuracy.json" ] || return 0
    run main.py "--config=configs/$1.yaml" "${paths[@]}" "--experiment_name=given/$1" --is_train=False "--load_checkpoint=$checkpoints/$1" >&2
}

# evaluate COMMAND RESULT NAME MAP [FLAG...]: writes RESULT_MAP.json of a network, once.
evaluate() {
    local command=$1 name=$3 map=$4 more=("${@:5}")
    [ ! -e "$save_root/$(experiment "$name")/$2_$map.json" ] || return 0
    [ -z "$toy" ] || more+=("--smooth_grad_nr_iter=$iterations" "--integrated_grad_nr_iter=$iterations")
    run "$command" "--config=configs/$name.yaml" "${paths[@]}" "--experiment_name=$(experiment "$name")" \
        "--load_checkpoint=$(weights "$name")" "--score_map_process=$map" "${more[@]}" >&2
}

# attribution COMMAND RESULT: the seven rows of the paper's tables on each set.
attribution() {
    local set method map
    for set in $SETS; do
        prepare "$set"
        for method in CAM CALM-ML CALM-EM; do
            have "${method}_$set" || continue
            for map in $(maps_of "$method"); do evaluate "$1" "$2" "${method}_$set" "$map" $(scale_of "$map"); done
        done
    done
}

table() {  # table NAME: the paper's numbers and ours
    local set sets=()
    for set in $SETS; do sets+=("--dataset=$set"); done
    mkdir -p "$save_root"
    .venv/bin/python scripts/report.py --table="$1" "${sets[@]}" "$save_root"
}
