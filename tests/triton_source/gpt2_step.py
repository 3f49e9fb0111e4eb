"""The training step of GPT-2 (124M parameters) as a graph, without a single array of its size being filled.

While it is built and recorded, every program is answered with zeros the operating system never hands out pages for.
"""
from __future__ import annotations

import functools
import math
from typing import Any

from recorded_steps import _Zeros

import graphc
from graphc import config
from graphc.codegen.triton.passes import gpu_passes
from graphc.ir import flush as flushing
from graphc.ir import recorder
from graphc.ir.node import Graph, Node

nn, F = graphc.nn, graphc.nn.functional
LAYERS, WIDTH, HEADS, CONTEXT, VOCABULARY, BATCH = 12, 768, 12, 1024, 50257, 32


class Block(nn.Module):
    """A transformer block; attention by hand reads a mask kept as a buffer, as most people write it."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.by_hand = by_hand
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def attention(self, x: Any, mask: Any) -> Any:
        b, t, c = x.shape
        q, k, v = [y.view(b, t, HEADS, c // HEADS).transpose(1, 2) for y in self.c_attn(x).split(WIDTH, dim=2)]
        if self.by_hand:
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(c // HEADS))
            scores = scores.masked_fill(mask[:, :, :t, :t] == 0, float("-inf"))
            y = F.softmax(scores, dim=-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c))

    def forward(self, x: Any, mask: Any) -> Any:
        x = x + self.attention(self.ln_1(x), mask)
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    """GPT-2 with the head tied to the embedding."""

    def __init__(self, vocabulary: int, by_hand: bool) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.h = nn.ModuleList([Block(by_hand) for _ in range(LAYERS)])
        self.ln_f, self.lm_head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight
        self.register_buffer("mask", graphc.tril(graphc.ones(CONTEXT, CONTEXT)).view(1, 1, CONTEXT, CONTEXT), persistent=False)

    def forward(self, tokens: Any, targets: Any) -> Any:
        x = self.wte(tokens) + self.wpe(graphc.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x, self.mask)
        logits = self.lm_head(self.ln_f(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


@functools.cache
def gpt2_step(by_hand: bool = False, vocabulary: int = VOCABULARY, batch: int = BATCH) -> Graph:
    """The optimised graph of a step with AdamW under bfloat16 autocast."""
    graphs: list[Graph] = []

    def plan(graph: Graph) -> Any:
        graphs.append(graph)
        return _Zeros(graph, False)

    planner, caps = recorder._planner[0], (config.NODE_CAP, config.BYTE_CAP)
    recorder.flush("test")
    config.NODE_CAP, config.BYTE_CAP = 1 << 30, 1 << 62  # nothing is held: the whole step is one program
    recorder.set_planner(plan)
    kept, flushing.PLANS = flushing.PLANS, {}  # programs another test recorded are new here
    recorder._Trie.root = Node(None, (), (), (), (), 0)
    recorder.state.region = recorder.Region()
    _Zeros.capturing = True
    try:
        net = GPT2(vocabulary, by_hand)
        assert sum(p.numel() for p in net.parameters()) > 124e6
        optimizer = graphc.optim.AdamW(net.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1)
        x, y = [graphc.zeros(batch, CONTEXT, dtype=graphc.int64) for _ in range(2)]

        @graphc.compile
        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            with graphc.autocast("cpu", dtype=graphc.bfloat16):
                loss = net(x, y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        step(x, y)
        graphs.clear()  # the first step creates the optimizer's state
        step(x, y)
        (graph,) = graphs
        return gpu_passes(graph)
    finally:
        recorder.set_planner(planner)
        config.NODE_CAP, config.BYTE_CAP = caps
        flushing.PLANS = kept
        recorder._Trie.root = Node(None, (), (), (), (), 0)
        recorder.state.region = recorder.Region()
        _Zeros.capturing = False
        _Zeros.bindings.clear()
