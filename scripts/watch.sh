#!/usr/bin/env bash
# A table of all runs, under way and done, refreshed every few seconds; Ctrl-C leaves it.
#   scripts/watch.sh [runs ...] [every=5]     every=0: once. Where the output is no terminal, once as well
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.runs.watch "$@"
