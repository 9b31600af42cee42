#!/usr/bin/env bash
# What a set of runs will take on this machine: runs, steps, GB and hours, from a short measurement of each task and method.
#   scripts/plan.sh all6 --seeds 1-3 --method "mlr baseline" --preset small
#   scripts/plan.sh "alien pong" --seeds 1-5 --jobs-per-gpu 4 --gpus 0,1
# The options are those of run_dmcontrol.sh and run_atari.sh, but for --then.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.runs.plan "$@"
