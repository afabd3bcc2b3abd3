"""Models of transformers that describe images, loaded and run the way a user's are: tiny random ones from disk."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_describers import write_blip2, write_captioner, write_llava

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.answers import cut_loop
from mindspore_gpt4image.offline.local_model import LocalModel
from mindspore_gpt4image.offline.picture import up_sample

KINDS = {
    "BLIP-2 with OPT": lambda folder: write_blip2(folder, "opt"),
    "BLIP-2 with T5": lambda folder: write_blip2(folder, "t5"),
    "LLaVA": write_llava,
}
PROMPTS = ("Describe this image in detail.", "Write a short sentence about this small picture with one large dog on it")
TOKENS = 12


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return KINDS[request.param](tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def model(folder):
    return LocalModel.load(folder, max_tokens=TOKENS)


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (random.integers(16, 300), 40, 3), np.uint8) for _ in range(7)]
    return [SimpleNamespace(image=up_sample(Image.fromarray(image))) for image in images]


def described(model, pictures, prompts, batch):
    return [
        answer
        for start in range(0, len(pictures), batch)
        for answer in model.answers(pictures[start : start + batch], prompts[start : start + batch])
    ]


def test_texts_are_the_same_whatever_the_batch(model, pictures):
    """Prompts of two lengths in one batch, so that some rows are padded."""
    prompts = [PROMPTS[number % 2] for number in range(7)]
    alone = described(model, pictures, prompts, 1)
    assert described(model, pictures, prompts, 3) == alone
    assert described(model, pictures, prompts, 7) == alone
    assert described(model, pictures[::-1], prompts[::-1], 3) == alone[::-1]
    # The texts are worth comparing: they tell images and prompts apart.
    assert len({answer.text for answer in alone}) > 4
    assert described(model, pictures, prompts[1:] + prompts[:1], 7) != alone


def test_the_text_is_what_the_model_generates(folder, model, pictures):
    """Against its own `generate` for one image and one prompt, without a batch and without padding."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    plain = AutoModelForImageTextToText.from_pretrained(folder).eval()
    prompt = PROMPTS[0]
    text = f"USER: <image> {prompt} ASSISTANT:" if processor.chat_template else prompt
    inputs = processor(images=pictures[0].image, text=text, return_tensors="pt")
    ids = plain.generate(**inputs, do_sample=False, max_new_tokens=TOKENS)[0]
    if not plain.config.get_text_config().is_encoder_decoder:
        ids = ids[inputs["input_ids"].shape[1] :]
    (answer,) = model.answers(pictures[:1], [prompt])
    assert answer.text == cut_loop(processor.tokenizer.decode(ids, skip_special_tokens=True).strip())
    assert answer.prompt_tokens == inputs["input_ids"].shape[1]
    assert 0 < answer.tokens <= TOKENS


def test_an_image_alone_is_described_too(model, pictures):
    answers = model.answers(pictures[:3], ["", "", ""])
    assert len({answer.text for answer in answers}) > 1
    assert model.answers(pictures[1:2], [""]) == answers[1:2]


def test_a_model_that_reads_images_alone(tmp_path, pictures):
    model = LocalModel.load(write_captioner(tmp_path / "captioner"), max_tokens=TOKENS)
    answers = model.answers(pictures[:3], ["", "", ""])
    assert [model.answers([picture], [""])[0] for picture in pictures[:3]] == answers
    assert len({answer.text for answer in answers}) > 1
    assert 0 < sum(answer.cut for answer in answers) < 3  # some end before the others
    with pytest.raises(UserError, match="reads images alone; give it an empty prompt"):
        model.answers(pictures[:1], [PROMPTS[0]])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(folder, pictures, dtype):
    model = LocalModel.load(folder, dtype=dtype, max_tokens=TOKENS)
    assert all(answer.text for answer in model.answers(pictures[:2], [PROMPTS[0]] * 2))


def refusal(name, **options) -> str:
    with pytest.raises(UserError) as caught:
        LocalModel.load(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_loaded(tmp_path):
    assert refusal(tmp_path / "none").startswith(f"model {tmp_path / 'none'}: cannot be loaded (")
    assert "device cuda:9: PyTorch cannot use it here" in refusal(tmp_path, device="cuda:9")
    folder = write_llava(tmp_path / "llava")

    lacking = shutil.copytree(folder, tmp_path / "lacking")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    dropped = next(name for name in weights if "mlp" in name)
    save_file({k: v for k, v in weights.items() if k != dropped}, lacking / "model.safetensors", {"format": "pt"})
    assert "its files lack 1 weights" in refusal(lacking)

    cut = shutil.copytree(folder, tmp_path / "cut")
    data = (folder / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "cannot be loaded" in refusal(cut)

    other = shutil.copytree(folder, tmp_path / "other")
    (other / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    assert "cannot be loaded" in refusal(other)


def test_a_batch_too_large_for_the_device(model, pictures, monkeypatch):
    def generate(**inputs):
        raise torch.OutOfMemoryError("out of memory\nmore lines")

    monkeypatch.setattr(model._model, "generate", generate)
    with pytest.raises(UserError, match=r"does not hold 2 images at a time \(out of memory\); give a smaller --batch"):
        model.answers(pictures[:2], PROMPTS)
