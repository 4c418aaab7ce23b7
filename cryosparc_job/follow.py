"""Follow exposures that become more: new ones are picked as they come, and the output grows with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cryoemmae_plugin.errors import InputError, Interrupted
from cryosparc_job.errors import CryosparcError
from cryosparc_job.lifecycle import Watch
from cryosparc_job.options import FollowOptions
from cryosparc_job.particles import ParticlesOutput
from cryosparc_job.picking import PickJob
from cryosparc_job.preflight import prepare
from cryosparc_job.sources import Source, source_of


def wait_for_exposures(source: Source, options: FollowOptions, tell: Callable[[str], None]) -> None:
    """Wait until there are exposures enough to begin with, or no more are to come.

    Raises
    ------
    InputError
        When no more are to come and none can be picked.
    """
    said = -1
    while True:
        ended = source.ended()
        try:
            count = source.count()
            if ended or count >= options.least:
                return
        except (InputError, CryosparcError) as err:
            if ended:
                raise
            count = 0
            if said:
                tell(f"Nothing to pick yet: {err}")
        if count != said:
            tell(f"{count} exposures, waiting for {options.least}")
        said = count
        time.sleep(options.every)


@dataclass
class FollowJob(PickJob):
    """A pick job that goes on as long as new exposures come."""

    @property
    def options(self) -> FollowOptions:
        """How often to look, and when to end."""
        return self.prepared.request.follow or FollowOptions()

    def _work(self) -> None:
        self._greet()
        source = source_of(self.instance, self.prepared.request)
        watch, done, quiet_since = Watch(self.job, self.stop), 0, time.monotonic()
        while True:
            ended = source.ended()
            self._look_again(source, watch)
            if len(self.prepared.exposures) > done:
                self._pick(watch, last=False)
                done, quiet_since = len(self.prepared.exposures), time.monotonic()
                self.tell(f"{self._particles.saved} particles of {done} exposures; waiting for more")
            if ended or time.monotonic() - quiet_since > 60 * self.options.idle:
                break
            self._sleep(watch)
        why = "No more exposures are to come." if ended else f"No new exposure for {self.options.idle:g} minutes."
        self.job.log(why)
        self._pick(watch)

    def _look_again(self, source: Source, watch: Watch) -> None:
        """Read the exposures again. What cannot be read now is read next time."""
        try:
            self.prepared = prepare(self.instance, source.newest(self.prepared.request, watch))
        except (CryosparcError, InputError) as err:
            self.tell(f"The exposures cannot be read now ({err}); trying again")
            return
        self._particles = ParticlesOutput(self.prepared, self.job, self.rows)

    def _sleep(self, watch: Watch) -> None:
        """Wait for the next look; a signal or a kill in CryoSPARC ends it."""
        until = time.monotonic() + self.options.every
        while time.monotonic() < until:
            if watch():
                raise Interrupted(self.stop.reason or "stopped")
            time.sleep(min(0.2, self.options.every))
