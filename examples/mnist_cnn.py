"""The classic convolutional network on handwritten digits: two convolutions, pooling, dropout, two linear layers."""
from __future__ import annotations

from _common import arguments, plot, progress
from _data import digits, flags, shrink

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
import graphc.optim as optim
from graphc.optim.lr_scheduler import StepLR
from graphc.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, 1)
        self.conv2 = nn.Conv2d(16, 32, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(4608, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(self.dropout1(x), 1)
        x = self.dropout2(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


def test(model, device, loader) -> None:
    model.eval()
    loss, correct = 0.0, 0
    with torch.no_grad():
        for data, target in loader:
            data, target = data.to(device), target.to(device)
            output = model(data)
            loss += F.nll_loss(output, target, reduction="sum").item()
            pred = output.argmax(dim=1, keepdim=True)
            correct += pred.eq(target.view_as(pred)).sum().item()
    n = len(loader.dataset)
    print(f"test: average {loss / n:.4f}, accuracy {correct}/{n} ({100 * correct / n:.2f}%)")


def main() -> None:
    p = arguments("A CNN on handwritten digits", epochs=4, batch_size=32, lr=1.0, gamma=0.7)
    flags(p, "folder with the MNIST files")
    args = p.parse_args()
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    images, labels, test_images, test_labels = digits(args.data)
    images, labels, test_images, test_labels = shrink(args, images, labels, test_images, test_labels)
    normal = [torch.from_numpy((a - 0.1307) / 0.3081) for a in (images, test_images)]
    train_loader = DataLoader(TensorDataset(normal[0], torch.from_numpy(labels)), batch_size=args.batch_size, shuffle=True)
    test_loader = DataLoader(TensorDataset(normal[1], torch.from_numpy(test_labels)), batch_size=256)

    model = Net().to(device)
    optimizer = optim.Adadelta(model.parameters(), lr=args.lr)
    scheduler = StepLR(optimizer, step_size=1, gamma=args.gamma)

    def step(data, target):
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    if args.compile:
        step = torch.compile(step)
    curve = []
    for epoch in range(1, args.epochs + 1):
        model.train()
        for data, target in progress(train_loader, f"epoch {epoch}"):
            curve.append(step(data.to(device), target.to(device)).item())
        recent = curve[-len(train_loader):]
        print(f"epoch {epoch}: loss {sum(recent) / len(recent):.6f}")
        test(model, device, test_loader)
        scheduler.step()
    plot(curve, args.plot)


if __name__ == "__main__":
    main()
