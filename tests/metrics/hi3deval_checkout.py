# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A folder with the command line, the input and the output of Hi3DEval's scorer."""

from pathlib import Path

# Scores a turntable by the number in its prompt's name, and plausibility 10 higher than details.
SCORER = """
import json, os, sys

config, *words = sys.argv[1:]
assert os.path.isfile(config), config
settings = dict(zip(words[::2], words[1::2]))
assert settings["test_file.anno_path"] == settings["available_corpus.infer.anno_path"]
assert settings["num_frames"] == settings["num_frames_test"] == "16"
assert os.path.isfile(settings["model.qformer.ckpt"]) and settings["model.qformer.ckpt"] == settings["ckpt_path"]
plausibility = "Geo_plausibility" in settings["ckpt_path"]
answers = {}
for row in json.load(open(settings["test_file.anno_path"])):
    (video,) = row["video"]
    assert os.path.isfile(video) and os.path.isfile(row["prompt"]) and len(row["score"]) == 5
    answers[video] = [[float(os.path.basename(row["prompt"])[:-4]) + 10 * plausibility], [-1.0]]
with open(os.path.join(settings["output_dir"], "prediction_and_score_align.json"), "w") as file:
    json.dump(answers, file)
"""


def make_checkout(folder: Path, scorer: str = SCORER) -> Path:
    for head in ("Geo_plausibility", "Geo_detail"):
        (folder / "obj_scoring" / "trained" / head).mkdir(parents=True)
        (folder / "obj_scoring" / "trained" / head / "mp_rank_00_model_states.pt").touch()
    (folder / "obj_scoring" / "infer").mkdir()
    (folder / "obj_scoring" / "infer" / "inference.py").write_text(scorer)
    (folder / "obj_scoring" / "infer" / "config.py").touch()
    return folder
