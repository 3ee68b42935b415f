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


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "link below"])
def test_a_strangers_run_cannot_have_another_file_written(tmp_path, kind):
    run, precious = tmp_path / "run", tmp_path / "precious.txt"
    (run / "stage").mkdir(parents=True)
    precious.write_text("mine")
    if kind == "pipe":
        os.mkfifo(run / ".lock")
    elif kind == "link below":
        (run / "stage" / "weights").symlink_to(precious)
    elif kind == "hard link":
        (run / ".lock").hardlink_to(precious)
    else:
        (run / ".lock").symlink_to(precious)
    with pytest.raises(ValueError, match=r"\.lock|weights is a link"), RunLock(run):
        pass
    assert precious.read_text() == "mine"
