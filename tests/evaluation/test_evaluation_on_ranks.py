"""What ranks evaluate and count together; run as a script, this file is what each of them does."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ranks import run_on_ranks

IMAGES, BATCH, SIDE = 101, 8, 6


def scores(pixels):
    """Of 7 classes, from the mean colours; some are wrong."""
    colours = pixels.astype(np.float32).mean(axis=(1, 2))
    return colours @ np.random.default_rng(0).standard_normal((3, 7), np.float32) / 20


def evaluate(root):
    from mindspore_gpt4image.evaluation.on_ranks import predict_on_ranks
    from mindspore_gpt4image.sources.formats import list_images
    from mindspore_gpt4image.sources.preprocessing import EvalTransform

    found = predict_on_ranks(scores, list_images(root, "val"), EvalTransform(SIDE, SIDE), BATCH, 1)
    return {"classes": found.classes, "probabilities": found.probabilities, "losses": found.true_log_probability}


@pytest.mark.slow
def test_101_images_in_batches_of_8_are_counted_alike_on_1_to_4_ranks(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
    for number, image in enumerate(pixels):
        path = tmp_path / "val" / f"class_{number % 7}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    one = evaluate(tmp_path)
    assert len(one["classes"]) == IMAGES
    for ranks in (2, 3, 4):
        folder = tmp_path / f"{ranks}_ranks"
        folder.mkdir()
        run_on_ranks(__file__, ranks, [tmp_path, folder], folder)
        for rank in range(ranks):
            with np.load(folder / f"{rank}.npz") as saved:
                for name, expected in one.items():
                    np.testing.assert_array_equal(saved[name], expected)
                assert saved["broken"].tolist() == sorted({7, *range(0, 10 * ranks, 10)})


def main():
    from mindspore_gpt4image.distributed import join_world, on_any_rank, rank

    root, folder = sys.argv[1:]
    join_world("CPU")
    # Which images are broken, each rank has found its own.
    broken = on_any_rank({7, 10 * rank()}, IMAGES)
    np.savez(Path(folder) / f"{rank()}.npz", broken=broken, **evaluate(root))


if __name__ == "__main__":
    main()
