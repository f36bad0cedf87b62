"""MNIST: 28x28 grey pixels of hand-written digits, ten classes (LeCun, Cortes and Burges 1998)."""

from __future__ import annotations

from gradlab.data.dataset import Dataset
from gradlab.data.download import Source, fetch
from gradlab.data.idx import read_folder
from gradlab.spec.run import DataSpec

SOURCE = Source(
    name="mnist",
    address="https://ossci-datasets.s3.amazonaws.com/mnist/",
    # The sums of the original files, as torchvision.datasets.MNIST lists them.
    md5={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)


def mnist(spec: DataSpec) -> Dataset:
    """60,000 images to train on and 10,000 held out, or what `data.root` holds; grey levels 0..255 in rows."""
    return read_folder(spec.root or str(fetch(SOURCE, spec.mirror)))
