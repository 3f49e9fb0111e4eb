"""A small residual network (He et al. 2016) on 32x32 colour images in CIFAR-10's files."""
from __future__ import annotations

import numpy as np
from _common import arguments, plot, progress
from _data import cifar, flags, shrink

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
import graphc.optim as optim
from graphc.utils.data import DataLoader, Dataset


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_planes: int, planes: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != self.expansion * planes:
            self.shortcut = nn.Sequential(nn.Conv2d(in_planes, self.expansion * planes, 1, stride, bias=False),
                                          nn.BatchNorm2d(self.expansion * planes))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    def __init__(self, block, num_blocks: list[int], width: int, num_classes: int = 10):
        super().__init__()
        self.in_planes = width
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._make_layer(block, width, num_blocks[0], stride=1)
        self.layer2 = self._make_layer(block, 2 * width, num_blocks[1], stride=2)
        self.layer3 = self._make_layer(block, 4 * width, num_blocks[2], stride=2)
        self.linear = nn.Linear(4 * width * block.expansion, num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def _make_layer(self, block, planes: int, num_blocks: int, stride: int):
        layers = []
        for s in [stride] + [1] * (num_blocks - 1):
            layers.append(block(self.in_planes, planes, s))
            self.in_planes = planes * block.expansion
        return nn.Sequential(*layers)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.adaptive_avg_pool2d(out, 1).flatten(1)
        return self.linear(out)


class Images(Dataset):
    """Normalised images; for training, shifted by up to four pixels and mirrored at random."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, augment: bool, seed: int = 0):
        self.images, self.labels, self.augment = images, labels, augment
        self.random = np.random.default_rng(seed)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        image = self.images[i].astype(np.float32) / 255
        if self.augment:
            y, x = self.random.integers(0, 9, 2)
            image = np.pad(image, ((0, 0), (4, 4), (4, 4)))[:, y:y + 32, x:x + 32]
            image = image[:, :, ::-1] if self.random.random() < 0.5 else image
        return torch.from_numpy((image - 0.45) / 0.25), int(self.labels[i])


def accuracy(net, loader, device) -> float:
    net.eval()
    correct = 0
    with torch.no_grad():
        for inputs, targets in loader:
            _, predicted = net(inputs.to(device)).max(1)
            correct += predicted.eq(targets.to(device)).sum().item()
    return 100.0 * correct / len(loader.dataset)


def main() -> None:
    p = arguments("A small ResNet on CIFAR-10's files", epochs=10, batch_size=32, lr=0.05, blocks=1, width=16)
    args = flags(p, "folder with cifar-10-batches-py; made with pictures of shapes where it is missing").parse_args()
    torch.manual_seed(args.seed)
    x, y, test_x, test_y = shrink(args, *cifar(args.data))
    train_loader = DataLoader(Images(x, y, True, args.seed), batch_size=args.batch_size, shuffle=True)
    test_loader = DataLoader(Images(test_x, test_y, False), batch_size=64)
    net = ResNet(BasicBlock, [args.blocks] * 3, args.width).to(args.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4)
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs)

    def step(inputs, targets):
        optimizer.zero_grad()
        loss = criterion(net(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    if args.compile:
        step = torch.compile(step)
    curve = []
    for epoch in range(1, args.epochs + 1):
        net.train()
        for inputs, targets in progress(train_loader, f"epoch {epoch}"):
            curve.append(step(inputs.to(args.device), targets.to(args.device)).item())
        recent = curve[-len(train_loader):]
        print(f"epoch {epoch}: loss {sum(recent) / len(recent):.6f}, test accuracy "
              f"{accuracy(net, test_loader, args.device):.2f}%")
        scheduler.step()
    plot(curve, args.plot)


if __name__ == "__main__":
    main()
