# shellcheck shell=bash
# Sourced by the scripts in this folder: source common.sh; table TABLE "$@"
#
# Options of all scripts:
#   --toy                   run everything on ToyBirds, rendered on the fly: minutes on two CPU cores; not comparable to
#                           the paper
#   --checkpoints DIR       evaluate DIR/NAME/last_checkpoint.pth.tar (scripts/download_checkpoints.sh) without training;
#                           rows without a checkpoint are left out. NAME is METHOD_SET, or METHOD_SET_ARCHITECTURE for
#                           backbones other than ResNet-50
#   --dataset SET           only this data set; may be repeated
#   --save_root DIR         results: DIR/NAME of runs trained here, DIR/given/NAME of given checkpoints (default: save;
#                           toy: save/toy)
#   --data_root DIR, --metadata_root DIR     default: dataset and metadata of the checkout; toy: in the save root
#   --seeds N ...           train each network with each of these seeds, as NAME-seedN; the table has each run, the mean
#                           and the standard deviation (default: one run, NAME, seed 0)
#   --workers N             data loading processes (default 4; toy 1)
#   --architecture NAME     use this backbone for all rows; runs are named METHOD_SET_NAME
#   --epochs N              training epochs (default: from configs/; toy: 6)
#   --from_cam              start CALM from the CAM run's weights (default for --toy) instead of ImageNet weights
#   --own_split             the split files are your own: do not check the published numbers of images
#   --images N, --test_images N, --iterations N     toy run: training and test images per class, noisy inputs and path
#                           steps of the gradient maps (defaults 30, 4, 4)
#   -- FLAG ...             flags for each training and evaluation command: -- --crop_size=160 --lr=0.001
#
# Running the command again skips steps with an existing result and resumes interrupted ones. Exit code 2: wrong options
# or missing data.
unset CDPATH    # with it, `cd` prints
SCRIPTS="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/lib.sh
source "$SCRIPTS/lib.sh"
# shellcheck source=scripts/reproduce/rows.sh
source "$SCRIPTS/reproduce/rows.sh"

usage() {
    sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"
    sed -n '/^# Options/,/^# Exit\|^[^#]/ s/^# \{0,1\}//p' "$SCRIPTS/reproduce/common.sh"
    exit 0
}

# options TABLE ARGUMENT...: read the options into variables, change to the checkout's root and set up Python. Steps run
# as `${launcher[@]} COMMAND...`; from_cam: does CALM start from CAM's weights?
options() {
    local asked=() sizes='' value
    SETS=$(sets_of "$1")
    shift
    toy='' checkpoints='' save_root='' data_root='' metadata_root='' workers='' seeds=()
    epochs='' images=30 test_images=4 iterations=4 architecture='' from_cam='' own_split='' extra=()
    while [ $# -gt 0 ]; do
        case $1 in --*=*) value=${1#*=}; set -- "${1%%=*}" "$value" "${@:2}" ;; esac
        case $1 in
            --toy) toy=yes; shift; continue ;;
            --from_cam | --own_split) printf -v "${1#--}" yes; shift; continue ;;
            --) extra=("${@:2}"); break ;;
            -h | --help) usage ;;
            --seeds)
                shift
                while [[ ${1:-} =~ ^(0|[1-9][0-9]*)(\ (0|[1-9][0-9]*))*$ ]]; do
                    for value in $1; do
                        [[ " ${seeds[*]} " != *" $value "* ]] || die "--seeds has $value twice"
                        seeds+=("$value")
                    done
                    shift
                done
                [ ${#seeds[@]} -gt 0 ] || die "--seeds needs values, whole numbers from 0: --seeds 0 1 2"
                continue ;;
            --checkpoints | --save_root | --data_root | --metadata_root)
                value=$(option_value "$1" $# "${2:-}") || exit 2
                printf -v "${1#--}" %s "$(realpath -m -- "$value")" ;;
            --architecture)
                architecture=$(option_value "$1" $# "${2:-}") || exit 2 ;;
            --dataset)
                value=$(option_value "$1" $# "${2:-}") || exit 2
                [[ " $SETS " == *" $value "* ]] || die "--dataset $value is not in this table: choose from $SETS"
                asked+=("$value") ;;
            --workers | --epochs | --images | --test_images | --iterations)
                value=$(option_value "$1" $# "${2:-}") || exit 2
                if ! [[ $value =~ ^[0-9]+$ ]] || { [ "$value" -eq 0 ] && [ "$1" != --workers ]; }; then
                    die "$1 $value: give a whole number, at least 1"
                fi
                [[ $1 =~ ^--(workers|epochs)$ ]] || sizes=$1
                printf -v "${1#--}" %s "$value" ;;
            *) die "unknown option '$1': --help lists them" ;;
        esac
        shift 2
    done
    [ -z "$sizes" ] || [ -n "$toy" ] ||
        die "$sizes is only for the toy run: give --toy with it (real runs are configured in configs/)"
    [ -z "$toy" ] || [ ${#asked[@]} -eq 0 ] || die "--toy runs on ToyBirds: leave --dataset out"
    [ -z "$toy" ] || [ -z "$architecture" ] || die "--toy has its own network: leave --architecture out"
    [ -z "$checkpoints" ] || [ -d "$checkpoints" ] ||
        die "--checkpoints $checkpoints is not a folder: scripts/download_checkpoints.sh creates one"
    [ -z "$checkpoints" ] || [ ${#seeds[@]} -eq 0 ] ||
        die "--seeds is for networks trained here: leave it out with --checkpoints"
    [ ${#asked[@]} -eq 0 ] || SETS="${asked[*]}"
    [ -z "$toy" ] || SETS=ToyBirds
    default_places
    # shellcheck source=scripts/setup.sh
    source "$SCRIPTS/setup.sh" requirements.txt
    SECONDS=0
    [ -z "$toy" ] || : "${epochs:=6}" "${from_cam:=yes}"
    launcher=(.venv/bin/python)
    paths=("--save_root=$save_root" "--data_root=$data_root" "--metadata_root=$metadata_root" "--workers=$workers"
        --resume=True)
}

default_places() {
    local root
    root=$(checkout)
    if [ -n "$toy" ]; then
        : "${save_root:=$root/save/toy}" "${workers:=1}"
        : "${data_root:=$save_root/dataset}" "${metadata_root:=$save_root/metadata}"
    else
        : "${save_root:=$root/save}" "${workers:=4}" "${data_root:=$root/dataset}" "${metadata_root:=$root/metadata}"
    fi
}

run() {
    note "[$SECONDS s] $*"
    "${launcher[@]}" "$@" || die "this step failed: ${*:1:2}; run the command again to continue from it"
}

# prepare SET: render the toy set, or check a data set's images and metadata (with --checkpoints: only the test split).
prepare() {
    if [ -n "$toy" ]; then
        run scripts/make_toybirds.py --data_root "$data_root" --metadata_root "$metadata_root" --classes 20 \
            --train "$images" --val 1 --test "$test_images" >&2
        return
    fi
    local splits=(train val test) own=() make="scripts/fetch_metadata.sh $1" mark
    [ -z "$own_split" ] || own=(--own_split)
    [ -z "$checkpoints" ] || splits=(test)
    mark="$save_root/.checked_${1}_$(IFS=- && echo "${splits[*]}")"
    [ ! -e "$mark" ] || [ "$(cat "$mark")" != "$data_root $metadata_root" ] || return 0
    case $1 in
        CUB) make="scripts/prepare_cub.sh, $make" ;;
        ILSVRC) make="scripts/prepare_imagenet.sh, $make" ;;
        *) make="scripts/prepare_openimages.sh, $make" ;;
    esac
    [ -z "$checkpoints" ] || make="scripts/prepare_evaluation_data.sh $1, scripts/fetch_metadata.sh $1"
    if ! [ -d "$data_root" ] || ! [ -d "$metadata_root/$1" ]; then
        die "no data of $1: $data_root and $metadata_root/$1 must be folders; prepare them with $make, or give" \
            "--data_root and --metadata_root"
    fi
    note "checking the data of $1"
    .venv/bin/python scripts/check_data.py --dataset="$1" --data_root="$data_root" --metadata_root="$metadata_root" \
        --fast --show=3 "${own[@]}" --splits "${splits[@]}" >&2 ||
        die "the data of $1 in $data_root are incomplete (see above): prepare them with $make"
    mkdir -p "$save_root" && echo "$data_root $metadata_root" > "$mark"
}

# networks TABLE SET: the table's networks, with --seeds one per seed (NAME-seedN), with --architecture without rows for
# other backbones.
networks() {
    local name seed
    for name in $(networks_of "$1" "$2"); do
        if [ -n "$architecture" ]; then
            [[ $name != *_*_* ]] || continue
            name+=_${architecture##*/}
        fi
        [ ${#seeds[@]} -gt 0 ] || echo "$name"
        for seed in "${seeds[@]}"; do echo "$name-seed$seed"; done
    done
}

# run_of NAME: a network's flags: configuration, seed, architecture and extra flags.
run_of() {
    local seed=0 file=${1%-seed*}
    [[ $1 != *-seed* ]] || seed=${1##*-seed}
    [ -z "$architecture" ] || file=${file%"_${architecture##*/}"}
    echo "--config=configs/$file.yaml --seed=$seed" ${architecture:+"--architecture=$architecture"} "${extra[@]}"
}

# have NAME: is there a network to evaluate? Without --checkpoints, train it first.
have() {
    [ -n "$checkpoints" ] || { train "$1"; return; }
    [ ! -e "$checkpoints/$1/last_checkpoint.pth.tar" ] || return 0
    note "$1: no $checkpoints/$1/last_checkpoint.pth.tar, leaving out its rows"
    return 1
}

experiment() { echo "${checkpoints:+given/}$1"; }
weights() { echo "${checkpoints:-$save_root}/$1"; }

train() {
    [ ! -e "$save_root/$1/accuracy.json" ] || return 0
    local more=() own start
    read -r -a own <<< "$(run_of "$1")"
    [ -z "$epochs" ] || more=("--epochs=$epochs")
    if [ -n "$from_cam" ] && [[ $1 != CAM_* ]]; then
        start=CAM_${1#*_}
        train "$start"
        more+=("--load_checkpoint=$save_root/$start" --is_different_checkpoint=True)
    fi
    run main.py "${own[@]}" "${paths[@]}" "--experiment_name=$1" "${more[@]}" >&2
}

# accuracy NAME: evaluate a given checkpoint's accuracy; training does this for runs trained here.
accuracy() {
    [ -n "$checkpoints" ] && [ ! -e "$save_root/given/$1/accuracy.json" ] || return 0
    local own
    read -r -a own <<< "$(run_of "$1")"
    run main.py "${own[@]}" "${paths[@]}" "--experiment_name=given/$1" --is_train=False \
        "--load_checkpoint=$checkpoints/$1" >&2
}

# evaluate COMMAND RESULT NAME MAPS [FLAG...]: write a network's RESULT_MAP.json, once; MAPS is comma-separated.
evaluate() {
    local command=$1 name=$3 map maps own missing=() more=("${@:5}")
    read -r -a own <<< "$(run_of "$name")"
    IFS=, read -r -a maps <<< "$4"
    for map in "${maps[@]}"; do
        [ -e "$save_root/$(experiment "$name")/$2_$map.json" ] || missing+=("$map")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ -z "$toy" ] || more+=("--smooth_grad_nr_iter=$iterations" "--integrated_grad_nr_iter=$iterations")
    run "$command" "${own[@]}" "${paths[@]}" "--experiment_name=$(experiment "$name")" \
        "--load_checkpoint=$(weights "$name")" "--score_map_process=$(IFS=, && echo "${missing[*]}")" "${more[@]}" >&2
}

# rows TABLE NAME: all results of a network. Maps with the same scale share one run; eval_wsol.py takes one map per run.
rows() {
    local map maps evaluator scale last='' together=()
    read -r -a maps <<< "$(maps_of "$1" "$2")"
    read -r -a evaluator <<< "$(evaluator_of "$1")"
    [ "$1" != classification ] || accuracy "$2"
    for map in "${maps[@]}"; do
        if [ "$1" != wsol ] && [ ${#together[@]} -gt 0 ] && [ "$(scale_of "$1" "$map")" = "$last" ]; then
            together[-1]+=,$map
        else
            together+=("$map")
        fi
        last=$(scale_of "$1" "$map")
    done
    for map in "${together[@]}"; do
        read -r -a scale <<< "$(scale_of "$1" "${map%%,*}")"
        [ "$1" != wsol ] || scale+=("--mask_root=$data_root")
        evaluate "${evaluator[@]}" "$2" "$map" "${scale[@]}"
    done
}

# table TABLE ARGUMENT...: everything from the data to the table.
table() {
    local set name sets=()
    options "$@"
    for set in $SETS; do
        sets+=("--dataset=$set")
        prepare "$set"
        for name in $(networks "$1" "$set"); do
            have "$name" || continue
            rows "$1" "$name"
        done
    done
    mkdir -p "$save_root"
    [ -z "$architecture" ] || sets+=("--architecture=$architecture")
    .venv/bin/python scripts/report.py --table="$1" "${sets[@]}" "$save_root"
}
