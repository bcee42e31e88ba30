"""``--report FILE.html``: what happened during a run, on one page."""
