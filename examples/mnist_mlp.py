"""The classic first network: 784-64-10 with ReLU, cross entropy and SGD, on real handwritten digits.

By default on the 1,797 UCI digits in ``examples/data`` (8x8, enlarged to 28x28 so that the network keeps its shape);
``--data DIR`` reads the MNIST files (``DIR/MNIST/raw``) instead.
"""
from __future__ import annotations

import gzip
import os

import numpy as np
from _common import arguments, plot, progress

import graphc as torch
import graphc.nn as nn
import graphc.optim as optim
from graphc.utils.data import DataLoader, Subset, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = x.view(-1, 784)
        return self.fc2(torch.relu(self.fc1(x)))


def uci_digits():
    """(train, test) datasets of the bundled digits; every fifth row is for testing."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "optdigits_8x8.csv.gz")
    with gzip.open(path, "rt") as f:
        rows = np.loadtxt(f, delimiter=",", dtype=np.int64)
    small = rows[:, :64].reshape(-1, 8, 8).astype(np.float32) / 16
    images = np.zeros((len(rows), 1, 28, 28), np.float32)
    images[:, 0, 2:26, 2:26] = small.repeat(3, axis=1).repeat(3, axis=2)
    images = (images - 0.13) / 0.31
    test = np.arange(len(rows)) % 5 == 0
    return [TensorDataset(torch.tensor(images[m]), torch.tensor(rows[m, 64])) for m in (~test, test)]


def mnist(root: str):
    """(train, test) datasets of the MNIST files under ``root``."""
    from graphc.vision import datasets, transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    return [datasets.MNIST(root, train=t, transform=transform) for t in (True, False)]


def main() -> None:
    p = arguments("Train a small network on handwritten digits", epochs=15, batch_size=32, lr=0.05)
    p.add_argument("--data", help="folder with the MNIST files")
    args = p.parse_args()
    torch.manual_seed(args.seed)
    train, test = mnist(args.data) if args.data else uci_digits()
    if args.smoke:
        args.epochs = 2
        train, test = Subset(train, range(64)), Subset(test, range(64))
    train_loader = DataLoader(train, batch_size=args.batch_size, shuffle=True)
    test_loader = DataLoader(test, batch_size=256)

    net = Net().to(args.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=args.lr)

    def step(x, y):
        optimizer.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    if args.compile:
        step = torch.compile(step)
    curve = []
    for epoch in range(args.epochs):
        losses = [step(x.to(args.device), y.to(args.device)) for x, y in progress(train_loader, f"epoch {epoch + 1}")]
        curve += [loss.item() for loss in losses]
        print(f"epoch {epoch + 1}: loss {sum(curve[-len(losses):]) / len(losses):.6f}")

    correct = total = 0
    with torch.no_grad():
        for x, y in test_loader:
            predicted = net(x.to(args.device)).argmax(1)
            correct += (predicted == y.to(args.device)).sum().item()
            total += y.size(0)
    plot(curve, args.plot)
    print(f"test accuracy: {100 * correct / total:.2f}%")


if __name__ == "__main__":
    main()
