# shellcheck shell=bash disable=SC2154
# Sourced by the batch scripts of this folder, which set root, the checkout: how a command runs in a SLURM job.
#
# torchrun runs on every node of the job, with a process a GPU; without GPUs a process a task (--ntasks-per-node,
# default 1). A command that is stopped by SIGUSR1 or SIGTERM (the time limit comes near, the cluster wants the node)
# saves its state and leaves the file `requeue_JOB` in its experiment folder; the job then goes back into the queue and
# goes on from that state. Any other failure ends the job with its code.
set -euo pipefail
speaker=$SLURM_JOB_NAME
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
venv_python=$root/.venv/bin/python
[ -x "$venv_python" ] ||
    die "$venv_python is missing: run bash scripts/quickstart.sh or scripts/test.sh once on the login node"
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}

# launch COMMAND ARGUMENT...: the step of the job. Its exit code is the command's, as scripts/torchrun.py has them.
launch() {
    local head processes=${SLURM_GPUS_ON_NODE:-0} cpus=${SLURM_CPUS_ON_NODE:-1}
    [ "$processes" -gt 0 ] || processes=${SLURM_NTASKS_PER_NODE:-1}
    head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cpus > processes ? cpus / processes : 1))}
    # The step is one task a node with all that the job has there, whatever the job's own tasks are.
    unset SLURM_NTASKS SLURM_NPROCS SLURM_NTASKS_PER_NODE SLURM_TASKS_PER_NODE SLURM_CPUS_PER_TASK \
        SLURM_TRES_PER_TASK SLURM_GPUS_PER_TASK
    # The nodes of a run end together: one that has saved waits for the others, but not longer than a minute. torchrun
    # passes the signals on to the workers and must leave them time to save; SLURM gives 120 seconds (--signal).
    # shellcheck disable=SC2016
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpu-bind=none \
        --kill-on-bad-exit=0 --wait=60 bash -c 'exec "$0" "$1" --node_rank="$SLURM_NODEID" "${@:2}"' \
        "$venv_python" "$root/scripts/torchrun.py" --nnodes="$SLURM_JOB_NUM_NODES" --nproc_per_node="$processes" \
        --master_addr="$head" --master_port=$((15000 + SLURM_JOB_ID % 15000)) --shutdown-timeout=100 \
        "$root/$1" "${@:2}"
}

# folder_of ARGUMENT...: the experiment folder that the arguments of a command mean.
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

# work COMMAND ARGUMENT...: launches a command, going on from where an earlier start of it was stopped; when this one is
# stopped too, puts the job back into the queue, which ends this script.
work() {
    local folder code=0 job=$SLURM_JOB_ID marker
    folder=$(folder_of "${@:2}") || die "these arguments name no experiment folder: ${*:2}"
    marker=$folder/requeue_$SLURM_JOB_ID                        # other jobs of the folder have their own
    rm -f "$marker"                                             # of this job's last start
    launch "$1" --resume "${@:2}" || code=$?
    [ $code -ne 0 ] || return 0
    # 75 without the file, and 138, where torchrun was not there yet to take SIGUSR1: there was nothing to save.
    [ -e "$marker" ] || [ $code -eq 75 ] || [ $code -eq 138 ] || { say "$1 failed with code $code"; exit $code; }
    [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID   # the task alone, not the array
    say "$1 was stopped: job $job goes back into the queue and will go on from its saved state"
    scontrol requeue "$job" ||
        say "it could not be requeued: submit the same command again to resume from the saved state"
    exit 75
}
