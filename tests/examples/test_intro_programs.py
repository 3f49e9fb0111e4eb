"""The two classic introductory programs run with nothing but their import lines changed."""
from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_examples import write_mnist

import graphc

MNIST = '''
import torch
import torch.nn as nn
import torch.optim as optim
import torch.nn.functional as F
from torchvision import datasets, transforms
from torch.utils.data import DataLoader

torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
train_dataset = datasets.MNIST(root=ROOT, train=True, download=False, transform=transform)
test_dataset = datasets.MNIST(root=ROOT, train=False, download=False, transform=transform)
train_loader = DataLoader(dataset=train_dataset, batch_size=16, shuffle=True)
test_loader = DataLoader(dataset=test_dataset, batch_size=16, shuffle=False)

class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.fc1 = nn.Linear(28 * 28, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = x.view(-1, 28 * 28)
        x = F.relu(self.fc1(x))
        return self.fc2(x)

model = Net().to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(model.parameters(), lr=0.05)
for epoch in range(6):
    model.train()
    running_loss = 0.0
    for batch_idx, (data, target) in enumerate(train_loader):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        output = model(data)
        loss = criterion(output, target)
        loss.backward()
        optimizer.step()
        running_loss += loss.item() * data.size(0)
    print(f"Epoch {epoch + 1}, Loss: {running_loss / len(train_loader.dataset):.4f}")

model.eval()
correct = 0
with torch.no_grad():
    for data, target in test_loader:
        output = model(data.to(device))
        pred = output.argmax(dim=1, keepdim=True)
        correct += pred.eq(target.to(device).view_as(pred)).sum().item()
print(f"Accuracy: {100. * correct / len(test_loader.dataset):.2f}%")
'''

REGRESSION = '''
import torch
import torch.nn as nn
import torch.optim as optim
from torch.utils.data import DataLoader, TensorDataset

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(10, 20)
        self.fc2 = nn.Linear(20, 10)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        return self.fc2(x)

net = Net()
net.load_state_dict(torch.load(START))
inputs, targets = torch.from_numpy(X), torch.from_numpy(Y)
train_loader = DataLoader(TensorDataset(inputs, targets), batch_size=8, shuffle=False)
criterion = nn.MSELoss()
optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
losses = []
for epoch in range(5):
    for i, data in enumerate(train_loader, 0):
        x, y = data
        optimizer.zero_grad()
        outputs = net(x)
        loss = criterion(outputs, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
torch.save(net.state_dict(), PATH)
again = Net()
print(again.load_state_dict(torch.load(PATH)))
again.eval()
with torch.no_grad():
    prediction = again(inputs).numpy()
    assert torch.equal(net(inputs), again(inputs))
print(again)
'''


def ours(program: str) -> str:
    """``program`` with PyTorch's imports replaced by graphc's."""
    for old, new in (("import torch\n", "import graphc as torch\n"), ("import torch.", "import graphc."),
                     ("from torchvision", "from graphc.vision"), ("from torch.", "from graphc.")):
        program = program.replace(old, new)
    return program


def run(program: str, **names: Any) -> tuple[dict[str, Any], str]:
    """(the program's globals, what it printed)."""
    scope: dict[str, Any] = {"__name__": "__main__", **names}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(program, "<program>", "exec"), scope)
    return scope, out.getvalue()


def test_mnist_program(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="MNIST items are Pillow images")
    write_mnist(tmp_path)
    _, text = run(ours(MNIST), ROOT=str(tmp_path))
    lines = text.splitlines()
    assert [line.split(",")[0] for line in lines[:-1]] == [f"Epoch {i}" for i in range(1, 7)]
    assert float(lines[5].split()[-1]) < float(lines[0].split()[-1]) / 2
    assert lines[-1] == "Accuracy: 100.00%"


def test_regression_program_follows_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    r = np.random.default_rng(0)
    data = {"X": r.normal(size=(40, 10)).astype(np.float32), "Y": r.normal(size=(40, 10)).astype(np.float32)}
    torch.manual_seed(0)
    net = torch.nn.Module()
    net.fc1, net.fc2 = torch.nn.Linear(10, 20), torch.nn.Linear(20, 10)
    start = tmp_path / "start.pt"
    torch.save(net.state_dict(), start)  # a file PyTorch wrote: graphc reads the same one
    a, printed = run(ours(REGRESSION), START=str(start), PATH=str(tmp_path / "ours.pth"), **data)
    b, expected = run(REGRESSION, START=str(start), PATH=str(tmp_path / "theirs.pth"), **data)
    assert isinstance(a["net"].fc1.weight, graphc.Tensor) and printed == expected
    assert len(a["losses"]) == 25 and a["losses"][-1] < a["losses"][0]
    np.testing.assert_allclose(a["losses"], b["losses"], rtol=1e-4)
    np.testing.assert_allclose(a["prediction"], b["prediction"], rtol=1e-3, atol=1e-5)
