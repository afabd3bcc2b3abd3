"""What a description set holds, text by text: lengths, repetitions, foreign letters, class names."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.descriptions import TEXTS, repeated_id, stream_rows

# A text repeats itself where a run of so many words comes so often.
REPEATED_WORDS, REPEATED_TIMES = 4, 3
_BEGINNING = 3

_WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(eq=False)
class TextSet:
    """The texts under one key of a description set; of each image only numbers are kept.

    Attributes:
        lacking: how many lines have no text under this key.
        ids: of the images that have one, in the file's order; arrays are in this order too.
        classes: the class of each image, None where it is not known.
        texts: int64, equal where texts are.
        words, characters: how many.
        non_ascii, repeats: whether it has letters beyond ASCII; repeats itself.
        mentions: 1 where it names its class, 0 where not, -1 where the class has no name in words.
        beginnings: how often texts begin with the same words.
    """

    descriptions: Path
    key: str
    lacking: int = 0
    ids: list[str] = field(default_factory=list)
    classes: list[str | None] = field(default_factory=list)
    texts: array = field(default_factory=lambda: array("q"))
    words: array = field(default_factory=lambda: array("i"))
    characters: array = field(default_factory=lambda: array("i"))
    non_ascii: array = field(default_factory=lambda: array("b"))
    repeats: array = field(default_factory=lambda: array("b"))
    mentions: array = field(default_factory=lambda: array("b"))
    beginnings: Counter = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, id: str, name: str | None, text: str, names: Mapping[str, str]) -> None:
        """Take in the text of an image of class `name`; `names` says what classes are called."""
        words = text.split()
        self.ids.append(id)
        self.classes.append(name)
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        self.texts.append(int.from_bytes(digest, "little", signed=True))
        self.words.append(len(words))
        self.characters.append(len(text))
        self.non_ascii.append(not text.isascii())
        self.repeats.append(repeats_itself(words))
        pattern = None if name is None else _mention_of(names.get(name, name))
        self.mentions.append(-1 if pattern is None else pattern.search(text) is not None)
        self.beginnings[" ".join(words[:_BEGINNING]).lower()] += 1


def read_text_sets(
    descriptions: str | Path, class_of: Mapping[str, str] | None = None, names: Mapping[str, str] | None = None
) -> list[TextSet]:
    """The sets of short and of long texts in a file, those that there are.

    Args:
        class_of: the class of an image by its id; None: the folder below the split, as in `train/cat/1.jpg`.
        names: what a class is called, where its own name does not say it: several names with commas between.

    Raises:
        UserError: as `read_descriptions`, but lines may lack a text.
    """
    path = Path(descriptions)
    sets = {key: TextSet(path, key) for key in TEXTS}
    line_of: dict[str, int] = {}
    for number, id, texts in stream_rows(path):
        if id in line_of:
            raise repeated_id(path, number, id, line_of[id])
        line_of[id] = number
        name = _class_by_folder(id) if class_of is None else class_of.get(id)
        for key, each in sets.items():
            if key in texts:
                each.add(id, name, texts[key], names or {})
            else:
                each.lacking += 1
    found = [each for each in sets.values() if len(each)]
    if not found:
        raise UserError(f"{path}: no line has a text; texts are under {' or '.join(map(repr, TEXTS))}")
    return found


def read_some(texts: TextSet, ids: Collection[str]) -> dict[str, str]:
    """The texts of some of the images, by id."""
    ids = set(ids)
    rows = stream_rows(texts.descriptions)
    return {id: found[texts.key] for _, id, found in rows if id in ids and texts.key in found}


def read_names(path: str | Path) -> dict[str, str]:
    """Names of classes from lines such as `n01440764 tench, Tinca tinca`: folder, then name.

    Raises:
        UserError: the file cannot be read, or a line has no name.
    """
    names = {}
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give lines of a class folder and its name") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        folder, _, name = line.strip().replace("\t", " ").partition(" ")
        if not name.strip():
            raise UserError(f"{path}, line {number}: {folder!r} has no name; write the folder, then the name")
        names[folder] = name.strip()
    return names


def repeats_itself(words: list[str]) -> bool:
    """Whether a run of `REPEATED_WORDS` words comes `REPEATED_TIMES` times."""
    if len(words) < REPEATED_WORDS + REPEATED_TIMES - 1:
        return False
    runs = Counter(zip(*(words[start:] for start in range(REPEATED_WORDS))))
    return max(runs.values()) >= REPEATED_TIMES


def _class_by_folder(id: str) -> str | None:
    parts = id.split("/")
    return parts[1] if len(parts) > 2 else None


@lru_cache(None)
def _mention_of(name: str) -> re.Pattern | None:
    """Finds a class's name, or one of several with commas between, in a text; None for a WordNet number."""
    if _WORDNET_ID.fullmatch(name):
        return None
    names = [re.findall(r"[^\W_]+", each) for each in name.split(",")]
    either = "|".join(r"[\W_]+".join(map(re.escape, words)) for words in names if words)
    return re.compile(rf"\b(?:{either})(?:s|es)?\b", re.IGNORECASE) if either else None


def share(flags: array) -> float:
    """The share of ones."""
    return float(np.mean(np.asarray(flags) == 1))
