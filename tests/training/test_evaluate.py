# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The evaluation as a user runs it: alone, in two processes, taken up again, of two checkpoints, with every metric."""

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image, ImageOps
from script_process import ScriptProcess, run_in_two
from transformers import BitImageProcessor, Dinov2Model

from diffusers_vilearn import VecSetVAE, ViLearnImageTo3DPipeline, ViLearnTransformer3DModel
from diffusers_vilearn.data.evaluation_views import EvaluationViews
from diffusers_vilearn.metrics.score_files import read_scores

SCRIPT = "evaluate.py"


@pytest.fixture(scope="module")
def checkpoints(work) -> tuple[Path, Path]:
    """Two pipelines of random weights whose fields are half inside, half outside: all shapes have a surface."""
    folders = []
    for seed in range(2):
        vae = VecSetVAE.from_pretrained(work / "vae")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            transformer = ViLearnTransformer3DModel(
                in_channels=4,
                num_layers=1,
                num_single_layers=1,
                num_attention_heads=2,
                attention_head_dim=8,
                joint_attention_dim=16,
                frame="view",
            )
            with torch.no_grad():
                for parameter in transformer.parameters():
                    parameter.add_(0.2 * torch.randn_like(parameter))
                xyz = 2 * torch.rand(1, 500, 3) - 1
                field = vae.query(xyz, vae.decode(torch.randn(1, 8, 4)))
                vae.geometry.proj_out.bias -= field.median()
        pipeline = ViLearnImageTo3DPipeline(
            vae=vae,
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(),
            image_encoder=Dinov2Model.from_pretrained(work / "encoder"),
            feature_extractor=BitImageProcessor.from_pretrained(work / "encoder"),
        )
        folders.append(work / f"evaluated-{seed}")
        pipeline.save_pretrained(folders[-1])
    return tuple(folders)


def arguments(work: Path, output_dir: Path, *checkpoint, steps: int = 2) -> tuple:
    return (
        *("--checkpoint", *checkpoint, "--dataset_name", work / "data", "--split", "train", "--views_per_object", 2),
        *("--output_dir", output_dir, "--num_inference_steps", steps, "--resolution", 12, "--num_points", 64),
    )


def evaluate(output_dir: Path, *arguments, expected: int = 0) -> str:
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    process = ScriptProcess(
        SCRIPT, *arguments, log=output_dir.with_suffix(".log"), environment={"ACCELERATE_USE_CPU": "true"}
    )
    assert process.wait() == expected, process.output[-3000:]
    return process.output


@pytest.fixture(scope="module")
def alone(work, checkpoints) -> Path:
    evaluate(work / "alone-scores", *arguments(work, work / "alone-scores", checkpoints[0]), "--sheet_rows", 1)
    return work / "alone-scores"


def test_tables_and_sheets_of_one_checkpoint(alone):
    summary = json.loads((alone / "summary.json").read_text())
    assert set(summary["scores"]) == {"generation", "reconstruction"}
    assert list(summary["differences"]) == ["generation"]
    scores = summary["scores"]["generation"]
    assert scores["iou"]["n"] == 4 and len(read_scores(alone / "generation.jsonl")) == 8
    for name in ("chamfer", "f_score@0.02", "normal_consistency", "visible_recall@0.05", "components", "failed"):
        assert scores[name]["interval"][0] <= scores[name]["mean"] <= scores[name]["interval"][1], name
    assert (alone / "summary.csv").read_text().startswith("method,metric,n,mean,low,high,median\ngeneration,iou,4,")
    assert "generation minus the others" in (alone / "summary.md").read_text()
    for method in ("generation", "reconstruction"):
        with Image.open(alone / f"{method}.png") as sheet:
            assert sheet.width > 5 * 160 and sheet.height > 3 * 160


def test_two_processes_share_the_views_and_find_the_scores_of_one(work, checkpoints, alone, tmp_path):
    run_in_two(SCRIPT, *arguments(work, tmp_path / "two", checkpoints[0]), log_dir=tmp_path / "two")
    for method in ("generation", "reconstruction"):
        ours, theirs = (read_scores(folder / f"{method}.jsonl") for folder in (tmp_path / "two", alone))
        assert ours.keys() == theirs.keys()
        # Joined from parts they are in order: one process alone keeps the order of the table.
        assert list(ours) == sorted(ours) != list(theirs)
        for key, row in theirs.items():
            assert ours[key] == pytest.approx(row, abs=1e-6), key
    assert not list((tmp_path / "two").glob("*rank-*[0-9]")), "parts are joined"
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["scores"]["generation"]["iou"]["n"] == 4


def test_an_interrupted_evaluation_goes_on_and_other_settings_are_refused(work, checkpoints, alone, tmp_path):
    before = (alone / "generation.jsonl").read_text()
    lines = before.splitlines(keepends=True)
    (alone / "generation.jsonl").write_text("".join(lines[:3]))
    # a part that another process had written when all were stopped
    (alone / "generation.jsonl.rank-1").write_text(lines[5])
    evaluate(alone, *arguments(work, alone, checkpoints[0]))
    assert sorted((alone / "generation.jsonl").read_text().splitlines()) == sorted(before.splitlines())
    # Fewer views than there are scores of: nothing is made, nor lost.
    evaluate(alone, *arguments(work, alone, checkpoints[0]), "--views_per_object", 1, "--sheet_rows", 1)
    assert sorted((alone / "generation.jsonl").read_text().splitlines()) == sorted(before.splitlines())
    # What cannot stand in one table, or be subtracted, is said before anything is made.
    other = (*arguments(work, alone, f"other={checkpoints[0]}"), "--resolution", 16)
    assert "`resolution` is 12 for generation and 16" in evaluate(alone, *other, expected=1)
    output = evaluate(alone, *arguments(work, alone, checkpoints[0]), "--reference", "nothing", expected=1)
    assert "`--reference` must be of ['generation', 'reconstruction'], but has ['nothing']" in output
    output = evaluate(alone, *arguments(work, alone, checkpoints[0], steps=3), expected=1)
    assert "other settings, which differ in num_inference_steps" in output
    output = evaluate(alone, *arguments(work, alone, checkpoints[1]), expected=1)
    assert "which differ in transformer" in output or "which differ in vae" in output
    # The same weights, but another schedule.
    shutil.copytree(checkpoints[0], tmp_path / "changed")
    config = tmp_path / "changed/scheduler/scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"shift": 3.0}))
    output = evaluate(alone, *arguments(work, alone, tmp_path / "changed"), expected=1)
    assert "other settings, which differ in scheduler." in output


def test_two_checkpoints_are_compared_in_pairs(work, checkpoints, tmp_path):
    pairs = [f"{name}={folder}" for name, folder in zip(("first", "second"), checkpoints)]
    more = ("--methods", "generation", "--max_views", 3, "--sheet_rows", 0)
    evaluate(tmp_path / "scores", *arguments(work, tmp_path / "scores", *pairs), *more)
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    rows = {name: read_scores(tmp_path / "scores" / f"{name}.generation.jsonl") for name in ("first", "second")}
    assert all(len(scores) == 3 for scores in rows.values())
    one, other = (
        summary["differences"][f"{a}.generation"][f"{b}.generation"]["iou"]
        for a, b in (("first", "second"), ("second", "first"))
    )
    expected = np.mean([rows["first"][key]["iou"] - rows["second"][key]["iou"] for key in rows["first"]])
    assert one["mean"] == pytest.approx(expected) and other["mean"] == pytest.approx(-expected)
    assert one["mean"] != 0 and not list((tmp_path / "scores").glob("*.png"))

    # Reconstructions are compared with each other where nothing is generated.
    more = ("--methods", "reconstruction", "--max_views", 2)
    evaluate(tmp_path / "vaes", *arguments(work, tmp_path / "vaes", *pairs), *more)
    differences = json.loads((tmp_path / "vaes" / "summary.json").read_text())["differences"]
    assert set(differences["first.reconstruction"]) == {"second.reconstruction"}
    assert (tmp_path / "vaes" / "first.reconstruction.png").exists()


def test_metrics_that_need_meshes_and_models(work, checkpoints, tmp_path):
    common = (*arguments(work, tmp_path / "scores", checkpoints[0]), "--methods", "generation", "--max_views", 4)
    small = ("--num_metric_views", 4, "--metric_resolution", 28, "--num_feature_views", 2, "--render_resolution", 32)
    metrics = ("--metrics", "is_as", "renders", "normal_fd", "--normal_estimator", "true", "--metric_encoder")
    meshes = ("--objects", work / "objects.jsonl", "--root", work)
    output = evaluate(tmp_path / "scores", *common, *small, *metrics, work / "encoder", expected=1)
    assert "needs the true meshes: `--objects` and `--root`" in output
    evaluate(tmp_path / "scores", *common, *small, *metrics, work / "encoder", *meshes)
    scores = json.loads((tmp_path / "scores" / "summary.json").read_text())["scores"]["generation"]
    assert 0 < scores["is_as"]["mean"] <= 1 and 0 < scores["psnr"]["mean"] < 100 and -1 <= scores["ssim"]["mean"] <= 1
    assert scores["normal_fd"]["mean"] > 0 and scores["normal_fd"]["n"] == 4 and "interval" not in scores["normal_fd"]


@pytest.mark.parametrize("sharp", [{"dual_cross_attention": True}, {"sharp_flag": True, "point_channels": 7}])
def test_vaes_that_take_sharp_points_are_reconstructed(work, checkpoints, sharp, tmp_path):
    vae = VecSetVAE.from_config(VecSetVAE.load_config(work / "vae") | sharp)
    pipeline = ViLearnImageTo3DPipeline.from_pretrained(checkpoints[0], vae=vae)
    pipeline.save_pretrained(tmp_path / "sharp")
    more = ("--methods", "reconstruction", "--max_views", 4, "--sheet_rows", 0)
    evaluate(tmp_path / "scores", *arguments(work, tmp_path / "scores", tmp_path / "sharp"), *more)
    assert len(read_scores(tmp_path / "scores" / "reconstruction.jsonl")) == 4


def test_the_visible_fraction_belongs_to_the_scores(work, checkpoints, tmp_path):
    common = ("--methods", "generation", "--max_views", 3, "--sheet_rows", 0, "--metrics", "detail")
    scores = {}
    for name, fraction in (("few", 0.1), ("many", 0.9)):
        command = (*arguments(work, tmp_path, f"{name}={checkpoints[0]}"), *common)
        evaluate(tmp_path, *command, "--visible_fraction", fraction)
        scores[name] = read_scores(tmp_path / f"{name}.generation.jsonl")
    assert all({"area_behind", "roughness_behind"} <= row.keys() for row in scores["few"].values())
    assert scores["few"] != scores["many"]
    output = evaluate(tmp_path, *command, expected=1)
    assert "made with other settings, which differ in visible_fraction" in output


@pytest.mark.parametrize("table, column", [("shapes", "surface"), ("views", "visible_points"), ("views", "image")])
def test_data_are_told_from_others_of_the_same_objects_and_cameras(work, tmp_path, table, column):
    def digest(folder: Path) -> str:
        return EvaluationViews(str(folder), "train", frame="view", bounds=1.0).digest

    def change(row):
        value = row[column]
        return {column: ImageOps.flip(value) if column == "image" else value[::-1]}

    shutil.copytree(work / "data", tmp_path / "data")
    assert digest(tmp_path / "data") == digest(work / "data")
    (shard,) = (tmp_path / "data" / table).glob("train-*.parquet")
    datasets.Dataset.from_parquet(str(shard)).map(change).to_parquet(shard)
    assert digest(tmp_path / "data") != digest(work / "data")


def test_data_prepared_anew_or_another_frame_does_not_go_on_with_the_scores(work, checkpoints, tmp_path):
    data = shutil.copytree(work / "data", tmp_path / "data")
    common = ("--methods", "reconstruction", "--max_views", 1, "--sheet_rows", 0, "--dataset_name", data)
    evaluate(tmp_path / "scores", *arguments(work, tmp_path / "scores", checkpoints[0]), *common)
    # The same data elsewhere are the same data.
    moved = (*common[:-1], data.rename(tmp_path / "moved"))
    evaluate(tmp_path / "scores", *arguments(work, tmp_path / "scores", checkpoints[0]), *moved)
    vae = VecSetVAE.from_config(VecSetVAE.load_config(work / "vae") | {"frame": "canonical"})
    ViLearnImageTo3DPipeline.from_pretrained(checkpoints[0], vae=vae).save_pretrained(tmp_path / "canonical")
    output = evaluate(
        tmp_path / "scores", *arguments(work, tmp_path / "scores", f"c={tmp_path / 'canonical'}"), *moved, expected=1
    )
    assert "`frame` is 'canonical' for c.reconstruction and 'view' for reconstruction" in output
    both = (f"c={tmp_path / 'canonical'}", f"v={checkpoints[0]}")
    output = evaluate(tmp_path / "both", *arguments(work, tmp_path / "both", *both), *moved, expected=1)
    assert "the `frame` of their VAEs is 'canonical' for c, 'view' for v" in output
    assert not list((tmp_path / "both").glob("*.jsonl")), "nothing is made"
    (views,) = (tmp_path / "moved" / "views").glob("train-*.parquet")
    table = datasets.Dataset.from_parquet(str(views))
    datasets.concatenate_datasets([table, table.select([0])]).to_parquet(views)
    output = evaluate(tmp_path / "scores", *arguments(work, tmp_path / "scores", checkpoints[0]), *moved, expected=1)
    assert "made with other settings, which differ in dataset." in output


def test_checkpoints_of_one_name_are_refused(work, checkpoints, tmp_path):
    same = (f"a={checkpoints[0]}", f"a={checkpoints[1]}")
    output = evaluate(tmp_path / "scores", *arguments(work, tmp_path / "scores", *same), expected=1)
    assert "has two named 'a'" in output
