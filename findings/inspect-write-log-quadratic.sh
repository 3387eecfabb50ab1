#!/usr/bin/env bash
# inspect_ai 0.3.285: write_eval_log takes a time that grows with the square of the number of samples.
#
# Expected: a log is written in a time that grows with its samples: those of 4,000 take twice as long as those of 2,000.
# Seen: the processor time of twice as many samples grows by up to a factor of four. Every sample is compared with all those before it,
#   since one with its id and epoch would replace it, and what was given is put into the file only at the end. 100,000 samples of a
#   benchmark with several answers a problem, made elsewhere and converted, take over an hour in a call that should take a minute.
# Versions: inspect_ai 0.3.285, Python 3.11.
# Takes about two minutes and 400 MB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet inspect_ai==0.3.285

cat >"$folder/growth.py" <<'EOF'
import sys
import time
from importlib.metadata import version
from pathlib import Path

from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSample, EvalSpec, write_eval_log


def log_of(count: int) -> EvalLog:
    spec = EvalSpec(
        created="2026-01-01T00:00:00+00:00",
        task="sums",
        dataset=EvalDataset(name="sums", samples=count),
        model="none/none",
        config=EvalConfig(),
    )
    samples = [EvalSample(id=number, epoch=1, input="1 + 1 = ?", target="2") for number in range(count)]
    return EvalLog(eval=spec, status="success", samples=samples)


def seconds(count: int) -> float:
    log, begun = log_of(count), time.process_time()
    write_eval_log(log, str(Path(sys.argv[1], f"{count}.eval")))
    return time.process_time() - begun


seconds(100)  # imports
spent = {count: seconds(count) for count in (2000, 4000, 8000)}
growth = spent[8000] / spent[4000]
told = ", ".join(f"{count} samples {took:.1f} s" for count, took in spent.items())
print(f"inspect_ai {version('inspect_ai')}: {told} of processor time; the last doubling takes {growth:.1f} times as long")
sys.exit(0 if growth > 2.8 else 1)
EOF
"$folder/venv/bin/python" "$folder/growth.py" "$folder"
