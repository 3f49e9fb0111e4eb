"""A word-level LSTM language model, trained on the docstrings of Python's own standard library; writes some text."""
from __future__ import annotations

import math
from collections import Counter

from _common import arguments, plot, progress
from _data import docstring_words

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
import graphc.optim as optim


class Corpus:
    """Words as numbers; what is rare is ``<unk>``."""

    def __init__(self, words: list[str], vocabulary: int):
        common = [w for w, _ in Counter(words).most_common(vocabulary - 1)]
        self.idx2word = ["<unk>", *common]
        self.word2idx = {w: i for i, w in enumerate(self.idx2word)}
        ids = torch.tensor([self.word2idx.get(w, 0) for w in words])
        cut = len(ids) * 9 // 10
        self.train, self.valid = ids[:cut], ids[cut:]


class RNNModel(nn.Module):
    def __init__(self, ntoken: int, ninp: int, nhid: int, nlayers: int, dropout: float):
        super().__init__()
        self.ntoken, self.nhid, self.nlayers = ntoken, nhid, nlayers
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(ntoken, ninp)
        self.rnn = nn.LSTM(ninp, nhid, nlayers, dropout=dropout)
        self.decoder = nn.Linear(nhid, ntoken)
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(self, input, hidden):
        output, hidden = self.rnn(self.drop(self.encoder(input)), hidden)
        return self.decoder(self.drop(output)).view(-1, self.ntoken), hidden

    def init_hidden(self, bsz: int):
        weight = next(self.parameters())
        return weight.new_zeros(self.nlayers, bsz, self.nhid), weight.new_zeros(self.nlayers, bsz, self.nhid)


def batchify(data, bsz: int):
    """``data`` (words,) as ``bsz`` columns (words / bsz, bsz)."""
    nbatch = data.size(0) // bsz
    return data.narrow(0, 0, nbatch * bsz).view(bsz, -1).t().contiguous()


def get_batch(source, i: int, bptt: int):
    """``bptt`` rows from row ``i`` and the words that follow each."""
    n = min(bptt, len(source) - 1 - i)
    return source[i:i + n], source[i + 1:i + 1 + n].reshape(-1)


def evaluate(model, source, bptt: int) -> float:
    model.eval()
    total, hidden = 0.0, model.init_hidden(source.size(1))
    with torch.no_grad():
        for i in range(0, source.size(0) - 1, bptt):
            data, targets = get_batch(source, i, bptt)
            output, hidden = model(data, hidden)
            total += len(data) * F.cross_entropy(output, targets).item()
    return total / (len(source) - 1)


def main() -> None:
    p = arguments("An LSTM over words", epochs=6, batch_size=20, bptt=20, emsize=96, nhid=96, nlayers=2, lr=10.0, clip=0.25,
                  dropout=0.2, words=40000, vocabulary=1500, generate=40)
    args = p.parse_args()
    if args.smoke:
        args.epochs, args.words, args.vocabulary, args.bptt, args.lr = 2, 1500, 200, 12, 2.0
    torch.manual_seed(args.seed)
    corpus = Corpus(docstring_words(args.words), args.vocabulary)
    train_data = batchify(corpus.train, args.batch_size).to(args.device)
    val_data = batchify(corpus.valid, 10).to(args.device)
    model = RNNModel(len(corpus.idx2word), args.emsize, args.nhid, args.nlayers, args.dropout).to(args.device)
    optimizer = optim.SGD(model.parameters(), lr=args.lr)
    scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.25, patience=0)
    print(f"{args.words} words, {len(corpus.idx2word)} distinct, {sum(q.numel() for q in model.parameters())} parameters")

    def step(data, targets, h, c):
        optimizer.zero_grad()
        output, (h, c) = model(data, (h, c))
        loss = F.cross_entropy(output, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        optimizer.step()
        return loss.detach(), h.detach(), c.detach()  # the history ends here: truncated backpropagation

    if args.compile:
        step = torch.compile(step)
    curve = []
    for epoch in range(1, args.epochs + 1):
        model.train()
        h, c = model.init_hidden(args.batch_size)
        starts = range(0, train_data.size(0) - 1, args.bptt)
        for i in progress(starts, f"epoch {epoch}"):
            loss, h, c = step(*get_batch(train_data, i, args.bptt), h, c)
            curve.append(loss.item())
        train_loss = sum(curve[-len(starts):]) / len(starts)
        val_loss = evaluate(model, val_data, args.bptt)
        print(f"epoch {epoch}: loss {train_loss:.6f}, valid {val_loss:.4f}, perplexity {math.exp(val_loss):.2f}")
        scheduler.step(val_loss)
    plot(curve, args.plot)

    model.eval()
    word, hidden, written = torch.zeros(1, 1, dtype=torch.long, device=args.device), model.init_hidden(1), []
    with torch.no_grad():
        for _ in range(args.generate):
            output, hidden = model(word, hidden)
            word = torch.multinomial(F.softmax(output, dim=-1), 1)
            written.append(corpus.idx2word[word.item()])
    print(" ".join(written).replace("<eos> ", "\n"))


if __name__ == "__main__":
    main()
