# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The metrics as `training/evaluate.py` puts them together; packages that no test installs have stand-ins."""

import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hi3deval_checkout import make_checkout

from diffusers_vilearn.metrics.suite import METRICS, MetricSuite

ROOT = Path(__file__).parents[2]
ENCODER = ROOT / "checkpoints" / "vilearn-tiny" / "image_encoder"


@pytest.fixture
def parse(monkeypatch):
    """Words of the command line beside those that it cannot do without -> its arguments."""
    parse_args = runpy.run_path(str(ROOT / "training" / "evaluate.py"))["parse_args"]

    def arguments(*words):
        needed = ("--checkpoint", "a", "--dataset_name", "b", "--output_dir", "c")
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *needed, *map(str, words)])
        return parse_args()

    return arguments


class FacingTheCamera(torch.nn.Module):
    """MoGe's interface; every normal points to the camera, in OpenCV's frame."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    @classmethod
    def from_pretrained(cls, name):
        assert name == "Ruicheng/moge-2-vitl-normal"
        return cls()

    def infer(self, image, **_):
        return {"normal": torch.tensor([0.0, 0.0, -1.0]).expand(*image.shape[1:], 3)}


class MeanDifference(torch.nn.Module):
    """LPIPS' interface."""

    def __init__(self, net, verbose):
        super().__init__()
        assert net == "vgg" and not verbose

    def forward(self, pictures, truth, normalize):
        assert normalize
        return (pictures - truth).abs().mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture
def packages(monkeypatch):
    moge, lpips = ModuleType("moge.model.v2"), ModuleType("lpips")
    moge.MoGeModel, lpips.LPIPS = FacingTheCamera, MeanDifference
    for module in (ModuleType("moge"), ModuleType("moge.model"), moge, lpips):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_the_defaults_are_the_papers(parse):
    args = parse("--metrics", "is_as")
    assert (args.num_metric_views, args.metric_resolution) == (512, 518)
    assert (args.metric_encoder, args.normal_estimator) == ("facebook/dinov2-large", "Ruicheng/moge-2-vitl-normal")


def test_every_metric_of_a_right_shape_and_of_one_that_failed(tmp_path, parse, packages, truth, shape_of):
    args = parse(
        *("--metrics", *METRICS, "--metric_encoder", ENCODER, "--num_metric_views", 4, "--metric_resolution", 28),
        *("--num_feature_views", 2, "--render_resolution", 32, "--objects", truth.records.path, "--root", truth.root),
        *("--split", "heldout", "--hi3deval", make_checkout(tmp_path), "--hi3deval_launcher", f"{sys.executable} -u"),
        *("--output_dir", tmp_path),
    )
    suite = MetricSuite(args, torch.device("cpu"))
    assert suite.hi3deval.launcher == [sys.executable, "-u"]
    scorers = suite.of_method("generation")
    beyond_geometry = {column for metric, columns in METRICS.items() for column in columns if metric != "geometry"}
    right = shape_of("a/chair", None).true_mesh
    scores = {
        name: suite.score(scorers, mesh, shape_of("a/chair", None).view)
        for name, mesh in {"right": right, "failed": None}.items()
    }
    assert all(row.keys() == beyond_geometry - {"gp", "gd"} for row in scores.values())
    assert scores["right"]["lpips"] < 1e-3 < scores["failed"]["lpips"]
    assert scores["right"]["is_as"] > 0 == scores["failed"]["is_as"]


def test_lists_and_models_are_known_by_what_they_hold(tmp_path, parse, truth):
    longer = tmp_path / "objects.jsonl"
    longer.write_text(truth.records.path.read_text() + "\n")
    encoder = shutil.copytree(ENCODER, tmp_path / "encoder")
    common = ("--metrics", "normal_fd", "--split", "heldout", "--root", truth.root)
    one, other = (
        MetricSuite(parse(*common, "--metric_encoder", folder, "--objects", objects), torch.device("cpu")).identities
        for folder, objects in ((ENCODER, truth.records.path), (encoder, longer))
    )
    assert one["objects"] != other["objects"] and one["metric_encoder"] == other["metric_encoder"]


def test_objects_are_a_setting_where_they_are_looked_at(parse, packages, truth):
    views = SimpleNamespace(digest="data", frame="view", bounds=1.0)
    given = ("--metric_encoder", ENCODER, "--split", "heldout", "--objects", truth.records.path, "--root", truth.root)

    def settings(*words) -> dict:
        return MetricSuite(parse(*given, "--metrics", *words), torch.device("cpu")).settings(views, {}, ())

    assert "objects" not in settings("is_as")
    assert settings("is_as", "--normal_estimator", "true")["objects"] == settings("renders")["objects"] is not None


def test_pictures_that_the_encoder_does_not_take_are_refused_at_once(parse, packages):
    args = parse("--metrics", "is_as", "--metric_encoder", ENCODER, "--metric_resolution", 500)
    with pytest.raises(ValueError, match="`metric_resolution` must be a multiple of the encoder's patch size, 14"):
        MetricSuite(args, torch.device("cpu"))


def test_a_cloud_of_more_points_than_there_are_is_refused(parse):
    check_points = runpy.run_path(str(ROOT / "training" / "evaluate.py"))["check_points"]
    views = [SimpleNamespace(surface=range(8192))]
    check_points(parse("--num_points", 8192), views)
    check_points(parse("--num_points", 9000, "--methods", "generation"), views)
    with pytest.raises(ValueError, match="`--num_points` must be at most 8192, as many as are stored, but is 9000"):
        check_points(parse("--num_points", 9000), views)


@pytest.mark.parametrize("words", [("--rank_by", "floaters"), ("--sheet_rows", 0)])
def test_there_is_no_sheet_of_shapes_without_a_value_to_rank_by(tmp_path, parse, words):
    draw_sheet = runpy.run_path(str(ROOT / "training" / "evaluate.py"))["draw_sheet"]
    views = SimpleNamespace(keys=[("a", 0)])
    draw_sheet(tmp_path / "sheet.png", {("a", 0): {"iou": 0.0}}, views, None, "generation", parse(*words))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words, message",
    [
        (("--max_views", 0), "`max_views` must be an integer of at least 1"),
        (("--views_per_object", 0), "`views_per_object` must be an integer of at least 1"),
        (("--resolution", 7), "`resolution` must be an integer of at least 8"),
        (("--num_points", -5), "`num_points` must be an integer of at least 1"),
        (("--render_resolution", 3), "`render_resolution` must be an integer of at least 11"),
        (("--guidance_scale", "nan"), "`guidance_scale` must be a finite number"),
        (
            ("--metrics", "normal_fd", "--objects", "a", "--root", "b", "--num_metric_views", 4),
            "`--num_feature_views` is 8, but there are only 4 of `--num_metric_views`",
        ),
        (("--visible_fraction", 2), "`visible_fraction` must be a number in"),
        (("--f_score_thresholds", 0.05, 0), "`f_score_thresholds` must be positive numbers"),
        (("--f_score_thresholds", "nan"), "`f_score_thresholds` must be positive numbers"),
        (("--rank_by", "psnr"), "`--rank_by` must be one of iou, .*f_score@0.05.*, but is 'psnr'"),
        (("--metrics", "renders"), "renders needs the true meshes"),
        (("--metrics", "hi3deval"), "your git checkout of 3DTopia/Hi3DEval"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(parse, words, message):
    with pytest.raises(ValueError, match=message):
        parse(*words)
