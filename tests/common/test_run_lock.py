import os

import pytest

from onesearch.common.run_lock import RunLock, RunLockedError


def test_one_at_a_time(tmp_path):
    run = tmp_path / "runs" / "demo"
    with RunLock(run):
        # A lock belongs to an open file, so a second one in the same process is refused like that of another.
        with pytest.raises(RunLockedError, match=rf"in use by process {os.getpid()}: wait"), RunLock(run):
            pass
        with RunLock(tmp_path / "runs" / "other"):
            pass
    with RunLock(run):
        pass


def test_a_lock_file_of_the_dead_is_no_lock(tmp_path):
    (tmp_path / ".lock").write_text("99999999999\n")
    with RunLock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_an_error_inside_frees_the_run(tmp_path):
    with pytest.raises(KeyError), RunLock(tmp_path):
        raise KeyError
    with RunLock(tmp_path):
        pass
