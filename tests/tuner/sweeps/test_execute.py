"""What a sweep does where its storage fails after its last trial."""

import errno
import os

import pytest
import sweep_by_hand as by_hand

from foretune import analysis
from foretune.tuner.cli.end_table import finish
from foretune.tuner.cluster.connect import Connection
from foretune.tuner.cluster.interruption import Interruption
from foretune.tuner.planning.execution import Execution
from foretune.tuner.sweeps.execute import execute


@pytest.mark.slow
def test_tables_that_find_the_disk_full_are_said_and_made_by_the_next_resume(
    text, tmp_path, monkeypatch, capsys
):
    by_hand.run_sweep(tmp_path, text)
    (tmp_path / "trials.parquet").unlink()

    def full(directory):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # Arrow's names no file.

    with Interruption(lambda: "") as interruption:
        nowhere = Connection(address="", nodes=(), local=True, _ends=None)  # Nothing waits for it.
        with monkeypatch.context() as until_there_is_room:
            until_there_is_room.setattr(analysis, "collect", full)
            result = execute(tmp_path, Execution(), nowhere, interruption)
        assert finish(result) == 3
        said = capsys.readouterr().err
        assert f"The storage of {tmp_path} must take what a sweep writes, got No space left" in said
        assert f"then foretune resume {tmp_path}" in said
        assert dict(result.outcomes) == {"finished": 2}
        assert execute(tmp_path, Execution(), nowhere, interruption).exit_code == 0
    assert (tmp_path / "trials.parquet").exists()
