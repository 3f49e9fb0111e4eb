"""A small GPT over characters, trained on the source text of Python's own standard library; prints samples."""
from __future__ import annotations

import glob
import math
import os

from _common import arguments, plot, progress

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
import graphc.optim as optim


def corpus(limit: int = 400_000) -> str:
    """Some of the standard library's source text, ASCII only."""
    parts, size = [], 0
    for path in sorted(glob.glob(os.path.join(os.path.dirname(os.__file__), "*.py"))):
        with open(path, encoding="utf-8", errors="ignore") as f:
            text = f.read()
        if text.isascii():
            parts.append(text)
            size += len(text)
        if size >= limit:
            break
    return "".join(parts)[:limit]


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each with a residual connection (pre-norm)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, context: int):
        super().__init__()
        self.context = context
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, idx):
        position = torch.arange(idx.shape[1], device=idx.device)
        return self.head(self.norm(self.blocks(self.tokens(idx) + self.positions(position))))

    @torch.no_grad()
    def sample(self, idx, n: int):
        for _ in range(n):
            logits = self(idx[:, -self.context:])[:, -1]
            idx = torch.cat([idx, torch.multinomial(F.softmax(logits, dim=-1), 1)], dim=1)
        return idx


def main() -> None:
    p = arguments("Train a character-level GPT", steps=300, batch_size=16, context=64, width=128, layers=4, heads=4, lr=1e-3,
                  sample=200)
    args = p.parse_args()
    torch.manual_seed(args.seed)
    if args.smoke:
        args.steps, args.width, args.layers, args.context, args.batch_size, args.sample = 6, 32, 1, 16, 4, 8
    text = corpus()
    chars = sorted(set(text))
    index = {c: i for i, c in enumerate(chars)}
    data = torch.tensor([index[c] for c in text])
    net = GPT(len(chars), args.width, args.layers, args.heads, args.context).to(args.device)
    optimizer = optim.AdamW(net.parameters(), lr=args.lr)
    scheduler = optim.lr_scheduler.LambdaLR(optimizer, lambda s: 0.5 * (1 + math.cos(math.pi * min(1, s / args.steps))))
    print(f"{len(text)} characters, {len(chars)} distinct, {sum(q.numel() for q in net.parameters())} parameters")

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x).view(-1, len(chars)), y.reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    if args.compile:
        step = torch.compile(step)
    curve = []
    for i in progress(range(args.steps), "training"):
        at = torch.randint(0, len(data) - args.context - 1, (args.batch_size,))
        window = data[at[:, None] + torch.arange(args.context + 1)].to(args.device)
        curve.append(step(window[:, :-1], window[:, 1:]).item())
        scheduler.step()
        if (i + 1) % 50 == 0 or i + 1 == args.steps:
            recent = curve[-50:]
            print(f"step {i + 1}: loss {sum(recent) / len(recent):.6f}")
    plot(curve, args.plot)
    if args.sample:
        start = data[:1].view(1, 1).to(args.device)
        print("".join(chars[int(c)] for c in net.sample(start, args.sample)[0]))


if __name__ == "__main__":
    main()
