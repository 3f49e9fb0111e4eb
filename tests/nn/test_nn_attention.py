"""MultiheadAttention and the Transformer against PyTorch."""
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from nn_compare import assert_close, compare, floats, load_from_torch, pair_of, to_graphc  # noqa: E402

import graphc  # noqa: E402
import graphc.nn as nn  # noqa: E402

L, S, N, E, H = 3, 4, 2, 8, 2


def randomised(*modules):
    """Biases start at zero, which would hide mistakes: give all parameters of the torch module values."""
    with torch.no_grad():
        for p in modules[1].parameters():
            p.normal_(0, 0.3)
    load_from_torch(*modules)
    return modules


def masks(kind):
    """Keyword arguments of the call."""
    padding = torch.zeros(N, S, dtype=torch.bool)
    padding[0, -1] = True
    causal = torch.ones(L, S, dtype=torch.bool).triu(2)
    return {
        "none": {},
        "padding": {"key_padding_mask": padding},
        "bool": {"attn_mask": causal},
        "float": {"attn_mask": floats(L, S, grad=False)},
        "3d": {"attn_mask": floats(N * H, L, S, grad=False)},
        "both": {"attn_mask": causal, "key_padding_mask": padding},
    }[kind]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kind", ["none", "padding", "bool", "float", "3d", "both"])
def test_masks(kind, need_weights):
    ours, theirs = randomised(*pair_of("MultiheadAttention", (E, H)))
    inputs = (floats(L, N, E), floats(S, N, E, seed=1), floats(S, N, E, seed=2))
    compare(ours, theirs, inputs, {**masks(kind), "need_weights": need_weights})


@pytest.mark.parametrize("options", [
    {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"add_bias_kv": True, "add_zero_attn": True},
    {"kdim": 5, "vdim": 6}, {"kdim": 5, "vdim": 6, "bias": False}, {"batch_first": True}], ids=str)
@pytest.mark.parametrize("call", [
    {"need_weights": True}, {"need_weights": False}, {"average_attn_weights": False}], ids=str)
def test_options(options, call):
    ours, theirs = randomised(*pair_of("MultiheadAttention", (E, H), options))
    shapes = [(L, N, E), (S, N, options.get("kdim", E)), (S, N, options.get("vdim", E))]
    if options.get("batch_first"):
        shapes = [(b, a, c) for a, b, c in shapes]
    inputs = tuple(floats(*s, seed=i) for i, s in enumerate(shapes))
    compare(ours, theirs, inputs, {**call, **masks("both")})


@pytest.mark.parametrize("batch_first", [False, True])
def test_self_attention_and_shared_key_value(batch_first):
    ours, theirs = randomised(*pair_of("MultiheadAttention", (E, H), {"batch_first": batch_first}))
    x, memory = floats(N, L, E), floats(N, L, E, seed=1)
    a, b = to_graphc((x, memory), requires_grad=True)
    for mine, other in (((a, a, a), (x, x, x)), ((a, b, b), (x, memory, memory)), ((a, a, b), (x, x, memory))):
        got, expected = ours(*mine), theirs(*other)
        assert_close(got, expected, "output")
        got[0].sum().backward()
        expected[0].sum().backward()
    assert_close(a.grad, x.grad, "gradient of the query")
    assert_close(b.grad, memory.grad, "gradient of the memory")
    assert_close(ours.in_proj_weight.grad, theirs.in_proj_weight.grad, "gradient of the projection")


def test_unbatched():
    ours, theirs = randomised(*pair_of("MultiheadAttention", (E, H)))
    inputs = (floats(L, E), floats(S, E, seed=1), floats(S, E, seed=2))
    compare(ours, theirs, inputs)
    ours.zero_grad()
    theirs.zero_grad()
    inputs = (floats(L, E), floats(S, E, seed=1), floats(S, E, seed=2))
    padding = torch.tensor([False, True, False, False])
    compare(ours, theirs, inputs, {"key_padding_mask": padding, "need_weights": False})


@pytest.mark.parametrize("need_weights", [True, False])
def test_causal_hint(need_weights):
    ours, theirs = randomised(*pair_of("MultiheadAttention", (E, H)))
    x = floats(L, N, E)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(L)
    compare(ours, theirs, (x, floats(L, N, E, seed=1), floats(L, N, E, seed=2)),
            {"attn_mask": mask, "is_causal": True, "need_weights": need_weights})
    assert_close(nn.Transformer.generate_square_subsequent_mask(L), mask, "mask")


def test_dropout_of_attention_weights():
    graphc.manual_seed(0)
    m = nn.MultiheadAttention(E, H, dropout=0.5)
    q = to_graphc(floats(L, N, E, grad=False))
    k = to_graphc(floats(40, N, E, grad=False))
    _, weights = m(q, k, k, average_attn_weights=False)
    dropped = float((weights == 0).float().mean())
    assert 0.3 < dropped < 0.7
    m.eval()
    _, weights = m(q, k, k)
    assert float((weights == 0).float().mean()) == 0


CALLS = {
    "rank of query": lambda m, t: m(t.ones(1, 1, 1, E), t.ones(1, E), t.ones(1, E)),
    "rank of key": lambda m, t: m(t.ones(1, 1, E), t.ones(1, E), t.ones(1, E)),
    "rank of key unbatched": lambda m, t: m(t.ones(1, E), t.ones(1, 1, E), t.ones(1, 1, E)),
    "embedding": lambda m, t: m(t.ones(1, 1, E + 2), t.ones(1, 1, E), t.ones(1, 1, E)),
    "key and value": lambda m, t: m(t.ones(1, 1, E), t.ones(2, 1, E), t.ones(1, 1, E)),
    "2d mask": lambda m, t: m(*[t.ones(2, 1, E)] * 3, attn_mask=t.ones(3, 3)),
    "3d mask": lambda m, t: m(*[t.ones(2, 1, E)] * 3, attn_mask=t.ones(1, 2, 2)),
    "4d mask": lambda m, t: m(*[t.ones(2, 1, E)] * 3, attn_mask=t.ones(1, 1, 2, 2)),
    "padding rank": lambda m, t: m(*[t.ones(2, 1, E)] * 3, key_padding_mask=t.ones(2)),
    "padding batch": lambda m, t: m(*[t.ones(2, 1, E)] * 3, key_padding_mask=t.ones(2, 2)),
    "padding length": lambda m, t: m(*[t.ones(2, 1, E)] * 3, key_padding_mask=t.ones(1, 3)),
    "integer mask": lambda m, t: m(*[t.ones(2, 1, E)] * 3, attn_mask=t.ones(2, 2, dtype=t.int64)),
    "hint without mask": lambda m, t: m(*[t.ones(2, 1, E)] * 3, is_causal=True),
}


@pytest.mark.parametrize("what", CALLS)
def test_errors(what):
    with pytest.raises(Exception) as expected:
        CALLS[what](torch.nn.MultiheadAttention(E, H), torch)
    with pytest.raises(type(expected.value)) as got:
        CALLS[what](nn.MultiheadAttention(E, H), graphc)
    assert str(got.value) == str(expected.value)


LAYER = [{}, {"norm_first": True}, {"activation": "gelu"}, {"bias": False}, {"batch_first": True},
         {"layer_norm_eps": 1e-3}]


def _layer_kwargs(options):
    return {"dim_feedforward": 12, "dropout": 0.0, **options}


@pytest.mark.parametrize("options", LAYER, ids=str)
@pytest.mark.filterwarnings("ignore")
def test_encoder_layer(options):
    ours, theirs = randomised(*pair_of("TransformerEncoderLayer", (E, H), _layer_kwargs(options)))
    compare(ours, theirs, (floats(L, N, E),), {"src_mask": torch.ones(L, L, dtype=torch.bool).triu(1)}
            if not options.get("batch_first") else {})


@pytest.mark.parametrize("options", LAYER, ids=str)
def test_decoder_layer(options):
    ours, theirs = randomised(*pair_of("TransformerDecoderLayer", (E, H), _layer_kwargs(options)))
    compare(ours, theirs, (floats(L, N, E), floats(L, N, E, seed=3)))


def test_activation_callables():
    for mine, other in ((nn.functional.gelu, torch.nn.functional.gelu), (nn.GELU(), torch.nn.GELU()),
                        (lambda x: x * 2, lambda x: x * 2)):
        theirs = torch.nn.TransformerEncoderLayer(E, H, 12, 0.0, other)
        ours = nn.TransformerEncoderLayer(E, H, 12, 0.0, mine)
        load_from_torch(ours, theirs)
        assert repr(ours) == repr(theirs)
        compare(ours, theirs, (floats(L, N, E),))


@pytest.mark.filterwarnings("ignore")
def test_encoder_and_decoder_stacks():
    def build(n):
        enc = n.TransformerEncoder(n.TransformerEncoderLayer(E, H, 12, 0.0), 2, n.LayerNorm(E))
        return enc, n.TransformerDecoder(n.TransformerDecoderLayer(E, H, 12, 0.0), 2)

    (enc, dec), (enc_t, dec_t) = build(nn), build(torch.nn)
    for a, b in ((enc, enc_t), (dec, dec_t)):
        assert repr(a) == repr(b)
        randomised(a, b)
    padding = torch.tensor([[False, False, True], [False, False, False]])
    compare(enc, enc_t, (floats(L, N, E),), {"src_key_padding_mask": padding})
    causal = torch.nn.Transformer.generate_square_subsequent_mask(L)
    compare(dec, dec_t, (floats(L, N, E), floats(S, N, E, seed=1)), {"tgt_mask": causal})
    compare(dec, dec_t, (floats(L, N, E), floats(S, N, E, seed=1)), {"tgt_mask": causal, "tgt_is_causal": True})


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_transformer(batch_first):
    kwargs = {"nhead": H, "num_encoder_layers": 1, "num_decoder_layers": 2, "dim_feedforward": 12, "dropout": 0.0,
              "batch_first": batch_first}
    ours, theirs = randomised(*pair_of("Transformer", (E,), kwargs))
    src, tgt = ((N, S, E), (N, L, E)) if batch_first else ((S, N, E), (L, N, E))
    compare(ours, theirs, (floats(*src), floats(*tgt, seed=1)), {
        "tgt_mask": torch.nn.Transformer.generate_square_subsequent_mask(L),
        "src_key_padding_mask": torch.zeros(N, S).bool(), "memory_key_padding_mask": torch.zeros(N, S).bool()})
    for shapes in (((2, 3, E), (2, 4, E)), ((2, 3, E), (2, 3, E + 1))):
        bad = [graphc.ones(s if not batch_first else (s[1], s[0], s[2])) for s in shapes]
        with pytest.raises(RuntimeError, match="must be equal"):
            ours(*bad)


def test_transformer_starts_xavier():
    graphc.manual_seed(0)
    m = nn.Transformer(16, 2, 1, 1, 32)
    bound = (6 / (32 + 16)) ** 0.5
    w = m.encoder.layers[0].linear1.weight.detach().numpy()
    assert abs(w).max() <= bound and abs(w).max() > 0.9 * bound
