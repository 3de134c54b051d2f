#!/bin/bash
# A study on several nodes of one Slurm job, where Ray hands out the runs and the GPUs.
#
#     sbatch slurm_ray.sh table1-rte
#
# A node that is lost costs its runs' time, no run. Submit the same again after a time limit.
#SBATCH --job-name=stabkit-ray
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=08:00:00
#SBATCH --output=%x-%j.log

set -euo pipefail
source "$HOME/stabkit-env/bin/activate"

export STABKIT_STORE="file://${SCRATCH:-$HOME}/stabkit-runs"
export STABKIT_RESULTS="$HOME/stabkit/results"
export HF_HUB_OFFLINE=1
export RAY_USAGE_STATS_ENABLED=0

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$head:6379"

# Ray starts on every node, runs the command on the first, and stops with it. Four runs of a model
# that leaves most of a GPU idle share one; give a large model --gpus 1.
srun ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus 1 -- \
    stabkit study "${1:?name a study}" --executor ray --address "$address" --cpus 4 --gpus 0.25
