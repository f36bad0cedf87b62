"""The tasks of sequences: what is asked can be answered from what is shown, and from nothing less."""

from __future__ import annotations

import datetime as dt
import itertools
import lzma
import re

import numpy as np
import pytest

from gradlab.data.characters import FILE
from gradlab.data.copy_memory import BLANK, GO
from gradlab.data.dataset import Dataset
from gradlab.data.dates import ANSWERS, CHARACTERS, DAYS, PAD, START
from gradlab.data.digits import digits
from gradlab.data.loaders import load
from gradlab.data.moving_digits import SIZE, WAYS
from gradlab.data.sequential_digits import sequential_digits
from gradlab.spec.choices import DATA
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import build


def data_of(name: str, **keys: Value) -> Dataset:
    given = {f"data.{key}": value for key, value in keys.items()}
    return load(build({"model.name": "lstm", "data.name": name, "data.standardise": False, **given}).data)


def test_symbols_are_to_be_copied() -> None:
    data = data_of("copy_memory", length=33)
    assert (data.train_inputs[:, :10] == data.train_targets).all()
    assert (data.train_inputs[:, 10:22] == BLANK).all()
    assert (data.train_inputs[:, 22] == GO).all()
    assert (data.train_inputs[:, 23:] == BLANK).all()
    with pytest.raises(SpecError, match=r"^data\.length=20: 'copy_memory' needs at least 21 time steps$"):
        data_of("copy_memory", length=20)


def test_a_formant_s_course_is_the_class() -> None:
    """The bands' centre of mass, over the first and the last frames that sound, moves as the class says."""
    data = data_of("tones", length=60)
    bands = np.arange(16)
    moved = []
    for part in (slice(0, 8), slice(8, 16)):
        energy = np.clip(data.heldout_inputs[:, :, part], 0.4, None) - 0.4 + 1e-9
        centre = (energy * bands[part]).sum(2) / energy.sum(2)
        moved.append(centre[:, 28:36].mean(1) - centre[:, 12:18].mean(1))
    lower, upper = data.heldout_targets // 3, data.heldout_targets % 3
    for courses, found in ((lower, moved[0]), (upper, moved[1])):
        means = [found[courses == course].mean() for course in range(3)]
        assert means[0] < -0.5
        assert abs(means[1]) < 0.3
        assert means[2] > 0.5
    assert abs(data.train_inputs[:, 48:].mean()) < 0.01, "the last fifth is noise alone"


def test_a_film_is_one_digit_that_goes_its_way() -> None:
    asked, way = data_of("moving_digits", ask="digit"), data_of("moving_digits")
    assert (asked.heldout_inputs == way.heldout_inputs).all()
    frames = way.heldout_inputs.reshape(-1, 12, SIZE, SIZE)
    for film, goes in zip(frames[:200], way.heldout_targets[:200], strict=True):
        steps = WAYS[goes : goes + 1] or WAYS[:8]
        for before, after in itertools.pairwise(film):
            assert any((np.roll(before, step, (0, 1)) == after).all() for step in steps)
    shown = {tuple(sorted(film[0][film[0] > 0])) for film in frames}
    images = digits(build({}).data)
    own = {
        tuple(sorted(image[image > 0])): label
        for image, label in zip(images.heldout_inputs, images.heldout_targets, strict=True)
    }
    assert shown <= set(own), "held-out films show held-out digits"
    right = [
        own[tuple(sorted(film[0][film[0] > 0]))] == label
        for film, label in zip(frames, asked.heldout_targets, strict=True)
    ]
    assert np.mean(right) > 0.99, "two images may have the same grey levels"


def test_pixels_follow_each_other_or_one_order_for_all() -> None:
    run = build({"model.name": "lstm", "data.name": "sequential_digits"})
    rows, mixed = sequential_digits(run.data), data_of("sequential_digits", permuted=True)
    assert (rows.train_inputs[:, :, 0] == digits(run.data).train_inputs.reshape(-1, 64)).all()
    order = [
        int(np.flatnonzero((column == rows.train_inputs[:, :, 0].T).all(1))[0])
        for column in mixed.train_inputs[:, 5:8, 0].T
    ]
    assert order != [5, 6, 7]
    assert (rows.heldout_inputs[:, order] == mixed.heldout_inputs[:, 5:8]).all()


def read(source: list[int]) -> dt.date:
    """What a reader makes of a source, by other means than it was written."""
    text = "".join(CHARACTERS[token] for token in source if token != PAD)
    text = text.replace(",", "").replace("the ", "").replace(" of ", " ")
    text = re.sub(r"(\d)(st|nd|rd|th)\b", r"\1", text)
    for form in ("%d %B %Y", "%B %d %Y", "%A %d %B %Y", "%d.%m.%Y", "%Y/%m/%d"):
        try:
            return dt.datetime.strptime(text, form).date()
        except ValueError:
            continue
    raise AssertionError(text)


def test_a_date_is_the_date_that_was_written_and_no_day_is_in_both_parts() -> None:
    data = data_of("dates")
    days = []
    for inputs, targets in ((data.train_inputs, data.train_targets), (data.heldout_inputs, data.heldout_targets)):
        assert (inputs[:, 30] == START).all()
        assert (inputs[:, 31:] == targets[:, :-1]).all()
        days.append({"".join(ANSWERS[token] for token in target) for target in targets})
        for source, target in list(zip(inputs[:, :30].tolist(), targets, strict=True))[:700]:
            assert read(source).isoformat() == "".join(ANSWERS[token] for token in target)
    assert not days[0] & days[1]
    assert len(days[0]) == 8000


def test_what_is_said_to_be_guessed_is_the_entropy_of_the_answers() -> None:
    """Of a text that of its characters; of dates that of one day in a hundred years, in ten places."""
    characters = data_of("characters", length=64).train_targets
    shares = np.unique(characters, return_counts=True)[1] / characters.size
    assert DATA["characters"].guess == pytest.approx(-(shares * np.log(shares)).sum(), abs=0.01)
    assert DATA["dates"].guess == pytest.approx(np.log(DAYS) / 10, abs=0.01)


@pytest.mark.parametrize("length", [2, 32, 64])
def test_a_passage_is_told_or_spoken_as_the_novel_has_it(length: int) -> None:
    text = lzma.decompress(FILE.read_bytes()).decode("ascii")
    letters, split = sorted(set(text)), text.index("Chapter 21\n")
    spoken = [piece for paragraph in text.split("\n\n") for piece in paragraph.split('"')[1::2]]
    told = [piece for paragraph in text.split("\n\n") for piece in paragraph.split('"')[0::2]]
    data = data_of("quotations", length=length)
    for inputs, classes, part in (
        (data.train_inputs, data.train_targets, text[:split]),
        (data.heldout_inputs, data.heldout_targets, text[split:]),
    ):
        assert inputs.shape == (len(classes), length)
        assert classes.mean() == 0.5
        for row, kind in zip(inputs[::97], classes[::97], strict=True):
            window = "".join(letters[number] for number in row)
            assert '"' not in window
            assert window in part
            assert any(window in piece for piece in (spoken if kind else told))
    if length > 2:
        assert len(np.unique(data.train_inputs, axis=0)) > 3990
