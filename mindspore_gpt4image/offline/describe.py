"""Describing images with a model: from image sets to a description set."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from tqdm import tqdm

from mindspore_gpt4image.errors import Stopped, UserError
from mindspore_gpt4image.offline.answers import Answer
from mindspore_gpt4image.offline.journal import Journal
from mindspore_gpt4image.offline.picture import Picture
from mindspore_gpt4image.offline.ranks import Ranks
from mindspore_gpt4image.signals import StopRequest
from mindspore_gpt4image.sources.image_set import ImageSet

# Of the paper, Sec. 3.1.
PROMPTS = {
    "short": "Write a one-sentence short description about this image.",
    "long": "Describe this image in detail.",
}


class Describer(Protocol):
    """A model that describes images, wherever it runs. Its answers do not depend on which images share a call.

    Attributes:
        batch_size: how many images a call takes.
        workers: how many calls to make at a time, from threads.
    """

    batch_size: int
    workers: int

    def answers(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> list[Answer]:
        """An answer for each picture to the prompt at its place.

        Raises:
            UserError: no image can be described: out of memory, key refused, server gone.
        """

    def close(self) -> None:
        """End calls that are under way as soon as possible."""


@dataclass
class Tally:
    """What a run did.

    Attributes:
        described: images that got their texts.
        failed: images that did not, listed in `failures.jsonl`.
        looped: texts that were cut where they began to repeat themselves.
        cut: texts that ended at the limit of tokens.
        prompt_tokens: tokens read by the model.
        tokens: tokens written by it.
        seconds: what it took.
    """

    described: int = 0
    failed: int = 0
    looped: int = 0
    cut: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass
class _Outcome:
    """What became of one image: texts, or a reason why there are none."""

    id: str
    texts: dict[str, str] = field(default_factory=dict)
    reason: str | None = None
    answers: list[Answer] = field(default_factory=list)


def missing_images(
    image_sets: Sequence[ImageSet], journal: Journal, ranks: Ranks
) -> tuple[int, list[tuple[ImageSet, int]]]:
    """How many images are this process's share, and those of them that have no text yet, as (set, position).

    A share is every `world`-th image of the whole list: it does not depend on what is done already, so that no process
    waits for another.
    """
    everything = ((images, position) for images in image_sets for position in range(len(images)))
    share = list(islice(everything, ranks.rank, None, ranks.world))
    return len(share), [(images, position) for images, position in share if images.ids[position] not in journal.done]


def describe_images(
    images: Sequence[tuple[ImageSet, int]],
    model: Describer,
    prompts: Mapping[str, str],
    journal: Journal,
    stop: StopRequest | None = None,
) -> Tally:
    """Describe images, given as (set, position), and write each one's line as its answers come.

    Args:
        prompts: a prompt by key of the text, `short` or `long`.
        stop: asks to finish what the model is working on and go.

    Raises:
        UserError: no image can be described (`Describer.answers`), or the disk is full.
        Stopped: by `stop`, once everything that was answered is written.
    """
    stop = stop or StopRequest()
    tally = Tally()
    start = time.perf_counter()
    with tqdm(total=len(images), unit="image", disable=None) as progress:
        for outcome in _outcomes(images, model, prompts, stop):
            if outcome.reason is None:
                journal.write(outcome.id, outcome.texts)
                tally.described += 1
            else:
                journal.fail(outcome.id, outcome.reason)
                tally.failed += 1
            for answer in outcome.answers:
                tally.looped += answer.looped
                tally.cut += answer.cut
                tally.prompt_tokens += answer.prompt_tokens
                tally.tokens += answer.tokens
            progress.set_postfix(failed=tally.failed, tokens=tally.prompt_tokens + tally.tokens, refresh=False)
            progress.update()
    tally.seconds = time.perf_counter() - start
    if stop.signum is not None and tally.described + tally.failed < len(images):
        raise Stopped(stop.signum)
    return tally


def _outcomes(images, model: Describer, prompts: Mapping[str, str], stop: StopRequest) -> Iterator[_Outcome]:
    """Outcomes as they come, while the model works on the next images."""
    batches = (images[i : i + model.batch_size] for i in range(0, len(images), model.batch_size))
    pool = ThreadPoolExecutor(model.workers)
    running = set()
    try:
        while True:
            while len(running) < 2 * model.workers and stop.signum is None:
                batch = next(batches, None)
                if batch is None:
                    break
                running.add(pool.submit(_describe, batch, model, prompts))
            if stop.signum is not None:
                running = {future for future in running if not future.cancel()}
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield from future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        model.close()


def _describe(batch, model: Describer, prompts: Mapping[str, str]) -> list[_Outcome]:
    outcomes, pictures = [], {}
    for images, position in batch:
        outcome = _Outcome(images.ids[position])
        outcomes.append(outcome)
        try:
            pictures[outcome.id] = Picture(images, position)
        except UserError as error:
            outcome.reason = str(error)
    for key, prompt in prompts.items():
        open_ones = [outcome for outcome in outcomes if outcome.reason is None]
        if not open_ones:
            break
        answers = model.answers([pictures[outcome.id] for outcome in open_ones], [prompt] * len(open_ones))
        for outcome, answer in zip(open_ones, answers):
            outcome.answers.append(answer)
            outcome.texts[key] = answer.text
            if answer.fault:
                outcome.reason = f"{key}: {answer.fault}"
    return outcomes
