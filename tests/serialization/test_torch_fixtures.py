"""Stored files of PyTorch load bit for bit, with sharing, where PyTorch itself isn't installed."""
from __future__ import annotations

import json
import pathlib
import zipfile

import numpy as np
import pytest
from _ckpt import load_any

ARCHIVE = zipfile.ZipFile(pathlib.Path(__file__).with_name("torch_files.zip"))
EXPECTED = json.loads(ARCHIVE.read("expected.json"))["files"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_stored_file(name):
    got = load_any(ARCHIVE.read(name))
    assert list(got) == [str(i) for i in range(len(EXPECTED[name]))]
    for array, (dtype, shape, data) in zip(got.values(), EXPECTED[name]):
        assert array.dtype.name == dtype and list(array.shape) == shape and array.tobytes().hex() == data
    if name.startswith("views"):
        assert all(np.shares_memory(got["0"], got[str(i)]) for i in range(1, 6))


def test_there_are_enough_files():
    assert len(EXPECTED) >= 40
