"""A small vision transformer (Dosovitskiy et al. 2021) on 32x32 colour images in CIFAR-10's files."""
from __future__ import annotations

import numpy as np
from _common import arguments, plot, progress
from _data import cifar, flags, shrink

import graphc as torch
import graphc.nn as nn
import graphc.optim as optim
from graphc.utils.data import DataLoader, TensorDataset


class PatchEmbedding(nn.Module):
    """Cuts an image into patches and projects each: (batch, 3, 32, 32) to (batch, patches, dim)."""

    def __init__(self, patch: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    def __init__(self, patch: int, dim: int, depth: int, heads: int, num_classes: int = 10, dropout: float = 0.0):
        super().__init__()
        self.patch_embed = PatchEmbedding(patch, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (32 // patch) ** 2, dim))
        layer = nn.TransformerEncoderLayer(dim, heads, dim_feedforward=2 * dim, dropout=dropout, activation="gelu",
                                           batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x):
        x = self.patch_embed(x)
        cls = self.cls_token.expand(x.shape[0], -1, -1)
        x = torch.cat((cls, x), dim=1) + self.pos_embed
        x = self.norm(self.encoder(x))
        return self.head(x[:, 0])


def dataset(images: np.ndarray, labels: np.ndarray):
    return TensorDataset((torch.from_numpy(images).float() / 255 - 0.45) / 0.25, torch.from_numpy(labels))


def main() -> None:
    p = arguments("A vision transformer on CIFAR-10's files", epochs=14, batch_size=32, lr=1e-3, patch=4, dim=64, depth=3,
                  heads=4)
    args = flags(p, "folder with cifar-10-batches-py; made with pictures of shapes where it is missing").parse_args()
    torch.manual_seed(args.seed)
    x, y, test_x, test_y = shrink(args, *cifar(args.data))
    train_loader = DataLoader(dataset(x, y), batch_size=args.batch_size, shuffle=True)
    test_loader = DataLoader(dataset(test_x, test_y), batch_size=64)
    model = ViT(args.patch, args.dim, args.depth, args.heads).to(args.device)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.05)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=args.lr, epochs=args.epochs, steps_per_epoch=len(train_loader))

    def step(images, labels):
        loss = criterion(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        return loss.detach()

    if args.compile:
        step = torch.compile(step)
    curve = []
    for epoch in range(1, args.epochs + 1):
        model.train()
        for images, labels in progress(train_loader, f"epoch {epoch}"):
            curve.append(step(images.to(args.device), labels.to(args.device)).item())
            scheduler.step()
        model.eval()
        with torch.no_grad():
            right = sum((model(images.to(args.device)).argmax(-1).cpu() == labels).sum().item()
                        for images, labels in test_loader)
        recent = curve[-len(train_loader):]
        print(f"epoch {epoch}: loss {sum(recent) / len(recent):.6f}, test accuracy {100 * right / len(test_y):.2f}%")
    plot(curve, args.plot)


if __name__ == "__main__":
    main()
