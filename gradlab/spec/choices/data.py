"""The data sets: their shapes and sizes, and the keys that each has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradlab.spec.named import Choice, Value, table


@dataclass(frozen=True)
class Data(Choice):
    """One data set: its extra keys with their defaults, and the shapes that do not depend on them.

    ``loss`` is ``cross_entropy`` (nats), ``mean_squared_error`` or ``quartic``; ``shape`` is (features,) or (time,
    features), (height, width, channels) or, of tokens, (time,), with None where a key (`data.features`, `data.length`)
    decides; ``outputs`` None means as many as there are inputs. ``image``: the shape is one of pixels. ``vocabulary``:
    so many tokens there are, where inputs are tokens. ``positions``: so many answers a sample, each of one class; 0
    where it is one, None where every place of the sequence has its own; where they are fewer than the places, they
    belong to the last of these. ``dictated``: each of these places holds the answer before its own (answers are the
    first tokens), which a network does not have when it is asked: `accuracy` is the share of samples that it has wholly
    right, given back what it has answered. ``least_length`` and ``longest`` bound `data.length`. ``variance`` is that
    of the targets, which one answer to every input costs; None where it is drawn. ``guess``: what it costs to answer
    without a look at the input, in nats, where the answers are not equally likely; ``open_ended``: the input does not
    tell the answer, so that no loss comes near zero.
    ``own``: they are the user's, and must be looked at; ``free``: made by a function, with arguments of any names.
    """

    loss: str = "cross_entropy"
    shape: tuple[int | None, ...] = ()
    outputs: int | None = None
    train: int = 0
    heldout: int = 0
    variance: float | None = None
    guess: float | None = None
    open_ended: bool = False
    image: bool = False
    vocabulary: int = 0
    positions: int | None = 0
    dictated: bool = False
    least_length: int = 2
    longest: int | None = None
    own: bool = False
    free: bool = False
    keys: Mapping[str, Value] = field(default_factory=dict)

    @property
    def forms(self) -> tuple[str, ...]:
        """See `forms_of`."""
        return forms_of(len(self.shape), image=self.image, vocabulary=self.vocabulary)


def forms_of(axes: int, *, image: bool, vocabulary: int) -> tuple[str, ...]:
    """How an input of so many axes is taken: as tokens, a vector, a sequence, or an image, whose rows are one."""
    if vocabulary:
        return ("tokens",)
    if image:
        return ("image", "sequence")
    return ("sequence",) if axes == 2 else ("vector",)


_IDX: dict[str, Value] = {"root": None, "mirror": None}


DATA: dict[str, Data] = table(
    Data(
        "digits",
        "1,797 hand-written digits of 8x8 grey pixels, embedded; rows are time steps",
        "UCI optical recognition of handwritten digits, Alpaydin & Kaynak 1998",
        shape=(8, 8),
        image=True,
        outputs=10,
        train=1437,
        heldout=360,
    ),
    Data(
        "fashion_mnist",
        "70,000 pieces of clothing of 28x28 grey pixels; rows are time steps",
        "Xiao et al. 2017, arXiv:1708.07747",
        shape=(28, 28),
        image=True,
        outputs=10,
        train=60_000,
        heldout=10_000,
        keys=_IDX,
    ),
    Data(
        "mnist",
        "70,000 hand-written digits of 28x28 grey pixels; rows are time steps",
        "LeCun et al. 1998",
        shape=(28, 28),
        image=True,
        outputs=10,
        train=60_000,
        heldout=10_000,
        keys=_IDX,
    ),
    Data(
        "cifar10",
        "60,000 photographs of ten kinds of things, 32x32 coloured pixels; rows are time steps",
        "Krizhevsky 2009, Learning multiple layers of features from tiny images",
        shape=(32, 32, 3),
        image=True,
        outputs=10,
        train=50_000,
        heldout=10_000,
        keys=_IDX,
    ),
    Data(
        "gaussian_mixture",
        "10 normal clouds with normal centres, one a class",
        "Schoenholz et al. 2016, arXiv:1611.01232, as a stand-in for images",
        shape=(None,),
        outputs=10,
        train=4096,
        heldout=1024,
        keys={"features": 64},
    ),
    Data(
        "linear_teacher",
        "normal inputs and a random linear map of them to learn; as many outputs as inputs",
        "Saxe et al. 2013, arXiv:1312.6120",
        loss="mean_squared_error",
        shape=(None,),
        train=4096,
        heldout=1024,
        keys={"features": None},
    ),
    Data(
        "adding",
        "add the two marked numbers of a sequence; guessing their mean costs 1/6",
        "Hochreiter & Schmidhuber 1997; Le et al. 2015, arXiv:1504.00941",
        loss="mean_squared_error",
        shape=(None, 2),
        outputs=1,
        train=20_000,
        heldout=2_000,
        variance=1 / 6,
        keys={"length": 50},
    ),
    Data(
        "interval",
        "256 evenly spaced numbers from -2 to 2, and one wave of a sine over them",
        "Balduzzi et al. 2017, arXiv:1702.08591",
        loss="mean_squared_error",
        shape=(1,),
        outputs=1,
        train=256,
        heldout=255,
        variance=0.5,
        keys={"batch_size": "full", "standardise": False},
    ),
    Data(
        "spectral_teacher",
        "whitened inputs and a symmetric linear map of them with the singular values K, K-1, ..., 1",
        "Saxe et al. 2013, arXiv:1312.6120",
        loss="mean_squared_error",
        shape=(None,),
        train=256,
        heldout=64,
        keys={"batch_size": "full", "standardise": False, "features": 4},
    ),
    Data(
        "silence",
        "one sequence of zeros, after which the answer is 0.7",
        "Pascanu et al. 2013, arXiv:1211.5063, figure 6",
        loss="mean_squared_error",
        shape=(None, 1),
        outputs=1,
        train=1,
        heldout=1,
        keys={"batch_size": 1, "standardise": False, "length": 50},
    ),
    Data(
        "point",
        "the number 1, with the loss f(y) = y^4 of what is made of it",
        "Zhang et al. 2019, arXiv:1905.11881",
        loss="quartic",
        shape=(1,),
        outputs=1,
        train=1,
        heldout=1,
        keys={"batch_size": 1, "standardise": False},
    ),
    Data(
        "copy_memory",
        "ten symbols out of eight, to be given again at the end of a sequence; guessing costs ln 8",
        "Hochreiter & Schmidhuber 1997; Arjovsky et al. 2015, arXiv:1511.06464",
        shape=(None,),
        outputs=8,
        train=20_000,
        heldout=2_000,
        vocabulary=10,
        positions=10,
        least_length=21,
        keys={"length": 50},
    ),
    Data(
        "tones",
        "sounds like vowels: two formants in noise, in 16 bands, by whether each falls, holds or rises",
        "Klatt 1980 for formants on their course; synthetic",
        shape=(None, 16),
        outputs=9,
        train=4_000,
        heldout=1_000,
        least_length=10,
        keys={"length": 40},
    ),
    Data(
        "moving_digits",
        "films of the digits, 12x12 pixels a frame: which of ten ways they move, or which digit it is",
        "Srivastava et al. 2015, arXiv:1502.04681, with the digits of `digits`",
        shape=(None, 144),
        outputs=10,
        train=4_000,
        heldout=800,
        keys={"length": 12, "ask": "way"},
    ),
    Data(
        "sequential_digits",
        "the digits pixel by pixel, 64 time steps; data.permuted: in one random order",
        "Le et al. 2015, arXiv:1504.00941",
        shape=(64, 1),
        outputs=10,
        train=1437,
        heldout=360,
        keys={"permuted": False},
    ),
    Data(
        "dates",
        "dates as people write them, to be translated to ISO 8601, character by character",
        "Bahdanau et al. 2014, arXiv:1409.0473, for the kind of task; generated",
        shape=(40,),
        outputs=11,
        train=8_000,
        heldout=1_000,
        vocabulary=43,
        positions=10,
        dictated=True,
        # Of 36,525 days one costs ln 36525 = 10.5 in ten places, to whoever knows what he has written.
        guess=1.05,
    ),
    Data(
        "characters",
        "the next character of a novel, at every place; guessing evenly among 74 costs ln 74 = 4.30",
        "Jane Austen 1813, Pride and Prejudice, volume one, public domain",
        shape=(None,),
        outputs=74,
        train=4_000,
        heldout=500,
        vocabulary=74,
        positions=None,
        guess=3.10,
        open_ended=True,
        longest=20_000,
        keys={"length": 64},
    ),
    Data(
        "quotations",
        "whether a passage of that novel is told or spoken by somebody; guessing costs ln 2 = 0.69",
        "Jane Austen 1813, Pride and Prejudice, volume one, public domain",
        shape=(None,),
        outputs=2,
        train=4_000,
        heldout=500,
        vocabulary=74,
        longest=64,
        keys={"length": 32},
    ),
    Data(
        "file",
        "your own: a .csv, .parquet, .npz or .safetensors file, or a folder of images by class (data.path)",
        "-",
        keys={"path": None, "label": None, "heldout": 0.2, "task": "auto", "source": None},
        own=True,
    ),
    Data(
        "function",
        "your own: what data.target=nets.py:batches returns, with arguments data.args.NAME",
        "-",
        keys={"target": None, "source": None},
        own=True,
        free=True,
    ),
)
