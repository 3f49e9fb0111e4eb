"""A variational autoencoder on handwritten digits (Kingma and Welling 2014): 784-400-20-400-784."""
from __future__ import annotations

from _common import arguments, plot, progress
from _data import digits, flags, shrink

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
import graphc.optim as optim
from graphc.utils.data import DataLoader, TensorDataset


class VAE(nn.Module):
    def __init__(self, hidden: int, latent: int):
        super().__init__()
        self.fc1 = nn.Linear(784, hidden)
        self.fc_mu = nn.Linear(hidden, latent)
        self.fc_logvar = nn.Linear(hidden, latent)
        self.fc3 = nn.Linear(latent, hidden)
        self.fc4 = nn.Linear(hidden, 784)

    def encode(self, x):
        h = F.relu(self.fc1(x))
        return self.fc_mu(h), self.fc_logvar(h)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 784))
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def loss_function(recon, x, mu, logvar):
    """Negative evidence lower bound, summed: reconstruction and the Gaussian's divergence from the standard one."""
    bce = F.binary_cross_entropy(recon, x.view(-1, 784), reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kld


def show(images) -> None:
    """Digits side by side, as characters."""
    for row in images.view(-1, 28, 28)[:, 2::3, 2::2].permute(1, 0, 2).tolist():
        print(" ".join("".join(" .:*#"[min(4, int(5 * v))] for v in image) for image in row))


def main() -> None:
    p = flags(arguments("A VAE on handwritten digits", epochs=15, batch_size=64, lr=1e-3, hidden=400, latent=20),
              "folder with the MNIST files")
    args = p.parse_args()
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    train, _, held_out, _ = digits(args.data)
    train, held_out = shrink(args, train, held_out)
    train_loader = DataLoader(TensorDataset(torch.from_numpy(train)), batch_size=args.batch_size, shuffle=True)
    test_loader = DataLoader(TensorDataset(torch.from_numpy(held_out)), batch_size=256)
    model = VAE(args.hidden, args.latent).to(device)
    optimizer = optim.Adam(model.parameters(), lr=args.lr)

    def step(data):
        optimizer.zero_grad()
        recon, mu, logvar = model(data)
        loss = loss_function(recon, data, mu, logvar)
        loss.backward()
        optimizer.step()
        return loss.detach()

    if args.compile:
        step = torch.compile(step)
    curve = []
    for epoch in range(1, args.epochs + 1):
        model.train()
        total = 0.0
        for (data,) in progress(train_loader, f"epoch {epoch}"):
            loss = step(data.to(device)).item()
            total += loss
            curve.append(loss / len(data))
        model.eval()
        with torch.no_grad():
            tested = sum(loss_function(*_arguments(model, data.to(device))).item() for (data,) in test_loader)
        print(f"epoch {epoch}: loss {total / len(train):.6f}, test {tested / len(held_out):.4f}")
    plot(curve, args.plot)
    with torch.no_grad():
        show(model.decode(torch.randn(4, args.latent, device=device)).cpu())


def _arguments(model, data):
    recon, mu, logvar = model(data)
    return recon, data, mu, logvar


if __name__ == "__main__":
    main()
