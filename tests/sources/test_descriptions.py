"""Description sets: what is read, what is refused and with which line."""

import hashlib
import json

import pytest

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.descriptions import file_sha256, read_descriptions, stream_texts, write_descriptions

GOOD = '{"id": "train/a/1.png", "short": " a cat "}\n'


@pytest.fixture
def file(tmp_path):
    return tmp_path / "descriptions.jsonl"


def test_reads_the_asked_text_stripped_in_order(file):
    rows = [
        {"id": "train/b/2.png", "short": " a dog\n", "long": "A dog on a lawn."},
        {"id": "train/a/1.png", "short": "a cat", "long": "A cat\nat home. "},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(read_descriptions(file, "short").items()) == [("train/b/2.png", "a dog"), ("train/a/1.png", "a cat")]
    assert read_descriptions(file, "long")["train/a/1.png"] == "A cat\nat home."


def test_byte_order_mark_crlf_blank_lines_and_separators_inside_a_text(file):
    lines = '{"id": "é", "short": "one\u2028two\x85"}\r\n\r\n{"id": "b", "short": "c"}'
    file.write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert read_descriptions(file, "short") == {"é": "one\u2028two", "b": "c"}


def test_ids_are_compared_as_they_are(file):
    file.write_text('{"id": "caf\u00e9", "short": "x"}\n{"id": "cafe\u0301", "short": "y"}\n', encoding="utf-8")
    assert read_descriptions(file, "short") == {"caf\u00e9": "x", "cafe\u0301": "y"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'id': 1}", r"line 2: not JSON in UTF-8"),
        ('["train/a/1.png", "a cat"]', r"line 2: not a JSON object"),
        ('{"short": "a cat"}', r'line 2: has no "id" that is a string'),
        ('{"id": 7, "short": "a cat"}', r'line 2: has no "id" that is a string'),
        ('{"id": "", "short": "a cat"}', r'line 2: has no "id" that is a string'),
        ('{"id": "x", "short": null}', r"line 2: id 'x': 'short' is not a text"),
        ('{"id": "x", "short": "  "}', r"line 2: id 'x': 'short' is not a text"),
        ('{"id": "x", "short": ["a"]}', r"line 2: id 'x': 'short' is not a text"),
        ('{"id": "x", "short": "\\u200b\\ufeff \\t"}', r"line 2: id 'x': 'short' is not a text"),
        ('{"id": "x", "short": "half a pair: \\ud83d"}', r"line 2: id 'x': 'short' is not a text"),
        ('{"id": "\\udcff", "short": "a"}', r'line 2: has no "id" that is a string'),
        ('{"id": "train/x.png", "short": "a do', r'line 2 \(of id "train/x.png"\): not JSON in UTF-8'),
        ("[" * 100_000, r"line 2: not JSON in UTF-8"),
        ('{"id": "x", "short": "a", "long": ""}', r"line 2: id 'x': 'long' is not a text"),
        ('{"id": "train/a/1.png", "short": "b"}', r"line 2: id 'train/a/1.png' was on line 1 already"),
    ],
)
def test_faulty_line_is_named(file, line, message):
    file.write_text(GOOD + line + "\n")
    with pytest.raises(UserError, match=message):
        read_descriptions(file, "short")


def test_line_that_is_not_utf8_is_named(file):
    file.write_bytes(GOOD.encode() + b'{"id": "x", "short": "caf\xe9"}\n')
    with pytest.raises(UserError, match=r"""line 2 \(of id "x"\): not JSON in UTF-8"""):
        read_descriptions(file, "short")


def test_only_the_other_text_exists(file):
    file.write_text("".join(f'{{"id": "{i}", "long": "text"}}\n' for i in range(3)))
    with pytest.raises(UserError, match=r"3 of 3 lines lack 'short' .*texts there are: 'long' on 3"):
        read_descriptions(file, "short")


def test_half_the_lines_lack_the_text(file):
    rows = [{"id": str(i), "long": "text", **({} if i % 2 else {"short": "s"})} for i in range(6)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = r"3 of 6 lines lack 'short' \(first: line 2, id '1'\); texts there are: 'long' on 6, 'short' on 3"
    with pytest.raises(UserError, match=message):
        read_descriptions(file, "short")


def test_missing_and_empty_file(file):
    with pytest.raises(UserError, match=r"descriptions.jsonl: cannot be read \(No such file or directory\)"):
        read_descriptions(file, "short")
    file.write_text("\n")
    with pytest.raises(UserError, match=r"descriptions.jsonl: holds no descriptions"):
        read_descriptions(file, "short")


def test_lines_come_one_by_one(file):
    """Nothing is read ahead: a fault is met when its line is."""
    file.write_text(GOOD + '{"id": "b", "long": "text"}\n' + "half a li")
    lines = stream_texts(file, "short")
    assert next(lines) == (1, "train/a/1.png", "a cat")
    assert next(lines) == (2, "b", None)
    with pytest.raises(UserError, match="line 3: not JSON in UTF-8"):
        next(lines)


def test_written_rows_are_read_again(file):
    rows = [{"id": "train/é.png", "short": "ein „Hund“"}, {"id": "b", "short": "two\nlines"}]
    write_descriptions(file, rows)
    assert file.read_bytes().decode().splitlines()[0] == '{"id": "train/é.png", "short": "ein „Hund“"}'
    assert read_descriptions(file, "short") == {row["id"]: row["short"] for row in rows}


def test_failed_write_leaves_the_old_file_alone(file):
    file.write_text(GOOD)

    def rows():
        yield {"id": "b", "short": "new"}
        raise RuntimeError("the captioner died")

    with pytest.raises(RuntimeError):
        write_descriptions(file, rows())
    assert file.read_text() == GOOD
    assert list(file.parent.iterdir()) == [file]


def test_sha256(file):
    file.write_bytes(b"x" * (2 << 20))
    assert file_sha256(file) == hashlib.sha256(b"x" * (2 << 20)).hexdigest()
