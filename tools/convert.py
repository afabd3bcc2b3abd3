"""Convert weights: from files of PyTorch to a checkpoint of this package, and back."""

import argparse
from pathlib import Path

from mindspore_gpt4image.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser(
        "from-pytorch",
        help="timm's, torchvision's, transformers', the official ConvNeXt's and DeiT's, and GPT4Image's released files",
        description="The layout is recognised by its names; a projection is taken along. Nothing in the file is run.",
    )
    command.add_argument("file", metavar="FILE", help="state dict or checkpoint: .pth, .bin, .tar, .safetensors")
    command.add_argument("--network", required=True, help="its name here, for instance resnet50 or deit_base")
    command.add_argument(
        "--classes",
        required=True,
        metavar="FILE",
        help="class names in the order of the logits, one a line (ls DATA/train, where classes are folders)",
    )
    command.add_argument("--interpolation", required=True, choices=("bilinear", "bicubic"), help="of its evaluation")
    command.add_argument("--image-size", type=int, default=224, help="side of its input (default: 224)")
    command.add_argument("--resize", type=int, help="shorter side before the crop (default: image size / 0.875)")
    command.add_argument("--mean", type=float, nargs=3, default=(0.485, 0.456, 0.406), metavar=("R", "G", "B"))
    command.add_argument("--std", type=float, nargs=3, default=(0.229, 0.224, 0.225), metavar=("R", "G", "B"))
    command.add_argument("--ema", action="store_true", help="take the averaged weights of a training checkpoint")
    command.add_argument("--output", required=True, type=Path, metavar="FILE.ckpt|.safetensors")

    command = commands.add_parser("to-pytorch", help="a state dict for another library")
    command.add_argument("checkpoint", metavar="NAME_OR_FILE", help="released checkpoint, file, or folder of a run")
    command.add_argument(
        "--layout", required=True, choices=("timm", "torchvision", "transformers", "official", "released")
    )
    command.add_argument("--output", required=True, type=Path, metavar="FILE.safetensors")
    arguments = parser.parse_args()
    (from_pytorch if arguments.command == "from-pytorch" else to_pytorch)(arguments)


def from_pytorch(arguments: argparse.Namespace) -> None:
    from mindspore_gpt4image.conversion import convert
    from mindspore_gpt4image.model_info import ModelInfo
    from mindspore_gpt4image.offline.state_dict import read_state_dict
    from mindspore_gpt4image.sources.classes import read_classes

    model = ModelInfo(
        network=arguments.network,
        classes=read_classes(arguments.classes),
        resize=arguments.resize or round(arguments.image_size / 0.875),
        crop=arguments.image_size,
        interpolation=arguments.interpolation,
        mean=tuple(arguments.mean),
        std=tuple(arguments.std),
    )
    model = convert(read_state_dict(arguments.file, arguments.ema), model, arguments.file, arguments.output)
    print(f"{arguments.output}: {model.network}, {len(model.classes)} classes, projection: {model.projection}")


def to_pytorch(arguments: argparse.Namespace) -> None:
    from safetensors.numpy import save_file

    from mindspore_gpt4image.checkpoint import read_checkpoint
    from mindspore_gpt4image.conversion import to_pytorch
    from mindspore_gpt4image.files import replacing
    from mindspore_gpt4image.released import locate_checkpoint

    network = read_checkpoint(locate_checkpoint(arguments.checkpoint)).create_network()
    with replacing(arguments.output) as temporary:
        save_file(to_pytorch(network, arguments.layout), temporary, metadata={"format": "pt"})
    print(f"{arguments.output}: names of {arguments.layout}")


if __name__ == "__main__":
    run_command(main)
