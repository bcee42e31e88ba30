"""Pages that need nothing else: one HTML file each, on one base with its style, its theme and its security policy.

No page loads anything: ``base.html`` forbids it by its Content-Security-Policy. Values are escaped by the template
engine unless they are ``Markup``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """The page that ``template``, a file of this folder, makes of ``values``."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values) + "\n"
