"""The text half of OpenAI's CLIP (RN50, ViT-L/14, …) from its state dict, as model and tokenizer of transformers."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizerFast

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.state_dict import read_state_dict

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"

_HEAD_WIDTH = 64  # in all that OpenAI released
_NAMES = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_LAYER_NAMES = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
# The image half, and what concerns neither text nor weights.
_UNUSED = ("visual.", "logit_scale", "input_resolution", "context_length", "vocab_size")


def load_openai_clip(path: Path) -> tuple[CLIPTextModelWithProjection, CLIPTokenizerFast]:
    """Load the text half, float32, from a file of tensors by OpenAI's names; `VOCABULARY` must lie beside it.

    Nothing in the file is executed: it is a plain state dict, not the TorchScript archive that OpenAI distributes.

    Raises:
        UserError: the file is no such state dict, or a weight or the vocabulary is missing.
    """
    model = text_model(_read_state(path), f"text encoder {path}")
    return model, read_vocabulary(path.with_name(VOCABULARY), model.config.vocab_size)


def text_model(state: Mapping[str, torch.Tensor], what: str) -> CLIPTextModelWithProjection:
    """A model of the shape that the weights tell; `what` begins the text of errors."""
    state = {name: weight for name, weight in state.items() if not name.startswith(_UNUSED)}
    try:
        positions, width = state["positional_embedding"].shape
        words, dim = len(state["token_embedding.weight"]), state["text_projection"].shape[1]
        inner = len(state["transformer.resblocks.0.mlp.c_fc.weight"])
    except KeyError as error:
        raise UserError(f"{what}: lacks the weight {error.args[0]}; give a state dict of OpenAI's CLIP") from error
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("transformer.resblocks."))
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=inner,
        projection_dim=dim,
        num_hidden_layers=layers,
        num_attention_heads=width // _HEAD_WIDTH,
        max_position_embeddings=positions,
        hidden_act="quick_gelu",
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )
    model = CLIPTextModelWithProjection(config)
    wanted, found = model.state_dict(), _renamed(state)
    for fault, names in (("lacks", wanted.keys() - found), ("has besides", found.keys() - wanted)):
        if names:
            raise UserError(
                f"{what}: {fault} {len(names)} weights ({min(names)}, …); give a state dict of OpenAI's CLIP"
            )
    model.load_state_dict(found)
    return model


def read_vocabulary(path: Path, words: int) -> CLIPTokenizerFast:
    """OpenAI's tokenizer from its list of merges; of them as many are used as `words` tokens take.

    Raises:
        UserError: the file is missing, damaged or too short.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().rstrip("\n").split("\n")
    except (OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); put {VOCABULARY} of OpenAI's CLIP beside the weights"
        ) from error
    letters = _byte_letters()
    # Of 49408: every byte within and at the end of a word, the merges, start and end of text.
    merges = [tuple(line.split()) for line in lines[1 : 1 + words - 2 * len(letters) - 2]]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    if len(vocabulary) != words:
        raise UserError(f"{path}: holds {len(vocabulary)} tokens, and the weights {words}; give the one of this model")
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        files[0].write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}), encoding="utf-8")
        files[1].write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n", encoding="utf-8")
        return CLIPTokenizerFast(*map(str, files), model_max_length=None)


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    try:
        return {name: torch.from_numpy(weight) for name, weight in read_state_dict(path).items()}
    except UserError as error:
        raise UserError(f"text encoder {error}; give that of OpenAI's CLIP, saved as in the README") from error


def _renamed(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By transformers' names; a name that is not in the tables stays."""
    renamed = {}
    for name, weight in state.items():
        if name == "text_projection":
            renamed["text_projection.weight"] = weight.T
            continue
        if not name.startswith("transformer.resblocks."):
            renamed[_NAMES.get(name, name)] = weight
            continue
        _, _, number, inner = name.split(".", 3)
        layer = f"text_model.encoder.layers.{number}"
        if inner.startswith("attn.in_proj_"):
            kind = inner[len("attn.in_proj_") :]
            for part, rows in zip("qkv", weight.chunk(3)):
                renamed[f"{layer}.self_attn.{part}_proj.{kind}"] = rows
            continue
        module, _, kind = inner.rpartition(".")
        renamed[f"{layer}.{_LAYER_NAMES.get(module, module)}.{kind}"] = weight
    return renamed


def _byte_letters() -> list[str]:
    """A printable letter for every byte, in the vocabulary's order: first the bytes that are one themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
