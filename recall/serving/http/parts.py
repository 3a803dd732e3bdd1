"""Cuts questions of many users or items into parts, and joins the encoded answers of the parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recall.serving.http.schemas import RecallAnswer, RecallRequest, SimilarRequest

Question = RecallRequest | SimilarRequest


@dataclass(frozen=True)
class Answered:
    """Hold the answer to a question, encoded as JSON in the thread that found it.

    Attributes:
      results: one JSON object per query, with commas between.
      version: version of the run that answered.
    """

    results: bytes
    version: str

    @classmethod
    def of(cls, answer: RecallAnswer) -> Answered:
        """Encode an answer."""
        return cls(_json(answer["results"])[1:-1], answer["version"])

    def body(self) -> bytes:
        """Return the JSON of the whole answer, as `RecallAnswer` describes it."""
        return b'{"results":[' + self.results + b'],"version":' + _json(self.version) + b"}"


class QuestionParts:
    """Cut questions by their users, rows or items; see `batching.Parts`."""

    def cut(self, request: Question, start: int, stop: int) -> Question:
        """Return the question for the queries from `start` to before `stop`."""
        if isinstance(request, SimilarRequest):
            return request.model_copy(update={"items": request.items[start:stop]})
        if request.users is None:
            return request.model_copy(update={"features": (request.features or [])[start:stop]})
        users = request.users[start:stop]
        histories = {user: request.histories[user] for user in users if user in request.histories}
        return request.model_copy(update={"users": users, "histories": histories})

    def joined(self, answers: Sequence[Answered]) -> Answered:
        """Join the answers to all parts, in their order."""
        return Answered(b",".join(answer.results for answer in answers), answers[-1].version)

    def outdated(self, answers: Sequence[Answered]) -> Sequence[int]:
        """Return the places of answers from another version than the last one: an answer is of one version."""
        return [place for place, answer in enumerate(answers) if answer.version != answers[-1].version]


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
