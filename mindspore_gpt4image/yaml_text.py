"""YAML from outside: data, and nothing that a text could ask for besides.

No tag builds an object, and a list or mapping cannot be repeated by an alias: a few lines of those stand for billions
of values, or hold themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from mindspore_gpt4image.errors import first_line


class _Loader(yaml.SafeLoader):
    # A date is a text to us, the name of a folder for instance.
    yaml_implicit_resolvers = {  # noqa: RUF012
        letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            if isinstance(self.anchors.get(event.anchor), yaml.CollectionNode):
                raise yaml.MarkedYAMLError(
                    problem=f"*{event.anchor} repeats a list or mapping, write it out", problem_mark=event.start_mark
                )
        return super().compose_node(parent, index)


def compose(text: str) -> yaml.Node | None:
    """The nodes of a text, which know their lines; None for an empty text. Raises `yaml.YAMLError` alone."""
    with _one_kind_of_error():
        return yaml.compose(text, _Loader)


def construct(node: yaml.Node) -> Any:
    """The value of a node. Raises `yaml.YAMLError` alone."""
    with _one_kind_of_error():
        return _Loader("").construct_object(node, deep=True)


def load(text: str) -> Any:
    """The value of a text. Raises `yaml.YAMLError` alone."""
    root = compose(text)
    return None if root is None else construct(root)


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    try:
        yield
    except yaml.YAMLError:
        raise
    except Exception as error:  # what does not fit its tag, or is nested too deeply, makes PyYAML raise anything
        raise yaml.YAMLError(first_line(error) or type(error).__name__) from error
