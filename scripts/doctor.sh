#!/usr/bin/env bash
# When something is wrong: compare versions with the pins, test the renderer, compare RAM and disk with what a preset needs.
#   scripts/doctor.sh                          checks preset=paper
#   scripts/doctor.sh preset=small task=walker_walk
#   scripts/doctor.sh game=pong                checks the Atari tree
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.runs.doctor "$@"
