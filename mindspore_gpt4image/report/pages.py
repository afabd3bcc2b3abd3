"""Markdown and HTML from the templates beside this file."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from mindspore_gpt4image.report.comparison import Comparison, Table
from mindspore_gpt4image.report.figures import colours, curves, png, results
from mindspore_gpt4image.report.pictures import data_uri


def render_markdown(template: str, **values: Any) -> str:
    """Fill in `templates/<template>`; there the filter `table` turns a `Table` into Markdown."""
    return _environment().get_template(template).render(**values)


def render_page(template: str, **values: Any) -> str:
    """Fill in `templates/<template>`: one page that needs no other file and no network."""
    return _environment(autoescape=True).get_template(template).render(**values)


def render_html(template: str, comparison: Comparison, **values: Any) -> str:
    """The page of a comparison, as `render_page` makes it, with its figures.

    There `render_markdown` puts a Markdown template into the page, and the filter `markdown` a Markdown text.
    """

    def to_html(text: str) -> Markup:
        # A name could otherwise have the page load a picture from somewhere.
        return Markup(MarkdownIt("commonmark", {"html": False}).enable("table").disable("image").render(text))

    def included(name: str) -> Markup:
        return to_html(render_markdown(name, comparison=comparison, **values))

    environment = _environment(autoescape=True)
    environment.filters["markdown"] = to_html
    environment.globals["render_markdown"] = included
    return environment.get_template(template).render(
        comparison=comparison,
        colours=colours(comparison.groups),
        results_figure=data_uri(png(results(comparison)), "png"),
        curves_figure=data_uri(png(curves(comparison)), "png"),
        **values,
    )


def markdown_table(table: Table) -> str:
    """The table under its title, columns padded so that it reads well as plain text too."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (table.headers, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    align, rule_end = (str.ljust, "-") if table.prose else (str.rjust, ":")
    padded = [[name.ljust(widths[0]), *map(align, row, widths[1:])] for name, *row in lines]
    rule = ["-" * widths[0], *("-" * (width - 1) + rule_end for width in widths[1:])]
    return f"**{table.title}**\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:]))


def _environment(autoescape: bool = False) -> Environment:
    environment = Environment(
        loader=PackageLoader("mindspore_gpt4image.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,
    )
    environment.filters["table"] = markdown_table
    return environment
