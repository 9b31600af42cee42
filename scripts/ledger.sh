#!/usr/bin/env bash
# Collect finished runs into results/dmcontrol.csv and results/atari.csv, and their curves into results/curves/.
#   scripts/ledger.sh                     the runs under runs/
#   scripts/ledger.sh DIR ... --cut-off   other folders, and runs that ended early, as far as they went
#   scripts/ledger.sh --from DIR/*.tar    first take in what scripts/gpu.sh packed on another machine
#   scripts/ledger.sh --check             only check that rows, curves, readouts and published tables are as they were written
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.ledger.collect "$@"
