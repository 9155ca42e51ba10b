"""Write the tables of settings in docs/configuration.md: ``python docs/settings_table.py``.

They are made from ``service.settings``, between two marks. ``docs/check.py`` reports a page that
is not what this writes.
"""

from __future__ import annotations

import re
from pathlib import Path

from service.settings import PREFIX, Settings

PAGE = Path(__file__).parent / "configuration.md"
TABLES = re.compile(r"(<!-- settings: begin -->\n).*(<!-- settings: end -->)", re.DOTALL)
# The first setting of each group; settings of a group are declared together.
GROUPS = {
    "bundle": "Model and store",
    "host": "Address and access",
    "model_name": "Scoring",
    "max_candidates": "Requests",
    "encoder": "Text encoder",
    "max_table_items": "Item table",
    "model_policy": "Versions of the model",
    "admin_host": "Admin API",
    "console": "Console",
    "max_header_bytes": "Connections",
    "drain_notice_s": "Stopping",
    "log_format": "Logs, traces and metrics",
}


def tables() -> str:
    """A heading and a table per group, in the order of declaration."""
    lines = list[str]()
    for name, setting in Settings.model_fields.items():
        if name in GROUPS:
            lines += ["", f"### {GROUPS[name]}", ""]
            lines += ["| variable | default | meaning |", "|---|---|---|"]
        variable = f"{PREFIX}{name}".upper()
        lines.append(f"| `{variable}` | `{setting.default}` | {setting.description} |")
    return "\n".join([*lines, "", ""])


def page(text: str) -> str:
    """``text`` with its tables replaced."""
    return TABLES.sub(lambda marks: marks[1] + tables() + marks[2], text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
