"""Writes ``torch_files.zip``: small files saved by PyTorch with what they must load as, for test runs without PyTorch.

Run ``python tests/serialization/make_fixtures.py`` where PyTorch is installed. Expected tensors are stored as
``[dtype, shape, hex of the elements in C order]``.
"""
from __future__ import annotations

import collections
import io
import json
import pathlib
import zipfile

TARGET = pathlib.Path(__file__).with_name("torch_files.zip")
DTYPES = ["float32", "float64", "float16", "bfloat16", "complex64", "complex128", "int8", "uint8", "int16", "int32", "int64",
          "bool", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"]
LAYOUTS = {"zip": {}, "zip3": {"pickle_protocol": 3}, "zip4": {"pickle_protocol": 4}, "zip5": {"pickle_protocol": 5},
           "legacy": {"_use_new_zipfile_serialization": False}}


def samples():
    """name -> list of tensors."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for name in DTYPES:
        dtype = getattr(torch, name)
        raw = torch.randint(0, 256, (6 * dtype.itemsize,), dtype=torch.uint8, generator=generator)
        t = (raw & 1 if name == "bool" else raw).view(dtype).reshape(2, 3)
        yield name, [t, t.t(), t[1], t[:0]]
    base = torch.arange(24.0).reshape(2, 3, 4)
    yield "views", [base, base.permute(2, 0, 1), base[1, :, ::2], base.flatten()[5:7], base[0, 0, 3], base[:1].expand(3, 3, 4)]
    yield "parameters", [torch.nn.Parameter(base[0].clone()), torch.nn.Parameter(base[0, 0].clone(), requires_grad=False)]
    yield "conj", [torch.tensor([1 + 2j, 3 - 4j]).conj()]
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    yield "state", list(net.state_dict().values())


def as_expected(t):
    import torch

    plain = t.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8)
    return [str(t.dtype).removeprefix("torch."), list(t.shape), plain.numpy().tobytes().hex()]


def main() -> None:
    import torch

    expected = {}
    with zipfile.ZipFile(TARGET, "w", zipfile.ZIP_DEFLATED) as z:
        for name, tensors in samples():
            for layout, options in LAYOUTS.items():
                if layout in ("zip3", "zip4", "zip5") and name in DTYPES[1:]:
                    continue
                out = io.BytesIO()
                torch.save(collections.OrderedDict((str(i), t) for i, t in enumerate(tensors)), out, **options)
                entry = zipfile.ZipInfo(f"{name}-{layout}.pt")
                entry.compress_type = zipfile.ZIP_DEFLATED
                z.writestr(entry, out.getvalue())
                expected[f"{name}-{layout}.pt"] = [as_expected(t) for t in tensors]
        z.writestr(zipfile.ZipInfo("expected.json"), json.dumps({"torch": torch.__version__, "files": expected}))


if __name__ == "__main__":
    main()
