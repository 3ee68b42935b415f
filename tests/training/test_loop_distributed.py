"""Two processes on the CPU train one model: what ``accelerate launch`` does on several GPUs."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

SCRIPT = """
import sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from onesearch.training.batching import BatchSource
from onesearch.training.loop import LoopSettings, fit

class Stopped(Exception):
    pass

def main(folder, stop):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(96, 4, generator=torch.Generator().manual_seed(1))
    model = nn.Linear(4, 2)
    source = BatchSource(np.ones(96, int), lambda rows: x[rows], 8, epochs=2)
    config = LoopSettings(precision="no", learning_rate=1e-2, checkpoint_steps=5, curves=False, log_steps=6)
    calls = []
    def loss(model, batch):
        calls.append(len(batch))
        if stop and len(calls) == 13:
            raise Stopped
        return {"loss": (model(batch) - batch[:, :2]).square().mean()}
    report = fit(model, source, loss, config, Path(folder), lambda model: {"norm": float(model.weight.norm())}, seed=1)
    assert report.samples == 192, report

main(sys.argv[1], len(sys.argv) > 2)
"""


def launch(folder, world, *arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(world):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1"}
        if world > 1:
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_PORT": port}
        command = [sys.executable, "-c", SCRIPT, str(folder), *arguments]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        return [(process.communicate(timeout=300)[1], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()


def test_two_processes_learn_what_one_learns_and_resume(tmp_path):
    for errors, code in launch(tmp_path / "one", 1) + launch(tmp_path / "two", 2):
        assert code == 0, errors
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    # The same rows per step, so the same gradient up to the order of additions.
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)

    assert all(code == 1 for _, code in launch(tmp_path / "broken", 2, "stop"))
    checkpoint = next((tmp_path / "broken" / "checkpoints").glob("step-*"))
    assert sorted(p.name for p in checkpoint.glob("random-*.json")) == ["random-0.json", "random-1.json"]
    for errors, code in launch(tmp_path / "broken", 2):
        assert code == 0, errors
    broken = load_file(tmp_path / "broken" / "model.safetensors")
    assert all(torch.equal(two[name], broken[name]) for name in two)
    lines = Path(tmp_path / "broken" / "log.jsonl").read_text().splitlines()
    assert len(lines) == 5  # four windows and the final validation, each written by one process
