"""Normalisation in the graph against the formula in NumPy."""

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindspore_gpt4image.models import Preprocess


def test_equals_the_formula_on_every_pixel_value():
    ms.set_context(mode=ms.GRAPH_MODE)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = np.random.default_rng(0).permutation(np.repeat(np.arange(256, dtype=np.uint8), 6)).reshape(2, 16, 16, 3)
    result = Preprocess(mean, std)(Tensor(pixels))
    assert result.dtype == ms.float32
    expected = ((pixels / 255.0 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(result.asnumpy(), expected, rtol=0, atol=1e-6)
