"""From a config to everything a run is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import mindspore as ms
from mindspore import nn

from mindspore_gpt4image import distributed
from mindspore_gpt4image.config import Config, to_dict
from mindspore_gpt4image.data.augmentation import Augmentation
from mindspore_gpt4image.data.pipeline import steps_per_epoch
from mindspore_gpt4image.data.rand_augment import RandAugment
from mindspore_gpt4image.data.store import EmbeddingStore, check_descriptions
from mindspore_gpt4image.data.texts import Texts, join_texts, made_from, packed_texts, shuffle_texts
from mindspore_gpt4image.device import use_device
from mindspore_gpt4image.losses import GPT4ImageLoss
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models import Classify, Preprocess, create_network, deployable
from mindspore_gpt4image.runs import LAST
from mindspore_gpt4image.sources.classes import read_classes
from mindspore_gpt4image.sources.descriptions import file_sha256
from mindspore_gpt4image.sources.formats import list_images, validation_split
from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.training.agreement import check_experiment
from mindspore_gpt4image.training.diagnostics import Diagnostics
from mindspore_gpt4image.training.finetune import load_pretrained
from mindspore_gpt4image.training.mixing import Mixing
from mindspore_gpt4image.training.optimizer import create_optimizer
from mindspore_gpt4image.training.precision import create_loss_scale, use_mixed_precision
from mindspore_gpt4image.training.progress import Progress
from mindspore_gpt4image.training.schedule import learning_rate, scaled_lr
from mindspore_gpt4image.training.step import TrainStep


@dataclass
class Run:
    """Everything a run is made of. `texts` and `diagnostics` are None for a baseline, `mixing` where it is off.

    `last_is_whole` says whether this process has read or written the folder's `last.ckpt`.
    """

    config: Config
    train_set: ImageSet
    val_set: ImageSet
    texts: Optional[Texts]
    augmentation: Augmentation
    model: ModelInfo
    network: nn.Cell
    step: TrainStep
    classify: Classify
    progress: Progress
    mixing: Optional[Mixing]
    diagnostics: Optional[Diagnostics]
    last_is_whole: bool = False

    @property
    def folder(self) -> Path:
        return Path(self.config.output)

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes files and shows progress."""
        return distributed.rank() == 0

    @property
    def global_batch(self) -> int:
        """Images a step."""
        return self.config.batch_size * self.config.accumulate * distributed.world_size()

    @property
    def steps_per_epoch(self) -> int:
        config = self.config
        return steps_per_epoch(len(self.train_set), config.batch_size * config.accumulate, distributed.world_size())

    @property
    def steps_done(self) -> int:
        """Since the start of the training."""
        return self.progress.epoch * self.steps_per_epoch + self.progress.step

    @property
    def learning_rate(self) -> float:
        """Of the step that comes next."""
        optimizer, schedule = self.config.optimizer, self.config.schedule
        return learning_rate(
            self.steps_done,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.config.epochs,
            peak=scaled_lr(optimizer.lr, self.global_batch, optimizer.lr_reference_batch),
            warmup_epochs=schedule.warmup_epochs,
            warmup_lr=schedule.warmup_lr,
            min_lr=schedule.min_lr,
            by=schedule.by,
        )


def set_up(config: Config) -> Run:
    """Read the data, join the texts, and build the network and its step, initialised from the seed.

    Raises:
        UserError: a mistake in the config or the data.
    """
    if not distributed.is_initialized():
        use_device(config.device)
    augmentation = describe_augmentation(config)  # a mistake in it shows before a large folder is listed
    root, format, skip = config.data.root, config.data.format, config.data.skip_broken
    classes = read_classes(config.data.classes) if config.data.classes else None
    train_set = list_images(root, "train", format=format, classes=classes)
    train_set.checked(skip)
    # Broken ones keep their positions, so that a run whose images break goes on with the same numbers.
    broken = [position for position, id in enumerate(train_set.ids) if id in train_set.broken]
    val_set = list_images(root, validation_split(root, format), format=format, classes=train_set.classes).checked(skip)
    texts = open_texts(config, train_set)
    check_experiment(config, train_set, val_set, texts)
    model = describe_model(config, train_set.classes, texts)
    ms.set_seed(config.seed)
    network = create_network(
        model.network,
        len(model.classes),
        text_dim=model.text_dim,
        projection=model.projection,
        image_size=model.crop,
        drop_path=config.model.drop_path,
    )
    pretrained = config.model.pretrained
    # A run that goes on has its weights in its own checkpoint; the file it began with may be gone by then.
    if pretrained is not None and not Path(config.output, LAST).exists():
        load_pretrained(network, model, pretrained)
    use_mixed_precision(network, config.amp)
    optimizer = create_optimizer(
        network.trainable_params(),
        config.optimizer.name,
        lr=config.optimizer.lr,
        weight_decay=config.optimizer.weight_decay,
        decay_norm_and_bias=config.optimizer.decay_norm_and_bias,
        momentum=config.optimizer.momentum,
        nesterov=config.optimizer.nesterov,
        betas=config.optimizer.betas,
    )
    loss = GPT4ImageLoss(
        config.loss.alignment, config.loss.weight, config.loss.temperature, config.loss.label_smoothing
    )
    preprocess = Preprocess(model.mean, model.std)
    step = TrainStep(
        network,
        preprocess,
        loss,
        optimizer,
        clip_norm=config.clip_norm,
        accumulate=config.accumulate,
        loss_scale=create_loss_scale(config.amp, config.loss_scale),
        ema_decay=config.ema,
    )
    run = Run(
        config,
        train_set,
        val_set,
        texts,
        augmentation,
        model,
        network,
        step,
        Classify(deployable(network), preprocess),
        Progress(
            to_dict(config),
            len(train_set),
            distributed.world_size(),
            texts=made_from(texts) if texts else None,
            broken=broken,
        ),
        describe_mixing(config),
        Diagnostics(step) if texts and config.diagnostics else None,
    )
    run.steps_per_epoch  # noqa: B018 (too few images for one batch are found here, not in the first epoch)
    return run


def open_texts(config: Config, images: ImageSet) -> Optional[Texts]:
    """The texts of the training images; None for a baseline, which reads no store.

    Raises:
        UserError: see `EmbeddingStore.open`, `check_descriptions`, `join_texts` and `packed_texts`.
    """
    if config.loss.alignment == "none":
        return None
    how = {"missing_text": config.data.missing_text, "mask_same_text": config.loss.mask_same_text}
    if config.data.embeddings is None:
        texts = packed_texts(images, **how)
    else:
        texts = join_texts(images, EmbeddingStore.open(config.data.embeddings), **how)
    if config.data.descriptions is not None:
        where = Path(config.data.embeddings or images.root)
        check_descriptions(where, texts.metadata, file_sha256(config.data.descriptions), config.data.text)
    return shuffle_texts(texts, config.seed) if config.data.shuffle_texts else texts


def describe_model(config: Config, classes: tuple[str, ...], texts: Optional[Texts]) -> ModelInfo:
    """The network and the preprocessing of evaluation."""
    size, augment = config.model.image_size, config.augment
    return ModelInfo(
        network=config.model.name,
        classes=classes,
        resize=augment.eval_resize or round(size / 0.875),
        crop=size,
        interpolation=augment.interpolation,
        mean=tuple(augment.mean),
        std=tuple(augment.std),
        projection=config.model.projection if texts else "none",
        text_dim=texts.metadata["dim"] if texts else None,
    )


def describe_augmentation(config: Config) -> Augmentation:
    """What happens to training images."""
    augment = config.augment
    rand_augment = None
    if augment.rand_augment is not None:
        fill = tuple(round(255 * mean) for mean in augment.mean)
        rand_augment = RandAugment.parse(augment.rand_augment, augment.interpolation, fill)
    return Augmentation(
        image_size=config.model.image_size,
        crop=augment.crop,
        min_area=augment.min_area,
        padding=augment.padding,
        fill=augment.fill,
        flip=augment.flip,
        color_jitter=augment.color_jitter,
        interpolation=augment.interpolation,
        rand_augment=rand_augment,
    )


def describe_mixing(config: Config) -> Optional[Mixing]:
    """Mixup and cutmix; None where both are off."""
    augment = config.augment
    if augment.mixup == augment.cutmix == 0:
        return None
    return Mixing(augment.mixup, augment.cutmix, augment.mix_probability, augment.mix_switch)
