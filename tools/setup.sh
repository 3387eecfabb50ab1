#!/usr/bin/env bash
# Makes .venv complete, from any state it may be in, and does nothing when it already is. Usage: tools/setup.sh [cpu|cuda]
#
# The stamp .venv/.complete is written last and holds what was installed; an interrupted, damaged or outdated set-up has no valid stamp
# or fails the check of every pin, and is then continued where it is. TORCH_INDEX names an index for torch alone (requirements/README.md).
set -euo pipefail
cd "$(dirname "$0")/.."

machine=${1:-auto}
if [ "$machine" = auto ]; then
  if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then machine=cuda; else machine=cpu; fi
fi
[ -f "requirements/$machine.txt" ] || { echo "setup: unknown machine '$machine': use cpu or cuda" >&2; exit 2; }

python=""
for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
  [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
    "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { python=$candidate; break; }
done
[ -n "$python" ] || { echo "setup: needs Python 3.11 to 3.13 with the venv module; name one with PYTHON=/path/to/python3" >&2; exit 2; }

exec 9>.setup.lock
if command -v flock >/dev/null && ! flock -n 9; then
  echo "setup: another set-up of this folder is running; waiting for it"
  flock 9
fi

pins=("requirements/$machine.txt" requirements/dev.txt)
wanted="$machine $(cat "${pins[@]}" pyproject.toml | sha256sum | cut -d' ' -f1)"
if [ "$(cat .venv/.complete 2>/dev/null || true)" = "$wanted" ] && .venv/bin/python tools/check_installed.py --quiet "${pins[@]}" 2>/dev/null; then
  exit 0
fi

started=$SECONDS
if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
  echo "setup: making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
fi
rm -f .venv/.complete
pip=(.venv/bin/python -m pip --disable-pip-version-check --quiet --no-input)
echo "setup: installing the pinned set for a $machine machine (about 3 GB on a CPU machine; one to five minutes the first time)"
if [ -n "${TORCH_INDEX:-}" ]; then
  "${pip[@]}" install --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch==' "requirements/$machine.txt")"
fi
"${pip[@]}" install --no-deps "${pins[@]/#/-r}"
"${pip[@]}" install --no-deps --no-build-isolation --editable .
.venv/bin/python tools/check_installed.py --repair-list .venv/.repair "${pins[@]}" || {
  echo "setup: some files are missing from .venv; installing those packages again"
  "${pip[@]}" install --no-deps --force-reinstall -r .venv/.repair
  .venv/bin/python tools/check_installed.py "${pins[@]}"
}
echo "setup: checking that the libraries import"
.venv/bin/python tools/check_installed.py --imports "${pins[@]}"
echo "$wanted" >.venv/.complete
echo "setup: .venv is complete ($((SECONDS - started)) s)"
