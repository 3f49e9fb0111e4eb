"""Regression with a small network on a made-up function; saves its weights and loads them back."""
from __future__ import annotations

import os
import tempfile

from _common import arguments, plot, progress

import graphc as torch
import graphc.nn as nn
import graphc.optim as optim
from graphc.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(10, 20)
        self.fc2 = nn.Linear(20, 10)

    def forward(self, x):
        return self.fc2(torch.tanh(self.fc1(x)))


def main() -> None:
    p = arguments("Regression of ten outputs on ten inputs", epochs=20, lr=0.01)
    p.add_argument("--save", metavar="FILE", help="where to keep the weights (default: a temporary file)")
    args = p.parse_args()
    torch.manual_seed(args.seed)
    if args.smoke:
        args.epochs = 2
    rows = 256 if args.smoke else 1024
    x = torch.randn(rows, 10)
    y = torch.sin(x) @ torch.randn(10, 10) + 0.05 * torch.randn(rows, 10)
    train_loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
    net = Net().to(args.device)
    criterion = nn.MSELoss()
    optimizer = optim.Adam(net.parameters(), lr=args.lr)

    def step(inputs, targets):
        optimizer.zero_grad()
        loss = criterion(net(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    if args.compile:
        step = torch.compile(step)
    curve = []
    for epoch in range(args.epochs):
        losses = [step(a.to(args.device), b.to(args.device)) for a, b in progress(train_loader, f"epoch {epoch + 1}")]
        curve += [loss.item() for loss in losses]
        print(f"epoch {epoch + 1}: loss {sum(curve[-len(losses):]) / len(losses):.6f}")

    path = args.save or os.path.join(tempfile.mkdtemp(), "regression.pt")
    torch.save(net.state_dict(), path)
    again = Net().to(args.device)
    again.load_state_dict(torch.load(path))
    with torch.no_grad():
        same = torch.equal(net(x.to(args.device)), again(x.to(args.device)))
    plot(curve, args.plot)
    print(f"saved to {path}, loaded back: {'outputs equal' if same else 'OUTPUTS DIFFER'}")


if __name__ == "__main__":
    main()
