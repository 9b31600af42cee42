#!/usr/bin/env bash
# A GPU's first quarter of an hour: the tests that need one, the speed of an update, then runs at the published setting while time is left.
#
#   scripts/gpu.sh                       twelve minutes on this machine's GPU
#   MLR_PYTHON=python3 scripts/gpu.sh --wheels DIR --debs DIR
#                                        on a machine that has Python and torch, and installs nothing
#   scripts/gpu.sh --runs-only           again on the same machine: the runs go on
#   scripts/gpu.sh --rehearse            all of it on the CPU, with preset debug, in about two minutes
#
#   --minutes 12     until everything is packed; a run that has not finished by then is saved and stopped
#   --out runs/gpu   gets report.txt and packed-*.tar, at most 8 files of under 16 MB and 64 MB together: measurements, and of each run
#                    its settings, origin, curves, result and the networks that act. scripts/ledger.sh --from OUT/*.tar takes the runs in
#                    on another machine. Only the machine that made a run can go on with it: networks and moments alone take 210 MB a run
#   --runs runs      the folder of the runs (with --rehearse: OUT/runs)
#   --wheels DIR     wheels of packages that are missing here; they are unpacked into a temporary folder
#   --debs DIR       Debian packages of libEGL and its like; they are unpacked into /, and the user must be root
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fail() { echo "error: $*" >&2; exit 2; }
wheels="" debs="" words=()
while (($#)); do
  case $1 in
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' scripts/gpu.sh; exit 0 ;;
    --wheels | --debs) [[ -n ${2:-} && $2 != -* ]] || fail "$1 needs a folder" ;;&
    --wheels) wheels=$2; shift 2 ;;
    --debs) debs=$2; shift 2 ;;
    *) words+=("$1"); shift ;;
  esac
done
source scripts/setup.sh
if [[ -n $debs ]]; then
  compgen -G "$debs/*.deb" >/dev/null || fail "--debs $debs holds no .deb"
  for package in "$debs"/*.deb; do dpkg -x "$package" /; done
  ldconfig
fi
if [[ -n $wheels ]]; then
  compgen -G "$wheels/*.whl" >/dev/null || fail "--wheels $wheels holds no .whl"
  packages=$(mktemp -d)
  "$project_python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$packages" "$wheels"/*.whl
  export PYTHONPATH=$packages${PYTHONPATH:+:$PYTHONPATH}
fi
exec "$project_python" -m scripts.runs.gpu "${words[@]}"
