"""Every sound in every container into every output: all frames come out, and the sound too or a note; no crash."""

from __future__ import annotations

import pytest
from audio_matrix import OUTPUTS, Result, cases, committed_table, run_matrix, table


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    return run_matrix(cases(), tmp_path_factory.mktemp("matrix"))


def test_every_case_comes_out_whole_or_with_a_note(results: list[Result]) -> None:
    assert [r for r in results if not r.is_right] == []
    assert len(results) == len(cases()) * len(OUTPUTS)


def test_the_table_of_what_is_kept_is_true(results: list[Result]) -> None:
    assert table(results) == committed_table()
