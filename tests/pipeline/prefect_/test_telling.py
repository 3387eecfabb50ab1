"""Events that automations act on, and notifications: on a real server, with a real worker and a real web service."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.execution import ExecutionSettings
from pipeline.core.errors import ConfigError
from pipeline.prefect_.recording import beginning, run_and_tell
from pipeline.run.documents import GateVerdict, MovedScore
from tests.kill.run_chain import prepare
from tests.pipeline.helpers import config as loaded
from tests.pipeline.history.nights import Night, make_nights, right
from tests.pipeline.prefect_.helpers import command, config, ended, environment, flow_run, start_run, wait_for
from tests.prefect_server import query

DOCS = Path(__file__).resolve().parents[3] / "docs" / "scheduling.md"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["execution.notify_on=[finished]"], "notify_on: nobody is told; name a notification block in notify"),
        (["execution.notify=a/b", "execution.notify_on=[failed,failed]"], "notify_on: names one thing twice"),
        (["execution.notify=a/b", "execution.notify_on=[]"], "notify_on"),
        (["execution.notify=slack"], "execution.notify"),
        (["execution.notify=a/b", "execution.notify_on=[crashed]"], "notify_on"),
    ],
)
def test_what_cannot_be_notified_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, *overrides)


def test_settings_that_are_written_down_are_read_back() -> None:
    settings = ExecutionSettings()
    assert settings.notify_on == ["failed", "moved"]
    assert ExecutionSettings.model_validate(settings.model_dump()) == settings


@pytest.mark.slow
def test_a_score_that_moved_is_told_by_the_block_that_is_named(
    prefect_server: str, mailbox: tuple[str, list[Any]]
) -> None:
    from prefect import flow
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pipeline.prefect_.telling import notifier, show_alerts

    url, posted = mailbox
    moved = MovedScore(
        benchmark="aime24", checkpoint="sft", against="anchor", reference="before", before=0.5, after=0.2
    )
    record: Any = SimpleNamespace(id="now", anchor="before", anchor_blessed=True, look=1, moved=[moved])

    @flow
    def alerts_flow(name: str) -> None:
        show_alerts("nightly", name, record, notifier(name))

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        block = CustomWebhookNotificationBlock(
            name="test", url=url, json_data={"title": "{{subject}}", "text": "{{body}}"}
        )
        block.save("vcore-test", overwrite=True)
        alerts_flow("custom-webhook/vcore-test")
        assert posted[0]["title"] == "vcore: scores of nightly moved"
        assert "aime24, sft: 50.0 → 20.0 %" in posted[0]["text"]
        with pytest.raises(ConfigError, match="no notification block custom-webhook/other"):
            alerts_flow("custom-webhook/other")
        block.url = "http://127.0.0.1:9/"  # a service that is away does not undo a run
        block.save("vcore-test", overwrite=True)
        alerts_flow("custom-webhook/vcore-test")
    alerts = query(f"{prefect_server}/artifacts/filter", {"artifacts": {"key": {"any_": ["nightly-alert"]}}})
    assert alerts[0]["description"] == "FLAGGED: 1 scores moved, or could not be compared"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("on", "told"),
    [
        (["failed", "moved"], ["demo failed", "demo failed", "small failed"]),
        (["finished"], ["demo finished"]),
    ],
)
def test_runs_that_failed_or_finished_are_told_as_chosen(
    tmp_path: Path, prefect_server: str, mailbox: tuple[str, list[Any]], on: list[str], told: list[str]
) -> None:
    from prefect import flow
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pipeline.prefect_.telling import notifier, tell_end, tell_refusal

    url, posted = mailbox
    begin = {
        "name": "demo",
        "notify": "custom-webhook/ends",
        "notify_on": on,
        "run": "1-demo",
        "folder": "/runs",
    }
    words = ["execution.notify=custom-webhook/ends", f"execution.notify_on=[{','.join(on)}]"]

    @flow
    def ends_flow() -> None:
        block = notifier(begin["notify"])
        tell_end(begin, {"status": "failed", "message": "stage sft: it burst"}, block)
        tell_end(begin, {"status": "killed", "message": "the run was killed"}, block)
        tell_end(begin, {"status": "interrupted", "message": "interrupted"}, block)
        tell_end(begin, {"status": "done", "message": "11 stages: 2 ran, 9 cached", "cached": False}, block)
        tell_refusal(config(tmp_path), words, ConfigError("no such folder", where="data_dir"))

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        block = CustomWebhookNotificationBlock(
            name="ends", url=url, json_data={"title": "{{subject}}", "text": "{{body}}"}
        )
        block.save("ends", overwrite=True)
        ends_flow()
    assert [message["title"] for message in posted] == [f"vcore: {title}" for title in told]
    if on == ["finished"]:
        assert posted[0]["text"] == "# demo finished\n\n11 stages: 2 ran, 9 cached\n\nRun 1-demo, in /runs.\n"
    else:
        assert posted[2]["text"] == "# small failed\n\ndata_dir: no such folder\n"


@pytest.mark.slow
def test_the_scores_of_all_runs_are_drawn(tmp_path: Path, prefect_server: str) -> None:
    from prefect import flow
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pipeline.prefect_.view import show_history

    make_nights(tmp_path, [Night({"sft": right(50 - lost)}) for lost in range(3)])

    @flow
    def history_flow() -> None:
        show_history(tmp_path, "nightly")

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        history_flow()
    about = {"artifacts": {"key": {"any_": ["nightly-history-gsm8k-sft"]}}}
    [artifact] = query(f"{prefect_server}/artifacts/filter", about)
    assert artifact["description"] == "gsm8k, sft: scores of 3 runs with 95 % intervals"
    kind, _, drawn = artifact["data"].partition(";base64,")
    assert kind == "data:image/svg+xml"
    assert "scores of 3 runs" in base64.b64decode(drawn).decode()


ASKED = {"checkpoint": "sft", "tier": "critical", "asked": "at most 2 points lost", "against": "base"}
CHECKS = [
    GateVerdict(benchmark="gsm8k", verdict="PASS", **ASKED),
    GateVerdict(benchmark="aime24", verdict="FAIL", **ASKED),
]


def test_a_run_tells_of_scores_that_moved_and_of_its_gates(tmp_path: Path) -> None:
    session, told = prepare(tmp_path, flow=True, at_once=1, slow=False), []
    session.plan.clear()
    moved = {"benchmark": "gsm8k", "checkpoint": "sft", "against": "anchor", "reference": "first", "before": 0.5}
    other = MovedScore(**moved, reason="measured by another protocol")
    session.record.data.moved = [MovedScore(**moved, after=0.25), other]
    run_and_tell(session, told.append)
    session.show_gate("sft", CHECKS)
    session.show_gate("", CHECKS[:1])
    [score, end, after_sft, at_end] = told
    assert score["kind"] == "emit"
    assert score["value"]["event"] == "vcore.score.moved"
    assert score["value"]["payload"]["after"] == 0.25
    assert end["kind"] == "end"
    assert after_sft["value"] == {
        "name": "gate after sft",
        "verdict": "FAIL",
        "lines": [
            ["PASS", "gsm8k, sft: at most 2 points lost against base"],
            ["FAIL", "aime24, sft: at most 2 points lost against base"],
        ],
    }
    assert (at_end["value"]["name"], at_end["value"]["verdict"]) == ("gate at the end", "PASS")


@pytest.mark.slow
def test_a_gate_is_a_task_with_its_own_state_and_an_event(tmp_path: Path, prefect_server: str) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pipeline.prefect_.flow import flow_of

    session, told = prepare(tmp_path, flow=True, at_once=1, slow=False), []
    session.plan.clear()
    begin = {**beginning(session), "name": "gated"}
    run_and_tell(session, told.append)
    end = told.pop()
    for verdicts in (CHECKS, CHECKS[:1], [CHECKS[0].model_copy(update={"verdict": "UNDECIDED"})]):
        session.show_gate("sft", verdicts)
    session.emit("vcore.gate.passed", checkpoint="sft", payload={"checks": []})
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        flow_of([*told, end], begin, lambda: None)(**begin["parameters"], return_state=True)

    def tasks() -> Any:
        found = query(f"{prefect_server}/task_runs/filter", {"task_runs": {"name": {"any_": ["gate after sft"]}}})
        ends = {task["state"]["name"]: task["state"] for task in found if task["state_type"] in ("COMPLETED", "FAILED")}
        return ends if len(ends) == 3 else None

    states = wait_for(tasks)
    assert {name: state["type"] for name, state in states.items()} == {
        "Failed": "FAILED",
        "Passed": "COMPLETED",
        "Undecided": "COMPLETED",
    }
    assert states["Failed"]["message"] == "aime24, sft: at most 2 points lost against base"
    [passed] = wait_for(lambda: events(prefect_server, "vcore.gate.passed", "gated"))
    assert passed["resource"]["prefect.resource.id"] == "vcore.gated.sft"


def events(api: str, event: str, config: str) -> list[dict[str, Any]]:
    about = {"event": {"name": [event]}, "resource": {"labels": {"vcore.config": [config]}}}
    found: Any = query(f"{api}/events/filter", {"filter": about})
    return list(found["events"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_checkpoint_starts_another_deployment_as_the_documentation_says(
    tmp_path: Path, prefect_server: str, worker: str
) -> None:
    """The example of docs/scheduling.md, for the base model of a small pipeline in the place of the demo's SFT."""
    (tmp_path / "early.yaml").write_text(
        config(tmp_path).read_text().replace("name: small", "name: early").replace("4000", "21")
    )
    made = [
        command(tmp_path, prefect_server, "pipeline", "deploy", file, "--pool", worker, "--name", name)
        for file, name in (("early.yaml", "early"), ("small.yaml", "late"))
    ]
    assert [m.returncode for m in made] == [0, 0], made
    (late,) = query(f"{prefect_server}/deployments/filter", {"deployments": {"name": {"any_": ["late"]}}})
    query(
        f"{prefect_server}/deployments/{late['id']}", {"parameters": {**late["parameters"], "until": "data"}}, "PATCH"
    )
    [example] = [code for code in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if "Reactive" in code]
    example = example.replace("vcore/demo-rl", "vcore/late").replace("vcore.demo.sft", "vcore.early.base")
    program = [sys.executable, "-c", example]
    subprocess.run(program, env=environment(tmp_path, prefect_server), check=True, timeout=240)

    first = start_run(prefect_server, "early", {"until": "base"})
    wait_for(lambda: ended(prefect_server, first), 300)
    assert flow_run(prefect_server, first)["state"]["message"] == "1 stage: 1 ran, 0 cached"

    def started() -> Any:
        return query(f"{prefect_server}/flow_runs/filter", {"deployments": {"id": {"any_": [late["id"]]}}})

    [run] = wait_for(started, 120)
    assert wait_for(lambda: ended(prefect_server, run["id"]), 300)["type"] == "COMPLETED"
    [ready] = events(prefect_server, "vcore.checkpoint.ready", "early")
    assert ready["resource"]["vcore.state"] == "ran"
    assert (Path(ready["payload"]["model"]) / "config.json").is_file()
    assert f"prefect.flow-run.{first}" in [related["prefect.resource.id"] for related in ready["related"]]
    [finished] = events(prefect_server, "vcore.run.finished", "early")
    assert finished["payload"]["message"] == "1 stage: 1 ran, 0 cached"

    again = start_run(prefect_server, "early", {"until": "base"})
    wait_for(lambda: ended(prefect_server, again), 300)
    refused = start_run(prefect_server, "early", {"until": "none"})
    wait_for(lambda: ended(prefect_server, refused), 300)
    wait_for(lambda: events(prefect_server, "vcore.run.failed", "early"), 60)
    states = [event["resource"]["vcore.state"] for event in events(prefect_server, "vcore.checkpoint.ready", "early")]
    assert sorted(states) == ["cached", "ran"]
    assert len(started()) == 1, "a checkpoint that was found starts nothing"
