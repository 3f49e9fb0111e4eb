"""Event files, read back by a decoder of the formats written for these tests: frames, checksums, fields, pictures."""
from __future__ import annotations

import io
import struct
import threading
import wave
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.utils.tensorboard import SummaryWriter
from graphc.utils.tensorboard._events import masked_crc


def fields(data: bytes) -> dict[int, list[Any]]:
    """A protocol buffer as field -> values: ints, 8 or 4 raw bytes, or bytes."""
    out: dict[int, list[Any]] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        n = shift = 0
        while True:
            b = data[at]
            at += 1
            n |= (b & 127) << shift
            shift += 7
            if b < 128:
                return n

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            v: Any = varint()
        else:
            size = {1: 8, 5: 4}.get(kind) or varint()
            v, at = data[at:at + size], at + size
        out.setdefault(key >> 3, []).append(v)
    return out


def read(folder: Path) -> list[dict[int, list[Any]]]:
    """The events of a folder's files, checksums verified."""
    events = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            (n,) = struct.unpack("<Q", data[:8])
            assert struct.unpack("<I", data[8:12])[0] == masked_crc(data[:8])
            message, data = data[12:12 + n], data[12 + n:]
            assert len(message) == n and struct.unpack("<I", data[:4])[0] == masked_crc(message)
            events.append(fields(message))
            data = data[4:]
    return events


def values(folder: Path) -> list[tuple[str, int, dict[int, list[Any]]]]:
    """(tag, step, fields of the value) of every summary."""
    out = []
    for e in read(folder):
        for summary in e.get(5, []):
            for v in fields(summary)[1]:
                f = fields(v)
                out.append((f[1][0].decode(), e.get(2, [0])[0], f))
    return out


def pixels(png: bytes) -> np.ndarray:
    """The bytes of a PNG whose rows have no filter, as (H, W, C)."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, size = 8, b"", (0, 0, 0)
    while at < len(png):
        n, kind = struct.unpack(">I4s", png[at:at + 8])
        body = png[at + 8:at + 8 + n]
        assert struct.unpack(">I", png[at + 8 + n:at + 12 + n])[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            w, h, depth, colour = struct.unpack(">IIBB", body[:10])
            assert depth == 8
            size = (h, w, {0: 1, 4: 2, 2: 3, 6: 4}[colour])
        data += body if kind == b"IDAT" else b""
        at += 12 + n
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(size[0], -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(size)


def test_the_checksum() -> None:
    """CRC-32C of the nine digits is 0xE3069283 (RFC 3720, appendix B.4 gives the polynomial's other vectors)."""
    rotated = (masked_crc(b"123456789") - 0xA282EAD8) & 0xFFFFFFFF
    assert ((rotated << 15) | (rotated >> 17)) & 0xFFFFFFFF == 0xE3069283


def test_scalars(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path, max_queue=2) as w:
        assert w.get_logdir() == str(tmp_path)
        for step in range(5):
            w.add_scalar("loss", graphc.tensor(1.5) / (step + 1), step, walltime=100.0 + step)
        w.add_scalar("lr", 0.1)
        w.add_scalar("wide", 1 / 3, 2**40, double_precision=True)
        w.add_scalar("new", 2.5, -1, new_style=True)
        with pytest.raises(AssertionError):
            w.add_scalar("many", graphc.ones(2))
    events = read(tmp_path)
    assert events[0][3] == [b"brain.Event:2"]
    assert [struct.unpack("<d", e[1][0])[0] for e in events[1:6]] == [100.0, 101.0, 102.0, 103.0, 104.0]
    found = values(tmp_path)
    assert [(t, s) for t, s, _ in found] == [("loss", k) for k in range(5)] + [("lr", 0), ("wide", 2**40), ("new", 2**64 - 1)]
    np.testing.assert_allclose([struct.unpack("<f", f[2][0])[0] for t, _, f in found[:5]], 1.5 / np.arange(1, 6), rtol=1e-6)
    tensor = fields(found[6][2][8][0])
    assert tensor[1] == [2] and struct.unpack("<d", tensor[6][0])[0] == 1 / 3
    assert fields(fields(found[6][2][9][0])[1][0])[1] == [b"scalars"]
    assert struct.unpack("<f", fields(found[7][2][8][0])[5][0])[0] == 2.5


def test_several_curves_in_one_chart(tmp_path: Path) -> None:
    w = SummaryWriter(tmp_path)
    w.add_scalars("run/a", {"train": 1.0, "test": 2.0}, 3)
    w.close()
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"run_a_train", "run_a_test"}
    ((tag, step, f),) = values(tmp_path / "run_a_test")
    assert (tag, step, struct.unpack("<f", f[2][0])[0]) == ("run/a", 3, 2.0)
    w.add_scalar("later", 1.0)  # a new file
    w.close()
    assert [t for t, _, _ in values(tmp_path)] == ["later"]


@pytest.mark.parametrize("bins", ["tensorflow", "auto", 7])
def test_histograms(tmp_path: Path, bins: Any) -> None:
    graphc.manual_seed(1)
    x = graphc.randn(1000, dtype=graphc.float64)
    with SummaryWriter(tmp_path) as w:
        w.add_histogram("h", x, 1, bins=bins)
        w.add_histogram("few", x, 1, bins=500, max_bins=10)
        with pytest.raises(ValueError):
            w.add_histogram("none", graphc.zeros(0))
    (_, _, f), (_, _, few) = values(tmp_path)
    h = fields(f[5][0])
    low, high, count, total, squares = [struct.unpack("<d", h[k][0])[0] for k in range(1, 6)]
    a = x.numpy()
    np.testing.assert_allclose([low, high, count, total, squares], [a.min(), a.max(), 1000, a.sum(), a @ a])
    limits, counts = np.frombuffer(h[6][0]), np.frombuffer(h[7][0])
    assert len(limits) == len(counts) and counts[0] == 0 and counts.sum() == 1000 and (np.diff(limits) > 0).all()
    for k in range(1, len(counts)):
        last = k == len(counts) - 1
        assert counts[k] == ((a >= limits[k - 1]) & ((a <= limits[k]) if last else (a < limits[k]))).sum()
    assert np.frombuffer(fields(few[5][0])[7][0]).sum() == 1000 and len(np.frombuffer(fields(few[5][0])[7][0])) <= 11


def test_pictures(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    rgb, grey = r.integers(0, 256, (3, 5, 4), np.uint8), r.random((5, 4)).astype(np.float32)
    with SummaryWriter(tmp_path) as w:
        w.add_image("rgb", graphc.tensor(rgb), 1)
        w.add_image("grey", graphc.tensor(grey), 2, dataformats="HW")
        w.add_image("last", rgb.transpose(1, 2, 0), 3, dataformats="HWC")
        w.add_images("batch", np.stack([rgb, 255 - rgb, rgb]), 4)
        with pytest.raises(AssertionError):
            w.add_image("flat", grey)
    found = {t: fields(f[4][0]) for t, _, f in values(tmp_path)}
    assert [found["rgb"][k][0] for k in (1, 2, 3)] == [5, 4, 3]
    np.testing.assert_array_equal(pixels(found["rgb"][4][0]), rgb.transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels(found["last"][4][0]), rgb.transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels(found["grey"][4][0]), np.repeat((grey * 255).astype(np.uint8)[..., None], 3, 2))
    grid = pixels(found["batch"][4][0])
    assert grid.shape == (10, 8, 3) and (grid[:5, 4:] == 255 - rgb.transpose(1, 2, 0)).all() and not grid[5:, 4:].any()


def test_figures(tmp_path: Path) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    figure = plt.figure(figsize=(2, 1), dpi=50)
    figure.gca().plot([1, 2, 3])
    with SummaryWriter(tmp_path) as w:
        w.add_figure("curve", figure, 1)
    ((_, _, f),) = values(tmp_path)
    assert pixels(fields(f[4][0])[4][0]).shape == (50, 100, 3) and not plt.fignum_exists(figure.number)


def test_text_audio_and_hyperparameters(tmp_path: Path) -> None:
    wave_form = np.sin(np.arange(800) / 5)
    with SummaryWriter(tmp_path) as w:
        w.add_text("note", "*ä*", 7)
        w.add_audio("tone", graphc.tensor(wave_form).unsqueeze(0), 8, sample_rate=8000)
        w.add_hparams({"lr": 0.1, "depth": graphc.tensor(3)}, {"acc": 0.5}, run_name="first")
        with pytest.raises(TypeError):
            w.add_hparams([1], {})  # type: ignore[arg-type]
        with pytest.raises(NotImplementedError, match="explain"):
            w.add_graph(None)
    (_, _, note), (_, _, tone) = values(tmp_path)
    assert note[1] == [b"note/text_summary"] and fields(note[8][0])[8] == ["*ä*".encode()] and fields(note[8][0])[1] == [7]
    assert fields(fields(note[9][0])[1][0])[1] == [b"text"]
    with wave.open(io.BytesIO(fields(tone[6][0])[4][0])) as f:
        assert (f.getframerate(), f.getnchannels(), f.getnframes()) == (8000, 1, 800)
        heard = np.frombuffer(f.readframes(800), "<i2") / 32767
    np.testing.assert_allclose(heard, wave_form, atol=1e-4)
    (_, _, table), (tag, _, metric) = values(tmp_path / "first")
    assert b"| depth | 3 |" in fields(table[8][0])[8][0] and tag == "acc" and struct.unpack("<f", metric[2][0])[0] == 0.5


def test_many_threads_and_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    w = SummaryWriter(comment="_x", max_queue=3, filename_suffix=".me")

    def work(k: int) -> None:
        for step in range(50):
            w.add_scalar(f"t{k}", step, step)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    w.close()
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("_x") and next(folder.iterdir()).name.endswith(".me")
    found = values(folder)
    assert all([s for t, s, _ in found if t == f"t{k}"] == list(range(50)) for k in range(4))
