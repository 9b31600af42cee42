#!/usr/bin/env bash
# Write a run's policy as policy.safetensors, with its settings and a model card:
#   scripts/export.sh RUN_DIR [to=DIR]       default: RUN_DIR/export
# DMControl.load_agent(DIR), Atari.load_agent(DIR) and `evaluate run=DIR` read it.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.runs.export "$@"
