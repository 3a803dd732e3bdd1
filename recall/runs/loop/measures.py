"""Says what is measured of an arm: names, texts for the page, and which direction is better."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Measure(NamedTuple):
    """Describe a number of `metrics.py`.

    Attributes:
      label: a few words, for tables and plots.
      text: what it is, in a sentence.
      better: the direction that is better; empty where that is a matter of opinion.
      digits: decimals that are shown.
    """

    label: str
    text: str
    better: Literal["higher", "lower", ""] = ""
    digits: int = 3


MEASURES = {
    "probability": Measure(
        "true click probability", "Mean true probability of a click over all exposures: clicks per exposure, without "
        "the luck of the draw.", "higher", 4,
    ),
    "last_day_probability": Measure("on the last day", "The same on the last day alone.", "higher", 4),
    "share_of_oracle": Measure(
        "of the oracle, last day", "The last day's true click probability as a share of the oracle's.", "higher"
    ),
    "regret": Measure(
        "regret", "True click probability of the oracle less the arm's, over all exposures. Both had the same "
        "sessions, each in the feed that it had made.", "lower", 4,
    ),
    "ctr": Measure("clicks per exposure", "Clicks that were drawn, per exposure.", "higher", 4),
    "clicks_per_user": Measure("clicks per user", "Clicks that were drawn, per user.", "higher", 2),
    "young_share": Measure("on items below a day", "Share of the exposures on items younger than a day."),
    "good_new_found": Measure(
        "good new items found", "Of the new items that are truly the best fifth (by the probability that the mean user "
        "clicks), the share with at least 20 exposures. New: published in the loop, at least a day before its end.",
        "higher",
    ),
    "new_with_10": Measure("new with 10", "Share of the new items that got 10 exposures."),
    "median_hours_10": Measure(
        "hours to 10", "Median hours from publication to the tenth exposure, items that never got it included "
        "(Kaplan-Meier); a dash where more than half never did.", "", 1,
    ),
    "new_with_100": Measure("new with 100", "Share of the new items that got 100 exposures."),
    "median_hours_100": Measure("hours to 100", "The same for 100 exposures.", "", 1),
    "gini_items": Measure(
        "Gini, items", "Inequality of the exposures over the items that are there: 0 all alike, near 1 few have all."
    ),
    "gini_authors": Measure("Gini, authors", "The same over the authors with an item."),
    "coverage": Measure("coverage", "Share of the items that are there that were shown."),
    "authors_clicked": Measure("authors clicked", "Share of the authors with an item that got any click."),
}  # fmt: skip
"""Measures of the whole loop, in the order of the table."""

OF_DAYS = (
    "probability", "good_new_found", "young_share", "clicks_per_user",
    "gini_items", "gini_authors", "coverage", "authors_clicked",
)  # fmt: skip
"""Measures that the page draws over the days."""
