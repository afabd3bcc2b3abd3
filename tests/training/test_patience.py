"""Ranks that come late; run as a script, this file is what each of them does."""

import sys
import time
from pathlib import Path

import pytest
from ranks import run_on_ranks
from tiny_data import overrides

SECONDS_LATE = 33  # a collective of MindSpore's waits 30 s on CPU


@pytest.mark.slow
def test_a_rank_may_compile_and_another_one_save_for_longer_than_a_collective_waits(data, tmp_path):
    (tmp_path / "tiny.yaml").write_text("{}\n")
    (tmp_path / "logs").mkdir()
    options = overrides(data, tmp_path / "run", epochs=2, batch_size=6, diagnostics=1, loss__alignment="clip")
    run_on_ranks(__file__, 2, [tmp_path / "tiny.yaml", *options], tmp_path / "logs")
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def main():
    from mindspore_gpt4image.config import load_config
    from mindspore_gpt4image.distributed import join_world, rank
    from mindspore_gpt4image.training import loop
    from mindspore_gpt4image.training.diagnostics import Diagnostics

    def late_once(work):
        delays = [SECONDS_LATE]

        def work_late(*arguments, **keywords):
            time.sleep(delays.pop() if delays else 0)
            return work(*arguments, **keywords)

        return work_late

    join_world("CPU")
    if rank() == 1:
        Diagnostics.compile = late_once(Diagnostics.compile)
    else:
        loop.save_last = late_once(loop.save_last)
    loop.train(load_config(Path(sys.argv[1]), sys.argv[2:]))


if __name__ == "__main__":
    main()
