# shellcheck shell=bash disable=SC2154
# Sourced by the batch scripts in this folder, which set root to the checkout: runs a command in a SLURM job.
#
# torchrun runs on every node with one process per GPU, or without GPUs one per task (--ntasks-per-node, default 1). On
# SIGUSR1 or SIGTERM (time limit, preemption) the command saves its state and creates the file `requeue_JOB` in its
# experiment folder; the job is then requeued and resumes. Any other failure ends the job with its exit code.
set -euo pipefail
speaker=$SLURM_JOB_NAME
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
venv_python=$root/.venv/bin/python
[ -x "$venv_python" ] ||
    die "$venv_python is missing: run bash scripts/quickstart.sh or scripts/test.sh once on the login node"
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}

# launch COMMAND ARGUMENT...: run the job step. Exit codes are those of scripts/torchrun.py.
launch() {
    local head processes=${SLURM_GPUS_ON_NODE:-0} cpus=${SLURM_CPUS_ON_NODE:-1}
    [ "$processes" -gt 0 ] || processes=${SLURM_NTASKS_PER_NODE:-1}
    head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cpus > processes ? cpus / processes : 1))}
    # The step runs one task per node with all of the job's resources there, whatever the job's task layout.
    unset SLURM_NTASKS SLURM_NPROCS SLURM_NTASKS_PER_NODE SLURM_TASKS_PER_NODE SLURM_CPUS_PER_TASK \
        SLURM_TRES_PER_TASK SLURM_GPUS_PER_TASK
    # --wait: a node that has saved waits up to a minute for the others. torchrun forwards signals to the workers and
    # must leave them time to save; SLURM gives 120 seconds (--signal).
    # shellcheck disable=SC2016
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpu-bind=none \
        --kill-on-bad-exit=0 --wait=60 bash -c 'exec "$0" "$1" --node_rank="$SLURM_NODEID" "${@:2}"' \
        "$venv_python" "$root/scripts/torchrun.py" --nnodes="$SLURM_JOB_NUM_NODES" --nproc_per_node="$processes" \
        --master_addr="$head" --master_port=$((15000 + SLURM_JOB_ID % 15000)) --shutdown-timeout=100 \
        "$root/$1" "${@:2}"
}

# folder_of ARGUMENT...: the experiment folder of a command with these arguments.
folder_of() {
    PYTHONPATH=$root "$venv_python" - "$@" << 'END'
import argparse, os
from config import defaults, read_yaml
parser = argparse.ArgumentParser()
for name in ('config', 'save_root', 'experiment_name'):
    parser.add_argument(f'--{name}')
given = vars(parser.parse_known_args()[0])
default = defaults()
settings = read_yaml(given['config']) if given['config'] else {}
names = ('save_root', 'experiment_name')
print(os.path.join(*(str(given[name] or settings.get(name) or default[name]) for name in names)))
END
}

# work COMMAND ARGUMENT...: launch a command with --resume; if it is stopped, requeue the job and exit.
work() {
    local folder code=0 job=$SLURM_JOB_ID marker
    folder=$(folder_of "${@:2}") || die "these arguments name no experiment folder: ${*:2}"
    marker=$folder/requeue_$SLURM_JOB_ID
    rm -f "$marker"                                             # from this job's previous start
    launch "$1" --resume "${@:2}" || code=$?
    [ $code -ne 0 ] || return 0
    # 75 without the file, and 138 (SIGUSR1 before torchrun handled it): stopped before there was anything to save
    [ -e "$marker" ] || [ $code -eq 75 ] || [ $code -eq 138 ] || { say "$1 failed with code $code"; exit $code; }
    [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID   # only the task, not the array
    say "$1 was stopped: requeueing job $job, which will resume from its saved state"
    scontrol requeue "$job" ||
        say "it could not be requeued: submit the same command again to resume from the saved state"
    exit 75
}
