"""What a model answers, made into a description: what precedes it stripped, loops cut, refusals told."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mindspore_gpt4image.sources.descriptions import is_text

# Written-out special tokens as models and servers let them through: <|im_start|>, <s>, </s>, <image>, …
_SPECIAL = re.compile(r"<\|[^<>|\s]+\|>|</?s>|<(?:image|pad|bos|eos|unk)>", re.IGNORECASE)

_REFUSAL = re.compile(
    r"(?:(?:i['’]?m|i am) (?:very |really |so )?sorry|sorry|i apologi[sz]e|unfortunately)?[,.;]?\s*(?:but\s+)?"
    r"(?:as an ai\b[^,.]*[,.]?\s*)?"
    r"i(?:['’]m| am)?\s+(?:can(?:no|['’])t|unable to|not able to|won['’]t be able to)\b",
    re.IGNORECASE,
)

# A loop is a unit that comes at least this often at the end of a text, and over at least so many characters.
_ROUNDS = 4
_LOOP_LENGTH = 24


@dataclass(frozen=True)
class Answer:
    """What a model said about one image.

    Attributes:
        text: the description; empty where there is a fault.
        fault: why there is none.
        looped: the model had gone round in circles; the text ends after the first round.
        cut: the text reached the limit of tokens.
        prompt_tokens: tokens read, those of the image included where the model counts them.
        tokens: tokens written.
    """

    text: str = ""
    fault: str | None = None
    looped: bool = False
    cut: bool = False
    prompt_tokens: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, said: str, prompt: str, *, cut: bool = False, prompt_tokens: int = 0, tokens: int = 0) -> Answer:
        """The answer in what a model said to a prompt."""
        text = strip_front(said, prompt)
        unlooped = cut_loop(text)
        looped = unlooped != text
        fault = None
        if not is_text(text):
            fault = "empty answer"
        elif _REFUSAL.match(text):
            fault = f"refused: {text[:100]}"
        return cls("" if fault else unlooped, fault, looped, cut and not looped and not fault, prompt_tokens, tokens)


def strip_front(said: str, prompt: str) -> str:
    """Strip white space around a text, and special tokens and the echo of the prompt in front of it.

    Only there: an image may show what looks like a token, and a text may quote the prompt.
    """
    text, prompt = said.strip(), prompt.strip()
    while True:
        if special := _SPECIAL.match(text):
            rest = text[special.end() :]
        elif prompt and text[: len(prompt)].casefold() == prompt.casefold():
            rest = text[len(prompt) :]
        else:
            return text
        text = rest.strip()


def cut_loop(text: str) -> str:
    """The text up to the end of the first round, if it ends by repeating itself; a loop ends only at the text's end."""
    for period in range(1, len(text) // _ROUNDS + 1):
        start = len(text) - period
        while start > 0 and text[start - 1] == text[start - 1 + period]:
            start -= 1
        length = len(text) - start
        if length >= max(_ROUNDS * period, _LOOP_LENGTH):
            return text[: start + period].rstrip()
    return text
