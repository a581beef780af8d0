"""What to label next: how many rows, which ones, and the widget to do it in."""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from statsmodels.stats.proportion import samplesize_confint_proportion
from threadpoolctl import threadpool_limits

from helpers import CourseError
from helpers.core.files import numbered_rows
from helpers.core.pilot import Pilot
from helpers.core.text import narrow, same_message
from helpers.label.labeler import Labeler
from helpers.measure import baselines
from helpers.measure.intervals import Share, share
from helpers.pilot.mending import Row

SAMPLE_FILE = "to_label.csv"
SAMPLE = 50  # rows: an hour for one person
MOST_READ = 5_000  # rows among which the sample is sought
MOST_LEARNT = 600  # rows for the learning curve
POINTS = 0.05  # half of the interval that a test set should give
ASSUMED = 0.8  # share of right answers, where nothing has been measured


@dataclass(frozen=True)
class NextToLabel:
    """What to label next; prints as lines.

    `test_rows`: for an interval of 5 points to each side. `half`, `whole`: Shares of training rows
    that word counts read right after half and after all of them, or None; `guess`: the share of the
    commonest value. `sample`: rows worth labelling.
    """

    test_rows: int
    half: Share | None = None
    whole: Share | None = None
    guess: float = 0.0
    sample: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return narrow(*self.notes)


def next_to_label(
    pilot: Pilot,
    train: Sequence[Row],
    tested: int,
    waiting: Sequence[Row],
    spare: int = 0,
    number: int = SAMPLE,
    seed: int = 0,
) -> NextToLabel:
    """How many rows to label next, and `number` of those that are `waiting` for a label.

    `tested`: rows of the test set, `spare`: labelled rows that are not used. The sample are rows
    that word counts are least sure of; without labelled rows, rows as different as can be.
    """
    half, whole, guess = _learning_curve(pilot, train, seed) if pilot.labels else (None, None, 0.0)
    right = min(0.95, max(0.5, whole.value)) if whole else ASSUMED
    # the normal approximation; Wilson's interval is as wide at this number of rows
    test_rows = math.ceil(samplesize_confint_proportion(right, POINTS))
    notes = [_test_line(tested, test_rows, right, spare)]
    if half and whole:
        notes += _curve_lines(pilot.labels[0], half, whole, guess)
    sample = _sample(pilot, train if whole else [], waiting, number, seed)
    if sample:
        what = "word counts are least sure of them" if whole else "they differ most in wording"
        notes.append(f"{SAMPLE_FILE} holds {len(sample)} unlabelled rows to label first: {what}.")
    if sample and whole:
        notes.append("They are for training: a test set needs rows drawn blindly.")
    return NextToLabel(test_rows, half, whole, guess, sample, notes)


def _test_line(tested: int, wanted: int, right: float, spare: int) -> str:
    why = f"if {right:.0%} are read right, {wanted} give an interval of 5 points to each side"
    if not tested:
        return f"A test set of about {wanted} rows is needed: {why}."
    more = f"label {wanted - tested} more for the test" if tested < wanted else "that is enough"
    if tested < wanted <= tested + spare:
        more = f"--test-rows {wanted} takes them from the {spare:,} spare ones"
    return f"{tested} test rows: {why}; {more}."


def _learning_curve(
    pilot: Pilot, train: Sequence[Row], seed: int
) -> tuple[Share | None, Share | None, float]:
    """(right with half of the rows, with all, by always saying the commonest), of the first label.

    Word counts (TF-IDF), each row read by a model that learnt from other folds.
    """
    rows = list(train)
    if len(rows) > MOST_LEARNT:
        drawn = np.random.default_rng(seed).choice(len(rows), MOST_LEARNT, replace=False)
        rows = [rows[place] for place in sorted(drawn)]
    name = pilot.labels[0]
    if len(rows) < 2 or len({same_message(row[pilot.text]) for row in rows}) < 2:
        return None, None, 0.0
    fold = baselines.folds(pilot, rows, 3, seed)

    def half_of(rows: Sequence[Row]) -> list[Row]:
        ordered = sorted(rows, key=lambda row: str(row[name]))
        return ordered[::2]

    found = []
    for learn in (half_of, list):
        right = np.zeros(len(rows), bool)
        for number in np.unique(fold):
            seen = learn([row for row, own in zip(rows, fold) if own != number])
            places = np.flatnonzero(fold == number)
            texts = [rows[place][pilot.text] for place in places]
            table = word_count_chances(pilot, seen, texts, [name])[name]
            classes = baselines.label_classes(pilot, name)
            for place, best in zip(places, table.argmax(axis=1)):
                right[place] = classes[best] == (rows[place][name] or None)
        found.append(share(right))
    commonest = Counter(row[name] for row in rows).most_common(1)[0][1]
    return found[0], found[1], commonest / len(rows)


def word_count_chances(
    pilot: Pilot, seen: Sequence[Row], texts: Sequence[str], labels: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """{label: probabilities by word counts, shape (texts, classes)}; of all labels or of `labels`.

    Where no text has a word to count, the share of each class.
    """
    fields = {name: pilot.fields[name] for name in labels or pilot.labels}
    alone = pilot.model_copy(update={"fields": fields})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # many classes of few rows are no mistake here
        try:
            return baselines.label_probabilities(alone, seen, texts, "TF-IDF")
        except ValueError:
            return baselines.label_probabilities(alone, seen, texts, "majority")


def _curve_lines(name: str, half: Share, whole: Share, guess: float) -> list[str]:
    read = f"Word counts read {name} right in {whole.value:.0%} of the training rows they did not"
    lines = [f"{read} learn; always the commonest value: {guess:.0%}."]
    if whole.low <= guess:
        what = "no better than guessing: perhaps nobody can tell this from the message"
        return [*lines, f"That is {what}. Read twenty rows before you train."]
    gain = 100 * min(whole.value - half.value, 1 - whole.value)
    if gain < 2:
        more = "more rows of the same kind bring little"
        return [*lines, f"Half of the rows give {half.value:.0%}: {more}."]
    more = f"twice as many may bring up to {gain:.0f} points more, so label training rows"
    return [*lines, f"Half of the rows give {half.value:.0%}: {more}."]


# Which rows ------------------------------------------------------------------------------------


def _sample(
    pilot: Pilot, train: Sequence[Row], waiting: Sequence[Row], number: int, seed: int
) -> list[Row]:
    """Each message once, and none that is labelled already."""
    known = {same_message(row[pilot.text]) for row in train}
    fresh: dict[str, Row] = {}
    for row in waiting:
        key = same_message(row[pilot.text])
        if key not in known and row[pilot.text].strip():
            fresh.setdefault(key, row)
    rows = list(fresh.values())
    if len(rows) > MOST_READ:
        drawn = np.random.default_rng(seed).choice(len(rows), MOST_READ, replace=False)
        rows = [rows[place] for place in sorted(drawn)]
    if len(rows) <= number:
        return rows
    texts = [row[pilot.text] for row in rows]
    places = _doubtful(pilot, train, texts, number) if train else diverse(texts, number, seed)
    return [rows[place] for place in sorted(places)]


def _doubtful(pilot: Pilot, train: Sequence[Row], texts: Sequence[str], number: int) -> list[int]:
    """Where the likeliest class has the lowest probability (uncertainty sampling)."""
    first = pilot.labels[0]
    sure = word_count_chances(pilot, train[:MOST_READ], texts, [first])[first].max(axis=1)
    return [int(place) for place in np.argsort(sure, kind="stable")[:number]]


def diverse(texts: Sequence[str], number: int, seed: int = 0) -> list[int]:
    """Places of `number` texts spread over all: the one nearest to each centre of k-means.

    The texts are compared by weighted runs of two to four characters, in any script.
    """
    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=5_000)
    shortened = [f" {text[:2000]} " for text in texts]
    with threadpool_limits(1):
        vectors = counts.fit_transform(shortened)
        groups = MiniBatchKMeans(number, random_state=seed, n_init=1).fit(vectors)
        distances = groups.transform(vectors)
    chosen: dict[int, None] = {}
    for column in range(number):
        order = np.argsort(distances[:, column], kind="stable")
        chosen[next(int(place) for place in order if int(place) not in chosen)] = None
    return sorted(chosen)


def open_labelling(folder: str | Path, annotator: str = "a") -> Labeler:
    """The labelling widget over the sample of a new pilot; answers go to labels_<annotator>.jsonl.

    Raises CourseError where the pilot has no sample to label.
    """
    pilot = Pilot.load(folder)
    path = pilot.folder / SAMPLE_FILE
    if not path.is_file():
        what = f"There is no {SAMPLE_FILE} in {pilot.folder.name}/"
        raise CourseError(f"{what}: its file had no unlabelled rows left to label.")
    rows: list[dict[str, Any]] = [row for _, row in numbered_rows(path)]
    journal = pilot.folder / f"labels_{annotator}.jsonl"
    return Labeler(pilot, rows, journal, annotator=annotator)
