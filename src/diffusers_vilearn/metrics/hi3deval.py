# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""GP and GD, geometry plausibility and geometry details, by Hi3DEval's own scorer (Zhang et al. 2025).

Nothing of it is in here: its code is run where the user has it, a git checkout of `3DTopia/Hi3DEval` with the
checkpoints of its `obj_scoring/readme.md`, in whatever environment that wants. It scores a turntable of normal maps (a
GIF) next to the prompt image. How its authors render their GIFs is not in the checkout: ours are 16 views at 15
degrees of elevation, all at one scale, coded as in `normal_maps.py`. Compare only numbers from one way of rendering.
Written against its commit 7f8a68e; it needs a GPU and its own checkpoints, and we have not run it.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..geometry.cameras import orbit_camera
from ..geometry.mesh import Mesh
from ..geometry.rendering import make_renderer
from .normal_maps import camera_normals, normal_colors
from .rendered_views import DISTANCE, VERTICAL_FOV, in_unit_sphere

# Our name -> the folder of the trained head in the checkout's `obj_scoring/trained`.
HEADS = {"gp": "Geo_plausibility", "gd": "Geo_detail"}

# Views that the scorer looks at of a turntable without colours.
NUM_VIEWS = 16


@dataclass(frozen=True)
class Turntable:
    """One shape as the scorer takes it.

    Args:
        video: a GIF of normal maps.
        prompt: the image that the shape was made from.
    """

    video: Path
    prompt: Path


def write_turntable(mesh: Mesh, path: Path, *, resolution: int = 448, elevation: float = 15.0) -> None:
    """Write a GIF of `mesh` turning once about +Y: `NUM_VIEWS` normal maps in the camera's frame on white, and the
    first one again, as the scorer never looks at the last frame."""
    renderer, frames = make_renderer(in_unit_sphere(mesh), "embree"), []
    for azimuth in np.arange(NUM_VIEWS + 1) * 360 / NUM_VIEWS:
        camera = orbit_camera(azimuth, elevation, distance=DISTANCE, vertical_fov=VERTICAL_FOV)
        rendering = renderer.render(camera, resolution)
        colors = normal_colors(camera_normals(rendering, camera))
        frames.append(np.where(rendering.mask[..., None], colors, 255).astype(np.uint8))
    # Pillow joins equal frames, as those of a lathed vase are: one pixel of every other frame is grey.
    for frame in frames[1::2]:
        frame[0, 0] = 128
    first, *others = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=others, duration=100, loop=0)


class Hi3DEval:
    """Scores turntables with a checkout of Hi3DEval.

    Args:
        checkout: folder of the git checkout, with its checkpoints in place.
        launcher: command that runs one process of a script, as `torchrun` does, which the scorer asks for; that of the
            checkout's own environment where it has one.

    Raises:
        ValueError: the checkout lacks its scorer, or a trained head.
    """

    def __init__(
        self, checkout: str | Path, launcher: Sequence[str] = (sys.executable, "-m", "torch.distributed.run")
    ):
        self.scoring = Path(checkout).resolve() / "obj_scoring"
        self.launcher = list(launcher)
        heads = [self._head(name) for name in HEADS]
        lacking = [path for path in (self.scoring / "infer" / "inference.py", *heads) if not path.is_file()]
        if lacking:
            raise ValueError(
                f"`checkout` {str(checkout)!r} must be a git checkout of https://github.com/3DTopia/Hi3DEval with the"
                f" checkpoints of obj_scoring/readme.md, but lacks {', '.join(map(str, lacking))}."
            )

    def identity(self) -> str:
        """Tells the scorer from another version of it, by its code and the sizes of its heads."""
        digest = hashlib.sha256((self.scoring / "infer" / "inference.py").read_bytes())
        digest.update(json.dumps([self._head(name).stat().st_size for name in HEADS]).encode())
        return digest.hexdigest()

    def __call__(self, turntables: Sequence[Turntable]) -> list[dict[str, float]]:
        """`gp` and `gd` of each turntable; both models are loaded once for all of them."""
        columns = {name: self._score(name, turntables) for name in HEADS}
        return [{name: column[index] for name, column in columns.items()} for index in range(len(turntables))]

    def _head(self, name: str) -> Path:
        return self.scoring / "trained" / HEADS[name] / "mp_rank_00_model_states.pt"

    def _score(self, name: str, turntables: Sequence[Turntable]) -> list[float]:
        videos = [str(turntable.video.resolve()) for turntable in turntables]
        with tempfile.TemporaryDirectory() as folder:
            annotations = Path(folder) / "turntables.json"
            rows = [
                {"video": [video], "prompt": str(turntable.prompt.resolve()), "score": [-1] * 5}
                for video, turntable in zip(videos, turntables)
            ]
            annotations.write_text(json.dumps(rows))
            settings = {
                "available_corpus.infer.anno_path": annotations,
                "test_file.anno_path": annotations,
                "model.qformer.ckpt": self._head(name),
                "ckpt_path": self._head(name),
                "output_dir": folder,
                # Its configuration counts by the name of its own annotations.
                "num_frames": NUM_VIEWS,
                "num_frames_test": NUM_VIEWS,
            }
            words = [str(word) for pair in settings.items() for word in pair]
            command = [*self.launcher, "inference.py", "config.py", *words]
            result = subprocess.run(command, cwd=self.scoring / "infer", capture_output=True, text=True)
            predictions = Path(folder) / "prediction_and_score_align.json"
            if result.returncode or not predictions.is_file():
                raise RuntimeError(f"Hi3DEval's scorer failed ({' '.join(command)}):\n{result.stderr[-2000:]}")
            answers = json.loads(predictions.read_text())
        return [float(np.ravel(answers[video][0])[0]) for video in videos]
