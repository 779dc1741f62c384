# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Scores on disk: one file a method, one JSON line a view, by many processes, taken up where they stopped."""

import glob
import json
from collections.abc import Iterable
from pathlib import Path

from ..files import append_json_line, read_json_lines, write_atomically

Scores = dict[tuple[str, int], dict[str, float]]

# What each metric is measured with, by the names of `MetricSuite.settings`: scores compare only where they agree.
_RENDERED = ("metric_encoder", "num_metric_views", "metric_resolution")
MEASURED_WITH = {
    "geometry": ("dataset", "split", "frame", "bounds", "resolution", "f_score_thresholds"),
    # with true normals also `objects`
    "is_as": (*_RENDERED, "normal_estimator"),
    "normal_fd": (*_RENDERED, "num_feature_views", "objects"),
    "renders": ("render_resolution", "objects"),
    "lpips": ("render_resolution", "objects"),
    "hi3deval": ("hi3deval",),
}


def read_scores(path: Path) -> Scores:
    """Scores written one JSON line a view, by (uid, view); none where there is no file."""
    return {(record.pop("uid"), record.pop("view")): record for record in read_json_lines(path)}


def write_scores(path: Path, scores: Scores) -> None:
    """Write such a file anew, whole or not at all."""
    lines = [json.dumps({"uid": uid, "view": view, **row}) + "\n" for (uid, view), row in scores.items()]
    write_atomically(path, "".join(lines).encode())


def methods_of(folder: Path) -> list[str]:
    """Those that there are scores of."""
    return [path.stem for path in sorted(folder.glob("*.jsonl")) if path.stat().st_size]


def check_comparable(folder: Path, others: Iterable[str] = ()) -> None:
    """Raise `ValueError` if the methods of a folder that there are scores of, and `others` that there will be, were
    measured with different options; of a method without settings nothing is known."""
    options = set().union(*MEASURED_WITH.values())
    first = {}
    for method in sorted({*methods_of(folder), *others}):
        settings = ScoreFile(folder, method).read_settings()
        for name in sorted(options & settings.keys()):
            other, value = first.setdefault(name, (method, settings[name]))
            if value != settings[name]:
                raise ValueError(
                    f"{folder} holds scores that do not compare: `{name}` is {value!r} for {other} and"
                    f" {settings[name]!r} for {method}. Take another `--output_dir` for one of them."
                )


class ScoreFile:
    """The scores of one method, made with one set of settings.

    Process 0 appends to `<method>.jsonl`, the others to parts beside it, which `join` takes into it.

    Args:
        folder (`Path`): of the evaluation.
        method (`str`): names the file.
        rank (`int`): of this process.
    """

    def __init__(self, folder: Path, method: str, rank: int = 0):
        self.path = folder / f"{method}.jsonl"
        self.settings_path = folder / "settings" / f"{method}.json"
        self.part = self.path.with_name(f"{self.path.name}.rank-{rank}") if rank else self.path

    def check_settings(self, settings: dict) -> None:
        """Note what the scores are made with; by process 0 alone.

        Raises:
            ValueError: there are scores that were made with something else; it names what differs.
        """
        known = self.read_settings()
        # As they read once written.
        settings = json.loads(json.dumps(settings))
        differing = [name for name in settings.keys() | known.keys() if settings.get(name) != known.get(name)]
        if differing and self.path.exists():
            raise ValueError(
                f"{self.path} holds scores made with other settings, which differ in {', '.join(sorted(differing))}."
                " Take another `--output_dir`, or delete that file."
            )
        self.settings_path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.settings_path, json.dumps(settings, indent=1).encode())

    def read_settings(self) -> dict:
        """What was noted; nothing where nothing was."""
        return json.loads(self.settings_path.read_text()) if self.settings_path.exists() else {}

    def join(self) -> None:
        """Take the parts of the other processes into the file, ordered by uid and view; by process 0 alone."""
        parts = sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}.rank-*"))
        if parts:
            scores = self.read()
            for part in parts:
                scores |= read_scores(part)
            write_scores(self.path, dict(sorted(scores.items())))
            for part in parts:
                part.unlink()

    def read(self) -> Scores:
        return read_scores(self.path)

    def append(self, uid: str, view: int, scores: dict[str, float]) -> None:
        append_json_line(self.part, {"uid": uid, "view": view, **scores})
