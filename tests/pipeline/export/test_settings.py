"""`export:` in a config: what it takes, what it refuses before a run, and that it enters no key."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.checks.export import check_exports, installed, wandb_mode
from pipeline.config.export import MlflowExport, TrackioExport, WandbExport
from pipeline.config.schema import load_config
from pipeline.core.errors import ConfigError
from pipeline.plan.decide import Options
from pipeline.run.session import plan_only
from tests.pipeline.helpers import CONFIG, config, plan


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in which nobody has logged in to anything."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stand_in(module: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name, which can be found and does nothing."""
    (folder / "packages" / module).mkdir(parents=True)
    (folder / "packages" / module / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(folder / "packages")


@pytest.mark.parametrize("text", ["mlflow", "{to: mlflow}", "[{to: mlflow}]"])
def test_a_name_a_mapping_and_a_list_are_the_same(tmp_path: Path, text: str) -> None:
    assert config(tmp_path, f"export={text}").export == [MlflowExport()]


def test_several_trackers_are_a_list(tmp_path: Path) -> None:
    assert config(tmp_path).export == config(tmp_path, "export=null").export == []
    both = config(tmp_path, "export=[{to: wandb, mode: offline}, {to: trackio, folder: here}]").export
    assert both == [WandbExport(mode="offline"), TrackioExport(folder="here")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{to: mlflow, urii: x}", "small.yaml:11: export.urii: unknown setting; did you mean 'uri'?"),
        ("{to: mlflo}", "small.yaml:11: export.to: there is no 'mlflo'; did you mean 'mlflow'?"),
        ("{uri: x}", "export.to: this setting is required"),
        ("[{to: wandb}, {to: wandb, uri: x}]", "export.1.uri: unknown setting; known: entity, folder, mode, project"),
        ("[{to: wandb}, {to: wandb}]", "export: wandb is listed twice with the same settings"),
        ("{to: wandb, mode: offlin}", "export.mode: Input should be 'online' or 'offline' (found 'offlin')"),
        ("{to: wandb, project: a/b}", "export.project: a project's name has at most 128 characters"),
        ("{to: mlflow, time_limit_s: 0}", "export.time_limit_s: Input should be greater than 0"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "small.yaml").write_text(f"{CONFIG}export: {text}\n")
    with pytest.raises(ConfigError) as refused:
        load_config(tmp_path / "small.yaml")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "uri", ["http://ada:hunter2@host", "postgresql://ada:hunter2@host/db", "http://h?token=hunter2"]
)
def test_a_password_in_the_config_is_refused_and_not_repeated(tmp_path: Path, uri: str) -> None:
    (tmp_path / "small.yaml").write_text(f"{CONFIG}export: {{to: mlflow, uri: '{uri}'}}\n")
    with pytest.raises(ConfigError) as refused:
        load_config(tmp_path / "small.yaml")
    assert "MLFLOW_TRACKING_PASSWORD" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_no_key_changes_with_the_trackers(tmp_path: Path) -> None:
    without, with_all = plan(tmp_path), plan(tmp_path, "export=[{to: mlflow, uri: x}, {to: trackio}]")
    assert without["data"].key == with_all["data"].key is not None
    assert config(tmp_path).identity_settings() == config(tmp_path, "export=mlflow").identity_settings()


@pytest.mark.parametrize(
    ("tracker", "how"),
    [
        ("mlflow", "pip install mlflow-skinny"),
        ("wandb", "pip install wandb"),
        ("trackio", "pip install --no-deps trackio"),
    ],
)
def test_a_package_that_is_missing_is_an_error_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str, how: str
) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)  # as where it is not installed, wherever this test runs
    config(tmp_path)
    with pytest.raises(ConfigError) as refused:
        plan_only(tmp_path / "small.yaml", [f"home={tmp_path / 'home'}", f"export={tracker}"], Options())
    assert str(refused.value).startswith(f"export.to: {tracker} is not installed\n{how}")


def test_a_folder_of_runs_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wandb makes a folder wandb/ where it is called, which Python takes for a package without files."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    (tmp_path / "wandb").mkdir()
    assert not installed("wandb")
    (tmp_path / "wandb/__init__.py").write_text("")
    assert installed("wandb")


def test_wandb_without_a_key_is_refused_and_offline_needs_none(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in("wandb", bare, monkeypatch)
    with pytest.raises(ConfigError, match=r"^export\.mode: wandb has no key for its server\nSet WANDB_API_KEY"):
        check_exports([WandbExport()])
    with pytest.raises(ConfigError, match=r"^export\.1\.mode"):
        check_exports([WandbExport(mode="offline"), WandbExport()])
    check_exports([WandbExport(mode="offline")])
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_exports([WandbExport()])
    with pytest.raises(ConfigError):
        check_exports([WandbExport(mode="online")])


def test_a_key_is_found_where_wandb_finds_it(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in("wandb", bare, monkeypatch)
    (bare / ".netrc").write_text("machine elsewhere login ada password 1\n")
    with pytest.raises(ConfigError):
        check_exports([WandbExport()])
    (bare / ".netrc").write_text("machine api.wandb.ai login user password 1\n")
    check_exports([WandbExport()])
    monkeypatch.setenv("WANDB_BASE_URL", "http://host:8080")
    with pytest.raises(ConfigError):
        check_exports([WandbExport()])
    monkeypatch.setenv("WANDB_API_KEY", "1")
    check_exports([WandbExport()])


def test_wandbs_own_settings_say_the_mode(bare: Path) -> None:
    assert wandb_mode(WandbExport()) == "online"
    (bare / "wandb").mkdir()
    (bare / "wandb/settings").write_text("[default]\nmode = offline\n")
    assert wandb_mode(WandbExport()) == "offline"
    assert wandb_mode(WandbExport(mode="online")) == "online"
