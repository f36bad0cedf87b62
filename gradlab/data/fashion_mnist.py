"""Fashion-MNIST: 28x28 grey pixels of clothing, ten classes (Xiao et al. 2017, arXiv:1708.07747; MIT licence)."""

from __future__ import annotations

from gradlab.data.dataset import Dataset
from gradlab.data.download import Source, fetch
from gradlab.data.idx import read_folder
from gradlab.spec.run import DataSpec

SOURCE = Source(
    name="fashion_mnist",
    address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    # The sums of the files that the authors publish in their README.
    md5={
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)


def fashion_mnist(spec: DataSpec) -> Dataset:
    """60,000 images to train on and 10,000 held out, or what `data.root` holds; grey levels 0..255 in rows."""
    return read_folder(spec.root or str(fetch(SOURCE, spec.mirror)))
