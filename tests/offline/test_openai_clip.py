"""OpenAI's CLIP from a plain state dict, against its text transformer written down here a second time."""

import gzip

import numpy as np
import pytest
import torch
from torch import nn

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.openai_clip import VOCABULARY, load_openai_clip
from mindspore_gpt4image.offline.text_encoder import TextEncoder

MERGES = ["d o", "do g</w>", "c a", "ca t</w>"]
WORDS = 2 * 256 + len(MERGES) + 2
WIDTH, DIM, POSITIONS, LAYERS = 128, 40, 12, 2
A, DOG, CAT, START, END = ord("a") - 33 + 256, 513, 515, WORDS - 2, WORDS - 1


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, WIDTH // 64)
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(WIDTH, 4 * WIDTH), "c_proj": nn.Linear(4 * WIDTH, WIDTH)})

    def forward(self, x):
        y = self.ln_1(x)
        mask = torch.full((len(x), len(x)), -torch.inf).triu(1)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class ReleasedTextHalf(nn.Module):
    """Names and arithmetic of the release: one sequence [n] to [k]."""

    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(WORDS, WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(POSITIONS, WIDTH))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.randn(WIDTH, DIM))
        self.logit_scale = nn.Parameter(torch.ones([]))
        self.visual = nn.Conv2d(3, 8, 3)

    def forward(self, ids):
        x = self.token_embedding(ids) + self.positional_embedding[: len(ids)]
        x = self.ln_final(self.transformer.resblocks(x[:, None])[:, 0])
        return x[ids.argmax()] @ self.text_projection


@pytest.fixture(scope="module")
def released():
    torch.manual_seed(0)
    model = ReleasedTextHalf().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.02 * torch.randn_like(parameter)  # so that no bias is zero
    return model


@pytest.fixture
def file(tmp_path, released):
    # As the archive gives it: with three numbers besides the weights, in half precision.
    numbers = {"input_resolution": torch.tensor(224), "context_length": torch.tensor(77), "vocab_size": torch.tensor(1)}
    path = tmp_path / "RN50.pt"
    torch.save({**{name: weight.half() for name, weight in released.state_dict().items()}, **numbers}, path)
    with gzip.open(tmp_path / VOCABULARY, "wt", encoding="utf-8") as vocabulary:
        vocabulary.write('"bpe_simple_vocab_16e6.txt#version: 0.2\n' + "\n".join([*MERGES, "t h", "i n</w>"]) + "\n")
    return path


def test_the_embeddings_of_the_release(file, released):
    encoder = TextEncoder.load(file)
    assert (encoder.dim, encoder.context_length) == (DIM, POSITIONS)
    half = ReleasedTextHalf()
    half.load_state_dict({name: weight.half().float() for name, weight in released.state_dict().items()})
    texts = {
        "a dog": [START, A, DOG, END],
        "Cat  DOG\na cat": [START, CAT, DOG, A, CAT, END],
        "dog " * 30: [START, *[DOG] * (POSITIONS - 2), END],
    }
    with torch.no_grad():
        expected = torch.stack([nn.functional.normalize(half(torch.tensor(ids)), dim=0) for ids in texts.values()])
    np.testing.assert_allclose(encoder.encode(list(texts)), expected, atol=1e-5)
    np.testing.assert_array_equal(encoder.token_counts(list(texts)), [4, 6, 32])


def test_the_vocabulary(file):
    _, tokenizer = load_openai_clip(file)
    assert len(tokenizer) == WORDS
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (START, END, END)
    # Of é the bytes C3, within a word, and A9, at its end; between ~ and ¡, and between ¬ and ®, nothing is printable.
    assert tokenizer("é!").input_ids[1:-1] == [94 + 12 + 0xC3 - 0xAE, 256 + 94 + 0xA9 - 0xA1, 256]


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        TextEncoder.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_is_executed(file):
    class Evil:
        def __reduce__(self):
            return print, ("executed",)

    torch.save({"token_embedding.weight": Evil()}, file)
    assert refusal(file) == (
        f"text encoder {file}: holds a print, which is no weight and is not loaded; "
        "give that of OpenAI's CLIP, saved as in the README"
    )


def test_the_archive_that_openai_distributes(file):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
    assert refusal(file).startswith(f"text encoder {file}: damaged, or no file of PyTorch (")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: state.pop("text_projection"), "lacks the weight text_projection; "),
        (lambda state: state.pop("ln_final.bias"), "lacks 1 weights (text_model.final_layer_norm.bias, …); "),
        (lambda state: state.update(odd=torch.ones(1)), "has besides 1 weights (odd, …); "),
        (lambda state: state.update(epoch=3), "holds no state dict; it holds "),
    ],
)
def test_weights_that_do_not_fit(file, change, fault):
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)
    assert refusal(file).startswith(f"text encoder {file}: {fault}")


def test_the_vocabulary_is_missing_or_short(file):
    vocabulary = file.with_name(VOCABULARY)
    with gzip.open(vocabulary, "wt") as short:
        short.write("#\nd o\n")
    assert refusal(file) == f"{vocabulary}: holds 515 tokens, and the weights {WORDS}; give the one of this model"
    vocabulary.write_bytes(b"no gzip")
    assert refusal(file).startswith(f"{vocabulary}: cannot be read (")
    vocabulary.unlink()
    assert refusal(file).endswith(f"; put {VOCABULARY} of OpenAI's CLIP beside the weights")
