# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The arms: what each one changes, everything else being equal."""

from dataclasses import dataclass, field

# Where the visible tokens of a table come from: Visibility Grouping, nowhere, chance, or the tokens' surface points.
MASKS = ("grouped", "unordered", "shuffled", "oracle")


def masked_table(table: str, masks: str) -> str:
    """Name of a latents table with these masks; that of `masks.py` if they are others than the table's own."""
    if masks not in MASKS:
        raise ValueError(f"`masks` must be one of {MASKS}, but is {masks!r}.")
    return table if masks == "grouped" else f"{table}-{masks}"


@dataclass(frozen=True)
class Arm:
    """One way of telling tokens apart.

    Args:
        visibility_encoding (`str`): of the transformer.
        masks (`str`): of `MASKS`, for the training data.
        arguments (`dict`): further arguments of `train_vilearn.py`.
    """

    visibility_encoding: str
    masks: str = "grouped"
    arguments: dict = field(default_factory=dict)

    @property
    def splits_tokens(self) -> bool:
        """Whether the share of visible tokens means something at inference."""
        return self.visibility_encoding.startswith("va_")


# The arm that all others are compared with.
BASELINE = "none"

ARMS = {
    BASELINE: Arm("none"),
    # Sequence RoPE. No token is visible, so that all keep their own order: that of farthest points.
    "rope": Arm("rope", masks="unordered"),
    # Sequence RoPE with the visible tokens first.
    "rope_vg": Arm("rope"),
    "va_lpe": Arm("va_lpe"),
    "va_rope": Arm("va_rope"),
    "va_rope_lpe": Arm("va_rope_lpe"),
    # As many visible tokens, but drawn: what is gained here is not gained by visibility.
    "va_rope_shuffled": Arm("va_rope", masks="shuffled"),
    # The visible tokens are those whose own surface point the camera sees.
    "va_rope_oracle": Arm("va_rope", masks="oracle"),
    # The position of invisible tokens is 50 elsewhere.
    "va_rope_n10": Arm("va_rope", arguments={"invisible_position": 10}),
    "va_rope_n200": Arm("va_rope", arguments={"invisible_position": 200}),
    # Now and then the split of inference in place of the mask, so that it is known from training.
    "va_rope_dropout": Arm("va_rope", arguments={"mask_dropout": 0.2}),
}
