"""Image datasets on tiny files in the real formats, and on damaged ones."""
import gzip
import hashlib
import io
import os
import pickle
import struct
import sys
import tarfile
import urllib.error
import urllib.request

import numpy as np
import pytest

import graphc
from graphc.utils.data import DataLoader
from graphc.vision import datasets, transforms
from graphc.vision.datasets import _unpickle, utils
from graphc.vision.datasets.mnist import read_idx

Image = pytest.importorskip("PIL.Image")
rs = np.random.RandomState(0)


def idx(arr, code=8):
    kind = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}[code]
    return bytes([0, 0, code, arr.ndim]) + struct.pack(f">{arr.ndim}I", *arr.shape) + arr.astype(kind).tobytes()


IMAGES = rs.randint(0, 256, (5, 28, 28)).astype(np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)


def write_mnist(root, name="MNIST", compress=False, splits=("train", "t10k")):
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for k, split in enumerate(splits):
        for kind, data in (("images-idx3", idx(IMAGES[k:])), ("labels-idx1", idx(LABELS[k:]))):
            path = raw / f"{split}-{kind}-ubyte{'.gz' if compress else ''}"
            path.write_bytes(gzip.compress(data) if compress else data)
    return raw


# --------------------------------------------------------------------------------------------------------------- MNIST
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("cls", [datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST])
def test_mnist_reads_idx_files(tmp_path, cls, compress):
    write_mnist(tmp_path, cls.__name__, compress)
    ds = cls(tmp_path)
    assert len(ds) == 5 and ds.data.dtype is graphc.uint8 and ds.targets.dtype is graphc.int64
    assert np.array_equal(ds.data.numpy(), IMAGES) and ds.targets.tolist() == LABELS.tolist()
    image, label = ds[2]
    assert isinstance(image, Image.Image) and image.mode == "L" and type(label) is int and label == 4
    assert np.array_equal(np.asarray(image), IMAGES[2])
    test = cls(str(tmp_path), train=False)
    assert len(test) == 4 and test[0][1] == 1
    assert len(cls.classes) == 10 and ds.class_to_idx[cls.classes[3]] == 3


def test_mnist_transforms_loader_and_repr(tmp_path):
    write_mnist(tmp_path)
    pipeline = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    ds = datasets.MNIST(tmp_path, transform=pipeline, target_transform=lambda n: n + 10)
    for workers in (0, 2):
        x, y = next(iter(DataLoader(ds, batch_size=5, num_workers=workers)))
        want = ((IMAGES.astype(np.float32) / np.float32(255)) - np.float32(0.1307)) / np.float32(0.3081)
        assert x.shape == (5, 1, 28, 28) and np.array_equal(x.numpy()[:, 0], want) and y.tolist() == [13, 11, 14, 11, 15]
    text = repr(datasets.MNIST(tmp_path, train=False, transform=transforms.ToTensor()))
    assert text == (f"Dataset MNIST\n    Number of datapoints: 4\n    Root location: {tmp_path}\n    Split: Test\n"
                    "    StandardTransform\nTransform: ToTensor()")


def test_mnist_data_may_be_replaced(tmp_path):
    write_mnist(tmp_path)
    ds = datasets.MNIST(tmp_path)
    keep = ds.targets == 1
    ds.data, ds.targets = ds.data[keep], ds.targets[keep]
    assert len(ds) == 2 and ds[1][1] == 1 and np.array_equal(np.asarray(ds[1][0]), IMAGES[3])
    with pytest.warns(UserWarning, match="renamed targets"):
        assert ds.train_labels is ds.targets


def test_mnist_missing(tmp_path):
    with pytest.raises(RuntimeError, match=r"Dataset not found\. You can use download=True to download it"):
        datasets.MNIST(tmp_path)
    write_mnist(tmp_path, splits=("train",))
    datasets.MNIST(tmp_path)
    with pytest.raises(RuntimeError, match="t10k-images"):
        datasets.MNIST(tmp_path, train=False)


@pytest.mark.parametrize("damage", ["empty", "header", "magic", "type", "short", "long", "ndim", "text"])
@pytest.mark.parametrize("compress", [False, True])
def test_mnist_damaged_file_is_named(tmp_path, damage, compress):
    raw = write_mnist(tmp_path, compress=compress)
    path = raw / f"train-images-idx3-ubyte{'.gz' if compress else ''}"
    good = idx(IMAGES)
    bad = {"empty": b"", "header": good[:9], "magic": b"\1" + good[1:], "type": good[:2] + b"\7" + good[3:],
           "short": good[:-1], "long": good + b"x", "ndim": good[:3] + b"\2" + good[4:], "text": b"<html>404</html>"}[damage]
    path.write_bytes(gzip.compress(bad) if compress else bad)
    with pytest.raises(RuntimeError, match="train-images-idx3-ubyte"):
        datasets.MNIST(tmp_path)


@pytest.mark.parametrize("cut", [5, 30, 200, -4, -1])
def test_mnist_truncated_gzip(tmp_path, cut):
    raw = write_mnist(tmp_path, compress=True)
    path = raw / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(RuntimeError, match="train-images-idx3-ubyte.gz"):
        datasets.MNIST(tmp_path)


def test_mnist_counts_must_agree_and_huge_headers_allocate_nothing(tmp_path):
    raw = write_mnist(tmp_path)
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:3]))
    with pytest.raises(RuntimeError, match="5 images but .* 3 labels"):
        datasets.MNIST(tmp_path)
    (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)
    with pytest.raises(RuntimeError, match="promises"):
        datasets.MNIST(tmp_path)


@pytest.mark.parametrize("code", [8, 9, 11, 12, 13, 14])
def test_idx_types(tmp_path, code):
    arr = np.array([[1, -2, 3], [4, 5, 100]]) if code != 8 else np.array([[1, 2, 3], [4, 5, 250]])
    (tmp_path / "a").write_bytes(idx(arr, code))
    out = read_idx(tmp_path / "a")
    assert out.tolist() == arr.tolist() and out.dtype.byteorder in "=|"


# ------------------------------------------------------------------------------------------------------------ download
def served(files, monkeypatch, log=None):
    """Answer urlopen from a dict of base names."""
    def urlopen(request, timeout=None):
        url = request.full_url if hasattr(request, "full_url") else request
        if log is not None:
            log.append(url)
        name = url.rsplit("/", 1)[1]
        if name not in files:
            raise urllib.error.URLError("no network here")
        return io.BytesIO(files[name])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


def fake_mnist(monkeypatch):
    files = {f"{s}-{k}-ubyte.gz": gzip.compress(idx(d), mtime=0) for s in ("train", "t10k")
             for k, d in (("images-idx3", IMAGES), ("labels-idx1", LABELS))}
    monkeypatch.setattr(datasets.MNIST, "resources", [(n, hashlib.md5(d).hexdigest()) for n, d in files.items()])
    return files


def test_mnist_download(tmp_path, monkeypatch):
    files, log = fake_mnist(monkeypatch), []
    served(files, monkeypatch, log)
    assert len(datasets.MNIST(tmp_path, download=True)) == 5
    assert len(log) == 4 and all(url.startswith("https://ossci-datasets") for url in log)
    datasets.MNIST(tmp_path, download=True)
    assert len(log) == 4  # nothing is fetched twice
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    datasets.MNIST(tmp_path, download=True)
    assert len(log) == 5


def test_mnist_download_falls_back_to_the_next_mirror_and_checks_md5(tmp_path, monkeypatch):
    files = fake_mnist(monkeypatch)
    calls = []

    def urlopen(request, timeout=None):
        calls.append(request.full_url)
        name = request.full_url.rsplit("/", 1)[1]
        return io.BytesIO(b"garbage" if "ossci" in request.full_url else files[name])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert len(datasets.MNIST(tmp_path, download=True)) == 5
    assert len(calls) == 8 and calls[1].startswith("http://yann.lecun.com")


def test_download_without_network_says_what_to_put_where(tmp_path, monkeypatch):
    served({}, monkeypatch)
    with pytest.raises(RuntimeError) as info:
        datasets.MNIST(tmp_path, download=True)
    text = str(info.value)
    assert "Error downloading train-images-idx3-ubyte.gz" in text and "no network here" in text
    assert "yann.lecun.com" in text and "ossci-datasets" in text
    assert "t10k-labels-idx1-ubyte.gz" in text and str(tmp_path / "MNIST" / "raw") in text
    assert os.listdir(tmp_path / "MNIST" / "raw") == []  # no half file
    with pytest.raises(RuntimeError, match="cifar-10-python.tar.gz into"):
        datasets.CIFAR10(tmp_path, download=True)


def test_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    class Breaks(io.BytesIO):
        def read(self, n=-1):
            if self.tell():
                raise ConnectionResetError("gone")
            return super().read(10)

    monkeypatch.setattr(urllib.request, "urlopen", lambda request, timeout=None: Breaks(b"x" * 100))
    with pytest.raises(ConnectionResetError):
        utils.download_url("http://x/y", tmp_path)
    assert os.listdir(tmp_path) == []


def test_known_checksums_and_mirrors():
    assert dict(datasets.MNIST.resources)["train-images-idx3-ubyte.gz"] == "f68b3c2dcbeaaa9fbdd348bbdeb94873"
    assert dict(datasets.FashionMNIST.resources)["t10k-labels-idx1-ubyte.gz"] == "bb300cfdad3c16e7a12a480ee83cd310"
    assert dict(datasets.KMNIST.resources)["t10k-images-idx3-ubyte.gz"] == "5c965bf0a639b31b8f53240b1b52f4d7"
    assert datasets.CIFAR10.tgz_md5 == "c58f30108f718f92721af3b95e74349a"
    assert datasets.CIFAR100.tgz_md5 == "eb9058c3a382ffc7106e4002c42a8d85"


# --------------------------------------------------------------------------------------------------------------- CIFAR
PIXELS = rs.randint(0, 256, (6, 3072)).astype(np.uint8)


def python2_pickle(obj):
    """As the original files: protocol 2 with Python 2's module names."""
    return pickle.dumps(obj, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def write_cifar10(root, protocol=None):
    dump = python2_pickle if protocol is None else lambda obj: pickle.dumps(obj, protocol)
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for k in range(5):
        (folder / f"data_batch_{k + 1}").write_bytes(dump({"data": PIXELS[k:k + 1], "labels": [k], "batch_label": "b",
                                                           "filenames": ["x"]}))
    (folder / "test_batch").write_bytes(dump({"data": PIXELS[5:], "labels": [9]}))
    (folder / "batches.meta").write_bytes(dump({"label_names": [f"class{i}" for i in range(10)]}))
    return folder


@pytest.mark.parametrize("protocol", [None, 2, 4, 5])
def test_cifar10_python_version(tmp_path, protocol):
    write_cifar10(tmp_path, protocol)
    ds = datasets.CIFAR10(tmp_path)
    assert len(ds) == 5 and ds.data.shape == (5, 32, 32, 3) and ds.targets == [0, 1, 2, 3, 4]
    image, label = ds[3]
    assert image.mode == "RGB" and image.size == (32, 32) and label == 3 and type(label) is int
    assert np.array_equal(np.asarray(image), PIXELS[3].reshape(3, 32, 32).transpose(1, 2, 0))
    test = datasets.CIFAR10(tmp_path, train=False, transform=transforms.ToTensor())
    assert np.array_equal(test[0][0].numpy(), PIXELS[5].reshape(3, 32, 32).astype(np.float32) / np.float32(255))
    assert test[0][1] == 9 and test.classes[9] == "class9" and test.class_to_idx["class9"] == 9
    assert "Split: Test" in repr(test)


def test_cifar10_binary_version(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for k in range(5):
        (folder / f"data_batch_{k + 1}.bin").write_bytes(bytes([k]) + PIXELS[k].tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)) + "\n\n")
    ds = datasets.CIFAR10(tmp_path)
    assert ds.targets == [0, 1, 2, 3, 4] and ds.classes == [f"class{i}" for i in range(10)]
    assert np.array_equal(np.asarray(ds[2][0]), PIXELS[2].reshape(3, 32, 32).transpose(1, 2, 0))
    (folder / "data_batch_2.bin").write_bytes(b"\1" + PIXELS[1].tobytes()[:-1])
    with pytest.raises(RuntimeError, match=r"data_batch_2\.bin is truncated"):
        datasets.CIFAR10(tmp_path)
    (folder / "data_batch_2.bin").write_bytes(b"\x0a" + PIXELS[1].tobytes())
    with pytest.raises(RuntimeError, match=r"data_batch_2\.bin"):
        datasets.CIFAR10(tmp_path)


def test_cifar100_both_versions(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    entry = {"data": PIXELS, "fine_labels": [0, 99, 5, 6, 7, 8], "coarse_labels": [0] * 6}
    (folder / "train").write_bytes(python2_pickle(entry))
    (folder / "meta").write_bytes(python2_pickle({"fine_label_names": [f"f{i}" for i in range(100)]}))
    ds = datasets.CIFAR100(tmp_path)
    assert ds.targets[1] == 99 and ds.classes[99] == "f99" and len(ds) == 6
    binary = tmp_path / "b" / "cifar-100-binary"
    binary.mkdir(parents=True)
    (binary / "train.bin").write_bytes(b"".join(bytes([7, n]) + p.tobytes() for n, p in zip(entry["fine_labels"], PIXELS)))
    other = datasets.CIFAR100(tmp_path / "b")
    assert other.targets == ds.targets and np.array_equal(other.data, ds.data)


def test_cifar_missing(tmp_path):
    for cls in (datasets.CIFAR10, datasets.CIFAR100):
        with pytest.raises(RuntimeError, match=r"Dataset not found.*download=True"):
            cls(tmp_path)
    folder = write_cifar10(tmp_path)
    (folder / "data_batch_4").unlink()
    with pytest.raises(RuntimeError, match="missing .*data_batch_4"):
        datasets.CIFAR10(tmp_path)
    assert len(datasets.CIFAR10(tmp_path, train=False)) == 1


class Evil:
    def __reduce__(self):
        return os.system, ("touch graphc-was-here",)


@pytest.mark.parametrize("content", [
    b"", b"junk", python2_pickle({"data": PIXELS[:1], "labels": [0]})[:-200], python2_pickle([1, 2]),
    python2_pickle({"data": PIXELS[:1]}), python2_pickle({"data": PIXELS[:1, :5], "labels": [0]}),
    python2_pickle({"data": PIXELS[:1].astype(np.int32), "labels": [0]}), python2_pickle({"data": PIXELS[:1], "labels": [10]}),
    python2_pickle({"data": PIXELS[:1], "labels": [0, 1]}), python2_pickle({"data": PIXELS[:1], "labels": ["0"]}),
    pickle.dumps({"data": Evil(), "labels": [0]}), pickle.dumps(eval), pickle.dumps({"data": np.array([Evil()]), "labels": [0]}),
])
def test_cifar_damaged_or_hostile_file_is_named_and_runs_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    folder = write_cifar10(tmp_path)
    (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(RuntimeError, match="data_batch_3"):
        datasets.CIFAR10(tmp_path)
    assert not os.path.exists("graphc-was-here")


def test_restricted_unpickler():
    for good in ({"a": [1, (2.5, "x")], b"k": {3}}, np.arange(6).reshape(2, 3), np.array(["ab"]), b"\xff\0", bytearray(b"x")):
        for protocol in range(6):
            out = _unpickle.load_plain(io.BytesIO(pickle.dumps(good, protocol)))
            assert np.array_equal(out, good) if isinstance(good, np.ndarray) else out == good
    huge = pickle.dumps(np.zeros(3, np.uint8), 2).replace(b"K\x00\x85", b"\x8a\x05\xff\xff\xff\xff\x0f\x85", 1)
    _unpickle.load_plain(io.BytesIO(huge))  # the size _reconstruct is told is not believed
    for bad in (os.system, getattr, eval, np.load, io.open, sys.exit, print):
        with pytest.raises(pickle.UnpicklingError, match="not allowed"):
            _unpickle.load_plain(io.BytesIO(pickle.dumps(bad)))


def test_full_size_files_must_have_the_original_checksum(tmp_path, monkeypatch):
    folder = write_cifar10(tmp_path)
    monkeypatch.setattr(datasets.CIFAR10, "_original_size", {"data_batch": 1})
    with pytest.raises(RuntimeError, match="data_batch_1 is corrupted: its MD5"):
        datasets.CIFAR10(tmp_path)
    sums = [[f"data_batch_{k}", hashlib.md5((folder / f"data_batch_{k}").read_bytes()).hexdigest()] for k in range(1, 6)]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", sums)
    assert len(datasets.CIFAR10(tmp_path)) == 5


def test_cifar_download_and_unpack(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    write_cifar10(source)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(source / "cifar-10-batches-py", "cifar-10-batches-py")
    archive = (tmp_path / "a.tar.gz").read_bytes()
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(archive).hexdigest())
    served({"cifar-10-python.tar.gz": archive}, monkeypatch)
    assert len(datasets.CIFAR10(tmp_path / "root", download=True)) == 5


@pytest.mark.parametrize("member", ["../escape", "/tmp/escape-graphc", "link"])
def test_archives_that_leave_their_folder_are_refused(tmp_path, member):
    path = tmp_path / "bad.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(member)
        if member == "link":
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info, io.BytesIO())
    with pytest.raises(RuntimeError, match="refused"):
        utils.extract_archive(path, tmp_path / "out")
    assert not (tmp_path / "escape").exists()


# -------------------------------------------------------------------------------------------------- folders, fake data
def write_folder(root):
    for name, colours in (("cat", [10, 20]), ("ant", [30])):
        (root / name / "deep").mkdir(parents=True)
        for k, c in enumerate(colours):
            Image.fromarray(np.full((4, 6, 3), c, np.uint8)).save(root / name / ("deep" if k else ".") / f"{k}.PNG")
    (root / "cat" / "notes.txt").write_text("no image")


def read_text(path):
    with open(path) as f:
        return f.read()


def test_image_folder(tmp_path):
    write_folder(tmp_path)
    ds = datasets.ImageFolder(tmp_path, transform=transforms.PILToTensor())
    assert ds.classes == ["ant", "cat"] and ds.class_to_idx == {"ant": 0, "cat": 1} and ds.targets == [0, 1, 1]
    assert [(int(x[0, 0, 0]), tuple(x.shape), y) for x, y in ds] == [(30, (3, 4, 6), 0), (10, (3, 4, 6), 1), (20, (3, 4, 6), 1)]
    assert ds.imgs is ds.samples and ds.samples[0][0].endswith(os.path.join("ant", ".", "0.PNG").replace("./", ""))
    x, y = next(iter(DataLoader(ds, batch_size=3, num_workers=1)))
    assert x[:, 0, 0, 0].tolist() == [30, 10, 20] and y.tolist() == [0, 1, 1]
    texts = datasets.DatasetFolder(tmp_path, loader=read_text, extensions=(".txt",), allow_empty=True)
    assert texts[0] == ("no image", 1)
    only = datasets.ImageFolder(tmp_path, is_valid_file=lambda p: p.endswith("0.PNG"))
    assert len(only) == 2


def test_image_folder_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="Couldn't find any class folder"):
        datasets.ImageFolder(tmp_path)
    write_folder(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(FileNotFoundError, match="Found no valid file for the classes dog.*png"):
        datasets.ImageFolder(tmp_path)
    ds = datasets.ImageFolder(tmp_path, allow_empty=True)
    path = ds.samples[0][0]
    with open(path, "rb") as f:
        good = f.read()
    for bad in (b"", b"not an image", good[:40], good[:-30]):
        with open(path, "wb") as f:
            f.write(bad)
        with pytest.raises(RuntimeError, match="0.PNG"):
            ds[0]
        with pytest.raises(OSError):
            ds[0]
    os.remove(path)
    with pytest.raises(FileNotFoundError):
        ds[0]
    for kw in ({}, {"extensions": (".png",), "is_valid_file": bool}):
        with pytest.raises(ValueError):
            datasets.folder.make_dataset(tmp_path, **kw)


def test_fake_data_is_fixed_per_index_and_leaves_the_generator_alone():
    ds = datasets.FakeData(size=5, image_size=(3, 8, 9), num_classes=4, transform=transforms.ToTensor())
    state = graphc.get_rng_state().tolist()
    x, y = ds[2]
    assert graphc.get_rng_state().tolist() == state
    again = datasets.FakeData(5, (3, 8, 9), 4, transforms.ToTensor())[2]
    assert x.shape == (3, 8, 9) and x.tolist() == again[0].tolist() and 0 <= y < 4 and y == again[1]
    assert ds[1][0].tolist() != x.tolist()
    shifted = datasets.FakeData(5, (3, 8, 9), 4, transforms.ToTensor(), random_offset=1)
    assert shifted[1][0].tolist() == x.tolist()
    with pytest.raises(IndexError):
        ds[5]
    assert len(list(DataLoader(ds, 2))) == 3


def test_vision_dataset_arguments():
    with pytest.raises(ValueError, match="Only transforms or transform"):
        datasets.VisionDataset("r", transforms=lambda a, b: (a, b), transform=abs)
    ds = datasets.VisionDataset("~/x")
    assert ds.root == os.path.expanduser("~/x")
    with pytest.raises(NotImplementedError):
        ds[0]


def test_missing_pillow_says_what_to_install(tmp_path):
    """In another process, where Pillow cannot be imported."""
    import subprocess

    write_mnist(tmp_path)
    code = ("import sys; sys.modules['PIL'] = None\n"
            "from graphc.vision import datasets, transforms\n"
            f"ds = datasets.MNIST({str(tmp_path)!r})\n"
            "try:\n    ds[0]\nexcept ImportError as e:\n    print(e)\n"
            "import numpy as np\nprint(transforms.ToTensor()(np.zeros((2, 3), np.uint8)).shape)\n")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert "pip install graphc[vision]" in out.stdout and "(1, 2, 3)" in out.stdout.replace("[", "(").replace("]", ")"), out
