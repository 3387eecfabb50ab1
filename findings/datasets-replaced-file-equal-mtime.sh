#!/usr/bin/env bash
# datasets: a local file that was replaced by another one with the same modification time is read from the cache, so the old rows come back.
#
# Expected: Dataset.from_parquet(FILE) gives the rows of FILE. That it caches is known; that a file of another size, with other contents and
#   another number of rows still counts as the cached one is not.
# Seen (5.2.0): the fingerprint of a local file is made of its path and modification time; neither size nor contents enter it, and
#   keep_in_memory=True changes nothing. Where two things meet: `cp -p`, `rsync -t`, `tar x`, image layers and archives with normalised times
#   put another file at the same path with the same time. A pipeline that hashes its inputs then sees new data and trains on the old.
# Versions: datasets 5.2.0, pyarrow 26.0.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet datasets==5.2.0 pyarrow==26.0.1

cat >"$folder/write.py" <<'EOF'
import sys

import pyarrow as pa
import pyarrow.parquet as pq

pq.write_table(pa.table({"x": [int(value) for value in sys.argv[2:]]}), sys.argv[1])
EOF

cat >"$folder/read.py" <<'EOF'
import sys

from datasets import Dataset

print(*Dataset.from_parquet(sys.argv[1], keep_in_memory=True)["x"])
EOF

export HF_HOME="$folder/home" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1
python="$folder/venv/bin/python"
"$python" -c 'import sys, datasets, pyarrow; print("python", sys.version.split()[0], "datasets", datasets.__version__, "pyarrow", pyarrow.__version__)'
"$python" "$folder/write.py" "$folder/train.parquet" 1 2 3
"$python" "$folder/write.py" "$folder/new.parquet" 7 8 9 10
touch -r "$folder/train.parquet" "$folder/new.parquet"
first=$("$python" "$folder/read.py" "$folder/train.parquet")
cp -p "$folder/new.parquet" "$folder/train.parquet"
second=$("$python" "$folder/read.py" "$folder/train.parquet")
touch -d tomorrow "$folder/train.parquet"
third=$("$python" "$folder/read.py" "$folder/train.parquet")
echo "the file holds 1 2 3, read: $first"
echo "replaced by 7 8 9 10 with the same time, read: $second"
echo "its time changed, read: $third"
[ "$first/$second/$third" = "1 2 3/1 2 3/7 8 9 10" ] || { echo "the behaviour has changed"; exit 1; }
