"""utils._pytree: flattening and back, prefixes, registered containers."""
from __future__ import annotations

from collections import OrderedDict, defaultdict, deque, namedtuple

import pytest

from graphc.utils import _pytree as tree

Point = namedtuple("Point", "x y")
TREES = [3, None, (), [], {}, (1, [2, {"a": 3, "b": (4,)}]), Point(1, [2, 3]), OrderedDict(b=1, a=(2, None)),
         deque([1, [2]], maxlen=4), {"z": 1, "a": {"k": Point((), 5)}}]


@pytest.mark.parametrize("t", TREES, ids=range(len(TREES)))
def test_round_trip_as_in_pytorch(t):
    ref = pytest.importorskip("torch.utils._pytree")
    leaves, spec = tree.tree_flatten(t)
    assert leaves == ref.tree_flatten(t)[0]
    back = tree.tree_unflatten(leaves, spec)
    assert back == t and type(back) is type(t)
    assert spec == tree.tree_structure(t) and hash(spec) == hash(tree.tree_structure(t))
    assert spec.num_leaves == len(leaves) == len(tree.tree_leaves(t))


def test_defaultdict_keeps_its_factory():
    d = defaultdict(list, a=[1], b=[2, 3])
    back = tree.tree_map(lambda x: x + 1, d)
    assert back == {"a": [2], "b": [3, 4]} and back["new"] == []


def test_map_over_several_trees():
    assert tree.tree_map(lambda a, b: a + b, {"u": (1, 2)}, {"u": (10, 20)}) == {"u": (11, 22)}
    assert tree.tree_map(lambda a, b: (a, b), [1, 2], [(3, 4), None]) == [(1, (3, 4)), (2, None)]
    for other in ({"u": [1, 2]}, {"u": (1,)}, {"v": (1, 2)}, 5):
        with pytest.raises(ValueError, match="mismatch"):
            tree.tree_map(lambda a, b: a, {"u": (1, 2)}, other)
    assert tree.tree_map_only(int, lambda x: -x, [1, "a", (2, None)]) == [-1, "a", (-2, None)]


def test_leaves_by_predicate_and_queries():
    assert tree.tree_leaves([(1, 2), (3, 4)], is_leaf=lambda x: isinstance(x, tuple)) == [(1, 2), (3, 4)]
    assert tree.tree_all(lambda x: x > 0, [1, (2,)]) and not tree.tree_any(lambda x: x > 2, [1, (2,)])


def test_wrong_number_of_leaves():
    with pytest.raises(ValueError, match="holds 2 items"):
        tree.tree_unflatten([1], tree.tree_structure((1, 2)))


def test_registered_container():
    class Pair:
        def __init__(self, a, b):
            self.a, self.b = a, b

    tree.register_pytree_node(Pair, lambda p: ([p.a, p.b], "ctx"), lambda c, ctx: Pair(*c))
    leaves, spec = tree.tree_flatten([Pair(1, (2, 3))])
    assert leaves == [1, 2, 3]
    back = tree.tree_unflatten([4, 5, 6], spec)[0]
    assert (back.a, back.b) == (4, (5, 6))
    with pytest.raises(ValueError, match="already registered"):
        tree.register_pytree_node(Pair, lambda p: ([], None), lambda c, ctx: None)


@pytest.mark.parametrize("prefix, want", [
    (0, [0, 0, 0]), ((0, None), [0, None, None]), ((0, {"a": 1, "b": 2}), [0, 1, 2]), ((0, [1, 2]), None), ((0,), None),
    ((0, {"a": (1,), "b": 2}), None)])
def test_prefixes(prefix, want):
    assert tree.broadcast_prefix(prefix, tree.tree_structure((9, {"a": 9, "b": 9}))) == want
