#!/usr/bin/env bash
# Disturb and damage runs on purpose and print what is lost: fault, times tried, times survived, lost.
#   scripts/torture.sh                     50 kills and every other fault, both trees (some minutes)
#   scripts/torture.sh 4                   a short version
#   scripts/torture.sh 50 tree=atari faults=kill,nan
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.torture.torture "$@"
