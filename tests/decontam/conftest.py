"""A real Ray cluster on this machine, one for all tests of a process."""

import os
import secrets

import pytest


@pytest.fixture(scope="session")
def ray_cluster():
    """Start a cluster, and return its address; the process stays connected."""
    # else Ray leaves a token in the home folder
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=256 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
