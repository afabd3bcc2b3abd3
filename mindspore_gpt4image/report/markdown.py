"""Markdown from the templates beside this file."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mindspore_gpt4image.report.comparison import Table


def render_markdown(template: str, **values: Any) -> str:
    """Fill in `templates/<template>`; there `table` turns a `Table` into Markdown."""
    environment = Environment(
        loader=PackageLoader("mindspore_gpt4image.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Markdown on its way to a file or a terminal; the HTML page escapes.
        autoescape=False,  # noqa: S701
    )
    environment.filters["table"] = markdown_table
    return environment.get_template(template).render(**values)


def markdown_table(table: Table) -> str:
    """The table under its title, columns padded so that it reads well as plain text too."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (table.headers, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    padded = [[name.ljust(widths[0]), *map(str.rjust, row, widths[1:])] for name, *row in lines]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return f"**{table.title}**\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:]))
