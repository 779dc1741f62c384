# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A folder of good and bad meshes -> tables; the same bytes whatever the engine, the workers and the interruptions."""

import importlib.util
import io
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import psutil
import pytest
import trimesh
from signals import signal_at
from typer.testing import CliRunner

from diffusers_vilearn.cli import app
from diffusers_vilearn.data.command import main as prepare
from diffusers_vilearn.data.engines import run_local, run_ray
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.data.preparation import ObjectPreparation, PreparationOptions
from diffusers_vilearn.data.quality import QualityLimits
from diffusers_vilearn.data.records import ObjectRecords
from diffusers_vilearn.data.scanning import find_meshes, scan_meshes
from diffusers_vilearn.data.shapes import build_shapes
from diffusers_vilearn.data.workers import WorkerLimits
from diffusers_vilearn.geometry.mesh import MeshError, load_mesh
from diffusers_vilearn.hub import write_dataset_card

SCRIPT = Path(__file__).parents[2] / "training" / "prepare_dataset.py"
LIMITS = WorkerLimits(seconds=60, memory_gib=4)
OPTIONS = PreparationOptions(
    num_surface=256, num_sharp=64, num_near=128, num_volume=128, solid_resolution=36, num_views=2, image_size=24
)
SCAN = dict(source="test", licence="CC0-1.0", creator="nobody", heldout_fraction=0.3)


def run(function, tasks, num_workers=2):
    return run_local(function, tasks, limits=LIMITS, num_workers=num_workers)


@pytest.fixture(scope="module")
def meshes(tmp_path_factory) -> Path:
    """Nine good meshes, one of them in a zip and two twins of another, and eleven bad ones."""
    folder = tmp_path_factory.mktemp("meshes")
    box = trimesh.creation.box((1, 2, 0.5))
    box.export(folder / "box.ply")
    turned = box.copy()
    turned.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (0, 1, 0)))
    turned.export(folder / "box turned.stl")
    (folder / "round").mkdir()
    for name, mesh in {"ball": trimesh.creation.icosphere(), "ring": trimesh.creation.torus(1, 0.3)}.items():
        mesh.export(folder / "round" / f"{name}.glb")
    tiny, huge = trimesh.creation.cone(1, 2), trimesh.creation.capsule()
    tiny.vertices, huge.vertices = tiny.vertices * 1e-30, huge.vertices * 1e30
    tiny.export(folder / "tiny.obj", digits=40)
    huge.export(folder / "huge.off", digits=6)
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        archive.writestr("inner/cylinder.off", trimesh.creation.cylinder(0.4, 1).export(file_type="off"))
        archive.writestr("readme.txt", "not a mesh")

    (folder / "link.ply").symlink_to(folder / "box.ply")
    # A material library outside of the folder is not read, and a texture that is not there is done without.
    (folder / "bare.mtl").write_text("newmtl skin\nmap_Kd lost.png\n")
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nvt 1 0\nvt 0 1\n"
    faces = "usemtl skin\nf 1/1 3/3 2/2\nf 1/1 2/2 4/3\nf 1/1 4/2 3/3\nf 2/1 3/2 4/3\n"
    (folder / "bare.obj").write_text(f"mtllib ../../../../etc/passwd\nmtllib bare.mtl\n{corners}{faces}")

    (folder / "empty.obj").write_bytes(b"")
    (folder / "dangling.ply").symlink_to(folder / "nowhere.ply")
    (folder / "truncated.glb").write_bytes((folder / "round" / "ball.glb").read_bytes()[:500])
    (folder / "broken.zip").write_bytes(b"PK\x03\x04 no more")
    (folder / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\n")
    (folder / "point.obj").write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n")
    (folder / "triangle.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (folder / "notes.obj").write_text("this is no mesh")
    trimesh.creation.box((1, 0.01, 1)).export(folder / "sheet.ply")
    (folder / "bomb.zip").write_bytes(_bomb())
    with open(os.fsencode(folder) + b"/odd\xff.obj", "w") as file:
        file.write("v nan 0 0\n")
    return folder


def _bomb() -> bytes:
    """An archive of one member that claims to unpack to 8 GiB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("bomb.obj", "v 0 0 0")
    content = bytearray(file.getvalue())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (2**32 - 2).to_bytes(4, "little")
    return bytes(content)


@pytest.fixture(scope="module")
def objects(meshes, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "objects.jsonl"
    counts, unreadable = scan_meshes(meshes, path, run, **SCAN)
    assert counts["objects"] == 20 and counts["groups"] == 18 and counts["unreadable"] == len(unreadable) == 9
    assert counts["train"] + counts["heldout"] == 11 and list(path.parent.iterdir()) == [path]
    assert ("test/broken.zip", "unreadable") in [(reject.uid, reject.reason) for reject in unreadable]
    return path


def build(objects: Path, meshes: Path, output: Path, run=run, options=OPTIONS):
    preparation = ObjectPreparation(meshes, options, QualityLimits())
    return build_shapes(ObjectRecords(objects), output, preparation, run, objects_per_shard=4)


def content(folder: Path) -> dict[str, bytes]:
    """Of all files but the one that is locked."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def dataset(objects, meshes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    build(objects, meshes, folder, partial(run, num_workers=1))
    return folder


def test_a_scan_finds_twins_and_keeps_them_on_one_side(objects):
    records = {record["uid"]: record for record in ObjectRecords(objects)}
    assert records["test/box.ply"]["group"] == records["test/box turned.stl"]["group"]
    assert records["test/box.ply"]["split"] == records["test/box turned.stl"]["split"]
    assert records["test/packed.zip/inner/cylinder.off"]["member"] == "inner/cylinder.off"
    assert records["test/round/ball.glb"]["category"] == "round" and records["test/round/ball.glb"]["name"] == "ball"


def test_objects_that_are_there_already_are_not_taken_from_another_source(objects, meshes, dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    (line,) = [line for line in objects.read_text().splitlines() if '"path": "box.ply"' in line]
    (tmp_path / "list").write_text(json.dumps(json.loads(line) | {"source": "other"}))
    with pytest.raises(
        ValueError, match=r"1 objects have a uid that .*parquet, of another .* has already, such as 'test/box.ply'"
    ):
        build(tmp_path / "list", meshes, tmp_path / "data")
    assert content(tmp_path / "data") == content(dataset)


def test_another_list_of_the_same_objects_is_called_that(objects, meshes, dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    (tmp_path / "list").write_text("\n".join(objects.read_text().splitlines()[3:]))
    with pytest.raises(ValueError, match="was prepared from another list of objects"):
        build(tmp_path / "list", meshes, tmp_path / "data")
    preparation = ObjectPreparation(meshes, OPTIONS, QualityLimits())
    with pytest.raises(ValueError, match="was prepared with another objects_per_shard"):
        build_shapes(ObjectRecords(objects), tmp_path / "data", preparation, run, objects_per_shard=8)
    assert content(tmp_path / "data") == content(dataset)


def test_good_meshes_are_rows_and_bad_ones_are_rejects_with_reasons(dataset):
    tables = {
        name: [row for split in ("train", "heldout") for row in load_table(str(dataset), name, split)]
        for name in ("shapes", "views", "rejects")
    }
    good = {"test/box.ply", "test/box turned.stl", "test/round/ball.glb", "test/round/ring.glb", "test/tiny.obj"}
    good |= {"test/huge.off", "test/packed.zip/inner/cylinder.off", "test/link.ply", "test/bare.obj"}
    assert {row["uid"] for row in tables["shapes"]} == good and len(tables["views"]) == 2 * len(good)
    assert {row["uid"]: row["reason"] for row in tables["rejects"]} == {
        "test/empty.obj": "empty",
        "test/notes.obj": "empty",
        "test/truncated.glb": "unreadable",
        "test/broken.zip": "unreadable",
        "test/nan.obj": "not_finite",
        "test/point.obj": "degenerate",
        "test/triangle.obj": "flat",
        "test/sheet.ply": "flat",
        "test/bomb.zip/bomb.obj": "too_large",
        "test/odd\\udcff.obj": "empty",
        "test/dangling.ply": "unreadable",
    }
    assert all(row["message"] for row in tables["rejects"])


def test_workers_and_interruptions_change_no_byte(objects, meshes, dataset, tmp_path):
    def interrupted(function, tasks):
        for count, finished in enumerate(run(function, tasks)):
            if count == 3:
                raise KeyboardInterrupt
            yield finished

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            build(objects, meshes, tmp_path, interrupted)
    counts = build(objects, meshes, tmp_path)
    assert content(tmp_path) == content(dataset)
    assert counts["accepted"] == 9 and sum(counts.values()) == 20


def command(objects: Path, meshes: Path, output: Path) -> list[str]:
    options = [f"--{name}={value}" for name, value in vars(OPTIONS).items() if np.isscalar(value)]
    paths = [f"--objects={objects}", f"--root={meshes}", f"--output_dir={output}", "--objects_per_shard=4"]
    return [sys.executable, str(SCRIPT), "shapes", *paths, "--num_workers=2", *options]


def test_a_killed_run_loses_nothing_and_leaves_no_worker_behind(objects, meshes, dataset, tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(2):
        run = subprocess.Popen(command(objects, meshes, tmp_path), start_new_session=True, stderr=subprocess.DEVNULL)
        # Some files after the first one, so that it dies at work.
        done = len(list(tmp_path.rglob("*.parquet")))
        while len(list(tmp_path.rglob("*.parquet"))) <= done and run.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        run.kill()
        run.wait()
        deadline = time.monotonic() + 60
        while workers_of(run.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not workers_of(run.pid)
    subprocess.run(command(objects, meshes, tmp_path), check=True)
    assert content(tmp_path) == content(dataset)


def build_kept(objects: Path, meshes: Path, output: Path, answers: dict, moment: int | None = None) -> None:
    """Build a dataset of answers made before; killed at the `moment`-th time that it turns to a file."""
    if moment is not None:
        signal_at(signal.SIGKILL, "", moment)
    build(objects, meshes, output, lambda function, tasks: ((task, answers[task.record["uid"]]) for task in tasks))


def test_a_run_killed_at_any_of_its_files_loses_nothing_and_leaves_nothing(objects, meshes, tmp_path):
    lines = [line for line in objects.read_text().splitlines() if '"box.ply"' in line or '"point.obj"' in line]
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps(json.loads(line) | {"split": "train"}) + "\n" for line in lines))
    preparation = ObjectPreparation(meshes, OPTIONS, QualityLimits())
    answers = {record["uid"]: preparation(SimpleNamespace(record=record)) for record in ObjectRecords(few)}
    build_kept(few, meshes, tmp_path / "whole", answers)
    whole = content(tmp_path / "whole")
    assert len(whole) == 4

    context = multiprocessing.get_context("forkserver")
    for moment in itertools.count(1):
        folder = tmp_path / str(moment)
        run = context.Process(target=build_kept, args=(few, meshes, folder, answers, moment))
        run.start()
        run.join()
        build_kept(few, meshes, folder, answers)
        assert content(folder) == whole, f"killed at its {moment}th file"
        if run.exitcode == 0:
            break
        assert run.exitcode == -signal.SIGKILL
    assert moment > 50


def workers_of(leader: int) -> list[psutil.Process]:
    """Living processes of the session that `leader` began; the dead that nobody has reaped yet do not count."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) == leader and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        except ProcessLookupError:
            continue
    return found


def test_a_full_disk_ends_the_run_with_one_line_and_the_next_run_goes_on(objects, meshes, dataset, tmp_path):
    def full_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    run = subprocess.run(
        command(objects, meshes, tmp_path), preexec_fn=full_disk, stderr=subprocess.PIPE, text=True, check=False
    )
    assert run.returncode == 1 and "Error: [Errno 27] File too large" in run.stderr and "Traceback" not in run.stderr
    subprocess.run(command(objects, meshes, tmp_path), check=True)
    assert content(tmp_path) == content(dataset)


def test_ray_makes_the_same_dataset(objects, meshes, dataset, tmp_path):
    import ray

    try:
        build(objects, meshes, tmp_path, partial(run_ray, limits=LIMITS, address="local"))
    finally:
        ray.shutdown()
    assert content(tmp_path) == content(dataset)


def test_a_finished_dataset_is_left_alone_and_another_recipe_refused(objects, meshes, dataset):
    def no_run(function, tasks):
        assert not list(tasks), "nothing is missing"
        return iter(())

    before = content(dataset)
    assert build(objects, meshes, dataset, no_run)["accepted"] == 9
    with pytest.raises(ValueError, match="another num_views"):
        build(objects, meshes, dataset, no_run, replace(OPTIONS, num_views=5))
    shorter = objects.with_name("shorter.jsonl")
    shorter.write_text("".join(line + "\n" for line in objects.read_text().splitlines()[:-2]))
    with pytest.raises(ValueError, match="another list of objects"):
        build(shorter, meshes, dataset, no_run)
    assert content(dataset) == before


def test_a_write_that_fails_loses_nothing(objects, meshes, dataset, tmp_path):
    (tmp_path / "views").write_text("a file where a folder should be")
    with pytest.raises(OSError):
        build(objects, meshes, tmp_path)
    assert not (tmp_path / "shapes").exists(), "no shard counts as finished"
    (tmp_path / "views").unlink()
    build(objects, meshes, tmp_path)
    assert content(tmp_path) == content(dataset)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"uid": "a"'], "line 1 is no JSON"),
        (['{"uid": "a", "path": "a.obj"}'], "line 1 lacks split, source"),
        ([{"uid": "a"}, {"uid": "b"}, {"uid": "a"}], "the uid 'a' twice"),
        ([{"uid": "a", "source": "../up"}], "source '../up'"),
        (["17"], "line 1 must be an object"),
        ([{"uid": "a", "split": 3}], "line 1: split must be text"),
    ],
)
def test_a_wrong_list_of_objects_names_its_line(lines, message, tmp_path):
    common = {"path": "", "split": "train", "source": "s", "licence": "", "creator": "", "name": "", "category": ""}
    text = [line if isinstance(line, str) else json.dumps(common | line) for line in lines]
    (tmp_path / "objects.jsonl").write_text("\n".join(text))
    with pytest.raises(ValueError, match=message):
        ObjectRecords(tmp_path / "objects.jsonl")


def test_what_would_be_the_fault_of_every_object_is_raised_and_leaves_nothing(objects, meshes, tmp_path):
    with pytest.raises(ValueError, match=r"the folder .*nowhere, nor any other of the first 20 objects; see `--"):
        build(objects, tmp_path / "nowhere", tmp_path / "data")
    with pytest.raises(ValueError, match="no object of tran, only heldout of test, train of test"):
        ObjectRecords(objects, splits=["tran"])
    with pytest.raises(ValueError, match="no object of tset, only"):
        ObjectRecords(objects, sources=["test", "tset"])
    with pytest.raises(ValueError, match="`objects_per_shard` is 0"):
        build_shapes(ObjectRecords(objects), tmp_path / "data", ObjectPreparation(meshes, OPTIONS, None), run, 0)
    with pytest.raises(ValueError, match="`heldout_fraction` is 10"):
        scan_meshes(meshes, tmp_path / "list", None, **SCAN | {"heldout_fraction": 10})
    with pytest.raises(ValueError, match="source 'my-source' must be letters"):
        scan_meshes(meshes, tmp_path / "list", None, **SCAN | {"source": "my-source"})
    with pytest.raises(ValueError, match=r"There is no folder .*/nowhere\.$"):
        scan_meshes(tmp_path / "nowhere", tmp_path / "list", None, **SCAN)
    with pytest.raises(ValueError, match=r"There is no folder .*/box\.ply, only a file of that name"):
        scan_meshes(meshes / "box.ply", tmp_path / "list", None, **SCAN)
    with pytest.raises(ValueError, match=r"There is no folder .*/nodir to write list to"):
        scan_meshes(meshes, tmp_path / "nodir" / "list", None, **SCAN)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("nvdiffrast") is not None, reason="nvdiffrast is installed")
def test_a_renderer_that_is_not_installed_ends_the_command(objects, meshes, tmp_path):
    words = ["--objects", objects, "--root", meshes, "--output_dir", tmp_path / "data", "--renderer", "nvdiffrast"]
    with pytest.raises(SystemExit, match=r"Error: .*nvdiffrast"):
        prepare(["shapes", *map(str, words)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"azimuth": (90, 0)}, "`azimuth` must be two finite numbers, the lower one first"),
        ({"elevation": (-10,)}, "`elevation` must be two finite numbers"),
        ({"num_views": 0}, "`num_views` is 0"),
        ({"solid_resolution": 33}, "`solid_resolution` is 33; it must be at least 34"),
        ({"orthographic_probability": 20}, r"`orthographic_probability` is 20; it must lie in \[0, 1\]"),
        ({"roll_probability": float("nan")}, "`roll_probability` is nan"),
        ({"focal_length": (0, 50)}, r"`focal_length` is \(0, 50\); it must be positive"),
        ({"azimuth": (-90, float("inf"))}, "`azimuth` must be two finite numbers"),
        ({"near_deviations": (0.1, -0.1)}, "`near_deviations` is .*; it must be positive and finite"),
        ({"margin": 0.0}, "`margin` is 0.0; it must be positive and finite"),
        ({"roll": float("inf")}, "`roll` is inf; it must be finite"),
        ({"renderer": "foo"}, "`renderer` is 'foo'; it must be one of embree, nvdiffrast"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        replace(OPTIONS, **options)


def test_odd_archives_do_not_end_a_scan(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("é.obj", "v 0 0 0")
    raw = content.getvalue()
    (tmp_path / "name.zip").write_bytes(raw.replace("é".encode(), b"\xff\xff"))
    (tmp_path / "version.zip").write_bytes(raw.replace(b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\x63"))
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for name in ("a.obj", "a.obj", "__MACOSX/._a.obj"):
            archive.writestr(name, trimesh.creation.box().export(file_type="obj"))
    assert [record["uid"] for record in find_meshes(tmp_path)] == ["name.zip", "twice.zip/a.obj", "version.zip"]
    assert len(load_mesh(tmp_path / "twice.zip").to_mesh().faces) == 12
    for name in ("name.zip", "version.zip"):
        with pytest.raises(MeshError, match="no zip archive that can be read"):
            load_mesh(tmp_path / name)


def test_the_card_names_what_is_inside_and_makes_the_tables_loadable(dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    card = write_dataset_card(tmp_path / "data").read_text()
    assert "| test | unreadable | 3 |" in card and "| test | 9 |" in card and "CC0-1.0: nobody" in card
    assert "cc0-1.0" in card and '"num_views": 2' in card and "{{" not in card and "{%" not in card
    rows = datasets.load_dataset(str(tmp_path / "data"), "views", split="train", streaming=True)
    row = next(iter(rows))
    assert row["image"].mode == "RGBA" and np.shape(row["camera_to_world"]) == (4, 4)


def test_the_command_line_prepares_a_folder(meshes, tmp_path):
    words = ["scan", "--folder", str(meshes / "round"), "--output", str(tmp_path / "objects.jsonl")]
    result = CliRunner().invoke(app, ["prepare", *words, "--heldout_fraction", "0", "--num_workers", "1"])
    assert result.exit_code == 0 and "2 objects, 2 groups, 0 unreadable, 2 train, 0 heldout" in result.stdout
    assert "scan" in CliRunner().invoke(app, ["prepare", "--help"]).stdout
