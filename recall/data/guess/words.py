"""Knows the words that names of columns are made of."""

from __future__ import annotations

from recall.data.guess.columns import words_of

IDISH = {"id", "ids", "key", "no", "nr", "number", "code", "uuid", "guid", "hash", "idx", "index", "raw", "anon", "pk"}
USER = {"user", "uid", "userid", "customer", "member", "visitor", "visitorid", "account", "client", "person", "reader",
        "viewer", "buyer", "reviewer", "profile", "cookie", "device", "guest", "subscriber", "msno"}  # fmt: skip
SESSION = {"session", "sessionid", "sid", "visit"}
ITEM = {"item", "itemid", "iid", "video", "vid", "movie", "movieid", "film", "article", "news", "nid", "product", "pid",
        "goods", "sku", "asin", "song", "track", "photo", "note", "post", "content", "doc", "document", "book", "isbn",
        "listing", "ad", "recipe", "game", "app", "clip", "story", "program", "course", "job", "poi", "anime", "feed",
        "business", "creative", "target", "object", "entity", "page", "offer", "candidate"}  # fmt: skip
TIME = {"time", "timestamp", "timestamps", "ts", "date", "datetime", "at", "when", "created", "unixtime", "epoch", "t"}
ORDER = {"order", "position", "pos", "rank", "seq", "sequence", "step", "timestep", "index", "nr"}
CLICK = {"click", "clicked", "clicks", "clk", "isclick"}
ALSO_CLICK = {"label", "y", "target", "positive", "viewed", "view", "watch", "watched", "play", "played", "open",
              "opened", "read", "long", "engaged", "interaction", "interacted", "purchase", "purchased", "buy",
              "conversion", "converted", "like", "liked"}  # fmt: skip
RATING = {"rating", "ratings", "stars", "star", "score", "grade", "overall", "rate"}
KIND_OF_EVENT = {"event", "action", "behavior", "behaviour", "type", "activity", "interaction", "eventtype"}
EXPOSURE_VALUES = {"impression", "impressions", "exposure", "exposed", "show", "shown", "imp", "expose", "display"}

RESULTS = {"click", "clicks", "clicked", "clk", "ctr", "cvr", "view", "views", "viewed", "viewers", "play", "plays",
           "played", "watch", "watched", "watches", "like", "likes", "liked", "comment", "comments", "share", "shares",
           "shared", "forward", "forwards", "follow", "follows", "follower", "followers", "fans", "collect",
           "collects", "favorite", "favorites", "favourite", "favourites", "exposure", "exposures", "impression",
           "impressions", "imp", "imps", "show", "shows", "pv", "uv", "download", "downloads", "purchase", "purchases",
           "sold", "sales", "popularity", "popular", "trending", "hot", "hotness", "rating", "ratings", "stars",
           "score", "scores", "votes", "vote", "review", "reviews", "rank", "ranking", "gmv", "orders", "conversion",
           "conversions", "engagement", "interactions", "listens", "streams", "upvotes", "downvotes"}  # fmt: skip
"""Words of what came out of clicks. In a table without times they hold the future."""
STATE = {"status", "state", "visible", "deleted", "available", "availability", "modified", "updated",
         "stock", "online"}  # fmt: skip
"""Words of what holds when the table was taken, after the log."""
TITLE = {"title", "headline", "name", "caption"}
PUBLISHED = {"published", "publish", "publication", "pubdate", "upload", "uploaded", "release", "released", "created",
             "creation", "posted", "added", "launch", "available"}  # fmt: skip
AUTHOR = {"author", "authors", "creator", "publisher", "seller", "brand", "artist", "channel", "uploader", "owner",
          "shop", "merchant", "store", "music", "album", "series", "studio", "label", "vendor", "provider", "source",
          "host", "poster"}  # fmt: skip
CODE = {"id", "ids", "type", "code", "class", "category", "cat", "genre", "level", "group", "band", "flag", "lang",
        "language", "country", "region", "city", "zone", "kind", "gender", "segment", "cluster", "onehot",
        "categorical", "enum"}  # fmt: skip
UNWANTED = {"hate", "dislike", "disliked", "skip", "skipped", "report", "reported", "block", "blocked", "hide", "not"}
"""Words of flags that no click should count more for."""
RANGES = ("range", "band", "bucket", "group", "level", "bin")


def names_one_of(name: str, words: set[str]) -> bool:
    """Tell whether a name is one of the words by itself, or with nothing but the likes of `id` beside it."""
    found = set(words_of(name))
    return bool(found & words) and found <= words | IDISH


def has_word(name: str, words: set[str]) -> bool:
    """Tell whether one of the words of a name is among the given ones."""
    return bool(set(words_of(name)) & words)
