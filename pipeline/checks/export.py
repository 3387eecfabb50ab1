"""Whether the trackers of `export:` can be written to at all: what is missing for it is said before a run."""

from __future__ import annotations

import configparser
import contextlib
import importlib.util
import netrc
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.config.export import ExportSettings, WandbExport
from pipeline.core.errors import ConfigError

PACKAGES = {"mlflow": "mlflow-skinny", "wandb": "wandb", "trackio": "trackio"}
"""Tracker, which is the module's name -> the distribution to install."""
HOW = {
    "mlflow": "pip install mlflow-skinny (all of mlflow asks for other versions than the pinned ones)",
    "wandb": "pip install wandb",
    "trackio": "pip install --no-deps trackio brotli gradio_client (it asks for an older pillow than is pinned)",
}
OFF, OFFLINE = ("disabled",), ("offline", "dryrun")
"""Values of WANDB_MODE."""
WANDB_SERVER = "https://api.wandb.ai"


def check_exports(exports: Sequence[ExportSettings]) -> None:
    """Raise `ConfigError` for a tracker whose package is not installed, and for one that has no key to log in with.

    Nothing is imported and no server is asked: one that is down now may be up when the run has ended.
    """
    for index, settings in enumerate(exports):
        place = f"export.{index}" if len(exports) > 1 else "export"
        if not installed(settings.to):
            fix = f"{HOW[settings.to]}, or leave it out."
            raise ConfigError(f"{settings.to} is not installed", where=f"{place}.to", fix=fix)
        if isinstance(settings, WandbExport) and wandb_mode(settings) == "online" and not _wandb_knows_a_key():
            fix = "Set WANDB_API_KEY for this command, call `wandb login`, or set mode: offline."
            raise ConfigError("wandb has no key for its server", where=f"{place}.mode", fix=fix)


def installed(module: str) -> bool:
    """Whether a module can be imported. A folder `wandb/` of earlier runs beside the code is none."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def wandb_mode(settings: WandbExport) -> str:
    """`online`, `offline` or `disabled`: as it is set, or as WANDB_MODE or wandb's own settings say."""
    mode = settings.mode or _wandb_setting("mode", "WANDB_MODE") or "online"
    return "disabled" if mode in OFF else "offline" if mode in OFFLINE else "online"


def _wandb_knows_a_key() -> bool:
    """Whether wandb finds a key without asking somebody: in the environment, in its settings, in a netrc file."""
    if os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or _wandb_setting("api_key", "WANDB_API_KEY"):
        return True
    server = _wandb_setting("base_url", "WANDB_BASE_URL") or WANDB_SERVER
    names = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    file = next((path for name in names if (path := Path(name).expanduser()).is_file()), None)
    try:
        return file is not None and netrc.netrc(file).authenticators(urlsplit(server).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False  # as wandb, which warns and goes on without it


def _wandb_setting(name: str, variable: str) -> str | None:
    """A setting of wandb's: from the environment, the folder's settings (`wandb offline`), or the user's."""
    if value := os.environ.get(variable):
        return value
    of_user = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    parser = configparser.ConfigParser(interpolation=None)
    for file in (of_user / "settings", Path(os.environ.get("WANDB_DIR") or ".") / "wandb/settings"):
        with contextlib.suppress(configparser.Error, UnicodeDecodeError, OSError):  # wandb says that itself
            parser.read(file, encoding="utf-8")
    return parser.get("default", name, fallback=None)
