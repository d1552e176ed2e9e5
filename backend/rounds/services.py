"""What a round works with: settings, store, Label Studio, encoder. One object a process."""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import cached_property
from typing import TYPE_CHECKING

from backend.encoders import encoder_id, load_encoder
from backend.errors import ConfigurationError, StoreError
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.image_hosts import ImageHosts
from backend.labelstudio.media import MediaFetcher
from backend.labelstudio.schema import TaskSchema
from backend.rounds.measures import Tally
from backend.rounds.options import ProjectOptions
from backend.settings import Settings
from backend.store import Store, faults, notes, open_store
from backend.store.tables import Project, Round
from backend.store.vectors import VectorStore

if TYPE_CHECKING:
    from backend.encoders import Encoder

log = logging.getLogger(__name__)


LONGEST_STORE_PAUSE = 30.0


class Services:
    """Opened once in a web process or a worker; everything heavy waits until it is used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        if settings.torch_threads:
            # Before torch is loaded: its own call would bind the one thread that makes it, and jobs run in several.
            os.environ["OMP_NUM_THREADS"] = str(settings.torch_threads)
        self.store: Store = open_store(settings)
        self.tally = Tally(self.store)
        # Asked once a process: LABEL_STUDIO_URL stays what it is. Number -> why it is another's.
        self.own_projects: set[int] = set()
        self.others_projects: dict[int, str] = {}
        self._encoder_lock = threading.Lock()
        self._encoder: Encoder | None = None

    @cached_property
    def label_studio(self) -> LabelStudio:
        """The client of Label Studio.

        Raises
        ------
        ConfigurationError
            When no token is set.
        """
        key = self.settings.label_studio_api_key.get_secret_value()
        if not key:
            raise ConfigurationError(
                "LABEL_STUDIO_API_KEY is empty: this backend can neither read answers nor publish a queue. Set it"
                " to a personal access token (Label Studio > Account & Settings > Personal Access Token) and restart."
            )
        return LabelStudio(self.settings.label_studio_url, key)

    @cached_property
    def encoder_id(self) -> str:
        """Name under which vectors of the configured encoder are kept."""
        return encoder_id(self.settings.encoder)

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded at the first use."""
        with self._encoder_lock:
            if self._encoder is None:
                self._encoder = load_encoder(self.settings.encoder, device=self.settings.device)
                notes.write(
                    self.store, self._dims_note, {"dims": dict(self._encoder.dims), "aligned": self._encoder.aligned}
                )
                log.info("encoder %s loaded, dims %s", self._encoder.id, dict(self._encoder.dims))
            return self._encoder

    def drop_encoder(self) -> None:
        """Have the next use load it anew: what a failure left of it, on a GPU above all, may be unusable."""
        with self._encoder_lock:
            self._encoder = None

    def vectors(self) -> VectorStore | None:
        """Stored vectors of the encoder; None before it was ever loaded, so that the web process needs no torch."""
        dims = notes.read(self.store, self._dims_note).get("dims")
        return VectorStore(self.store, self.encoder_id, dims) if dims else None

    @property
    def has_joint_space(self) -> bool:
        """Whether the encoder's image and text rows live in one trained space, as far as it was ever loaded."""
        return bool(notes.read(self.store, self._dims_note).get("aligned"))

    @cached_property
    def media(self) -> MediaFetcher:
        """Fetches images from wherever tasks point; one for all jobs, with the connections it keeps open."""
        return MediaFetcher(
            label_studio_url=self.settings.label_studio_url,
            authorization=self.label_studio.authorization,
            local_files_root=self.settings.local_files_root,
            max_bytes=self.settings.max_media_bytes,
            timeout=self.settings.media_timeout,
            allow=self.settings.media_allow,
        )

    @cached_property
    def image_hosts(self) -> ImageHosts:
        """Which hosts of images do not answer now; known to all jobs of the process."""
        return ImageHosts()

    @property
    def _dims_note(self) -> str:
        # The column is short and ids can be long; the id is hashed by Python nowhere else.
        return f"encoder {self.encoder_id}"[:64]


def services_in_time(settings: Settings) -> Services:
    """The services of a worker; while the store is damaged or the disk full, it says so and tries again."""
    pause = 1.0
    while True:
        try:
            services = Services(settings)
            faults.check(services.store.engine)
            return services
        except StoreError as error:
            log.error("%s (%s; tried again in %.0f s)", error, type(error).__name__, pause)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_STORE_PAUSE)


def options_of(whose: Project | Round) -> ProjectOptions:
    """The options of a project, or those that a round chooses by, defaults filled in."""
    return ProjectOptions(**whose.options)


def schema_of(project: Project) -> TaskSchema:
    """What the project's label config asks for.

    Raises
    ------
    LabelConfigUnsupported
        Saying what is missing.
    """
    return TaskSchema.from_label_config(project.label_config, options_of(project).control)
