"""A model of transformers in this process that describes images: BLIP-2, LLaVA and what came after them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import dropwhile
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    BatchFeature,
    PreTrainedModel,
    ProcessorMixin,
)

from mindspore_gpt4image.errors import UserError, first_line
from mindspore_gpt4image.offline.answers import Answer
from mindspore_gpt4image.offline.picture import Picture
from mindspore_gpt4image.offline.ranks import Ranks

DTYPES = ("float32", "float16", "bfloat16")


class LocalModel:
    """An image-text-to-text or image-to-text model with its processor; decoding is greedy.

    Attributes:
        name: what `load` was given.
        batch_size: images a call.
        workers: 2 calls at a time: while the model works on one, the other opens and prepares its images.
    """

    workers = 2

    def __init__(self, name: str, processor, model: PreTrainedModel, batch_size: int, max_tokens: int):
        self.name = name
        self.batch_size = batch_size
        self._processor = processor
        self._model = model.eval().requires_grad_(False)
        self._max_tokens = max_tokens
        self._generating = threading.Lock()
        self._preparing = threading.Lock()  # tokenizers cannot be used by two threads: padding is a state of theirs
        self._tokenizer = processor.tokenizer
        text_config = model.config.get_text_config()
        is_encoder_decoder = model.config.is_encoder_decoder or text_config.is_encoder_decoder
        # A decoder goes on after its last token, which must not be padding. An encoder reads from the front, and T5's
        # relative positions would shift between image and prompt.
        self._tokenizer.padding_side = "right" if is_encoder_decoder else "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._special = set(self._tokenizer.all_special_ids)
        self._ends = _numbers(model.generation_config.eos_token_id) | _numbers(text_config.eos_token_id)

    @classmethod
    def load(
        cls,
        name_or_dir: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: str | None = None,
        batch_size: int = 8,
        max_tokens: int = 256,
    ) -> LocalModel:
        """Load a folder written by `save_pretrained`, or a model of the hub by name. No code of theirs is run.

        Args:
            dtype: one of `DTYPES`; None: float32 on a CPU, elsewhere bfloat16 where the device computes in it, or
                float16.
            batch_size: images the model gets at a time.
            max_tokens: where a text is cut.

        Raises:
            UserError: the model or the device is not there, weights are missing or damaged, or it does not describe
                images.
        """
        name = str(name_or_dir)
        device = torch.device(device)
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device {device}: PyTorch cannot use it here ({first_line(error)}); try cpu") from error
        kind = getattr(torch, dtype) if dtype else _usual_dtype(device)
        try:
            processor = _load_processor(name)
            model, report = AutoModelForImageTextToText.from_pretrained(name, dtype=kind, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
            raise UserError(
                f"model {name}: cannot be loaded ({first_line(error)}); give a folder with config.json, weights and "
                "processor of an image-text-to-text model, or the name of one on the hub"
            ) from error
        if missing := sorted(report["missing_keys"]):
            raise UserError(f"model {name}: its files lack {len(missing)} weights ({missing[0]}, …); get them whole")
        _complete(processor, model)
        return cls(name, processor, model.to(device), batch_size, max_tokens)

    def answers(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> list[Answer]:
        """An answer for each picture to the prompt at its place; with an empty prompt the image alone is read.

        Raises:
            UserError: the device's memory does not hold the batch, or the model takes no prompt.
        """
        with self._preparing:
            inputs = self._prepared(pictures, prompts).to(self._model.device, self._model.dtype)
        try:
            with self._generating, torch.inference_mode():
                output = self._model.generate(
                    **inputs,
                    do_sample=False,
                    num_beams=1,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    max_new_tokens=self._max_tokens,
                    pad_token_id=self._tokenizer.pad_token_id,
                ).cpu()
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"model {self.name}: the memory of {self._model.device} does not hold {len(pictures)} images at a time "
                f"({first_line(error)}); give a smaller --batch-size"
            ) from error
        lengths = [0] * len(pictures)
        if "input_ids" in inputs:
            read = inputs["input_ids"].cpu()
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
            # Decoders repeat what they read, before what they write.
            if torch.equal(output[:, : read.shape[1]], read):
                output = output[:, read.shape[1] :]
        with self._preparing:
            return [self._answer(*row) for row in zip(output.tolist(), prompts, lengths)]

    def close(self) -> None:
        """A call ends by itself."""

    def _prepared(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> BatchFeature:
        images = [picture.image for picture in pictures]
        if not isinstance(self._processor, ProcessorMixin):
            if any(prompts):
                raise UserError(f"model {self.name}: reads images alone; give it an empty prompt (--prompt-short '')")
            return self._processor(images=images, return_tensors="pt")
        if self._processor.chat_template:
            conversations = [[_message(prompt)] for prompt in prompts]
            texts = self._processor.apply_chat_template(conversations, add_generation_prompt=True, tokenize=False)
            begin = self._tokenizer.bos_token
            begun = begin is not None and texts[0].startswith(begin)
            return self._processor(
                images=[[image] for image in images],
                text=texts,
                padding=True,
                add_special_tokens=not begun,
                return_tensors="pt",
            )
        if not any(prompts):
            return self._processor(images=images, return_tensors="pt")
        return self._processor(images=images, text=list(prompts), padding=True, return_tensors="pt")

    def _answer(self, ids: list[int], prompt: str, prompt_tokens: int) -> Answer:
        """The answer in one row of ids, which may begin with start and image tokens and is padded at its end."""
        ids = list(dropwhile(self._special.__contains__, ids))
        length = next((i for i, id in enumerate(ids) if id in self._ends), None)
        said = self._tokenizer.decode(ids[:length], skip_special_tokens=True)
        tokens = len(ids) if length is None else length + 1
        return Answer.of(said, prompt, cut=length is None, prompt_tokens=prompt_tokens, tokens=tokens)


def pick_device(ranks: Ranks) -> torch.device:
    """This process's accelerator, or the CPU where there is none."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    return torch.device(torch.accelerator.current_accelerator().type, ranks.local % torch.accelerator.device_count())


def _usual_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def _load_processor(name: str):
    """The processor; for a model that has none, its image processor, which is given the tokenizer."""
    processor = AutoProcessor.from_pretrained(name)
    if not isinstance(processor, ProcessorMixin):
        processor = AutoImageProcessor.from_pretrained(name)
        processor.tokenizer = AutoTokenizer.from_pretrained(name)
    return processor


def _complete(processor, model: PreTrainedModel) -> None:
    """Processors saved by older versions do not say how many tokens an image takes."""
    if getattr(processor, "num_query_tokens", 0) is None:
        processor.num_query_tokens = model.config.num_query_tokens


def _message(prompt: str) -> dict:
    text = [{"type": "text", "text": prompt}] if prompt else []
    return {"role": "user", "content": [{"type": "image"}, *text]}


def _numbers(value: int | list[int] | None) -> set[int]:
    return {value} if isinstance(value, int) else set(value or ())
