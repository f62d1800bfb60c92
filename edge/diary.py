"""Window after window -> a diary: steady labels, and events with a start, an end and a confidence.

    diary = Diary(labels, hop_s)
    for prediction in pipeline.push(samples):
        moment = diary.push(prediction)
    events = diary.finish()

Windows of 5 s are named one by one, and flicker. What a wearer does lasts: a hidden Markov model
(Rabiner 1989, "A Tutorial on Hidden Markov Models", section III) adds up what the windows say, and
a label is left only when another one is likely enough. `Diary` looks at the past alone: nothing
that it says is changed by what comes, but for the end of an event that still lasts. `smoothed`
looks at a whole recording.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.moment import NOT_WORN_LABEL, Event, Moment
from edge.pipeline import UNKNOWN_LABEL, Prediction
from edge.spec import SIGNAL


class Rule(NamedTuple):
    """How evidence is weighed and decided by."""

    evidence: float
    """Weight of a whole window's log-probabilities, where they are of usual sharpness. A window
    counts by the share of its signal that no window before it held: what overlaps says the same
    again."""

    exit: float
    """What is said is left once it is less likely than this, ... No lower than what the chance of a
    change alone keeps up, or soft evidence is never heard."""

    enter: float
    """... for a label that is at least as likely as this."""

    lag_s: float
    """How long after most of a window shows an activity that is said, usually."""


# Chosen on sessions of pieces of dsads and wisdm, shuffled: 64 of pieces of 8 to 120 s and 34 of 8
# to 25 s, 5 to 11 labels, each named by an encoder that had not seen that corpus, with its own
# probabilities and with flatter ones: few flips where no set's frame macro-F1 of what is written
# falls below that of raw windows by more than 0.002. A window that is wrong is seldom wrong alone.
# So probabilities that were added up are no measure of certainty (0.95 on average, where 0.6 were
# right): the exit is far from 0.5, and an event's confidence comes from the windows' own.

FILTER = Rule(20.0, 0.05, 0.5, 2.5)
"""Of the windows up to now."""

SMOOTHER = Rule(10.0, 0.5, 0.5, 0.0)
"""Of all windows: what comes later steadies them too, and a lower exit adds nothing."""

USUAL_SPREAD = 2.0
"""How far below the best label's log-probability the mean of all is, usually. How sure a bundle is
of itself varies with the corpus by more than it should; measured against its own mean, it is of
usual sharpness."""

_SPREAD_KNOWN = 12.0
"""The usual spread counts like a minute that went before: so many windows that do not overlap."""

DWELL_S = 30.0
"""Expected time to the next activity; any label is as likely to follow. People keep to most for
longer, but short ones are then passed over."""

FLOOR = 1e-3
"""Added to each probability: one window rules nothing out."""

MIN_EVENT_S = 3.0
"""What is said is said for this long at least."""

GAP_S = 10.0
"""After so long without a valid window an event is over, and what comes begins anew."""

UNKNOWN_ODDS = 2.0
"""How much likelier than the best label it is that none of them fits, by a window that is called
unknown, and how much less by one that is not. No corpus tells; it takes some windows that agree."""

STILL_MPS2 = 0.08
"""A window that moves less may show nothing but the sensor's noise: in the stillest windows of five
training corpora that is 0.013 to 0.069 m/s^2. But so do the arms and legs of people who sit or lie,
for all of their 5 minutes (dsads): it takes long to tell."""

NOT_WORN_S = 3600.0
"""A device that was still for so long is not worn. An hour, as van Hees et al. 2013 take
("Separating Movement and Gravity Components in an Acceleration Signal", PLoS ONE 8(4)), in half of
which people may sit still. No corpus here lasts long enough to measure it."""

_ROUNDING_S = 1e-3
"""Times are multiples of 5 ms but for rounding."""

Floats = NDArray[np.float64]


class Diary:
    """All state of one stream. Push its predictions in order, then `finish`.

    Args:
        labels: the L labels, in the order of the predictions' posteriors.
        hop_s: seconds between windows; what counts are the windows' times, some may be left out.
    """

    def __init__(self, labels: Sequence[str], hop_s: float) -> None:
        self._evidence = _Evidence(len(labels), hop_s, FILTER.evidence)
        self._belief = self._ones = np.ones(len(labels) + 1)
        self._decider = _Decider(labels, FILTER)

    def push(self, prediction: Prediction) -> Moment:
        """Take the next window; return what is said at its end."""
        news = self._evidence.of(prediction)
        self._belief = _forward(self._belief, news, self._ones)
        off = news.still_s >= NOT_WORN_S
        return self._decider.push(prediction, self._belief, news.anew, off)

    def finish(self) -> tuple[Event, ...]:
        """The stream has ended: return the event that this ended, if any."""
        return self._decider.finish()


def smoothed(
    predictions: Iterable[Prediction], labels: Sequence[str], hop_s: float
) -> tuple[list[Moment], tuple[Event, ...]]:
    """A whole recording's diary: each window also by those after it (forward-backward algorithm).

    Args:
        predictions: of all windows, in order.
        labels: the L labels, in the order of the predictions' posteriors.
        hop_s: seconds between windows.

    Returns:
        A moment for each window, and the event that the recording's end ended, if any.
    """
    evidence, ones = _Evidence(len(labels), hop_s, SMOOTHER.evidence), np.ones(len(labels) + 1)
    predictions = list(predictions)
    news = [evidence.of(p) for p in predictions]
    belief = ones
    beliefs = [belief := _forward(belief, n, ones) for n in news]
    off = [n.still_s >= NOT_WORN_S for n in news]
    message = ones
    for k in range(len(news) - 1, 0, -1):
        message = _backward(message, news[k], ones)
        both = beliefs[k - 1] * message
        beliefs[k - 1] = both / (both @ ones)
        off[k - 1] |= off[k] and news[k - 1].still_s > 0  # from the first still window on
    decider = _Decider(labels, SMOOTHER)
    moments = [
        decider.push(*told)
        for told in zip(predictions, beliefs, [n.anew for n in news], off, strict=True)
    ]
    return moments, decider.finish()


class _News(NamedTuple):
    """What a window tells beyond those before it."""

    anew: bool
    """Whether it comes after a gap, or time leapt back: what was before does not count."""

    stays: float
    """Probability that the activity went on since the window before it."""

    likelihood: Floats | None
    """(L + 1,) of the labels, and of none of them, but for a factor; None of a window that is not
    valid."""

    still_s: float
    """For how long the device has been still."""


class _Evidence:
    """Weighs each window against those before it."""

    def __init__(self, n_labels: int, hop_s: float, weight: float) -> None:
        self._shares = np.full(n_labels, 1 / n_labels)
        self._weight = weight
        self._gap_s = max(GAP_S, 2.5 * hop_s)
        self._last_s = math.nan  # end of the window before
        self._used_s = math.nan  # and of the last valid one
        self._moved_s = math.nan  # when the device moved last, as far as was seen
        self._spread, self._seen = USUAL_SPREAD * _SPREAD_KNOWN, _SPREAD_KNOWN

    def of(self, prediction: Prediction) -> _News:
        """What the next window tells."""
        end_s, since_s = prediction.end_s, prediction.end_s - self._last_s
        # Comparisons with NaN are false: the first window begins anew.
        anew = not (since_s >= 0 and end_s - self._used_s <= self._gap_s)
        self._last_s = end_s
        stays = 0.0 if anew else math.exp(-since_s / DWELL_S)
        if anew:
            self._moved_s = prediction.start_s
        if prediction.posterior is None:
            return _News(anew, stays, None, end_s - self._moved_s)
        if prediction.motion_mps2 is None or prediction.motion_mps2 >= STILL_MPS2:
            self._moved_s = end_s
        fresh = 1.0 if anew else min(1.0, (end_s - self._used_s) / SIGNAL.window_s)
        self._used_s = end_s
        likelihood = self._likelihood(prediction, prediction.posterior, fresh)
        return _News(anew, stays, likelihood, end_s - self._moved_s)

    def _likelihood(self, prediction: Prediction, posterior: Floats, fresh: float) -> Floats:
        """(L + 1,) of the labels and of none of them, against the best label's."""
        below = np.log(posterior + FLOOR) - math.log(prediction.top[0].probability + FLOOR)
        self._spread -= fresh * float(below @ self._shares)
        self._seen += fresh
        sharpness = self._spread / self._seen / USUAL_SPREAD
        likelihood = np.empty(len(below) + 1)
        np.exp(self._weight * fresh / sharpness * below, out=likelihood[:-1])
        likelihood[-1] = _unknown_odds(prediction) ** (self._weight * fresh)
        return likelihood


def _unknown_odds(prediction: Prediction) -> float:
    """How likely it is that none of the labels fits, against the best one; 0 if the bundle does not
    ask."""
    if prediction.unknown:
        return UNKNOWN_ODDS
    return 0.0 if prediction.presence is None else 1 / UNKNOWN_ODDS


def _forward(belief: Floats, news: _News, ones: Floats) -> Floats:
    """(L + 1,) probabilities after a window, by those before it."""
    belief = news.stays * belief + (1 - news.stays) / len(ones)
    if news.likelihood is None:
        return belief
    odds = belief * news.likelihood
    likely: Floats = odds / (odds @ ones)
    return likely


def _backward(message: Floats, news: _News, ones: Floats) -> Floats:
    """(L + 1,) how likely, but for a factor, all from a window on is by what was before it."""
    if news.likelihood is not None:
        message = message * news.likelihood
    mean = (message @ ones) / len(ones)
    likely: Floats = news.stays * (message / mean) + (1 - news.stays)
    return likely


class _Decider:
    """Probabilities -> what is said, and the events."""

    def __init__(self, labels: Sequence[str], rule: Rule) -> None:
        self._names = (*labels, UNKNOWN_LABEL, NOT_WORN_LABEL)
        self._rule = rule
        self._said: int | None = None  # place in the names
        self._said_s = 0.0  # when it was said first
        self._valid_s = -math.inf  # end of the last valid window
        self._number = 0
        self._start_s = 0.0  # of the event
        self._sum, self._count = 0.0, 0  # of its confidence

    def push(self, prediction: Prediction, belief: Floats, anew: bool, off: bool) -> Moment:
        """Take a window, the probabilities after it, and whether the device is off."""
        events = self.finish() if anew else ()
        if prediction.valid:
            chosen = self._choose(belief, prediction.end_s, off)
            events += self._go_on(prediction, chosen)
        if self._said is None:
            return Moment(prediction, None, None, events)
        return Moment(prediction, self._names[self._said], self._sum / self._count, events)

    def finish(self) -> tuple[Event, ...]:
        """End the event, if there is one."""
        if self._said is None:
            return ()
        event = self._event(self._valid_s, ended=True)
        self._said = None
        return (event,)

    def _choose(self, belief: Floats, end_s: float, off: bool) -> int:
        """What to say; not worn has a place after all that has a probability."""
        not_worn, best, said = len(belief), int(belief.argmax()), self._said
        if off:
            return not_worn
        if said is None or said == not_worn:
            return best
        if end_s - self._said_s < MIN_EVENT_S - _ROUNDING_S:
            return said
        rule = self._rule
        return best if belief[said] < rule.exit and belief[best] >= rule.enter else said

    def _go_on(self, prediction: Prediction, chosen: int) -> tuple[Event, ...]:
        """The event that lasts; or the one that is over, if any, and the next."""
        end_s = prediction.end_s
        before: tuple[Event, ...] = ()
        if chosen != self._said:
            start_s = prediction.start_s
            if self._said is not None:
                start_s = self._boundary_s(end_s)
                before = (self._event(start_s, ended=True),)
            self._said, self._said_s, self._start_s = chosen, end_s, start_s
            self._number += 1
            self._sum, self._count = 0.0, 0
        self._valid_s = end_s
        self._sum += _confidence(prediction, chosen)
        self._count += 1
        return (*before, self._event(end_s, ended=False))

    def _boundary_s(self, end_s: float) -> float:
        """When what is said from this window's end on had begun: where a window is half of one
        activity and half of the next, that is its middle."""
        lag_s = max(self._rule.lag_s, (end_s - self._valid_s) / 2)
        return max(self._start_s, end_s - SIGNAL.window_s / 2 - lag_s)

    def _event(self, end_s: float, ended: bool) -> Event:
        assert self._said is not None
        name, confidence = self._names[self._said], self._sum / self._count
        return Event(self._number, self._start_s, end_s, name, confidence, ended)


def _confidence(prediction: Prediction, said: int) -> float:
    """How far one window bears out what is said: by the label's probability; 1 or 0 for unknown; 1
    for not worn, which the motion tells."""
    assert prediction.posterior is not None
    n_labels = len(prediction.posterior)
    if said < n_labels:
        return float(prediction.posterior[said])
    return float(prediction.unknown) if said == n_labels else 1.0
