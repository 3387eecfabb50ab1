"""`python -m tests.kill.run_chain HOME [--flow] [--two] [--slow]`: four chain stages through the real session,
executor, launcher, store.

With --flow, as the real Prefect flow, on its embedded server or PREFECT_API_URL's; --two: two stages at once; --slow:
for a minute. Only the stage programs are the test's own.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from pipeline.cli.printing import outlive_readers
from pipeline.config.schema import load_config
from pipeline.core.errors import UserError
from pipeline.core.signals import stop_on_signals
from pipeline.plan.decide import Decider
from pipeline.plan.graph import Input, Stage
from pipeline.plan.planning import Planned
from pipeline.prefect_.run import run
from pipeline.run.execute import Executor
from pipeline.run.record import RunRecord
from pipeline.run.session import Session
from pipeline.run.view import View
from pipeline.store.store import Store
from tests.kill.chain.settings import ChainSettings
from tests.kill.chain.stage import STAGE as CHAIN

CONFIG = "name: chain\nseed: 0\nbenchmarks:\n- {name: word_problems, problems: 1, max_new_tokens: 8}\n"
STAGES = [
    Stage("first", CHAIN, ChainSettings(steps=40), {}),
    Stage("second", CHAIN, ChainSettings(steps=15, checkpoint_steps=0), {"one": Input("first")}),
    Stage("beside", CHAIN, ChainSettings(steps=25), {"one": Input("first")}),
    Stage("third", CHAIN, ChainSettings(steps=30), {"two": Input("second"), "one": Input("first")}),
]


def prepare(home: Path, flow: bool, at_once: int, slow: bool) -> Session:
    """A session over the chain's stages, as `Session.prepare` makes one over a config's. By a plan in which every stage
    is cached it runs without Prefect."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "chain.yaml").write_text(CONFIG)
    config = load_config(
        home / "chain.yaml", [f"home={home}", "execution.stop_grace_s=20.0", f"execution.stages_at_once={at_once}"]
    )
    store = Store(home)
    stages = [
        dataclasses.replace(stage, settings=stage.settings.model_copy(update={"step_s": 0.5 if slow else 0.02}))
        for stage in STAGES
    ]
    executor = Executor(Decider(config, store, stages=stages), View(), command="run_chain")
    planned = [Planned(stage, "RUN" if flow else "HIT", "") for stage in stages]
    record = RunRecord.start(home, config, "run_chain", [])
    return Session(home / "chain.yaml", (), config, store, planned, executor, record)


def main() -> None:
    outlive_readers()
    stop_on_signals()
    try:
        run(prepare(Path(sys.argv[1]), "--flow" in sys.argv, 2 if "--two" in sys.argv else 1, "--slow" in sys.argv))
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
