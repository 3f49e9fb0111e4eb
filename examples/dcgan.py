"""A DCGAN (Radford, Metz and Chintala 2016) that draws handwritten digits of 32x32 pixels."""
from __future__ import annotations

import numpy as np
from _common import arguments, plot, progress
from _data import digits, flags, shrink

import graphc as torch
import graphc.nn as nn
import graphc.optim as optim
from graphc.utils.data import DataLoader, TensorDataset


def weights_init(m) -> None:
    """Normal weights, as the paper has them."""
    classname = m.__class__.__name__
    if classname.find("Conv") != -1:
        nn.init.normal_(m.weight, 0.0, 0.02)
    elif classname.find("BatchNorm") != -1:
        nn.init.normal_(m.weight, 1.0, 0.02)
        nn.init.zeros_(m.bias)


class Generator(nn.Module):
    def __init__(self, nz: int, ngf: int):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, ngf * 4, 4, 1, 0, bias=False), nn.BatchNorm2d(ngf * 4), nn.ReLU(True),   # 4x4
            nn.ConvTranspose2d(ngf * 4, ngf * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(ngf * 2), nn.ReLU(True),   # 8x8
            nn.ConvTranspose2d(ngf * 2, ngf, 4, 2, 1, bias=False), nn.BatchNorm2d(ngf), nn.ReLU(True),   # 16x16
            nn.ConvTranspose2d(ngf, 1, 4, 2, 1, bias=False), nn.Tanh())   # 32x32

    def forward(self, z):
        return self.main(z)


class Discriminator(nn.Module):
    def __init__(self, ndf: int):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),   # 16x16
            nn.Conv2d(ndf, ndf * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(ndf * 2), nn.LeakyReLU(0.2, inplace=True),   # 8x8
            nn.Conv2d(ndf * 2, ndf * 4, 4, 2, 1, bias=False), nn.BatchNorm2d(ndf * 4), nn.LeakyReLU(0.2, inplace=True),   # 4x4
            nn.Conv2d(ndf * 4, 1, 4, 1, 0, bias=False), nn.Sigmoid())

    def forward(self, x):
        return self.main(x).view(-1)


def main() -> None:
    p = arguments("A DCGAN on handwritten digits", epochs=6, batch_size=32, lr=1e-3, beta1=0.5, nz=32, ngf=16, ndf=16)
    flags(p, "folder with the MNIST files")
    args = p.parse_args()
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    images = shrink(args, digits(args.data)[0])[0]
    images = torch.from_numpy(np.pad(2 * images - 1, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=-1))
    loader = DataLoader(TensorDataset(images), batch_size=args.batch_size, shuffle=True, drop_last=True)

    netG = Generator(args.nz, args.ngf).to(device)
    netG.apply(weights_init)
    netD = Discriminator(args.ndf).to(device)
    netD.apply(weights_init)
    criterion = nn.BCELoss()
    optimizerD = optim.Adam(netD.parameters(), lr=args.lr, betas=(args.beta1, 0.999))
    optimizerG = optim.Adam(netG.parameters(), lr=args.lr, betas=(args.beta1, 0.999))
    fixed_noise = torch.randn(100, args.nz, 1, 1, device=device)
    real_label, fake_label = 1.0, 0.0

    def step(real, noise):
        # D learns to tell real from fake: log D(x) + log(1 - D(G(z))).
        netD.zero_grad()
        label = torch.full((real.size(0),), real_label, device=device)
        output = netD(real)
        errD_real = criterion(output, label)
        errD_real.backward()
        D_x = output.mean()
        fake = netG(noise)
        label.fill_(fake_label)
        output = netD(fake.detach())
        errD_fake = criterion(output, label)
        errD_fake.backward()
        D_G_z = output.mean()
        optimizerD.step()
        # G learns to be taken for real: log D(G(z)).
        netG.zero_grad()
        label.fill_(real_label)
        errG = criterion(netD(fake), label)
        errG.backward()
        optimizerG.step()
        return (errD_real + errD_fake).detach(), errG.detach(), D_x.detach(), D_G_z.detach()

    if args.compile:
        step = torch.compile(step)

    def distance() -> float:
        """Mean squared difference between the average real and the average drawn picture: falls as the drawings improve."""
        with torch.no_grad():
            return (netG(fixed_noise).mean(0).cpu() - images.mean(0)).pow(2).mean().item()

    curve = []
    print(f"before: distance of the mean pictures {distance():.4f}")
    for epoch in range(1, args.epochs + 1):
        sums = np.zeros(4)
        for (real,) in progress(loader, f"epoch {epoch}"):
            noise = torch.randn(real.size(0), args.nz, 1, 1, device=device)
            values = [v.item() for v in step(real.to(device), noise)]
            sums += values
            curve.append(values[0])
        errD, errG, D_x, D_G_z = sums / len(loader)
        print(f"epoch {epoch}: D loss {errD:.6f}, G loss {errG:.6f}, D(x) {D_x:.4f}, D(G(z)) {D_G_z:.4f}, "
              f"distance of the mean pictures {distance():.4f}")
    plot(curve, args.plot)
    with torch.no_grad():
        show(netG(fixed_noise[:4]).cpu())


def show(images) -> None:
    """Pictures side by side, as characters."""
    for row in images[:, 0, 3::3, 2::2].permute(1, 0, 2).tolist():
        print(" ".join("".join(" .:*#"[min(4, int(2.5 * v + 2.5))] for v in image) for image in row))


if __name__ == "__main__":
    main()
