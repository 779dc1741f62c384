# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Turn meshes into a visibility-annotated dataset: `diffusers-vilearn prepare` as a script.

python training/prepare_dataset.py --help
"""

from diffusers_vilearn.data.command import main

if __name__ == "__main__":
    main(program="prepare_dataset.py")
