"""Whatever stands in a description set: its texts as they were written, or one line that says what is wrong."""

import json

import pytest
from damage import TEXT, VALUES, cases, damaged
from hypothesis import example, given
from hypothesis import strategies as st

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.journal import Journal
from mindspore_gpt4image.offline.ranks import Ranks
from mindspore_gpt4image.sources.descriptions import read_descriptions

GOOD = "".join(
    json.dumps({"id": f"train/{name}.png", "short": f"a {name}", "long": f"the {name} 😀"}, ensure_ascii=False) + "\n"
    for name in ("cat", "dög", "日本", "cow")
).encode()
# Mostly objects that look like a description.
ROWS = st.fixed_dictionaries(
    {}, optional={"id": st.one_of(TEXT, VALUES), "short": st.one_of(TEXT, VALUES), "x": VALUES}
)


def check(path, data):
    path.write_bytes(data)
    try:
        texts = read_descriptions(path, "short")
    except UserError as error:
        assert str(error).startswith(str(path))
        return
    rows = [json.loads(line.decode("utf-8-sig")) for line in data.split(b"\n") if line.strip()]
    assert texts == {row["id"]: row["short"].strip() for row in rows}
    assert len(texts) == len(rows)
    for id, text in texts.items():
        assert id and "\0" not in id and text
        assert (id + text).encode()


@cases(200, 5_000)
@given(data=damaged(GOOD))
def test_accidents(tmp_path, data):
    check(tmp_path / "a.jsonl", data)


@cases(100, 1_000)
@given(rows=st.lists(st.one_of(ROWS, VALUES), min_size=1, max_size=3), mark=st.sampled_from([b"", b"\xef\xbb\xbf"]))
@example(rows=[{"id": "a\0", "short": "x"}], mark=b"")
@example(rows=[{"id": "a", "short": "\ud800"}], mark=b"")
@example(rows=[{"id": "a", "short": "x"}, {"id": "a", "short": "x"}], mark=b"\xef\xbb\xbf")
def test_objects(tmp_path, rows, mark):
    check(tmp_path / "a.jsonl", mark + b"\n".join(json.dumps(row).encode() for row in rows))


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 10**5,
        b'{"a":' * 10**5,
        b"1" * 10**5,
        b'{"id": "a", "short": "' + b"x" * 10**6 + b'"}',
        b"\0",
        b"\xff\xfe",
    ],
)
def test_lines_that_are_huge_or_nested(tmp_path, line):
    check(tmp_path / "a.jsonl", line)


@cases(50, 1_000)
@given(data=damaged(GOOD))
def test_a_journal_goes_on_or_says_why_not(tmp_path, data):
    """A set that is being written loses nothing but a last line that was torn."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    try:
        journal = Journal(path, ["short"], Ranks(0, 1))
    except UserError as error:
        assert str(error).startswith(str(path))
        return
    journal.close()
    kept = path.read_bytes()
    assert data.startswith(kept) or kept == data + b"\n"
    assert b"\n" not in data[len(kept) :]
