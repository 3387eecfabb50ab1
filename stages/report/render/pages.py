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
    for name, autoescape in (("report.md", False), ("report.html", True)):
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader([templates, SHARED]),
            autoescape=autoescape,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters.update(fence=fence, inline=inline)
        text = environment.get_template(f"{name}.j2").render(variables)
        (folder / name).write_text(text, encoding="utf-8")
