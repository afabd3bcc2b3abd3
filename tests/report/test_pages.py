from html.parser import HTMLParser

from run_folders import make_run

from mindspore_gpt4image.report.comparison import HOW_TO_READ, Table, compare
from mindspore_gpt4image.report.pages import markdown_table, render_html
from mindspore_gpt4image.runs import group_runs, read_run


class Sources(HTMLParser):
    """All that a page would load when it is opened."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found += [value for key, value in attrs if key == "src" or (tag == "link" and key == "href")]


def test_a_table_reads_well_as_plain_text():
    table = Table("Top-1", ["arm", "seed 0"], [["a|b", "1.00"], ["c", "22.00"]])
    assert markdown_table(table).splitlines() == [
        "**Top-1**",
        "",
        "| arm  | seed 0 |",
        "| ---- | -----: |",
        "| a\\|b |   1.00 |",
        "| c    |  22.00 |",
    ]


def test_a_page_needs_no_other_file_and_escapes_names(tmp_path):
    runs = [make_run(tmp_path / f"<{arm}>", arm, 0, 6) for arm in ("baseline", "aligned")]
    comparison = compare(group_runs(read_run(run, "test") for run in runs), "test")
    page = render_html("comparison.html.j2", comparison, how_to_read=HOW_TO_READ)
    sources = Sources(page).found
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "&lt;aligned&gt;" in page and "<aligned>" not in page
    assert comparison.pairs[0].sentence in page
