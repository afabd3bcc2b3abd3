"""Ranks that are about to do different things find it out together; run as a script, this file is what each does."""

import socket
import sys
from pathlib import Path

import pytest
from ranks import run_on_ranks


@pytest.mark.slow
def test_every_rank_names_the_one_that_differs_and_in_what(tmp_path):
    for name in ("shared", "other"):
        (tmp_path / name / "logs" / "now").mkdir(parents=True)
    (tmp_path / "shared" / "logs" / "now" / "worker_0.log").write_text("")
    logs = run_on_ranks(__file__, 3, [tmp_path], tmp_path)
    host = socket.gethostname()
    for log in logs:
        said = [line.partition("said: ")[2] for line in log.splitlines() if line.startswith("said: ")]
        assert said[0] == "now"
        assert said[1] == (
            f"rank 2 on {host} differs from rank 0 on {host} in seed, ids; make it the same on every node"
        )
        assert said[2] == "alike"
        assert said[3].startswith("output=") and f"rank 1 on {host} does not see there what rank 0 wrote" in said[3]


def main():
    from mindspore_gpt4image.distributed import join_world, rank
    from mindspore_gpt4image.errors import UserError
    from mindspore_gpt4image.training.agreement import check_code, check_same, share_folder

    folder = Path(sys.argv[1])
    join_world("CPU")
    print("said:", share_folder(folder / "shared", "now" if rank() == 0 else "another time"))
    different = rank() == 2
    try:
        check_same({"seed": 1 + different, "lr": 0.1, "ids": ["a", "b", "ü"[:different]]})
    except UserError as error:
        print("said:", error)
    check_code()
    check_same({"seed": 1})
    print("said: alike")
    try:
        share_folder(folder / ("other" if rank() == 1 else "shared"), "now")
    except UserError as error:
        print("said:", error)


if __name__ == "__main__":
    main()
