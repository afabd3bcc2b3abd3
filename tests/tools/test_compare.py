"""The command line of tools/compare.py, as a user runs it."""

from pathlib import Path

from blocked import run_without_frameworks
from run_folders import make_run

COMPARE = Path(__file__).parents[2] / "tools" / "compare.py"


def run(*arguments):
    return run_without_frameworks(COMPARE, *arguments, timeout=120)


def test_compares_without_a_framework(tmp_path):
    folders = [
        make_run(tmp_path / f"{arm}{seed}", arm, seed, right)
        for arm, counts in (("baseline", (3, 4, 3)), ("aligned", (8, 10, 9)))
        for seed, right in enumerate(counts)
    ]
    result = run(*folders, "--output", tmp_path / "out")
    assert (result.returncode, result.stderr) == (0, "")
    text = (tmp_path / "out" / "compare.md").read_text()
    assert result.stdout == text + "\n"
    assert "- Better: aligned minus baseline is +47.22 points (95% interval over 3 seeds: +35.27 to +59.17)." in text
    assert "| aligned  |  66.67 |  83.33 |  75.00 |     75.00 ± 8.33 |" in text
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "Better: aligned minus baseline is +47.22 points" in page


def test_a_users_mistake_is_one_line(tmp_path):
    folder = make_run(tmp_path / "a", "baseline", 0, 6)
    result = run(folder, "--split", "val", "--output", tmp_path / "out")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"error: {folder}/eval-val.json: there is no such file; make it: python tools/eval.py --checkpoint {folder} "
        f"--split val --json {folder}/eval-val.json"
    ]
    assert not (tmp_path / "out").exists()


def test_wrong_syntax_exits_2(tmp_path):
    assert run("--output", tmp_path).returncode == 2
    assert run(tmp_path).returncode == 2
