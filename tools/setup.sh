#!/usr/bin/env bash
# Makes .venv complete, from any state it may be in, and does nothing when it already is. Usage: tools/setup.sh [auto|cpu|cuda]
#
# The stamp .venv/.complete is written last and holds what was installed; an interrupted, damaged, moved or outdated set-up has no valid
# stamp or fails the check of every pin, and is then continued where it is. Environment: PYTHON names the interpreter to use, TORCH_INDEX
# a package index for torch alone (requirements/README.md).
set -euo pipefail
cd "$(dirname "$0")/.."
here=$(pwd -P)

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

machine=${1:-auto}
if [ "$machine" = auto ]; then
  if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then machine=cuda; else machine=cpu; fi
fi
case $machine in cpu | cuda) ;; *) die "unknown machine '$machine': use MACHINE=cpu or MACHINE=cuda" ;; esac

usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11, 3) <= sys.version_info < (3, 14))' 2>/dev/null; }
if [ -n "${PYTHON:-}" ]; then
  python=$PYTHON
  usable "$python" || die "PYTHON=$PYTHON is not a Python 3.11.3 to 3.13 with the venv module"
else
  python=""
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && usable "$candidate"; then python=$candidate; break; fi
  done
  [ -n "$python" ] || die "needs Python 3.11.3 to 3.13 with the venv module; name one with PYTHON=/path/to/python3"
fi

if command -v flock >/dev/null; then # without it, two set-ups at once are not kept apart
  exec 9>.setup.lock
  flock -n 9 || { say "another set-up of this folder is running; waiting for it"; flock 9; }
fi

pins=("requirements/$machine.txt" requirements/dev.txt)
stamp="$machine $(cat "${pins[@]}" pyproject.toml | sha256sum | cut -d' ' -f1)"
whole_venv() { # made by a usable Python, in this folder (its scripts name it), with a pip that runs
  usable .venv/bin/python && grep -qsF " $here/.venv" .venv/pyvenv.cfg && .venv/bin/python -m pip --version >/dev/null 2>&1 || return 1
  [ -z "${PYTHON:-}" ] || [ "$("$python" -c 'import sys; print(sys.version)')" = "$(.venv/bin/python -c 'import sys; print(sys.version)')" ]
}
if whole_venv; then
  if [ "$(cat .venv/.complete 2>/dev/null || true)" = "$stamp" ] && .venv/bin/python tools/check_installed.py --quick "${pins[@]}"; then
    exit 0
  fi
  say "completing .venv"
else
  say "making .venv with $("$python" --version)"
  "$python" -m venv --clear "$here/.venv" || die "$python cannot make a virtual environment; name another with PYTHON=/path/to/python3"
fi
rm -f .venv/.complete

started=$SECONDS
log=.venv/setup.log
total=$(cat "${pins[@]}" | grep -c ==)
: >"$log"
install() { # pip's own output goes to the log, a line of progress now and then to the screen
  .venv/bin/python -m pip --disable-pip-version-check --no-input install --no-deps --progress-bar off "$@" 2>&1 | tee -a "$log" |
    awk -v total="$total" '/^Collecting / { if (++n % 50 == 0) { print "setup:   " n " of " total " packages found"; fflush() } }
      /^Installing collected packages:/ && n > 1 { print "setup:   unpacking"; fflush() }' || {
    grep '^ERROR' "$log" | tail -n 5 >&2 || tail -n 20 "$log" >&2
    die "pip could not install; its output is in $log. Run the same command again to continue; \`make clean\` starts afresh."
  }
}

.venv/bin/python tools/check_installed.py --forget "${pins[@]}"
size="about 3 GB on disk, one to five minutes the first time"
[ "$machine" = cpu ] || size="much more than a CPU machine: NVIDIA libraries come with it"
say "installing the $total pinned packages for a $machine machine ($size)"
if [ -n "${TORCH_INDEX:-}" ]; then
  install --force-reinstall --index-url "$TORCH_INDEX" "$(grep '^torch==' "requirements/$machine.txt")"
fi
install "${pins[@]/#/-r}"
install --no-build-isolation --editable .
say "checking that the libraries import"
.venv/bin/python tools/check_installed.py --imports "${pins[@]}" || exit 1
echo "$stamp" >.venv/.complete
say ".venv is complete ($((SECONDS - started)) s)"
