"""A card of description sets and their embeddings: what is in them, and how much the texts tell of the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import numpy as np

from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.report.comparison import Table
from mindspore_gpt4image.report.described_images import DescribedImages
from mindspore_gpt4image.report.embedding_map import embedding_map
from mindspore_gpt4image.report.pictures import thumbnail
from mindspore_gpt4image.report.separability import Separability, separability
from mindspore_gpt4image.report.text_sets import TextSet, read_names, read_some, read_text_sets, share
from mindspore_gpt4image.sources.descriptions import file_sha256

# Fig. 4 of the paper: 50 classes, 250 images each.
MAP_CLASSES, MAP_IMAGES = 50, 250
EXAMPLES, ODD_EXAMPLES, MOST_SHARED = 12, 6, 8
_SIDE = 112
_QUANTILES = {"min": 0, "median": 50, "p95": 95, "max": 100}


@dataclass(eq=False)
class Described:
    """A set of texts, with its embeddings where there are some.

    Attributes:
        label: what it is called on the page.
        rows: of each text in the store.
        classes: names of the classes that are known.
        labels: positions in `classes`, -1 where the class is not known.
        separability: of the images whose class is known; None without a store or with fewer than two classes.
        known: positions of those images.
    """

    texts: TextSet
    label: str
    store: Optional[EmbeddingStore]
    rows: Optional[np.ndarray]
    classes: list[str]
    labels: np.ndarray
    known: np.ndarray
    separability: Optional[Separability]

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """What card.json holds of it."""
        texts = self.texts
        splits = Counter(id.split("/")[0] for id in texts.ids)
        number = {split: n for n, split in enumerate(splits)}
        # Equal only where both text and split are: images of different splits are never in one batch.
        in_split = np.asarray(texts.texts) + np.array([number[id.split("/")[0]] for id in texts.ids])
        _, first, images = np.unique(in_split, return_index=True, return_counts=True)
        most = [n for n in np.argsort(-images, kind="stable")[:MOST_SHARED] if images[n] > 1]
        shared = read_some(texts, [texts.ids[first[n]] for n in most])
        mentions = [mention for mention in texts.mentions if mention >= 0]
        found = {
            "descriptions": str(texts.descriptions),
            "text": texts.key,
            "images": len(texts),
            "lines_without_text": texts.lacking,
            "images_by_split": dict(splits),
            "classes": len(self.classes),
            "distinct_texts": len(set(texts.texts)),
            "share_of_images_that_share_their_text": float(images[images > 1].sum() / len(texts)),
            "most_shared_texts": [{"text": shared[texts.ids[first[n]]], "images": int(images[n])} for n in most],
            "words": _spread(texts.words),
            "characters": _spread(texts.characters),
            "share_that_repeats_itself": share(texts.repeats),
            "share_beyond_ascii": share(texts.non_ascii),
            "share_that_names_its_class": float(np.mean(mentions)) if mentions else None,
            "beginnings": {words: count / len(texts) for words, count in texts.beginnings.most_common(8)},
        }
        if self.store:
            made_from = self.store.metadata
            keys = ("encoder", "dim", "dtype", "context_length", "overflow")
            found["embeddings"] = {"file": str(self.store.path), **{key: made_from.get(key) for key in keys}}
            found["share_cut"] = made_from["truncated"]
            if "tokens" in made_from:
                lengths, counts = np.array(made_from["tokens"]).T
                found["tokens"] = _spread(np.repeat(lengths, counts))
        if self.separability:
            found["nearest_class_accuracy"] = self.separability.accuracy
            found["nearest_class_chance"] = 1 / len(self.classes)
            found["hardest_classes"] = [
                {"class": self.classes[label], "accuracy": accuracy, "images": count, "taken_for": rival}
                for label, accuracy, count, rival in self._hardest()
            ]
        return found

    def _hardest(self) -> list[tuple[int, float, int, str]]:
        """Classes whose texts are least often nearest to their own class, and what they are nearest to."""
        found = self.separability
        right = found.nearest == found.label
        images = np.bincount(found.label, minlength=len(self.classes))
        accuracy = np.bincount(found.label, right, len(self.classes)) / np.maximum(images, 1)
        rows = []
        for label in np.argsort(accuracy, kind="stable")[:EXAMPLES].tolist():
            wrong = Counter(found.nearest[(found.label == label) & ~right].tolist())
            rival = self.classes[wrong.most_common(1)[0][0]] if wrong else "–"
            rows.append((label, float(accuracy[label]), int(images[label]), rival))
        return rows


def describe_sets(
    files: Sequence[str | Path],
    stores: Sequence[str | Path] = (),
    text: str | None = None,
    data: str | Path | None = None,
    names: str | Path | None = None,
) -> tuple[list[Described], DescribedImages]:
    """Read description sets and the stores that were made from them.

    Args:
        text: short or long; None: those that have a store, or all where no store is given.
        data: root of the data set; None: the folder of the first file.
        names: file that says what classes are called (`read_names`).

    Raises:
        UserError: a file is at fault, or a store was not made from any of the sets.
    """
    images = DescribedImages(Path(data) if data else Path(files[0]).parent)
    names = read_names(names) if names else None
    sets = [each for file in files for each in read_text_sets(file, images.classes, names)]
    if text:
        sets = [each for each in sets if each.key == text]
        if not sets:
            raise UserError(f"{files[0]}: no line has {text!r}; choose the other text")
    opened = [EmbeddingStore.open(path) for path in stores]
    store_of = _match(sets, opened)
    if opened:
        sets = [each for each in sets if id(each) in store_of]
    labels = _labels(sets)
    return [_described(each, store_of.get(id(each)), label) for each, label in zip(sets, labels)], images


def overview(sets: Sequence[Described]) -> Table:
    """The statistics side by side: a column a set."""
    columns = [each.statistics for each in sets]
    rows = [
        ("images", lambda s: f"{s['images']:,}"),
        ("lines without this text", lambda s: f"{s['lines_without_text']:,}"),
        ("classes", lambda s: f"{s['classes']:,}"),
        ("distinct texts", lambda s: f"{s['distinct_texts']:,}"),
        ("images that share their text within a split", lambda s: _percent(s["share_of_images_that_share_their_text"])),
        ("most images of one text", lambda s: f"{s['most_shared_texts'][0]['images']:,}"),
        ("words: mean", lambda s: f"{s['words']['mean']:.1f}"),
        ("words: 5% are longer than", lambda s: f"{s['words']['p95']:.0f}"),
        ("tokens: mean", lambda s: f"{s['tokens']['mean']:.1f}"),
        ("tokens: 5% are longer than", lambda s: f"{s['tokens']['p95']:.0f}"),
        ("tokens that the encoder reads", lambda s: f"{s['embeddings']['context_length'] or '–'}"),
        ("texts cut by the encoder", lambda s: _percent(s["share_cut"])),
        ("texts that repeat themselves", lambda s: _percent(s["share_that_repeats_itself"])),
        ("texts with letters beyond ASCII", lambda s: _percent(s["share_beyond_ascii"])),
        ("texts that name their class", lambda s: _percent(s["share_that_names_its_class"])),
        ("nearest class is the right one", lambda s: _percent(s["nearest_class_accuracy"])),
        ("… by chance", lambda s: _percent(s["nearest_class_chance"])),
    ]
    cells = [[name, *(_cell(show, column) for column in columns)] for name, show in rows]
    cells = [row for row in cells if set(row[1:]) != {"–"}]
    return Table("Side by side" if len(sets) > 1 else "At a glance", ["", *(each.label for each in sets)], cells)


def remarks(each: Described) -> list[str]:
    """What a user should know of a set, in sentences."""
    found, of = each.statistics, "of the images"
    said = []
    if found["lines_without_text"]:
        said.append(f"{found['lines_without_text']:,} lines have no {found['text']} text.")
    if found["share_of_images_that_share_their_text"] > 0.05:
        said.append(
            f"{_percent(found['share_of_images_that_share_their_text'])} {of} share their text with another one of "
            "their split: such images are not each other's negatives in training."
        )
    if found.get("share_cut"):
        said.append(
            f"{_percent(found['share_cut'])} {of} have a text of which the encoder does not read the end; "
            "encode with --overflow mean-sentences, or describe shorter."
        )
    if found["share_that_repeats_itself"]:
        said.append(f"{_percent(found['share_that_repeats_itself'])} {of} have a text that repeats itself.")
    words, most = next(iter(found["beginnings"].items()))
    if most > 0.2:
        said.append(f"{_percent(most)} of the texts begin with “{words}”.")
    return said


def examples(each: Described, images: DescribedImages) -> list[dict[str, Any]]:
    """Parts of the gallery: texts that speak most for their class, and most against it, one a class each; odd ones.

    Returns:
        Of each part its `title` and `cards`; a card's `verdict` says how its text stands to the classes, where known.
    """
    texts, found = each.texts, each.separability
    parts, verdicts = {}, {}
    if found:
        order = np.argsort(-found.margin, kind="stable")
        order = order[np.isfinite(found.margin[order])]
        clear, unclear = _first_of_each(order, found.label), _first_of_each(order[::-1], found.label)
        parts["Texts that speak most clearly for their class"] = each.known[clear]
        parts["Texts that speak most clearly for another class"] = each.known[unclear]
        verdicts = {int(each.known[n]): _verdict(each, n) for n in (*clear, *unclear)}
    parts["Texts that repeat themselves"] = np.flatnonzero(np.asarray(texts.repeats))[:ODD_EXAMPLES]
    longest = np.argsort(-np.asarray(texts.words), kind="stable")
    parts["The longest texts"] = _first_of_each(longest, np.asarray(texts.texts))[:ODD_EXAMPLES]
    shown = read_some(texts, [texts.ids[n] for chosen in parts.values() for n in chosen])

    def card(n: int) -> dict[str, Any]:
        id = texts.ids[n]
        return {
            "id": id,
            "picture": thumbnail(images.rgb(id), _SIDE),
            "class": texts.classes[n] or id,
            "text": shown[id],
            "verdict": verdicts.get(n),
        }

    return [{"title": title, "cards": [card(int(n)) for n in chosen]} for title, chosen in parts.items() if len(chosen)]


def _verdict(each: Described, n: int) -> dict[str, Any]:
    found = each.separability
    right = found.nearest[n] == found.label[n]
    other = each.classes[found.rival[n] if right else found.nearest[n]]
    return {"right": bool(right), "other": other, "margin": float(found.margin[n])}


def text_map(each: Described, images: DescribedImages) -> dict[str, Any]:
    """t-SNE as in Fig. 4: of 50 classes 250 images each, chosen at random but always alike; or of all if not more."""
    labels, classes = each.labels, each.classes
    positions = np.arange(len(labels))
    if len(positions) > MAP_CLASSES * MAP_IMAGES:
        random = np.random.default_rng(0)
        chosen = random.permutation(len(classes))[:MAP_CLASSES] if classes else [-1]
        most = MAP_IMAGES if classes else MAP_CLASSES * MAP_IMAGES
        members = [random.permutation(np.flatnonzero(labels == label))[:most] for label in chosen]
        positions = np.sort(np.concatenate(members))
    if (labels[positions] < 0).any():
        labels, classes = np.where(labels < 0, len(classes), labels), [*classes, "no class"]
    ids = [each.texts.ids[position] for position in positions]
    selected = images.select(ids, labels[positions], classes)
    return embedding_map(selected, each.store, read_some(each.texts, ids), most=len(ids))


def lead(sets: Sequence[Described]) -> str:
    """The card in a sentence or two."""
    said = []
    for each in sets:
        found = each.statistics
        sentence = (
            f"{found['images']:,} images have {found['distinct_texts']:,} distinct {found['text']} texts of "
            f"{found['words']['mean']:.0f} words on average"
        )
        if each.separability:
            sentence += (
                f"; the text alone tells the class of {_percent(found['nearest_class_accuracy'])} of them "
                f"(chance: {_percent(found['nearest_class_chance'])})"
            )
        said.append(sentence + ".")
    return " ".join(said)


def _described(texts: TextSet, store: EmbeddingStore | None, label: str) -> Described:
    classes = sorted({name for name in texts.classes if name is not None})
    position = {name: n for n, name in enumerate(classes)}
    labels = np.array([-1 if name is None else position[name] for name in texts.classes], np.int64)
    known = np.flatnonzero(labels >= 0)
    rows = found = None
    if store:
        rows = store.locate(texts.ids)
        if len(classes) > 1:
            found = separability(store, rows[known], labels[known], len(classes))
    return Described(texts, label, store, rows, classes, labels, known, found)


def _match(sets: Sequence[TextSet], stores: Sequence[EmbeddingStore]) -> dict[int, EmbeddingStore]:
    """The store of each set, by hash and key."""
    hashes = {path: file_sha256(path) for path in {each.descriptions for each in sets}}
    found = {}
    for store in stores:
        made_from = (store.metadata["descriptions_sha256"], store.metadata["text"])
        of = [each for each in sets if (hashes[each.descriptions], each.key) == made_from]
        if not of:
            raise UserError(
                f"{store.path}: was made from {made_from[1]!r} texts with the hash {made_from[0][:12]}, and none of "
                "the description sets is that; give the one it was made from, or encode again"
            )
        found[id(of[0])] = store
    return found


def _labels(sets: Sequence[TextSet]) -> list[str]:
    """As short as tells them apart."""
    if len({each.key for each in sets}) == len(sets):
        return [each.key for each in sets]
    if len({each.descriptions.stem for each in sets}) == len(sets):
        return [each.descriptions.stem for each in sets]
    return [f"{each.descriptions}: {each.key}" for each in sets]


def _first_of_each(order: np.ndarray, labels: np.ndarray) -> list[int]:
    """Of positions in their order the first with each label, `EXAMPLES` at most."""
    _, first = np.unique(labels[order], return_index=True)
    return order[np.sort(first)][:EXAMPLES].tolist()


def _spread(values: Sequence[int]) -> dict[str, float]:
    values = np.asarray(values)
    quantiles = np.percentile(values, list(_QUANTILES.values()))
    return {"mean": float(values.mean()), **dict(zip(_QUANTILES, quantiles.tolist()))}


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _cell(show, column: dict[str, Any]) -> str:
    try:
        return show(column)
    except (KeyError, TypeError, IndexError):
        return "–"  # there is no store, no class has a name, no text is shared
