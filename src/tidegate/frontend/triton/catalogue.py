"""The models that are ready, kept fresh.

Flow: repository index, metadata → **Catalogue** → names for clients, TextModel for requests.
"""

import asyncio
import logging
from http import HTTPStatus

from tidegate.frontend.generator import GenerationError
from tidegate.frontend.triton.client import TritonClient
from tidegate.frontend.triton.model_io import TextModel, UnfitModelError

POLL_S = 1.0
"""Between two looks at a Triton that answers."""
MAX_BACKOFF_S = 4.0
"""Between two looks at one that does not, at most."""

_UNLOADED = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND})
"""How Triton answers questions about a model that has gone since it was listed."""

log = logging.getLogger(__name__)


class Catalogue:
    """The models of one Triton that generate text. `keep_fresh` must run for it to follow what is loaded there."""

    def __init__(self, address: str) -> None:
        """`address`: what the log calls the server."""
        self._address = address
        self._unfit: dict[str, frozenset[str]] = {}
        self.models: dict[str, TextModel] = {}
        """By name; those of the last look that was answered, so that a model is not unknown while Triton is away."""
        self.reachable = False
        """Whether the last look was answered."""

    async def keep_fresh(self, client: TritonClient) -> None:
        """Look again and again, until cancelled."""
        backoff_s = POLL_S
        lost: str | None = ""
        while True:
            try:
                models = await self._look(client)
            except GenerationError as error:
                self.reachable = False
                if lost != str(error):
                    log.warning("%s: %s", self._address, error)
                lost = str(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
                continue
            if lost is not None or models.keys() != self.models.keys():
                log.info("%s serves %s", self._address, ", ".join(sorted(models)) or "no model that generates text")
            self.models, self.reachable = models, True
            backoff_s, lost = POLL_S, None
            await asyncio.sleep(POLL_S)

    async def _look(self, client: TritonClient) -> dict[str, TextModel]:
        ready = await client.ready_models()
        self._unfit = {name: versions for name, versions in self._unfit.items() if ready.get(name) == versions}
        models = {}
        for name, versions in ready.items():
            if name in self._unfit:
                continue
            # Asked for anew each time: a model that is loaded again may take other inputs.
            try:
                models[name] = await client.describe(name)
            except UnfitModelError as reason:
                self._unfit[name] = versions
                log.info("%s: model %s is not served: %s", self._address, name, reason)
            except GenerationError as error:
                if error.status not in _UNLOADED:
                    raise
        return models
