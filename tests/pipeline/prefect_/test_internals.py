"""The names that are used of Prefect without a promise are there and behave; if one fails, read docs/pins.md."""

from __future__ import annotations

import inspect
import signal

import pytest

from pipeline.core.errors import Interrupted
from pipeline.prefect_.internals import stops_as_interrupts, without_heartbeat

READ = "Prefect has changed: see pipeline/prefect_/internals.py and docs/pins.md"


def test_the_servers_application_takes_what_it_is_given() -> None:
    from prefect.server.api.server import create_app

    assert {"ephemeral", "final"} <= inspect.signature(create_app).parameters.keys(), READ


def test_heartbeats_can_be_switched_off() -> None:
    from prefect.settings import get_current_settings, temporary_settings

    with temporary_settings(without_heartbeat()):
        assert get_current_settings().flows.heartbeat_frequency is None, READ


def test_a_termination_inside_prefect_is_an_interrupt() -> None:
    from prefect.exceptions import TerminationSignal

    assert not issubclass(TerminationSignal, Exception), READ
    with pytest.raises(Interrupted), stops_as_interrupts():
        raise TerminationSignal(signal.SIGTERM)
