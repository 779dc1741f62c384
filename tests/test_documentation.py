# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What the pages say can be typed: the options of documented commands exist, and links lead somewhere."""

import contextlib
import functools
import io
import re
import runpy
import shlex
import sys
from pathlib import Path
from unittest import mock

import pytest
from typer.testing import CliRunner

from diffusers_vilearn.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "checkpoints/vilearn-tiny/README.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("training/**/*.md")),
]
SUBCOMMANDS = ("convert", "generate", "latents", "prepare", "publish", "scan", "shapes", "vae", "card", "weights")


def commands(page: Path) -> list[list[str]]:
    """Of the commands in the shell blocks of a page, the words from our script, or our program, on."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    found = []
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        starts = [i for i, word in enumerate(words) if re.fullmatch(r"diffusers-vilearn|[\w/]+\.py", word)]
        found += [words[starts[0] :]] if starts else []
    return found


@functools.cache
def help_text(*words: str) -> str:
    """What a command prints with `--help`."""
    if words[0] == "diffusers-vilearn":
        return CliRunner().invoke(app, [*words[1:], "--help"], env={"COLUMNS": "250"}).output
    output, script = io.StringIO(), ROOT / words[0]
    with (
        contextlib.redirect_stdout(output),
        mock.patch.object(sys, "argv", [str(script), *words[1:], "--help"]),
        mock.patch.object(sys, "path", [str(script.parent), *sys.path]),
        pytest.raises(SystemExit),
    ):
        runpy.run_path(str(script), run_name="__main__")
    return output.getvalue()


def unknown_options(words: list[str]) -> list[str]:
    # What comes after a bare `--` is passed on.
    words = words[: words.index("--")] if "--" in words else words
    options = [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]
    subcommands = [word for word in words[1:3] if word in SUBCOMMANDS]
    text = help_text(words[0], *subcommands)
    return [option for option in options if not re.search(rf"(?<!\S){option}(?![\w-])", text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_of_documented_commands_exist(page):
    assert not {" ".join(words): unknown for words in commands(page) if (unknown := unknown_options(words))}


def test_an_option_with_the_wrong_dash_is_noticed():
    assert unknown_options(["diffusers-vilearn", "publish", "--self_contained"]) == ["--self_contained"]
    assert unknown_options(["training/train_vilearn.py", "--train-batch-size", "--max_train_steps"]) == [
        "--train-batch-size"
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]
