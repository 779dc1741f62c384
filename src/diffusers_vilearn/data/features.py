# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The schema of a visibility-annotated dataset: tables joined by `uid` (and `view`).

Positions are in the object frame (+Y up, front towards +Z, longest half-side of the mesh 0.95: the shell that closes
an open one reaches `2 / solid_resolution` further); latents are in the frame that their table was made for
(`frames.py`). Point clouds are float16 on disk.
"""

from datasets import Array2D, Features, Image, List, Value

# What the quality gate measured of an object (`quality.py`); shares are in [0, 1].
QUALITY_FEATURES = {
    "num_faces": Value("int64"),
    # connected pieces of the mesh as it came
    "num_parts": Value("int64"),
    # whether the solid is a thin shell about a mesh that has no inside of its own
    "is_shell": Value("bool"),
    # smallest side of the bounding box relative to the longest
    "thickness": Value("float32"),
    # part of the solid's area that is a plate at its bottom, and that its largest component has
    "base_share": Value("float32"),
    "largest_share": Value("float32"),
    # part of the mesh's area whose material is fully transparent
    "invisible_share": Value("float32"),
    # `texture`, `colours` or `plain`
    "appearance": Value("string"),
    # of `shell`, `textureless`, `partly_invisible`, `several_components`
    "flags": List(Value("string")),
}

SHAPE_FEATURES = Features(
    {
        "uid": Value("string"),
        "source": Value("string"),
        "licence": Value("string"),
        "creator": Value("string"),
        "name": Value("string"),
        "category": Value("string"),
        # (points, 6): xyz and unit normal, uniform on the solid's surface, where the signed distance is 0
        "surface": Array2D(shape=(None, 6), dtype="float16"),
        # (points, 6): likewise on edges sharper than 30 degrees; no rows if the object has none
        "sharp_edges": Array2D(shape=(None, 6), dtype="float16"),
        # (points, 4): xyz and signed distance (positive inside) around the surface
        "field_near": Array2D(shape=(None, 4), dtype="float16"),
        # (points, 4): likewise, uniform in `field_box`; the distance outside the box exceeds its margin
        "field_volume": Array2D(shape=(None, 4), dtype="float16"),
        # (2, 3): lowest and highest corner of the box of `field_volume`
        "field_box": Array2D(shape=(2, 3), dtype="float32"),
        **QUALITY_FEATURES,
    }
)

# Objects that are not in the dataset, and why.
REJECT_FEATURES = Features(
    {
        "uid": Value("string"),
        "source": Value("string"),
        "reason": Value("string"),
        "message": Value("string"),
    }
)

VIEW_FEATURES = Features(
    {
        "uid": Value("string"),
        "view": Value("int32"),
        "image": Image(),
        # degrees; azimuth 0 looks at the front, elevation is positive from above
        "azimuth": Value("float32"),
        "elevation": Value("float32"),
        # degrees and world units; exactly one of both is not null
        "vertical_fov": Value("float32"),
        "orthographic_height": Value("float32"),
        "camera_to_world": Array2D(shape=(4, 4), dtype="float32"),
        # (points, 3): positions seen by the camera
        "visible_points": Array2D(shape=(None, 3), dtype="float16"),
    }
)


def latent_features(latent_channels: int, image_channels: int) -> Features:
    """The schema of latents made by one VAE and one image encoder, one row a view."""
    return Features(
        {
            "uid": Value("string"),
            "view": Value("int32"),
            # whether object and image are reflected left to right
            "mirrored": Value("bool"),
            # (4, 4): object frame -> frame of the latents
            "frame": Array2D(shape=(4, 4), dtype="float32"),
            # (tokens, 2 * channels): mean and log-variance of the VAE's posterior, not normalised
            "moments": Array2D(shape=(None, 2 * latent_channels), dtype="float16"),
            "visible_tokens": List(Value("int32")),
            # part of the tokens that is visible, and part of all tokens of whose surface point the same can be said
            "visible_share": Value("float32"),
            "anchor_agreement": Value("float32"),
            # (patches, channels): patch tokens of the image encoder
            "image_embeds": Array2D(shape=(None, image_channels), dtype="float16"),
        }
    )
