"""PyTorch's DataLoader doing with Pillow what torchvision's transforms of ResNet's recipe do; a program of its own.

Its two numbers, images a second and CPU milliseconds an image, go to standard output as JSON.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Pictures:
    """The files `root/train/<class>/<image>` after RandomResizedCrop, RandomHorizontalFlip, ToTensor and Normalize."""

    def __init__(self, root: Path, side: int):
        import torch

        self.files = sorted((root / "train").glob("*/*"))
        names = sorted({file.parent.name for file in self.files})
        self.labels = [names.index(file.parent.name) for file in self.files]
        self.side = side
        self.torch = torch
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple:
        image = Image.open(self.files[index]).convert("RGB")
        left, top, width, height = crop_box(*image.size)
        image = image.crop((left, top, left + width, top + height)).resize((self.side, self.side), Image.BILINEAR)
        if self.torch.rand(1) < 0.5:
            image = image.transpose(Image.FLIP_LEFT_RIGHT)
        pixels = self.torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return pixels.sub_(self.mean).div_(self.std), self.labels[index]


def crop_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of a box of 8 to 100% of the area and sides of 3:4 to 4:3."""
    import torch

    for _ in range(10):
        area = width * height * torch.empty(1).uniform_(0.08, 1.0).item()
        ratio = math.exp(torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3)).item())
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(torch.randint(0, width - w + 1, (1,))), int(torch.randint(0, height - h + 1, (1,))), w, h
    return 0, 0, width, height


def main() -> None:
    import torch
    from torch.utils.data import DataLoader

    root, *numbers = sys.argv[1:]
    side, batch, workers, warm_up = map(int, numbers)
    torch.set_num_threads(1)
    dataset = Pictures(Path(root), side)
    batches = iter(DataLoader(dataset, batch, shuffle=True, num_workers=workers, drop_last=True))
    for _ in islice(batches, warm_up):
        pass
    started, own = time.perf_counter(), time.process_time()
    images = sum(len(labels) for _, labels in batches)
    seconds, own = time.perf_counter() - started, time.process_time() - own
    del batches  # ends the workers, whose time counts from then on
    workers_time = resource.getrusage(resource.RUSAGE_CHILDREN)
    per_image = own / images + (workers_time.ru_utime + workers_time.ru_stime) / (images + batch * warm_up)
    print(json.dumps([images / seconds, 1000 * per_image]))


if __name__ == "__main__":
    main()
