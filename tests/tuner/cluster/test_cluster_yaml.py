"""cluster.yaml is what Ray's launcher takes, and starts a cluster that asks for its token."""

import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config  # private: this file alone

PATH = Path(__file__).parents[3] / "cluster.yaml"


@pytest.fixture
def config():
    return yaml.safe_load(PATH.read_text())


def test_rays_launcher_takes_it(config):
    prepared = prepare_config(config)
    validate_config(prepared)
    (node_type,) = prepared["available_node_types"].values()
    assert node_type["min_workers"] == len(config["provider"]["worker_ips"])


def test_a_misspelt_key_is_rejected(config):
    config["woker_start_ray_commands"] = []
    with pytest.raises(jsonschema.ValidationError, match="woker_start_ray_commands"):
        validate_config(prepare_config(config))


def test_every_ray_start_names_mode_and_token_and_keeps_the_dashboard_on_the_loopback(config):
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    for command in starts:
        assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token ray start" in command
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in starts[0]


def test_every_command_is_shell(config):
    for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        for command in config[key]:
            subprocess.run(["bash", "-n", "-c", command], check=True)


def test_what_is_to_be_filled_in_is_marked(config):
    marked = [line for line in PATH.read_text().splitlines() if "FILL IN:" in line]
    fields = ("head_ip", "worker_ips", "ssh_user", "ssh_private_key")
    assert all(any(field in line for line in marked) for field in fields)
