"""Resource names: what one says of another. ``units/{unit}/{collection}/{id}``, as protos/ has them."""

from __future__ import annotations


def unit_of(name: str) -> str:
    """The unit in a resource name ``units/{unit}...``."""
    return name.split("/")[1]


def model_of(job: str) -> str:
    """Name of the model that a job makes."""
    return job.replace("/tuningJobs/", "/models/")


def job_of(model: str) -> str:
    """Name of the job that made a model."""
    return model.replace("/models/", "/tuningJobs/")
