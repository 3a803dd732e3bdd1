"""Draws the hidden truth of the simulated community: who likes what, and how likely a click is.

A user has interests, which content can show, and a taste, which it cannot. An item has content (what its tags and
its text and image vectors show, with noise), an appeal to tastes and a quality (which only clicks reveal; both
partly its author's). The logit of a click is

    content_weight * <interests, content> + taste_weight * <taste, appeal> + quality + bias
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recall.core.arrays import AnyFloats, Bools, Float32s, Int64s

TOPICS: dict[str, tuple[str, ...]] = {
    "Cooking": ("ramen", "sourdough", "curry", "salad", "barbecue", "soup"),
    "Travel": ("islands", "night trains", "camping", "old towns", "deserts", "ferries"),
    "Football": ("free kicks", "derbies", "goalkeepers", "transfers", "futsal", "tactics"),
    "Cats": ("kittens", "rescue", "tricks", "naps", "feeding", "vet visits"),
    "Fashion": ("sneakers", "vintage", "coats", "tailoring", "street style", "denim"),
    "Music": ("guitar", "choirs", "synths", "drums", "festivals", "vinyl"),
    "Gardening": ("tomatoes", "roses", "compost", "balconies", "bees", "pruning"),
    "Science": ("fossils", "chemistry", "optics", "volcanoes", "genes", "magnets"),
    "Cars": ("classics", "rallies", "engines", "electric", "detailing", "road trips"),
    "Films": ("trailers", "westerns", "animation", "directors", "scores", "thrillers"),
    "Fitness": ("running", "yoga", "climbing", "weights", "swimming", "cycling"),
    "Crafts": ("knitting", "pottery", "paper", "leather", "weaving", "beads"),
    "Games": ("speedruns", "chess", "puzzles", "strategy", "arcades", "board games"),
    "Birds": ("owls", "nests", "migration", "songs", "feeders", "herons"),
    "Homes": ("tiny houses", "kitchens", "lamps", "renovation", "shelves", "paint"),
    "Comedy": ("sketches", "stand-up", "puns", "parody", "bloopers", "mimes"),
    "Space": ("rockets", "telescopes", "comets", "rovers", "eclipses", "stations"),
    "Books": ("poetry", "mysteries", "comics", "libraries", "translations", "memoirs"),
    "Dance": ("ballet", "tango", "hip-hop", "folk", "salsa", "tap"),
    "Languages": ("idioms", "grammar", "dialects", "scripts", "sounds", "signs"),
}
TAGS_PER_TOPIC = 6

_CONTENT_DIM = 16
_TASTE_DIM = 8
_TASTES = 8
_FAVOURITES = 3


@dataclass(frozen=True, kw_only=True)
class Community:
    """Hold users and items as they truly are; rows are those of the data set's users and items.

    Attributes:
      interests: float32 [users, 16], unit length.
      favourite: int64 [users], the topic a user likes best.
      taste: float32 [users, 8], unit length.
      taste_group: int64 [users], which of eight common tastes a user's is near to.
      author: int64 [items].
      topic: int64 [items], main topic.
      tags: bool [items, topics * 6].
      content: float32 [items, 16], unit length.
      appeal: float32 [items, 8], unit length.
      quality: float32 [items].
      content_weight, taste_weight, bias: weights and bias of the logit.
    """

    interests: Float32s
    favourite: Int64s
    taste: Float32s
    taste_group: Int64s
    author: Int64s
    topic: Int64s
    tags: Bools
    content: Float32s
    appeal: Float32s
    quality: Float32s
    content_weight: float
    taste_weight: float
    bias: float = 0.0

    def click_logits(self, users: Int64s) -> Float32s:
        """Compute click logits of some users on every item; float32 [given users, items]."""
        content = self.interests[users] @ self.content.T  # [given users, items]
        appeal = self.taste[users] @ self.appeal.T  # [given users, items]
        return self.content_weight * content + self.taste_weight * appeal + (self.quality + self.bias)

    def true_click_probability(self, users: Int64s, items: Int64s) -> Float32s:
        """Compute how likely each user clicks the item at the same place when it is shown.

        Args:
          users: rows of users [pairs].
          items: rows of items [pairs].

        Returns:
          float32 [pairs], in (0, 1).
        """
        content = np.einsum("pd,pd->p", self.interests[users], self.content[items])  # [pairs]
        appeal = np.einsum("pd,pd->p", self.taste[users], self.appeal[items])  # [pairs]
        logits = self.content_weight * content + self.taste_weight * appeal + self.quality[items] + self.bias
        return sigmoid(logits)


def make_community(
    rng: np.random.Generator,
    *,
    users: int,
    items: int,
    authors: int,
    topics: int,
    content_weight: float,
    taste_weight: float,
    quality_spread: float,
) -> Community:
    """Draw users, authors and items. The bias of the logit is left at zero.

    Args:
      rng: source of all randomness.
      users: number of users.
      items: number of items.
      authors: number of authors; some publish much more than others.
      topics: number of `TOPICS` in use.
      content_weight: weight of the match between interests and content.
      taste_weight: weight of the match between taste and appeal.
      quality_spread: standard deviation of the quality.
    """
    topic_vectors = unit(rng.normal(size=(topics, _CONTENT_DIM)))
    tag_vectors = unit(np.repeat(topic_vectors, TAGS_PER_TOPIC, axis=0) + _noise(rng, topics * TAGS_PER_TOPIC, 0.7))
    interests, favourite = _draw_interests(rng, users, tag_vectors)
    tastes = unit(rng.normal(size=(_TASTES, _TASTE_DIM)))
    group = rng.integers(_TASTES, size=users)
    author, topic, appeal, quality = _draw_items_of_authors(rng, items, authors=authors, topics=topics)
    tags = _draw_tags(rng, topic, topics=topics)
    shown = (tags @ tag_vectors) / tags.sum(axis=1, keepdims=True)
    return Community(
        interests=interests,
        favourite=favourite,
        taste=unit(tastes[group] + 0.4 * unit(rng.normal(size=(users, _TASTE_DIM)))),
        taste_group=group,
        author=author,
        topic=topic,
        tags=tags,
        content=unit(shown + _noise(rng, items, 0.5)),
        appeal=appeal,
        quality=(quality_spread * quality).astype(np.float32),
        content_weight=content_weight,
        taste_weight=taste_weight,
    )


def unit(vectors: AnyFloats) -> Float32s:
    """Scale rows to unit length, float32."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def sigmoid(logits: Float32s) -> Float32s:
    """Compute 1 / (1 + exp(-logits))."""
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def _noise(rng: np.random.Generator, rows: int, length: float) -> Float32s:
    """Draw vectors in random directions, of the given length."""
    return length * unit(rng.normal(size=(rows, _CONTENT_DIM)))


def _draw_interests(rng: np.random.Generator, users: int, tag_vectors: Float32s) -> tuple[Float32s, Int64s]:
    """Draw interests as a mixture of tags out of a few favourite topics; returns them and the first topic."""
    topics = len(tag_vectors) // TAGS_PER_TOPIC
    wanted = min(_FAVOURITES, topics)
    favourites = np.argsort(rng.random((users, topics)), axis=1)[:, :wanted]  # [users, favourites]
    weights = -np.sort(-rng.dirichlet(np.full(wanted, 1.0), size=users), axis=1)  # [users, favourites]
    tags = favourites[:, :, None] * TAGS_PER_TOPIC + rng.integers(TAGS_PER_TOPIC, size=(users, wanted, 3))
    vectors = tag_vectors[tags].mean(axis=2)  # [users, favourites, 16]
    interests = np.einsum("uf,ufd->ud", weights, vectors)  # [users, 16]
    return unit(interests), favourites[:, 0].astype(np.int64)


def _draw_items_of_authors(
    rng: np.random.Generator, items: int, *, authors: int, topics: int
) -> tuple[Int64s, Int64s, Float32s, Float32s]:
    """Draw author, topic, appeal and (standardised) quality of each item.

    Authors keep to two topics, mostly to one.
    """
    productivity = rng.lognormal(sigma=1.0, size=authors)
    author = rng.choice(authors, size=items, p=productivity / productivity.sum())
    home = rng.integers(topics, size=(authors, 2))
    topic = home[author, (rng.random(items) < 0.25).astype(np.int64)]
    style = unit(rng.normal(size=(authors, _TASTE_DIM)))
    appeal = unit(0.7 * style[author] + unit(rng.normal(size=(items, _TASTE_DIM))))
    quality = 0.6 * rng.normal(size=authors)[author] + 0.8 * rng.normal(size=items)
    return author.astype(np.int64), topic.astype(np.int64), appeal, quality.astype(np.float32)


def _draw_tags(rng: np.random.Generator, topic: Int64s, *, topics: int) -> Bools:
    """Draw one to three tags of the topic and, for a third of the items, one of any topic; bool [items, tags]."""
    items = len(topic)
    rows = np.arange(items)
    tags = np.zeros((items, topics * TAGS_PER_TOPIC), dtype=bool)
    for _ in range(3):
        tags[rows, topic * TAGS_PER_TOPIC + rng.integers(TAGS_PER_TOPIC, size=items)] = True
    guests = np.flatnonzero(rng.random(items) < 1 / 3)
    tags[guests, rng.integers(topics * TAGS_PER_TOPIC, size=len(guests))] = True
    return tags
