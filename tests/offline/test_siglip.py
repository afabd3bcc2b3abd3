"""SigLIP, tiny and random, with a SentencePiece tokenizer trained here; SigLIP 2 with its own kind of tokenizer."""

import io

import numpy as np
import pytest
import torch
from transformers import (
    Siglip2TextConfig,
    Siglip2TextModel,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
    SiglipTokenizer,
)

from mindspore_gpt4image.offline.text_encoder import TextEncoder

sentencepiece = pytest.importorskip("sentencepiece")

POSITIONS = 16
TEXTS = ["A dog!", "a cat on a mat", "the dog " * 20, "a dog and a cat sat on a mat"]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    """Folder, model and tokenizer."""
    folder = tmp_path_factory.mktemp("siglip")
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a dog and a cat sat on a mat", "the quick brown fox jumps over the lazy dog"] * 5),
        model_writer=pieces,
        vocab_size=40,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(pieces.getvalue())
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_max_length=POSITIONS)
    tokenizer.save_pretrained(folder)
    tower = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {
        **tower,
        "hidden_size": 32,
        "projection_size": 24,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 1,
        "eos_token_id": 1,
        "bos_token_id": 0,
    }
    vision = {**tower, "hidden_size": 24, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval()
    model.save_pretrained(folder)
    return folder, model, tokenizer


@torch.no_grad()
def by_hand(model, tokenizer, text):
    """One text as SigLIP was trained: padded to its full length, nothing masked, read off at the last position."""
    ids = tokenizer(text).input_ids
    ids = [*ids[: POSITIONS - 1], tokenizer.eos_token_id] if len(ids) > POSITIONS else ids
    ids += [tokenizer.pad_token_id] * (POSITIONS - len(ids))
    hidden = model.text_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    embedding = model.text_model.head(hidden)
    return (embedding / embedding.norm()).numpy()


def test_siglip(siglip):
    folder, model, tokenizer = siglip
    encoder = TextEncoder.load(folder)
    assert (encoder.dim, encoder.context_length) == (24, POSITIONS)
    embeddings = encoder.encode(TEXTS)
    np.testing.assert_allclose(embeddings, [by_hand(model, tokenizer, text) for text in TEXTS], atol=1e-6)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 0.01
    np.testing.assert_allclose(encoder.encode(["A dog!"])[0], embeddings[0], atol=1e-6)
    assert encoder.token_counts(TEXTS)[2] > POSITIONS


def test_what_is_empty_to_siglip(siglip):
    """Its tokenizer drops punctuation."""
    encoder = TextEncoder.load(siglip[0])
    assert encoder.empty_count == 1
    np.testing.assert_array_equal(encoder.token_counts(["?!", "."]), [1, 1])


@torch.no_grad()
def test_siglip2(tmp_path):
    letters = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdegot"]
    tokenizer = Siglip2Tokenizer({letter: number for number, letter in enumerate(letters)}, [])
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = Siglip2TextConfig(
        vocab_size=len(letters),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        projection_size=24,
        bos_token_id=2,
        eos_token_id=1,
    )
    model = Siglip2TextModel(config).eval()
    model.save_pretrained(tmp_path)
    texts = ["A dog", "a cat", "a dog " * 9]
    ids = tokenizer(texts, padding="max_length", truncation=True, max_length=POSITIONS, return_tensors="pt").input_ids
    expected = torch.nn.functional.normalize(model(input_ids=ids).pooler_output, dim=-1)
    np.testing.assert_allclose(TextEncoder.load(tmp_path).encode(texts), expected, atol=1e-6)
