"""Train a classifier: the baseline, or aligned with the descriptions of its images."""

import argparse
import os
import sys
from pathlib import Path

from mindspore_gpt4image.cluster import launcher_variables
from mindspore_gpt4image.config import help_text, load_config
from mindspore_gpt4image.errors import run_command
from mindspore_gpt4image.launch import announce, announce_logs
from mindspore_gpt4image.runs import finished_summary
from mindspore_gpt4image.signals import end_with_parent, listen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__ + " A run that was stopped goes on when it is started again.",
        epilog=help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the experiment")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options that differ from the file")
    parser.add_argument("--check", action="store_true", help="only find out whether training would fail, and why")
    # Of tools/run_distribute_train.sh: the name of its folder of logs.
    parser.add_argument("--as-rank", metavar="LOGS", help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    if arguments.as_rank:
        end_with_parent()
    config = load_config(arguments.config, arguments.overrides)
    if arguments.check:
        from mindspore_gpt4image.preflight import check

        check(config).show()
        return

    summary = finished_summary(config)
    if summary is None:
        # Faults of the config are told by now: MindSpore takes seconds to load.
        stop = listen()
        from mindspore_gpt4image.distributed import join_world, rank, world_size
        from mindspore_gpt4image.training.agreement import check_code, share_folder
        from mindspore_gpt4image.training.loop import train

        if arguments.as_rank:
            join_world(config.device)
            announce(rank(), world_size())
            announce_logs(share_folder(Path(config.output), arguments.as_rank))
            check_code()
        elif names := launcher_variables(os.environ):
            print(f"note: {', '.join(names)} is set, and ignored: this is a run of one process", file=sys.stderr)
        summary = train(config, stop)
    if summary:
        print(
            f"{config.output}: {summary['split']} top-1 {summary['top1']:.2f}%, top-5 {summary['top5']:.2f}% after "
            f"{summary['epochs']} epochs in {summary['seconds']:.0f} s ({summary['images_per_second']:.0f} images/s)"
        )


if __name__ == "__main__":
    run_command(main)
