"""What the README promises: its files exist and its commands run as they are written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


def test_the_two_set_up_commands_stand_at_the_top():
    assert re.findall(r"^bash (\S+)", BLOCKS[0], re.MULTILINE) == ["tools/quickstart.sh", "tools/run_tests.sh"]


def test_every_file_it_names_exists():
    names = set(re.findall(r"\b(?:tools|configs|checkpoints|mindspore_gpt4image)/[\w/.-]*\w", README))
    assert len(names) > 10
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_every_option_it_names_is_one():
    from mindspore_gpt4image.config import options

    known = {key for key, _ in options()}
    sections = {key.split(".")[0] for key in known if "." in key}
    named = re.findall(rf"\b((?:{'|'.join(sections)})\.\w+)=", README)
    assert named
    assert [key for key in named if key not in known] == []


@pytest.mark.slow
def test_the_way_of_one_s_own_images_runs_as_written(tmp_path):
    (block,) = [block for block in BLOCKS if "tools/prepare.py emoji" in block]
    for name in ("tools", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "largest difference of logits" in result.stdout
    assert (tmp_path / "outputs" / "try" / "export" / "model.yaml").exists()
