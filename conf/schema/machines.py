"""What a run may use: processes, engines, devices, folders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from conf.schema.types import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ResourcesConfig:
    """What the simulated devices and the cloud may use.

    Attributes:
        backend: "ray" runs devices in parallel actors; "inline" one after the other in this
            process, for debugging.
        name: Name of the preset, for reports.
        cluster: Join the Ray cluster that RAY_ADDRESS names and take all of its CPUs and GPUs,
            instead of starting Ray on this machine.
        num_cpus: CPUs that Ray may use; None takes the machine's.
        num_gpus: GPUs that Ray may use.
        client_cpus: CPUs of one device actor.
        client_gpus: GPUs of one device actor; a fraction lets devices share a GPU.
        cloud_device: Torch device of the cloud model.
        cloud_workers: Ray workers that write and score similar pairs, a copy of the model on each;
            1 does it in the server's own process, "per_gpu" takes as many as fit on all GPUs. The
            texts are the same.
        cloud_gpus: Part of a GPU of one cloud worker; 0.5 puts two on each. They end before devices
            adapt, so client_gpus need leave no room for them.
        client_limit_s: A device that works longer on one message is ended and counted as failed;
            one that works for a cohort has so many seconds for each of its members.
        retries: How often a failed message is sent again, on a fresh actor.
        object_store_mib: Ray's object store, in MiB.
        torch_threads: Threads of one device actor.
    """

    name: str
    backend: Literal["ray", "inline"] = "ray"
    cluster: bool = False
    num_cpus: PositiveInt | None = None
    num_gpus: NonNegativeInt = 0
    client_cpus: PositiveFloat = 1
    client_gpus: NonNegativeFloat = 0
    cloud_device: str = "cpu"
    cloud_workers: PositiveInt | Literal["per_gpu"] = 1
    cloud_gpus: Annotated[float, Field(gt=0, le=1)] = 1
    client_limit_s: PositiveFloat = 900
    retries: NonNegativeInt = 1
    object_store_mib: PositiveInt = 200
    torch_threads: PositiveInt = 1

    @property
    def cloud_workers_per_gpu(self) -> int:
        """How many cloud workers fit on one GPU."""
        return int(1 / self.cloud_gpus + 1e-9)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EngineConfig:
    """How Flower runs: the same apps on every route (docs/deploy.md).

    Attributes:
        name: "simulation" in this process, "flwr_run" by a SuperLink that is started for it, or
            "deployment" on the real devices of a running SuperLink.
        superlink: Address host:port of the running SuperLink, for "deployment".
        root_certificates: Certificate of the authority that vouches for it; None for a SuperLink
            without TLS, which must then be on this machine.
        nodes: CSV with the columns node_id, user_id: whose device each registered key is, as
            ``flwr supernode register`` numbered them. None lets every node say so itself.
        signing_key: Ed25519 private key in PEM with which base models are signed for devices that
            take signed ones; None signs nothing.
        trust_local_users: Run "flwr_run" although others are logged in on this machine: its
            SuperLink is open to all of them.
    """

    name: Literal["simulation", "flwr_run", "deployment"] = "simulation"
    superlink: str | None = None
    root_certificates: str | None = None
    nodes: str | None = None
    signing_key: str | None = None
    trust_local_users: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DeviceProfile:
    """One kind of device.

    Attributes:
        name: Shown in the report.
        share: Share of the users who have one, relative to the other profiles' shares.
        memory_mib: What weights, adapter and training may take; None is no limit.
        storage_mib: What the base model and one adapter may take; None is no limit.
        speed: How fast it computes, relative to one device process of the simulation.
        link_mbit_s: Download rate; None is not told apart.
    """

    name: str
    share: PositiveFloat = 1.0
    memory_mib: PositiveFloat | None = None
    storage_mib: PositiveFloat | None = None
    speed: PositiveFloat = 1.0
    link_mbit_s: PositiveFloat | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DevicesConfig:
    """What the users' devices are like.

    Attributes:
        profiles: Kinds of devices; they are dealt to the users by their shares, from the run's
            seed.
    """

    profiles: Annotated[tuple[DeviceProfile, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PathsConfig:
    """The only place with folders.

    Attributes:
        cache: Models, base models and generations, shared by all runs.
        runs: One folder per run.
    """

    cache: str
    runs: str
