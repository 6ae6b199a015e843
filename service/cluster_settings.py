"""How the service is spread over a Ray cluster: RESTORE_CLUSTER_MAX_REPLICAS=8 sets `max_replicas`."""

from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.settings import DAY_SECONDS, ENV_PREFIX

CLUSTER_PREFIX = f"{ENV_PREFIX}CLUSTER_"


class ClusterSettings(BaseSettings):
    """Raises pydantic.ValidationError. What a replica does is in `Settings`."""

    model_config = SettingsConfigDict(env_prefix=CLUSTER_PREFIX, frozen=True, env_ignore_empty=True)

    address: str = Field(default="auto", description="of the Ray cluster; `auto` for the one that this machine is in")
    min_replicas: int = Field(default=1, ge=1, description="replicas that are always there")
    max_replicas: int = Field(default=1, ge=1, description="replicas when there is most to do")
    requests_per_replica: float = Field(
        default=8.0,
        gt=0,
        allow_inf_nan=False,
        description="requests at a replica; more on average adds replicas, fewer take some away",
    )
    upscale_delay_seconds: float = Field(
        default=30.0,
        ge=0,
        le=DAY_SECONDS,
        description="seconds that there must be more to do before replicas are added",
    )
    cpus_per_replica: float = Field(default=1.0, gt=0, description="processor cores that Ray sets aside for a replica")
    gpus_per_replica: float = Field(
        default=0.0, ge=0, description="GPUs that Ray sets aside for a replica; 0.5 lets two share one"
    )
    proxies: Literal["EveryNode", "HeadOnly"] = Field(
        default="EveryNode",
        description="which nodes listen on `HOST` and `PORT`: all with replicas, or the head alone",
    )

    @model_validator(mode="after")
    def _order_replicas(self) -> "ClusterSettings":
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"{CLUSTER_PREFIX}MAX_REPLICAS={self.max_replicas} is less than "
                f"{CLUSTER_PREFIX}MIN_REPLICAS={self.min_replicas}; raise the first or lower the second"
            )
        return self
