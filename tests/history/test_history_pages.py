"""Where the pages of a search begin, so that a gallery can show any of them at once."""

from __future__ import annotations

import pytest

from pictura.errors import ParameterError


def test_each_page_begins_where_it_is_said(history, picture) -> None:
    for seed in range(23):
        history.add(picture("a cat" if seed % 2 else "a dog", seed))
    pages = history.pages(every=5)
    assert (pages.total, len(pages.cursors)) == (23, 5)
    history.add(picture("a cat", 99))  # what comes meanwhile moves nothing
    for number, cursor in enumerate(pages.cursors):
        found = [entry.request.seed for entry in history.search(limit=5, cursor=cursor).entries]
        assert found == list(range(22, -1, -1))[5 * number : 5 * number + 5]


def test_pages_of_words_and_filters(history, picture) -> None:
    for seed in range(12):
        history.add(picture("a cat" if seed % 3 == 0 else "a dog", seed))
    words = history.pages("cat", every=3)
    assert words.total == 4
    assert [entry.request.seed for entry in history.search("cat", cursor=words.cursors[1]).entries] == [0]
    assert history.pages(seed=5, every=3).total == 1
    assert history.pages("zeppelin", every=3) == type(words)(total=0, cursors=())
    with pytest.raises(ParameterError, match="every"):
        history.pages(every=0)
