#!/bin/bash
# A study as an array of Slurm jobs without Ray: each job does what no other is doing.
#
#     sbatch slurm_array.sh table1-rte
#
# A job that is ended loses the runs it was at. Submit the same again, and the study goes on.
#SBATCH --job-name=stabkit
#SBATCH --array=0-7
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --output=%x-%A-%a.log

set -euo pipefail
source "$HOME/stabkit-env/bin/activate"

# A folder that all nodes see. In file:// a run is claimed by a lease, which needs no locks.
export STABKIT_STORE="file://${SCRATCH:-$HOME}/stabkit-runs"
export STABKIT_RESULTS="$HOME/stabkit/results"
export HF_HUB_OFFLINE=1 # nodes often have no network; fetch models and data before

stabkit study "${1:?name a study}" --processes "$SLURM_CPUS_PER_TASK"
