"""Renders a report's templates, report.md.j2 and report.html.j2, with what both kinds of report share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from stages.report.render.text import fence, inline

SHARED = Path(__file__).parent


def render_pages(templates: Path, variables: Mapping[str, Any], folder: Path) -> None:
    """Write report.md and report.html into `folder`.

    Args:
        templates: folder with report.md.j2 and report.html.j2, which may use the templates beside this module.
        variables: what the two show.
    """
    for name in ("report.md", "report.html"):
        (folder / name).write_text(render(templates, f"{name}.j2", variables), encoding="utf-8")


def render(templates: Path, name: str, variables: Mapping[str, Any]) -> str:
    """The text of one template in the folder `templates`; in a page, `NAME.html.j2`, every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, SHARED]),
        autoescape=name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(fence=fence, inline=inline)
    return environment.get_template(name).render(variables)
