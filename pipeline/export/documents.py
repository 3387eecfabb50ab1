"""What an export is asked for, and what it answers."""

from __future__ import annotations

from pipeline.config.export import ExportSettings
from stages.harness.documents import Document


class Order(Document):
    """Which run goes where; what the process that exports reads from its standard input."""

    home: str
    run: str
    """Its id, which is the name of its folder."""
    settings: ExportSettings


class Sent(Document):
    """What became of an export that worked."""

    to: str
    """The tracker: `mlflow`, `wandb` or `trackio`."""
    where: str
    """The server, database or folder, and the experiment or project, without passwords."""
    run: str = ""
    """What the tracker calls the run; empty where it took none."""
    url: str = ""
    """Where a browser shows it; empty where that is not known."""
    state: str = "exported"
    """`exported`; `there` where all of it was there already; `off` where the tracker is switched off."""
    note: str = ""
    """What else to know or to do, in a sentence."""
    metrics: int = 0
    """Numbers without steps: scores, the gate, seconds of stages."""
    points: int = 0
    """Numbers of training curves."""
    trouble: list[str] = []
    """What of the run could not be read and is left out, a line each."""


class Failed(Document):
    """Why an export did not work."""

    error: str
    fix: str = ""
