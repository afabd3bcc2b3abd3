"""What happens to files on their way, and what people write by mistake, as strategies of hypothesis.

A test tries few cases in the inner loop, always the same ones, and with FUZZ=long many that are new every time.
"""

from __future__ import annotations

import copy
import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

LONG = os.environ.get("FUZZ") == "long"


def cases(quick: int, long: int) -> settings:
    """How many examples a test tries."""
    return settings(
        max_examples=long if LONG else quick,
        derandomize=not LONG,
        phases=list(Phase) if LONG else [Phase.explicit, Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged(draw, data: bytes, accidents: int = 3) -> bytes:
    """The bytes after one accident or several: a bit flipped, bytes set, zeroed, lost or repeated, the end cut off."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, accidents))):
        start = draw(st.integers(0, len(data)))
        stop = min(start + draw(st.integers(1, 40)), len(data))
        kind = draw(st.sampled_from(("flip", "flip", "set", "zero", "lose", "repeat", "cut")))
        if kind == "flip" and start < stop:
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[start:stop] = draw(st.binary(max_size=40))
        elif kind == "zero":
            data[start:stop] = bytes(stop - start)
        elif kind == "lose":
            del data[start:stop]
        elif kind == "repeat":
            data[start:start] = data[start:stop]
        elif kind == "cut":
            del data[start:]
    return bytes(data)


# What text can hold: any character, halves of pairs among them, and those that mean something in YAML and JSON.
TEXT = st.text(st.one_of(st.characters(), st.sampled_from("\0\ufeff\ud800{}[]:,&*!|>%@`'\"#-?\n\t ")), max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 10**30, 10**400, 2**31, 2**63]),
    st.floats(),
    TEXT,
)
VALUES = st.recursive(
    SCALARS,
    lambda parts: st.one_of(st.lists(parts, max_size=4), st.dictionaries(st.text(max_size=5), parts, max_size=4)),
    max_leaves=10,
)


@st.composite
def changed(draw, tree, values=VALUES):
    """A copy of nested lists and dictionaries with one to three of its parts replaced, taken out or put elsewhere."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        place = tree
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            if draw(st.integers(0, 3)):
                place[key] = draw(values)
            else:
                del place[key]
            break
    return tree
