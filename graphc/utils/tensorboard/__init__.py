"""``torch.utils.tensorboard``: event files that TensorBoard shows, written without TensorBoard installed.

Graphs, embeddings, meshes, videos and precision-recall curves are not written: those methods say so.
"""
from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..._absent import absent_function
from ...tensor import Tensor, to_numpy
from . import _events

__all__ = ["SummaryWriter"]


def _array(x: Any) -> np.ndarray:
    """Anything with numbers as an array (evaluates tensors)."""
    if isinstance(x, Tensor):
        a = to_numpy(x.detach())
        return a.astype(np.float32) if a.dtype.kind == "V" or a.dtype.name == "bfloat16" else a
    return np.asarray(x)


def _number(x: Any) -> float:
    a = _array(x)
    if a.size != 1:
        raise AssertionError(f"scalar should be 0D, got {a.size} elements")
    return float(a.reshape(()))


def _pixels(img: Any, dataformats: str) -> np.ndarray:
    """An image as uint8 (H, W, C): numbers of other dtypes are in 0..1."""
    a = _array(img)
    letters = dataformats.upper()
    if sorted(letters) not in (["C", "H", "W"], ["H", "W"]) or a.ndim != len(letters):
        raise AssertionError(f"size of input tensor and input format are different. tensor shape: {a.shape}, input_format: "
                             f"{letters}")
    if len(letters) == 2:
        a, letters = a[..., None], letters + "C"
    a = a.transpose([letters.index(k) for k in "HWC"])
    if a.dtype != np.uint8:
        a = np.clip(a.astype(np.float64) * 255, 0, 255).astype(np.uint8)
    return np.repeat(a, 3, 2) if a.shape[2] == 1 else a


def _grid(batch: np.ndarray) -> np.ndarray:
    """(N, H, W, C) side by side in a nearly square grid."""
    n, h, w, c = batch.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    out = np.zeros((rows * columns, h, w, c), batch.dtype)
    out[:n] = batch
    return out.reshape(rows, columns, h, w, c).transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, c)


class SummaryWriter:
    """Writes scalars, histograms, images, text, audio and hyperparameters below ``log_dir`` (default: ``runs/`` with the time
    and the host's name). A context manager; safe to use from several threads."""

    def __init__(self, log_dir: Any = None, comment: str = "", purge_step: int | None = None, max_queue: int = 10,
                 flush_secs: float = 120, filename_suffix: str = ""):
        if not log_dir:
            stamp = time.strftime("%b%d_%H-%M-%S")
            log_dir = os.path.join("runs", f"{stamp}_{socket.gethostname()}{comment}")
        self.log_dir = os.fspath(log_dir)
        self._suffix, self._every, self._queue = filename_suffix, flush_secs, max(1, max_queue)
        self._lock = threading.Lock()
        self._files: dict[str, Any] = {}
        self._waiting: dict[str, list[bytes]] = {}
        self._flushed = time.monotonic()
        self._made = 0
        self._open(self.log_dir)

    def _open(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        self._made += 1
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{self._made}{self._suffix}"
        self._files[folder] = open(os.path.join(folder, name), "ab")  # noqa: SIM115  (closed by close())
        self._waiting[folder] = [_events.frame(_events.event(time.time(), version="brain.Event:2"))]

    def _add(self, summary: bytes, step: int | None, walltime: float | None, folder: str = "") -> None:
        folder = folder or self.log_dir
        record = _events.frame(_events.event(time.time() if walltime is None else walltime,
                                             None if step is None else int(_number(step)), summary=summary))
        with self._lock:
            if folder not in self._files:
                self._open(folder)
            self._waiting[folder].append(record)
            full = len(self._waiting[folder]) > self._queue or time.monotonic() - self._flushed > self._every
        if full:
            self.flush()

    def get_logdir(self) -> str:
        """The folder the files are in."""
        return self.log_dir

    def add_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None, walltime: float | None = None,
                   new_style: bool = False, double_precision: bool = False) -> None:
        """One number (reading a tensor evaluates it)."""
        x = _number(scalar_value)
        summary = _events.scalar_tensor(tag, x, double_precision) if new_style or double_precision else _events.scalar(tag, x)
        self._add(summary, global_step, walltime)

    def add_scalars(self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: int | None = None,
                    walltime: float | None = None) -> None:
        """Several numbers in one chart: each in a folder of its own."""
        for tag, x in tag_scalar_dict.items():
            folder = os.path.join(self.log_dir, f"{main_tag.replace('/', '_')}_{tag}")
            self._add(_events.scalar(main_tag, _number(x)), global_step, walltime, folder)

    def add_histogram(self, tag: str, values: Any, global_step: int | None = None, bins: Any = "tensorflow",
                      walltime: float | None = None, max_bins: int | None = None) -> None:
        """How values are distributed. ``bins``: what ``numpy.histogram`` takes, or "tensorflow": widths that grow by 10 per
        cent from 1e-12. ValueError without values."""
        v = _array(values).astype(np.float64).reshape(-1)
        if not v.size:
            raise ValueError("The input has no element.")
        if isinstance(bins, str) and bins == "tensorflow":
            side = 1e-12 * 1.1 ** np.arange(774)
            bins = np.concatenate([-side[::-1], [0.0], side])
        counts, edges = np.histogram(v[np.isfinite(v)], bins=bins)
        if max_bins is not None and len(counts) > max_bins:
            step = -(-len(counts) // max_bins)
            pad = -len(counts) % step
            counts = np.concatenate([counts, np.zeros(pad, counts.dtype)]).reshape(-1, step).sum(1)
            edges = np.concatenate([edges[:-1][::step], edges[-1:]])
        used = counts.nonzero()[0]
        if used.size:  # one empty bucket on each side tells where the outer ones begin
            counts, edges = counts[used[0]:used[-1] + 1], edges[used[0]:used[-1] + 2]
        self._add(_events.histogram(tag, v, edges, np.concatenate([[0], counts])), global_step, walltime)

    def add_image(self, tag: str, img_tensor: Any, global_step: int | None = None, walltime: float | None = None,
                  dataformats: str = "CHW") -> None:
        """One picture of 1, 3 or 4 channels: uint8, or numbers in 0..1."""
        self._add(_events.image(tag, _pixels(img_tensor, dataformats)), global_step, walltime)

    def add_images(self, tag: str, img_tensor: Any, global_step: int | None = None, walltime: float | None = None,
                   dataformats: str = "NCHW") -> None:
        """A batch of pictures in a grid."""
        a, letters = _array(img_tensor), dataformats.upper()
        if a.ndim != len(letters) or "N" not in letters:
            raise AssertionError(f"size of input tensor and input format are different. tensor shape: {a.shape}, input_format: "
                                 f"{letters}")
        batch = np.moveaxis(a, letters.index("N"), 0)
        grid = _grid(np.stack([_pixels(x, letters.replace("N", "")) for x in batch]))
        self._add(_events.image(tag, grid), global_step, walltime)

    def add_figure(self, tag: str, figure: Any, global_step: int | None = None, close: bool = True,
                   walltime: float | None = None) -> None:
        """A matplotlib figure, or a list of them in a grid."""
        import matplotlib.pyplot as plt
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figures = figure if isinstance(figure, list) else [figure]
        pictures = []
        for f in figures:
            canvas = FigureCanvasAgg(f)
            canvas.draw()
            pictures.append(np.asarray(canvas.buffer_rgba())[..., :3])
            if close:
                plt.close(f)
        self._add(_events.image(tag, _grid(np.stack(pictures))), global_step, walltime)

    def add_text(self, tag: str, text_string: str, global_step: int | None = None, walltime: float | None = None) -> None:
        """Text, shown as Markdown."""
        self._add(_events.string_tensor(f"{tag}/text_summary", text_string), global_step, walltime)

    def add_audio(self, tag: str, snd_tensor: Any, global_step: int | None = None, sample_rate: int = 44100,
                  walltime: float | None = None) -> None:
        """One channel of samples in -1..1."""
        self._add(_events.audio(tag, _array(snd_tensor).astype(np.float64).reshape(-1), sample_rate), global_step, walltime)

    def add_hparams(self, hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any], hparam_domain_discrete: Any = None,
                    run_name: str | None = None, global_step: int | None = None) -> None:
        """Hyperparameters as a table of text and the metrics as scalars, in a folder ``run_name`` (default: the time)."""
        if not isinstance(hparam_dict, Mapping) or not isinstance(metric_dict, Mapping):
            raise TypeError("hparam_dict and metric_dict should be dictionary.")
        folder = os.path.join(self.log_dir, run_name or str(time.time()))
        rows = "".join(f"| {k} | {v.item() if isinstance(v, Tensor) else v} |\n" for k, v in hparam_dict.items())
        table = _events.string_tensor("hparams/text_summary", f"| name | value |\n|---|---|\n{rows}")
        self._add(table, global_step, None, folder)
        for k, v in metric_dict.items():
            self._add(_events.scalar(k, _number(v)), global_step, None, folder)

    add_graph, add_embedding, add_pr_curve, add_mesh, add_video = [
        absent_function(f"SummaryWriter.{n}", instead) for n, instead in (
            ("add_graph", "print compile(model).explain(), or write graphc.ir.dump.to_text(graph) with add_text"),
            ("add_embedding", "write projections as a picture with add_figure"), ("add_pr_curve", "use add_figure"),
            ("add_mesh", "use add_figure"), ("add_video", "use add_images"))]

    def flush(self) -> None:
        """Write what is waiting."""
        with self._lock:
            for folder, records in self._waiting.items():
                if records and not self._files[folder].closed:
                    self._files[folder].write(b"".join(records))
                    self._files[folder].flush()
                    records.clear()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is waiting and close the files; adding more opens new ones."""
        self.flush()
        with self._lock:
            for f in self._files.values():
                f.close()
            self._files.clear()
            self._waiting.clear()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
