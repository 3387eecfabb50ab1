"""A Slurm cluster for tests: one controller and two nodes on this machine, with files, ports and authentication of
their own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

NODES = ("n1", "n2")
KILL_WAIT_S = 5
COMMANDS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
CONFIG = """
ClusterName=vcore
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait={kill_wait}
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as sockets:
        probes = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@pytest.fixture(scope="session")
def cluster_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The slurm.conf of a running cluster of two nodes; its daemons end with the tests."""
    sbin = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])
    programs = {name: shutil.which(name, path=sbin) for name in COMMANDS}
    if missing := [name for name, program in programs.items() if program is None]:
        pytest.skip(f"NOT TESTED WITH SLURM: no {', '.join(missing)} here (Debian: apt install slurm-wlm)")
    folder = tmp_path_factory.mktemp("slurm")
    config = folder / "slurm.conf"
    about = {"host": socket.gethostname().partition(".")[0], "user": getpass.getuser(), "ports": _free_ports(3)}
    config.write_text(CONFIG.format(folder=folder, kill_wait=KILL_WAIT_S, **about), encoding="utf-8")
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    environment = {**os.environ, "SLURM_CONF": str(config)}
    daemons = []
    with open(folder / "output", "wb") as output:
        for words in (["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in NODES)):
            command = [str(programs[words[0]]), *words[1:]]
            daemons.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
    try:
        sinfo = ["sinfo", "--noheader", "--format=%T %D"]
        deadline = time.monotonic() + 60
        while subprocess.run(sinfo, env=environment, capture_output=True, text=True).stdout.strip() != "idle 2":
            logs = [file.read_text("utf-8", "replace") for file in (folder / "output", *folder.glob("*.log"))]
            assert time.monotonic() < deadline, "\n".join(logs)
            time.sleep(0.5)
        yield config
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()
            daemon.wait()


@pytest.fixture
def cluster(cluster_config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a cluster that Slurm's commands of this test talk to; no job is left there afterwards."""
    monkeypatch.setenv("SLURM_CONF", str(cluster_config))
    yield cluster_config.parent
    subprocess.run(["scancel", f"--user={getpass.getuser()}"], check=True)
    deadline = time.monotonic() + 60
    while jobs():
        assert time.monotonic() < deadline, "a job is left"
        time.sleep(0.5)


def jobs() -> list[str]:
    """The ids of the jobs that wait, run or are ending."""
    listing = subprocess.run(["squeue", "--noheader", "--format=%i"], capture_output=True, text=True, check=True)
    return listing.stdout.split()
