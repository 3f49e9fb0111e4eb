"""DataLoader without faults: order, shuffling, arguments, the fast path, and the same batches for any number of workers."""
import os

import numpy as np
import pytest

import graphc
from graphc.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
    get_worker_info,
    random_split,
)

WORKERS = (0, 1, 2)


class Rows(Dataset):
    """Tensors, arrays, numbers and strings."""

    def __init__(self, n=10):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"x": graphc.full((3,), float(i)), "a": np.full((2, 2), i, np.uint8), "n": i, "s": f"item {i}",
                "h": graphc.full((2,), i, dtype=graphc.bfloat16)}


class Large(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        return np.full((300, 300), i, np.float32)


class Stream(IterableDataset):
    def __init__(self, n=10):
        self.n = n

    def __iter__(self):
        info = get_worker_info()
        return iter(range(self.n)) if info is None else iter(range(info.id, self.n, info.num_workers))

    def __len__(self):
        return self.n


class Noise(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        import random

        return graphc.rand(2), np.random.rand(2), random.random()


class WhoAmI(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        info = get_worker_info()
        return info.id, info.num_workers, info.seed, len(info.dataset), self.mark if hasattr(self, "mark") else 0


def gen(seed):
    return graphc.Generator().manual_seed(seed)


def plain(batch):
    if isinstance(batch, graphc.Tensor):
        return str(batch.dtype), batch.tolist()
    if isinstance(batch, dict):
        return {k: plain(v) for k, v in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [plain(v) for v in batch]
    return batch


@pytest.mark.parametrize("workers", WORKERS)
def test_order_and_content(workers):
    loader = DataLoader(Rows(), batch_size=4, num_workers=workers)
    assert len(loader) == 3
    batches = [plain(b) for b in loader]
    assert [b["n"] for b in batches] == [("torch.int64", [0, 1, 2, 3]), ("torch.int64", [4, 5, 6, 7]),
                                         ("torch.int64", [8, 9])]
    assert batches[2] == {"x": ("torch.float32", [[8.0] * 3, [9.0] * 3]),
                          "a": ("torch.uint8", [[[8, 8], [8, 8]], [[9, 9], [9, 9]]]), "n": ("torch.int64", [8, 9]),
                          "s": ["item 8", "item 9"], "h": ("torch.bfloat16", [[8, 8], [9, 9]])}


def test_same_batches_for_any_number_of_workers():
    results = []
    for workers in WORKERS:
        graphc.manual_seed(7)
        loader = DataLoader(Rows(23), batch_size=5, shuffle=True, num_workers=workers)
        results.append([[plain(b) for b in loader] for _ in range(2)])
    assert results[0] == results[1] == results[2]
    assert results[0][0] != results[0][1]
    results = [[plain(b) for b in DataLoader(Rows(23), 5, True, generator=gen(3), num_workers=w)] for w in WORKERS]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("workers", WORKERS)
def test_large_batches_are_writable_and_independent(workers):
    batches = list(DataLoader(Large(), batch_size=3, num_workers=workers))
    for k, b in enumerate(batches):
        assert b.shape == (3, 300, 300)
        assert b[:, 0, 0].tolist() == [3 * k, 3 * k + 1, 3 * k + 2]
    batches[0].add_(1)
    batches[1][0, 0, 0] = -1
    assert batches[0][2, 5, 5].item() == 3 and batches[1][0, 0, 0].item() == -1 and batches[2][0, 0, 0].item() == 6
    arr = batches[3].numpy()
    arr[:] = 5
    assert batches[3].sum().item() == 5 * 3 * 300 * 300


@pytest.mark.parametrize("mode", ["anonymous", "named", "copied"])
def test_messages_of_odd_sizes(mode, monkeypatch):
    """Through a connection to this process itself: arrays of every size, empty ones, non-contiguous ones."""
    from multiprocessing import Pipe

    from graphc.utils.data._utils import transport

    monkeypatch.setattr(transport, "ANONYMOUS", mode != "named" and transport.ANONYMOUS)
    if mode == "copied":
        monkeypatch.setattr(transport, "_MAX_MAPPINGS", 0)
    a, b = Pipe()
    prefix = f"gc{os.getpid():x}_odd_"
    left, right = transport.Channel(a, prefix), transport.Channel(b, prefix)
    for n in (0, 1, 63, 64, 65, 4095, 4097, 16383, 16384, 16385, 70001, 200_000):
        big = np.arange(n, dtype=np.uint8)
        message = {"x": big, "t": graphc.arange(n), "last": np.zeros((0, 3)), "view": np.arange(24.0).reshape(4, 6)[::2, 1:4],
                   "half": graphc.ones(n % 7, dtype=graphc.bfloat16), "words": ["a" * (n % 11)] * 3, "n": n}
        left.send_large(message)
        out = right.receive()
        assert np.array_equal(out["x"], big) and out["t"].tolist() == list(range(n)) and out["last"].shape == (0, 3)
        assert out["view"].tolist() == message["view"].tolist() and out["words"] == message["words"] and out["n"] == n
        assert out["half"].dtype is graphc.bfloat16 and out["half"].tolist() == [1.0] * (n % 7)
    t = graphc.ones(3, requires_grad=True)
    left.send_large([t, t, t[:0].detach()])
    first, second, empty = right.receive()
    assert first is second and first.requires_grad and not empty.requires_grad and empty.shape == (0,)
    a.close()
    with pytest.raises(EOFError):
        right.receive()
    b.close()


def test_shuffle_is_a_permutation_and_repeats_with_the_generator():
    ds = TensorDataset(graphc.arange(40))
    loader = DataLoader(ds, batch_size=7, shuffle=True, generator=gen(1))
    a = [i for (b,) in loader for i in b.tolist()]
    b = [i for (b,) in loader for i in b.tolist()]
    assert sorted(a) == sorted(b) == list(range(40)) and a != b
    assert a == [i for (b,) in DataLoader(ds, 7, True, generator=gen(1)) for i in b.tolist()]
    graphc.manual_seed(2)
    c = [i for (b,) in DataLoader(ds, 7, True) for i in b.tolist()]
    graphc.manual_seed(2)
    assert c == [i for (b,) in DataLoader(ds, 7, True) for i in b.tolist()]


@pytest.mark.parametrize("workers", (0, 2))
def test_drop_last_samplers_and_no_batching(workers):
    ds = TensorDataset(graphc.arange(10))
    assert [b[0].tolist() for b in DataLoader(ds, 4, drop_last=True, num_workers=workers)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [b[0].tolist() for b in DataLoader(ds, 2, sampler=[3, 1, 2], num_workers=workers)] == [[3, 1], [2]]
    bs = BatchSampler(SequentialSampler(range(5)), 2, False)
    assert [b[0].tolist() for b in DataLoader(ds, batch_sampler=bs, num_workers=workers)] == [[0, 1], [2, 3], [4]]
    assert [b[0].item() for b in DataLoader(ds, batch_size=None, num_workers=workers)] == list(range(10))
    out = list(DataLoader(Rows(2), batch_size=None, num_workers=workers))
    assert isinstance(out[0]["a"], graphc.Tensor) and out[1]["n"] == 1
    assert list(DataLoader(Rows(5), 2, collate_fn=lambda batch: [d["n"] for d in batch], num_workers=workers)) == [
        [0, 1], [2, 3], [4]]


@pytest.mark.parametrize("workers", WORKERS)
def test_iterable_dataset(workers):
    out = [b.tolist() for b in DataLoader(Stream(10), batch_size=3, num_workers=workers)]
    assert out == {0: [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]], 1: [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]],
                   2: [[0, 2, 4], [1, 3, 5], [6, 8], [7, 9]]}[workers]
    out = [b.tolist() for b in DataLoader(Stream(10), 3, drop_last=True, num_workers=workers)]
    assert all(len(b) == 3 for b in out)
    assert sorted(DataLoader(Stream(5), batch_size=None, num_workers=workers)) == [0, 1, 2, 3, 4]


def test_iterable_uneven_workers_and_length():
    class Uneven(IterableDataset):
        def __iter__(self):
            return iter(range(2 if get_worker_info().id == 0 else 9))

    out = [b.tolist() for b in DataLoader(Uneven(), 2, num_workers=2)]
    assert sorted(i for b in out for i in b) == sorted([0, 1, *range(9)])
    loader = DataLoader(Stream(10), 3)
    assert len(loader) == 4 and len(DataLoader(Stream(10), 3, drop_last=True)) == 3

    class Liar(Stream):
        def __len__(self):
            return 1

    loader = DataLoader(Liar(4))
    assert len(loader) == 1
    with pytest.warns(UserWarning, match="Length of IterableDataset"):
        list(loader)


@pytest.mark.parametrize("in_order", (True, False))
def test_out_of_order_gives_the_same_set(in_order):
    loader = DataLoader(TensorDataset(graphc.arange(20)), 2, num_workers=2, in_order=in_order)
    out = [tuple(b[0].tolist()) for b in loader]
    assert sorted(out) == [(i, i + 1) for i in range(0, 20, 2)]
    assert not in_order or out == sorted(out)


@pytest.mark.parametrize("workers", WORKERS)
def test_random_data_is_reproducible(workers):
    def run():
        graphc.manual_seed(11)
        np.random.seed(3)
        import random

        random.seed(4)
        return [plain(b) for b in DataLoader(Noise(), 2, num_workers=workers)]

    first = run()
    assert first == run()
    if workers == 2:  # workers draw different numbers
        flat = [v for b in first for part in b for v in np.ravel(part[1]).tolist()]
        assert len(set(flat)) == len(flat)


def test_worker_info_and_init():
    assert get_worker_info() is None

    def init(worker_id):
        get_worker_info().dataset.mark = 100 + worker_id

    graphc.manual_seed(0)
    loader = DataLoader(WhoAmI(), num_workers=2, worker_init_fn=init)
    rows = [[int(v) for v in b] for b in loader]
    assert [r[0] for r in rows] == [0, 1, 0, 1] and all(r[1] == 2 and r[3] == 4 for r in rows)
    assert [r[4] for r in rows] == [100, 101, 100, 101]
    base = rows[0][2]
    assert [r[2] - base for r in rows] == [0, 1, 0, 1]
    graphc.manual_seed(0)
    assert [[int(v) for v in b] for b in DataLoader(WhoAmI(), num_workers=2, worker_init_fn=init)] == rows


def test_persistent_workers_keep_their_process():
    class Pids(Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            import os

            return os.getpid()

    loader = DataLoader(Pids(), num_workers=2, persistent_workers=True, shuffle=True)
    first = {int(p) for p in loader}
    second = {int(p) for p in loader}
    assert first == second and len(first) == 2
    it = iter(loader)
    next(it)  # a pass that is given up half way
    assert len(list(loader)) == 6
    fresh = DataLoader(Pids(), num_workers=2)
    assert {int(p) for p in fresh} != {int(p) for p in fresh}
    del it, loader


def test_persistent_iterable_starts_again():
    loader = DataLoader(Stream(7), 2, num_workers=2, persistent_workers=True)
    first = [b.tolist() for b in loader]
    assert first == [b.tolist() for b in loader] and sorted(sum(first, [])) == list(range(7))


def test_prefetch_factor():
    out = [b[0].item() for b in DataLoader(TensorDataset(graphc.arange(9)), num_workers=2, prefetch_factor=7)]
    assert out == list(range(9))


def test_two_loaders_at_once():
    a, b = DataLoader(Rows(6), 2, num_workers=1), DataLoader(Rows(6), 3, num_workers=1)
    pairs = [(x["n"].tolist(), y["n"].tolist()) for x, y in zip(a, b)]
    assert pairs == [([0, 1], [0, 1, 2]), ([2, 3], [3, 4, 5])]


# ----------------------------------------------------------------------------------------------------------- fast path
class Counted(TensorDataset):
    """Sample by sample: the override must be respected."""

    def __getitem__(self, i):
        return tuple(t * 10 for t in super().__getitem__(i))


@pytest.mark.parametrize("workers", (0, 1))
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "bfloat16", "float16", "complex64", "uint8"])
def test_tensor_dataset_fast_path_equals_slow_path(dtype, workers):
    x = graphc.arange(24).reshape(8, 3).to(getattr(graphc, dtype))
    ds = TensorDataset(x, graphc.arange(8), x[:, 1])
    for data in (ds, Subset(ds, [5, 1, 7, 2]), Subset(Subset(ds, [5, 1, 7, 2]), [3, 0]), random_split(ds, [5, 3])[0]):
        fast = [plain(b) for b in DataLoader(data, 3, shuffle=True, generator=gen(0), num_workers=workers)]
        slow = [plain(b) for b in DataLoader(data, 3, shuffle=True, generator=gen(0), num_workers=workers,
                                             collate_fn=lambda batch: default_collate(batch))]
        assert fast == slow


def test_fast_path_reads_whole_batches_and_copies(monkeypatch):
    ds = TensorDataset(graphc.arange(6.0).reshape(3, 2))
    monkeypatch.setattr(TensorDataset, "__getitem__", TensorDataset.__getitem__)
    from graphc.utils.data._utils import fetch

    batch = fetch.take_whole(ds, [2, 0], default_collate)
    assert batch is not None and batch[0].tolist() == [[4, 5], [0, 1]]
    batch[0].zero_()
    assert ds.tensors[0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert fetch.take_whole(Counted(graphc.arange(3)), [0], default_collate) is None
    assert [b[0].tolist() for b in DataLoader(Counted(graphc.arange(4)), 2)] == [[0, 10], [20, 30]]
    ds.tensors[0].add_(1)
    assert fetch.take_whole(ds, [0], default_collate)[0].tolist() == [[1, 2]]
    with pytest.raises(IndexError, match="index 3 is out of bounds for dimension 0 with size 3"):
        fetch.take_whole(ds, [0, 3], default_collate)
    assert fetch.take_whole(ds, [-1], default_collate)[0].tolist() == [[5, 6]]


def test_fast_path_keeps_gradients_and_pending_values():
    w = graphc.ones(4, 2, requires_grad=True)
    loader = DataLoader(TensorDataset(w * 2), 3)
    loss = sum(b[0].sum() for b in loader)
    loss.backward()
    assert w.grad.tolist() == [[2, 2]] * 4


# ----------------------------------------------------------------------------------------------------------- arguments
@pytest.mark.parametrize("kwargs,message", [
    ({"num_workers": -1}, "num_workers"), ({"timeout": -1}, "timeout"), ({"prefetch_factor": 2}, "prefetch_factor"),
    ({"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor"), ({"persistent_workers": True}, "persistent_workers"),
    ({"sampler": [0], "shuffle": True}, "mutually exclusive"), ({"batch_sampler": [[0]], "shuffle": True}, "mutually"),
    ({"batch_sampler": [[0]], "batch_size": 2}, "mutually"), ({"batch_sampler": [[0]], "drop_last": True}, "mutually"),
    ({"batch_sampler": [[0]], "sampler": [0]}, "mutually"), ({"batch_size": None, "drop_last": True}, "batch_size=None"),
    ({"batch_size": 0}, "batch_size"), ({"batch_size": 2.5}, "batch_size"),
    ({"multiprocessing_context": "fork"}, "multiprocessing_context"),
    ({"num_workers": 1, "multiprocessing_context": "spoon"}, "spoon"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DataLoader(Rows(), **kwargs)


def test_bad_arguments_of_iterable_datasets_and_contexts():
    for kwargs in ({"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}):
        with pytest.raises(ValueError, match="IterableDataset"):
            DataLoader(Stream(), **kwargs)
    DataLoader(Stream(), shuffle=False)
    with pytest.raises(TypeError, match="multiprocessing_context"):
        DataLoader(Rows(), num_workers=1, multiprocessing_context=3)
    with pytest.raises(ValueError, match="num_samples"):
        DataLoader([], shuffle=True)
    assert list(DataLoader([])) == []


def test_attributes_are_fixed_after_construction():
    loader = DataLoader(Rows(), 2)
    for name in ("batch_size", "sampler", "batch_sampler", "drop_last", "dataset", "persistent_workers"):
        with pytest.raises(ValueError, match=name):
            setattr(loader, name, None)
    loader.collate_fn = len
    assert list(loader) == [2] * 5
    assert loader.batch_size == 2 and loader.prefetch_factor is None and isinstance(loader.sampler, SequentialSampler)


def test_too_many_workers_warn_and_pin_memory_without_device_warns():
    with pytest.warns(UserWarning, match="worker processes in total"):
        DataLoader(Rows(), num_workers=10_000)
    from graphc.cuda import is_available

    if not is_available():
        with pytest.warns(UserWarning, match="pin_memory"):
            assert len(list(DataLoader(Rows(2), pin_memory=True))) == 2


def test_stop_iteration_of_a_dataset_is_an_error_not_the_end():
    class Stops(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            if i == 2:
                raise StopIteration
            return i

    for workers in (0, 1):
        with pytest.raises(RuntimeError, match="StopIteration"):
            list(DataLoader(Stops(), num_workers=workers))
