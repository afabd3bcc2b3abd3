"""Networks by name: a backbone, its classifier, and the projection that aligns features with text."""

from mindspore._extends.parse import compile_config

from mindspore_gpt4image.models.factory import create_network, network_names
from mindspore_gpt4image.models.network import deployable, weights
from mindspore_gpt4image.models.preprocess import Classify, Preprocess

__all__ = ["Classify", "Preprocess", "create_network", "deployable", "network_names", "weights"]

# Since MindSpore 2.8 `x += y` in a graph is an in-place operator: its gradient can be wrong, GPU kernels and ONNX lack
# it, and MindCV's residual blocks write `out += identity`. The flag counts until a process compiles its first graph.
if getattr(compile_config, "JIT_ENABLE_AUGASSIGN_INPLACE", None) is not None:
    compile_config.JIT_ENABLE_AUGASSIGN_INPLACE = "0"
