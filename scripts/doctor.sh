#!/usr/bin/env bash
# When something is off: versions against the pins, renderer, RAM and disk against what a preset needs.
#   scripts/doctor.sh                          checks preset=paper
#   scripts/doctor.sh preset=small task=walker_walk
#   scripts/doctor.sh game=pong                checks the Atari tree
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.runs.doctor "$@"
