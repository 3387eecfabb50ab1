#!/usr/bin/env bash
# Prefect 3.7.7 with SQLAlchemy 2.1: the server runs flows, but never creates the runs of a schedule, and no client is told.
#
# Expected: pip accepts the pair (Prefect asks for SQLAlchemy>=2.0), so a deployment with a schedule gets its next runs within seconds.
# Seen: with SQLAlchemy 2.0.58 it does. With 2.1.9 the server answers as healthy, takes the deployment, shows its schedule as active, and
#   creates no run, ever. The only trace is in the server's own log, where the scheduling service fails once a loop with
#   "Can't evaluate bulk DML statement". A nightly job is simply not there in the morning.
# Versions: prefect 3.7.7, fastapi 0.136.3 (newer ones keep this server from starting), SQLAlchemy 2.0.58 and 2.1.9. With Prefect 3.9.1,
#   which no longer inserts the state among the columns of a run, the runs are there.
# Takes about three minutes and 300 MB; the server listens on 127.0.0.1 only.
set -euo pipefail
folder=$(mktemp -d)
server=""
finish() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
install() { "$python" -m pip --disable-pip-version-check install --quiet prefect==3.7.7 fastapi==0.136.3 "$@"; }

cat >"$folder/scheduled.py" <<'EOF'
"""Prints how many runs are scheduled 30 seconds after a deployment with a schedule was made."""
import asyncio
import sys
import time
from datetime import timedelta
from importlib.metadata import version

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.schedules import IntervalSchedule


@flow
def nightly() -> None: ...


async def main() -> None:
    async with get_client() as client:
        made = await client.create_deployment(
            flow_id=await client.create_flow(nightly),
            name="nightly",
            schedules=[DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(hours=1)), active=True)],
        )
        scheduled = FlowRunFilter.model_validate(
            {"deployment_id": {"any_": [made]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
        )
        until = time.monotonic() + 30
        while not (runs := await client.read_flow_runs(flow_run_filter=scheduled)) and time.monotonic() < until:
            await asyncio.sleep(1)
    packages = " ".join(f"{name} {version(name)}" for name in ("prefect", "fastapi", "SQLAlchemy"))
    print(f"python {sys.version.split()[0]} {packages}: {len(runs)} scheduled runs")
    sys.exit(0 if runs else 3)


asyncio.run(main())
EOF

export DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false PREFECT_LOGGING_LEVEL=ERROR NO_PROXY=127.0.0.1
try() { # a fresh server with its own database; the exit code of scheduled.py
  local home="$folder/home-$1" port code=0
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  PREFECT_HOME="$home" "$folder/venv/bin/prefect" server start --host 127.0.0.1 --port "$port" >"$folder/server-$1.log" 2>&1 &
  server=$!
  export PREFECT_API_URL="http://127.0.0.1:$port/api"
  for _ in $(seq 120); do
    "$python" -c "import urllib.request as r; r.urlopen('$PREFECT_API_URL/health', timeout=2)" 2>/dev/null && break
    sleep 1
  done
  PREFECT_HOME="$home" "$python" "$folder/scheduled.py" || code=$?
  kill "$server" && wait "$server" 2>/dev/null || true
  server=""
  return "$code"
}

install SQLAlchemy==2.0.58
try 2.0 || { echo "no scheduled runs with SQLAlchemy 2.0.58: the behaviour has changed"; exit 1; }
install SQLAlchemy==2.1.9
code=0
try 2.1 || code=$?
[ "$code" = 3 ] || { echo "exit code $code with SQLAlchemy 2.1.9: the behaviour has changed"; exit 1; }
grep -m 1 -o "Can't evaluate bulk DML statement" "$folder/server-2.1.log"
