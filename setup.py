"""The one thing that pyproject.toml cannot say: the folder kernels/ is installed as the package kaleido_fast.kernels."""

from setuptools import find_packages, setup

setup(
    packages=["kaleido_fast.kernels", *find_packages(include=["kaleido_fast", "kaleido_fast.*"])],
    package_dir={"kaleido_fast.kernels": "kernels"},
    package_data={"kaleido_fast": ["py.typed", "search/page/files/*"]},
)
