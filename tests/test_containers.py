"""The recipes in docker/: valid for the tools that read them, small, confined, without secrets."""

import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
MANIFESTS = list(yaml.safe_load_all((DOCKER / "kubernetes.yaml").read_text()))
SECRET = re.compile(r"PASSWORD|SECRET|AUTH|ACCESS_KEY|ROOT_USER")


def test_the_compose_file_has_the_form_of_compose_files():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"),
            str(DOCKER / "compose.yaml"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_services_wait_for_services_that_say_when_they_are_ready():
    services = COMPOSE["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}"
            is_waited_for = how["condition"] == "service_healthy"
            assert not is_waited_for or "healthcheck" in services[other], other
    for name in ("postgres", "server", "worker-cpu", "worker-gpu", "dask-scheduler", "s3"):
        assert services[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name


def test_no_secret_stands_in_a_file_and_every_one_is_asked_for():
    text = (DOCKER / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    assert {"POSTGRES_PASSWORD", "PREFECT_AUTH", "S3_USER", "S3_PASSWORD"} <= asked
    for name, service in COMPOSE["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key) and not key.endswith("_URL"):
                assert re.match(r"\$\{\w+(:\?[^}]*)?\}$", value), f"{name}: {key}"
    example = dict(
        line.split("=", 1)
        for line in (DOCKER / "example.env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    used = set(re.findall(r"\$\{(\w+)", text)) - {"VLPIPE_TAG"}
    assert used <= set(example)
    assert not any(example[name] for name in asked)
    assert "/docker/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_ports_are_open_to_this_machine_only():
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name


def test_images_are_pinned_by_version():
    images = [service["image"] for service in COMPOSE["services"].values()]
    images += [c["image"] for m in MANIFESTS for c in containers(m)]
    images.append(re.search(r"PYTHON_IMAGE=(\S+)", (DOCKER / "Dockerfile").read_text())[1])
    for image in images:
        if not image.startswith("vlpipe:"):
            assert re.search(r":(\d+\.\d+|RELEASE\.\d{4}-)", image), image


def test_the_image_runs_without_root_and_holds_no_build_tools():
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    last = max(n for n, line in enumerate(lines) if " AS cpu" in line)
    final = "\n".join(lines[last:])
    assert "USER 10001" in final
    assert not re.search(r"apt-get|gcc|pip install|COPY \. ", final)
    assert "pip uninstall --yes pip" in "\n".join(lines[:last])


def containers(manifest):
    return manifest.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ())


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=lambda m: f"{m['kind']} {m['metadata']['name']}"
)
def test_manifests_have_the_form_of_kubernetes(manifest):
    kubernetes_validate.validate(manifest, "1.32", strict=True)
    for container in containers(manifest):
        pod = manifest["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert "limits" in container["resources"]
        for variable in container.get("env", ()):
            if SECRET.search(variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_the_commands_of_the_containers_exist():
    wanted = [service.get("command") for service in COMPOSE["services"].values()]
    from typer.main import get_command

    from vlpipe.pipelines.cli import app

    ours = [words for words in wanted if words and words[0] == "deploy"]
    assert ours
    options = {o for p in get_command(app).commands["deploy"].params for o in p.opts}
    assert all(word in options for words in ours for word in words if word.startswith("--"))
