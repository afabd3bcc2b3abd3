"""Encoding descriptions, against the loop of the released script: 77 tokens a text, 64 texts a batch, file order.

Both sides run the same text encoder, of CLIP ViT-B/32's size with random weights, from the description set to a file.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from mindspore_gpt4image.benchmark.measure import Comparison, compare
from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.offline.encode import encode_descriptions
from mindspore_gpt4image.offline.openai_clip import VOCABULARY, read_vocabulary
from mindspore_gpt4image.offline.text_encoder import TextEncoder
from mindspore_gpt4image.offline.text_models import TextModel, clip_text_model

CONTEXT, BATCH = 77, 64
CAPTIONS, LONG = (6, 30), (100, 200)  # tokens
COPIES = 4


def comparisons(quick: bool) -> Iterator[Comparison]:
    """Short captions, the same with duplicates, and long descriptions; then bf16 against float32.

    Quick: a fifth of the texts, fewer runs.
    """
    texts, runs = (192, 3) if quick else (1024, 5)
    text_model = random_clip()
    ours, half = TextEncoder("ours", text_model), TextEncoder("bf16", random_clip(), "bf16")
    with tempfile.TemporaryDirectory() as folder:
        task = Task(Path(folder), text_model)
        warm_up = write_set(task.folder / "warm-up.jsonl", random_texts(8, CAPTIONS))
        task.encode(ours, warm_up)()  # imports MindSpore
        task.released(warm_up)()
        captions = write_set(task.folder / "captions.jsonl", random_texts(texts, CAPTIONS))
        copies = write_set(task.folder / "copies.jsonl", random_texts(texts // COPIES, CAPTIONS) * COPIES)
        long = write_set(task.folder / "long.jsonl", random_texts(texts // 2, LONG))
        for name, file, goal in (
            (f"{texts} captions of {CAPTIONS[0]}-{CAPTIONS[1]} tokens", captions, 2.5),
            (f"{texts // COPIES} captions {COPIES} times", copies, 2.5 * COPIES),
            # Not slower, but for what checking the texts and writing a store takes.
            (f"{texts // 2} texts of {LONG[0]}-{LONG[1]} tokens", long, 0.97),
        ):
            encode, released = task.encode(ours, file), task.released(file)
            yield compare(name, encode, released, unit="texts/s", runs=runs, goal=goal, better="higher")
            yield task.agreement(f"smallest cosine, {name}", ours, file, goal=0.9999)
        name = f"bf16 against float32, {texts} captions"
        encode, peer = task.encode(half, captions), task.encode(ours, captions)
        yield compare(name, encode, peer, unit="texts/s", runs=1 if quick else 3, better="higher")
        yield task.agreement(f"smallest cosine, bf16, {texts} captions", half, captions)


class Task:
    """Both ways from a description set to a file, in one folder."""

    def __init__(self, folder: Path, text_model: TextModel):
        self.folder = folder
        self.text_model = text_model

    def encode(self, encoder: TextEncoder, descriptions: Path) -> Callable[[], float]:
        """A function that encodes into a store and returns texts/s."""
        store = self._store(encoder, descriptions)
        return _speed(descriptions, lambda: encode_descriptions(descriptions, "short", encoder, store))

    def released(self, descriptions: Path) -> Callable[[], float]:
        """A function that encodes as the released script does, into a file, and returns texts/s."""
        file = descriptions.with_suffix(".pt")
        return _speed(descriptions, lambda: torch.save(self._released_embeddings(descriptions), file))

    def agreement(
        self, name: str, encoder: TextEncoder, descriptions: Path, goal: Optional[float] = None
    ) -> Comparison:
        """The smallest cosine between the rows of our store and those of the released loop, both made before."""
        store = EmbeddingStore.open(self._store(encoder, descriptions))
        released = torch.load(descriptions.with_suffix(".pt"), weights_only=True).numpy()
        rows = store.rows(store.ids).astype(np.float64)
        cosine = float(((rows * released).sum(axis=1) / np.linalg.norm(rows, axis=1)).min())
        return Comparison(name, cosine, (cosine, cosine), goal, "higher", cosine, 1.0, "cos", 1)

    def _store(self, encoder: TextEncoder, descriptions: Path) -> Path:
        return self.folder / f"{encoder.name}-{descriptions.stem}.mindrecord"

    @torch.no_grad()
    def _released_embeddings(self, descriptions: Path) -> torch.Tensor:
        """Unit rows [n, k] in the file's order."""
        texts = [json.loads(line)["short"] for line in descriptions.read_text(encoding="utf-8").splitlines()]
        rows = []
        for start in range(0, len(texts), BATCH):
            tokens = self.text_model.tokenizer(
                texts[start : start + BATCH],
                padding="max_length",
                truncation=True,
                max_length=CONTEXT,
                return_tensors="pt",
            )
            rows.append(self.text_model.model(input_ids=tokens["input_ids"]).text_embeds)
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)


def random_clip(width: int = 512, layers: int = 12) -> TextModel:
    """A text encoder of the size of CLIP ViT-B/32's, the same at every call, whose tokens are single letters."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, VOCABULARY)
        path.write_bytes(gzip.compress(b"no merges\n"))
        tokenizer = read_vocabulary(path, words=514)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=CONTEXT,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return clip_text_model(CLIPTextModelWithProjection(config).eval().requires_grad_(False), tokenizer)


def random_texts(count: int, tokens: tuple[int, int]) -> list[str]:
    """Texts of evenly many lengths, begin and end of text counted, the same at every call."""
    random = np.random.default_rng(0)
    lengths = random.permutation(np.linspace(*tokens, count).round().astype(int))
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return [" ".join(random.choice(letters, length - 2)) for length in lengths]


def write_set(path: Path, texts: list[str]) -> Path:
    """A description set of these texts."""
    path.write_text("".join(json.dumps({"id": f"train/{n:06d}", "short": text}) + "\n" for n, text in enumerate(texts)))
    return path


def _speed(descriptions: Path, call: Callable[[], object]) -> Callable[[], float]:
    count = len(descriptions.read_bytes().splitlines())

    def measure() -> float:
        start = time.perf_counter()
        call()
        return count / (time.perf_counter() - start)

    return measure
