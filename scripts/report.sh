#!/usr/bin/env bash
# From the ledger and the published tables to results/REPORT.md and figs/*.png and *.svg. The same ledger gives the same bytes.
#   scripts/report.sh --readme README.md    its section Results as well
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.report.report "$@"
