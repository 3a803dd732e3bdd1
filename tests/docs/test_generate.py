"""What is derived for pages: links from keys, texts of the repository, numbers of results, notebooks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from docs.figures.draw import fill_figures
from docs.generate import configuration, includes, notebooks
from docs.generate.numbers import RESULTS, fill_numbers

ROOT = Path(__file__).resolve().parents[2]


def test_a_key_becomes_a_link_and_code_links_and_other_names_stay() -> None:
    text = "\n".join(
        [
            "Set `data.posterior.delay: 2h`, see [`model.dim`](x.md), not `numpy.dtype`.",
            "```yaml",
            "`model.dim`",
            "```",
            "# `model.dim`",
        ]
    )
    first, *others = configuration.link_keys(text, "guides/a.md").split("\n")
    place = "../configuration/data.md#data.posterior.delay"
    assert first == f"Set [`data.posterior.delay: 2h`]({place}), see [`model.dim`](x.md), not `numpy.dtype`."
    assert others == text.split("\n")[1:]


def test_types_are_written_for_readers() -> None:
    page = configuration.pages({})["configuration/data.md"]
    assert '<code class="name">delay</code> <span>duration, e.g. 30m, 1h or 7d · default <code>1h</code></span>' in page
    assert "default <code>[2h, 1d, 7d]</code>" in page
    assert "A value in the place of the section stands for `count` alone." in page


def test_a_section_of_a_file_is_included_and_its_links_lead_to_pages() -> None:
    text = "# A\n\n## One\n\nfirst\n\n### Deeper\n\nsecond\n\n```\n## no heading\n```\n\n## Two\n\nlast\n"
    assert includes.section(text, "one", of="x.md") == "first\n\n### Deeper\n\nsecond\n\n```\n## no heading\n```\n"
    with pytest.raises(ValueError, match=r"x\.md has no section three; there are a, one, deeper, two"):
        includes.section(text, "three", of="x.md")
    link = includes.rewritten("[q](../quality/README.md#claims)", source="benchmarks/speed/README.md", page="a/b.md")
    assert link == "[q](../benchmarks/quality.md#claims)"
    with pytest.raises(ValueError, match=r"links to gone\.md, which is not there"):
        includes.rewritten("[q](gone.md)", source="CHANGELOG.md", page="changelog.md")


def test_a_number_is_the_mean_over_seeds_of_the_results() -> None:
    found = []
    for path in RESULTS.glob("live_gated--demo--seed*.json"):
        found.append(json.loads(path.read_text())["metrics"]["test"]["gated"]["rolling"]["all"]["recall@50"])
    assert len(found) == 3
    text = fill_numbers("([[live_gated/demo rolling.all.recall@50]] of [[live_gated/demo all.examples]])")
    assert text == f"({sum(found) / 3:.3f} of 5,356)"
    with pytest.raises(ValueError, match="has no no_such--demo"):
        fill_numbers("[[no_such/demo all.examples]]")
    with pytest.raises(ValueError, match=r"have no all\.nothing"):
        fill_numbers("[[live_gated/demo all.nothing]]")


def test_a_figure_is_an_svg_with_its_caption_and_an_unknown_one_is_refused() -> None:
    drawn = fill_figures("before\n<!-- figure: gate\nShares of `g` & more. -->\nafter")
    assert drawn.startswith("before\n<figure")
    assert "<svg" in drawn
    assert "Shares of <code>g</code> &amp; more.</figcaption></figure>\nafter" in drawn
    with pytest.raises(ValueError, match="there is no figure gates"):
        fill_figures("<!-- figure: gates x -->")


def test_a_stored_notebook_is_a_page_until_it_was_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# A story\n", "of items"]},
        {"cell_type": "code", "source": ["import recall"], "outputs": []},
    ]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    monkeypatch.setattr(notebooks, "STORED", tmp_path)
    written = tmp_path / "written"
    (page,) = notebooks.pages(written).values()
    assert page.startswith("# A story\nof items\n")
    assert page.endswith("```python\nimport recall\n```\n")
    written.mkdir()
    (written / "a.md").write_text("executed")
    assert not notebooks.pages(written)
