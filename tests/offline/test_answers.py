"""From what a model says to a description."""

import pytest

from mindspore_gpt4image.offline.answers import Answer, cut_loop, strip_front

PROMPT = "Describe this image in detail."


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (" A cat on a mat.\n", "A cat on a mat."),
        (f"{PROMPT} A cat.", "A cat."),
        (f"<s> {PROMPT.lower()}\nA cat.", "A cat."),
        (f"<|im_start|><image>\n<s>{PROMPT} {PROMPT} A cat.", "A cat."),
        (f"A poster that says '{PROMPT}'", f"A poster that says '{PROMPT}'"),
        ("A shirt with </s> and <|x|> printed on it <pad>", "A shirt with </s> and <|x|> printed on it <pad>"),
        ("<3 on a card", "<3 on a card"),
        (PROMPT, ""),
    ],
)
def test_prompt_and_special_tokens_go_from_the_front_alone(said, text):
    assert strip_front(said, PROMPT) == text


def test_an_empty_prompt_is_no_echo():
    assert strip_front("A cat.", "") == "A cat."


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a dog" + " and a dog" * 10, "a dog and a dog"),
        ("The sky. " + "It is blue. " * 8 + "It is", "The sky. It is blue."),
        ("On the left " + "a man, " * 30, "On the left a man,"),
        ("w" * 200, "w"),
        ("一只猫在睡觉，" * 6, "一只猫在睡觉，"),
    ],
)
def test_a_loop_ends_after_its_first_round(text, kept):
    answer = Answer.of(text, PROMPT, cut=True)
    assert answer.looped and not answer.cut and answer.fault is None
    # Where a round begins is open: only that one round is left, and that it is the beginning of the text, is not.
    assert text.startswith(answer.text)
    assert abs(len(answer.text) - len(kept)) <= len(kept) // 2


@pytest.mark.parametrize(
    "text",
    [
        "A very, very, very large dog.",
        "Red, green, red, green, red and blue stripes.",
        "A sign that reads ha ha ha!!!!!!",
        "Three dogs. Three cats. Three dogs. Three cats. Three birds.",
        "",
    ],
)
def test_natural_repetition_is_no_loop(text):
    assert cut_loop(text) == text


@pytest.mark.parametrize(
    "said",
    [
        "I'm sorry, but I can't help with identifying people in images.",
        "I cannot assist with that request.",
        "Sorry, I am unable to describe this image.",
        "As an AI language model, I'm not able to see images.",
        "Unfortunately, I can’t view the image.",
    ],
)
def test_refusals_are_told(said):
    answer = Answer.of(said, PROMPT, tokens=12)
    assert answer.text == ""
    assert answer.fault == f"refused: {said}"
    assert answer.tokens == 12


@pytest.mark.parametrize("said", ["A sorry sight: a broken can.", "I see a cat.", "A sign that says 'I can't swim'."])
def test_descriptions_are_no_refusals(said):
    assert Answer.of(said, PROMPT) == Answer(said)


@pytest.mark.parametrize("said", ["", " \n", "\u200b", "\ud800", "<s></s>", f"<s>{PROMPT}"])
def test_nothing_said_is_empty(said):
    assert Answer.of(said, PROMPT).fault == "empty answer"
