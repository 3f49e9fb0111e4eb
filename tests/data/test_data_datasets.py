"""Datasets and samplers: contents, lengths, determinism, PyTorch's errors."""
from collections import Counter

import numpy as np
import pytest

import graphc
from graphc.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)


class Squares(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not -self.n <= i < self.n:
            raise IndexError(i)
        return i * i


class Batched(Squares):
    def __init__(self, n):
        super().__init__(n)
        self.calls = []

    def __getitems__(self, indices):
        self.calls.append(list(indices))
        return [i * i for i in indices]


class Count(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self):
        return self.n


def gen(seed):
    return graphc.Generator().manual_seed(seed)


def test_base_classes_say_what_is_missing():
    with pytest.raises(NotImplementedError):
        Dataset()[0]
    with pytest.raises(NotImplementedError):
        iter(IterableDataset())
    with pytest.raises(TypeError):
        len(Dataset())
    assert Dataset[int] is not None


def test_tensor_dataset():
    x, y = graphc.arange(12).reshape(4, 3), graphc.arange(4)
    ds = TensorDataset(x, y)
    assert len(ds) == 4
    a, b = ds[2]
    assert a.tolist() == [6, 7, 8] and b.item() == 2
    a, b = ds[1:3]
    assert a.tolist() == [[3, 4, 5], [6, 7, 8]] and b.tolist() == [1, 2]
    with pytest.raises(AssertionError, match="Size mismatch"):
        TensorDataset(x, graphc.arange(5))


def test_stack_dataset_tuple_and_dict():
    ds = StackDataset(Squares(4), Batched(4))
    assert ds[3] == (9, 9) and len(ds) == 4
    assert ds.__getitems__([1, 2]) == [(1, 1), (4, 4)]
    assert ds.datasets[1].calls == [[1, 2]]
    ds = StackDataset(a=Squares(4), b=Batched(4))
    assert ds[2] == {"a": 4, "b": 4}
    assert ds.__getitems__([0, 3]) == [{"a": 0, "b": 0}, {"a": 9, "b": 9}]
    with pytest.raises(ValueError, match="Size mismatch"):
        StackDataset(Squares(4), Squares(5))
    with pytest.raises(ValueError, match="both types"):
        StackDataset(Squares(4), b=Squares(4))
    with pytest.raises(ValueError, match="At least one"):
        StackDataset()

    class Short(Squares):
        def __getitems__(self, indices):
            return [0]

    with pytest.raises(ValueError, match="Expected 2, got 1"):
        StackDataset(Short(4)).__getitems__([0, 1])


def test_concat_dataset():
    ds = Squares(3) + Squares(2)
    assert isinstance(ds, ConcatDataset)
    assert [ds[i] for i in range(5)] == [0, 1, 4, 0, 1]
    assert ds[-1] == 1 and ds[-5] == 0 and len(ds) == 5 and ds.cumulative_sizes == [3, 5]
    with pytest.raises(ValueError):
        ds[-6]
    with pytest.raises(IndexError):
        ds[5]
    with pytest.raises(AssertionError):
        ConcatDataset([])
    with pytest.raises(AssertionError):
        ConcatDataset([Count(3)])


def test_chain_dataset():
    ds = Count(2) + Count(3)
    assert isinstance(ds, ChainDataset)
    assert list(ds) == [0, 1, 0, 1, 2] and len(ds) == 5
    with pytest.raises(AssertionError):
        list(ChainDataset([Squares(2)]))


def test_subset():
    ds = Subset(Batched(10), [5, 1, 7])
    assert [ds[i] for i in range(3)] == [25, 1, 49] and len(ds) == 3
    assert ds.__getitems__([2, 0]) == [49, 25] and ds.dataset.calls == [[7, 5]]

    class Careless(Subset):
        def __getitem__(self, i):
            return -1

    with pytest.raises(NotImplementedError, match="__getitems__"):
        Careless(Squares(3), [0])


@pytest.mark.parametrize("lengths,sizes", [([3, 7], [3, 7]), ([0.3, 0.7], [3, 7]), ([0.33, 0.33, 0.34], [4, 3, 3]),
                                           ([10], [10]), ([1.0], [10])])
def test_random_split_sizes(lengths, sizes):
    parts = random_split(range(10), lengths, generator=gen(1))
    assert [len(p) for p in parts] == sizes
    assert sorted(i for p in parts for i in p.indices) == list(range(10))


def test_random_split_generator_and_errors():
    a = [p.indices for p in random_split(range(50), [20, 30], generator=gen(3))]
    b = [p.indices for p in random_split(range(50), [20, 30], generator=gen(3))]
    c = [p.indices for p in random_split(range(50), [20, 30], generator=gen(4))]
    assert a == b and a != c
    graphc.manual_seed(5)
    d = random_split(range(50), [20, 30])[0].indices
    graphc.manual_seed(5)
    assert d == random_split(range(50), [20, 30])[0].indices
    with pytest.raises(ValueError, match="does not equal"):
        random_split(range(10), [3, 3])
    with pytest.raises(ValueError, match="not between 0 and 1"):
        random_split(range(10), [1.5, -0.5])
    with pytest.warns(UserWarning, match="Length of split at index 1 is 0"):
        random_split(range(1), [0.9, 0.1])


def test_sequential_and_batch_sampler():
    assert list(SequentialSampler(range(4))) == [0, 1, 2, 3]
    s = BatchSampler(SequentialSampler(range(7)), 3, False)
    assert list(s) == [[0, 1, 2], [3, 4, 5], [6]] and len(s) == 3
    s = BatchSampler(SequentialSampler(range(7)), 3, True)
    assert list(s) == [[0, 1, 2], [3, 4, 5]] and len(s) == 2
    assert list(BatchSampler(range(6), 3, True)) == [[0, 1, 2], [3, 4, 5]]
    assert list(BatchSampler([], 3, False)) == []
    for bad in (0, -1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="batch_size"):
            BatchSampler(range(6), bad, False)
    with pytest.raises(ValueError, match="drop_last"):
        BatchSampler(range(6), 3, 1)


def test_random_sampler():
    s = RandomSampler(range(100), generator=gen(0))
    first, second = list(s), list(s)
    assert sorted(first) == list(range(100)) and first != second and first != list(range(100))
    assert list(RandomSampler(range(100), generator=gen(0))) == first
    assert len(s) == 100
    s = RandomSampler(range(10), num_samples=25, generator=gen(1))
    out = list(s)
    assert len(s) == len(out) == 25 and sorted(out[:10]) == sorted(out[10:20]) == list(range(10))
    out = list(RandomSampler(range(10), replacement=True, num_samples=500, generator=gen(1)))
    assert len(out) == 500 and set(out) == set(range(10))
    graphc.manual_seed(9)
    a = list(RandomSampler(range(30)))
    graphc.manual_seed(9)
    assert a == list(RandomSampler(range(30)))


def test_random_sampler_errors():
    with pytest.raises(TypeError, match="replacement"):
        RandomSampler(range(3), replacement=1)
    for bad in (0, -3, 2.5, True):
        with pytest.raises(ValueError, match="num_samples"):
            RandomSampler(range(3), num_samples=bad)
    with pytest.raises(ValueError, match="num_samples"):
        RandomSampler([])
    with pytest.raises(ValueError, match="empty"):
        list(RandomSampler([], num_samples=3))


def test_subset_random_sampler():
    s = SubsetRandomSampler([4, 8, 15, 16, 23, 42], generator=gen(2))
    assert sorted(s) == [4, 8, 15, 16, 23, 42] and len(s) == 6
    assert list(SubsetRandomSampler(range(50), generator=gen(2))) == list(SubsetRandomSampler(range(50), generator=gen(2)))


def test_weighted_random_sampler():
    s = WeightedRandomSampler([0.0, 1.0, 3.0], 4000, generator=gen(0))
    counts = Counter(s)
    assert counts[0] == 0 and 2.6 < counts[2] / counts[1] < 3.4 and len(s) == 4000
    out = list(WeightedRandomSampler([1, 2, 3, 4], 4, replacement=False, generator=gen(0)))
    assert sorted(out) == [0, 1, 2, 3]
    assert list(WeightedRandomSampler(graphc.tensor([0.0, 5.0]), 3, generator=gen(0))) == [1, 1, 1]
    with pytest.raises(ValueError, match="1d sequence"):
        WeightedRandomSampler([[1.0]], 1)
    with pytest.raises(ValueError, match="num_samples"):
        WeightedRandomSampler([1.0], 0)
    with pytest.raises(ValueError, match="replacement"):
        WeightedRandomSampler([1.0], 1, replacement=1)
    with pytest.raises(RuntimeError):
        list(WeightedRandomSampler([1.0, -1.0], 1))


@pytest.mark.parametrize("n,replicas,drop_last", [(10, 3, False), (10, 3, True), (9, 3, True), (2, 5, False), (7, 1, False)])
def test_distributed_sampler_covers_everything(n, replicas, drop_last):
    torch = pytest.importorskip("torch")
    for shuffle in (False, True):
        parts = [list(DistributedSampler(range(n), replicas, r, shuffle=shuffle, drop_last=drop_last))
                 for r in range(replicas)]
        reference = torch.utils.data.DistributedSampler(range(n), replicas, 0, shuffle=False, drop_last=drop_last)
        assert {len(p) for p in parts} == {len(reference)}
        seen = {i for p in parts for i in p}
        assert drop_last or seen == set(range(n))
    parts = [list(DistributedSampler(range(n), replicas, r, shuffle=False, drop_last=drop_last)) for r in range(replicas)]
    want = [list(torch.utils.data.DistributedSampler(range(n), replicas, r, shuffle=False, drop_last=drop_last))
            for r in range(replicas)]
    assert parts == want


def test_distributed_sampler_epochs_and_errors():
    s = DistributedSampler(range(40), 2, 0, seed=3)
    first = list(s)
    assert first == list(s)
    s.set_epoch(1)
    assert first != list(s)
    other = DistributedSampler(range(40), 2, 1, seed=3)
    assert not set(first) & set(other)
    for rank in (-1, 2):
        with pytest.raises(ValueError, match="Invalid rank"):
            DistributedSampler(range(4), 2, rank)


def test_tensor_subclassing_generics_and_numpy_indices():
    ds = TensorDataset(graphc.arange(5))
    assert ds[np.int64(3)][0].item() == 3
