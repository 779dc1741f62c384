# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Datasets that somebody made to hurt: read as data, never run, and with an error where they are broken."""

import struct
import zlib

import datasets
import pytest
from PIL import Image

from diffusers_vilearn.data.loading import load_table

VIEWS = datasets.Features({"uid": datasets.Value("string"), "image": datasets.Image()})


def png_of(side: int) -> bytes:
    """A PNG of a hundred bytes that claims `side` x `side` pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_an_image_that_claims_to_be_huge(tmp_path):
    rows = {"uid": ["a"], "image": [{"bytes": png_of(60_000), "path": None}]}
    (tmp_path / "data" / "views").mkdir(parents=True)
    path = tmp_path / "data" / "views" / "train-00000.parquet"
    datasets.Dataset.from_dict(rows, features=VIEWS).to_parquet(path)
    table = load_table(str(tmp_path / "data"), "views", "train")
    with pytest.raises(Image.DecompressionBombError, match="3600000000 pixels"):
        table[0]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(1000) + b"\xff\xff\xff\x7fPAR1"])
def test_a_table_that_is_no_parquet(tmp_path, content):
    (tmp_path / "data" / "shapes").mkdir(parents=True)
    (tmp_path / "data" / "shapes" / "train-00000.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"Not readable as Parquet: .*train-00000.parquet"):
        load_table(str(tmp_path / "data"), "shapes", "train")


def test_code_beside_the_tables_is_not_run(tmp_path):
    folder = tmp_path / "data"
    (folder / "shapes").mkdir(parents=True)
    datasets.Dataset.from_dict({"uid": ["a"]}).to_parquet(folder / "shapes" / "train-00000.parquet")
    (folder / "data.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    assert load_table(str(folder), "shapes", "train")["uid"][0] == "a"
    assert not (tmp_path / "run").exists()
