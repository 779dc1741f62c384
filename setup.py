# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Packaging of diffusers-vilearn."""

from pathlib import Path

from setuptools import find_packages, setup

EXTRAS = {
    "benchmarks": ["matplotlib>=3.8", "pyyaml>=6", "scipy>=1.12"],
    # Published by its authors as source only.
    "cuda": ["nvdiffrast @ git+https://github.com/NVlabs/nvdiffrast"],
    # Brings torchvision.
    "lpips": ["lpips>=0.1.4", "torchmetrics>=1.4"],
    "metrics": ["torchmetrics>=1.4"],
    "quantization": ["torchao>=0.18"],
    "ray": ["ray>=2.40"],
    "rembg": ["rembg[cpu]"],
    "train": ["tensorboard>=2.14", "onnx>=1.15", "peft>=0.15", "pyyaml>=6"],
    "test": [
        "hypothesis>=6.100",
        "matplotlib>=3.8",
        "peft>=0.15",
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist[psutil]>=3.6",
        "ray>=2.40",
        "rtree>=1.2",
        "ruff>=0.6",
        "scipy>=1.12",
        "torchmetrics>=1.4",
    ],
}

setup(
    name="diffusers-vilearn",
    version="0.1.0.dev0",
    description="ViLearn single-image-to-3D generation for Hugging Face diffusers",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The diffusers-vilearn Authors",
    license="Apache-2.0",
    # The templates of cards stand at the top of the tree, and inside an installed package.
    packages=[*find_packages("src"), "diffusers_vilearn.model_cards"],
    package_dir={"": "src", "diffusers_vilearn.model_cards": "model_cards"},
    package_data={"diffusers_vilearn.model_cards": ["*.md"]},
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.6",
        "diffusers>=0.42",
        "transformers>=5.0",
        "accelerate>=1.10",
        "huggingface-hub>=1.0",
        "safetensors>=0.5",
        "datasets>=4.0",
        "trimesh>=4.6",
        "libigl>=2.6",
        "mapbox-earcut>=1.0",
        "embreex>=2.17.7",
        "filelock>=3.16",
        "numpy>=1.26",
        "scipy>=1.11",
        "pillow>=10.1",
        "tqdm>=4.66",
        "typer>=0.15",
        "jinja2>=3.1",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["diffusers-vilearn=diffusers_vilearn.cli:main"]},
)
