"""Description sets written line by line: killed at any moment, by one process or by several."""

import json

import pytest

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.journal import Journal, parts_of
from mindspore_gpt4image.offline.ranks import Ranks
from mindspore_gpt4image.sources.descriptions import read_descriptions

LINES = [{"id": f"train/a/{n}.png", "short": f"text {n} – é"} for n in range(3)]
WHOLE = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in LINES).encode()


@pytest.fixture
def output(tmp_path):
    return tmp_path / "sets" / "descriptions.jsonl"


def write(output, ids, ranks=Ranks(), keys=("short",)):  # noqa: B008
    journal = Journal(output, keys, ranks)
    for id in ids:
        if id not in journal.done:
            journal.write(id, dict.fromkeys(keys, f"text of {id}"))
    journal.close()
    return journal


def test_lines_are_there_as_soon_as_they_are_written(output):
    journal = Journal(output, ["short"], Ranks())
    journal.write("x", {"short": "é"})
    assert output.read_bytes() == '{"id": "x", "short": "é"}\n'.encode()
    journal.close()


def test_killed_after_any_byte_it_goes_on(output):
    ids = [line["id"] for line in LINES]
    output.parent.mkdir()
    for length in range(len(WHOLE) + 1):
        output.write_bytes(WHOLE[:length])
        done = write(output, ids).done
        # A line that is whole but for its line feed counts.
        whole = WHOLE[: length + 1] if WHOLE[length : length + 1] == b"\n" else WHOLE[:length]
        assert len(done) == whole.count(b"\n")
        texts = read_descriptions(output, "short")
        assert list(texts) == ids
        assert output.read_bytes().count(b"\n") == 3
        assert all(texts[line["id"]] == line["short"] for line in LINES if line["id"] in done)


def test_a_torn_line_longer_than_a_block(output):
    output.parent.mkdir()
    output.write_bytes(WHOLE + b'{"id": "z", "short": "' + b"z" * 200_000)
    assert len(write(output, ["z"]).done) == 3
    assert list(read_descriptions(output, "short")) == [line["id"] for line in LINES] + ["z"]


def test_parts_of_any_number_of_processes_count(output):
    ids = [f"train/{n}" for n in range(10)]
    for rank in range(3):
        write(output, ids[rank::3][:2], Ranks(rank, 3))
    torn = output.with_name("descriptions.1-of-3.jsonl")
    torn.write_bytes(torn.read_bytes()[:-4])
    for rank in range(2):
        write(output, ids[rank::2][:4], Ranks(rank, 2))
    write(output, ids)
    assert len(parts_of(output)) == 5
    merged = output.with_name("merged.jsonl")
    merged.write_bytes(b"".join(path.read_bytes() for path in [output, *parts_of(output)]))
    assert sorted(read_descriptions(merged, "short")) == ids  # an id that comes twice would be refused


def test_a_part_that_its_process_is_writing_is_left_alone(output):
    other = Journal(output, ["short"], Ranks(0, 2))
    other.write("a", {"short": "a"})
    other.path.write_bytes(other.path.read_bytes() + b'{"id": "b", "sh')
    assert Journal(output, ["short"], Ranks(1, 2)).done == {"a"}
    assert other.path.read_bytes().endswith(b'"sh')


def test_failures_are_those_of_the_last_run(output):
    journal = Journal(output, ["short"], Ranks(1, 2))
    journal.fail("a", "empty answer")
    journal.close()
    assert journal.failures.name == "failures.1-of-2.jsonl"
    assert journal.failures.read_text() == '{"id": "a", "reason": "empty answer"}\n'
    journal = Journal(output, ["short"], Ranks())
    journal.fail("b", "refused")
    assert [path.name for path in output.parent.glob("failures*")] == ["failures.jsonl"]
    journal.close()
    Journal(output, ["short"], Ranks()).close()
    assert not journal.failures.exists()


@pytest.mark.parametrize(
    ("content", "keys", "message"),
    [
        (
            b'{"id": "a", "short": "b"}\n',
            ["short", "long"],
            "line 1: id .a. has no .long., so it was made",
        ),
        (b'{"id": "a", "short": "b"}\n{oops}\n', ["short"], "line 2: not JSON in UTF-8"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused_and_kept(output, content, keys, message):
    output.parent.mkdir()
    output.write_bytes(content)
    with pytest.raises(UserError, match=message):
        Journal(output, keys, Ranks())
    assert output.read_bytes() == content


def test_two_processes_do_not_write_one_part(output):
    first = Journal(output, ["short"], Ranks())
    with pytest.raises(UserError, match="another process is writing it"):
        Journal(output, ["short"], Ranks())
    first.close()


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        Journal(tmp_path / "file" / "x.jsonl", ["short"], Ranks())


@pytest.mark.parametrize(
    ("variables", "ranks"),
    [
        ({}, Ranks(0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Ranks(5, 8, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Ranks(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "2"}, None),
        ({"RANK": "x", "WORLD_SIZE": "2"}, None),
        ({"RANK": "1"}, None),
        ({"WORLD_SIZE": "4"}, None),
    ],
)
def test_ranks_of_the_environment(monkeypatch, variables, ranks):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if ranks:
        assert Ranks.of_environment() == ranks
    else:
        with pytest.raises(UserError, match="use torchrun or unset them"):
            Ranks.of_environment()
