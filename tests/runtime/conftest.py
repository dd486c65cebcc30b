from collections.abc import Iterator

import pytest

from latens.runtime import set_threads


@pytest.fixture(autouse=True, scope="module")
def threads_as_before() -> Iterator[None]:
    yield
    set_threads(None)
