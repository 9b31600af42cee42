#!/usr/bin/env bash
# From a fresh clone to a learning curve: MLR on cartpole_swingup, preset small, on this machine's CPU.
# Further settings go through to the training: scripts/quickstart.sh env_steps=100000
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.runs.quickstart "$@"
